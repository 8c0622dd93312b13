package installcni

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containernetworking/cni/libcni"

	"github.com/portcullis-netpol/portcullis/agent/cni"
)

// The directories that Kubernetes' container runtimes use unless told otherwise.
const (
	DefaultConfDir = "/etc/cni/net.d"
	DefaultBinDir  = "/opt/cni/bin"
)

// ErrNoConfig is in the error of an installation that finds no valid configuration:
// the main network plugin has not been installed yet.
var ErrNoConfig = errors.New("no valid CNI configuration")

// Config says what is installed where.
type Config struct {
	ConfDir string // of the container runtime's CNI configuration
	BinDir  string // of its CNI plugins
	Source  string // directory that holds the plugin's binary, for installing
	// Settings are those that the plugin gets, with their defaults.
	Settings cni.Settings
	// KeepBinary leaves the binary at its place when the plugin is removed. CRI-O
	// ends pods with the configuration that they were started with.
	KeepBinary bool
	Logger     *slog.Logger // told what is changed, and what is not valid
}

// Install copies the plugin's binary and puts the plugin into the active
// configuration. It changes only what is not as it should be. Where there is no valid
// configuration the error has ErrNoConfig, and the binary has been copied.
func (c Config) Install() error {
	if err := c.Settings.Validate(); err != nil {
		return err
	}
	if err := c.copyBinary(); err != nil {
		return fmt.Errorf("copy the plugin: %w", err)
	}
	return c.configure()
}

// Remove takes the plugin out of every configuration, whether active or not, and
// deletes its binary, unless one still names it.
func (c Config) Remove() error {
	files, err := c.files()
	if err != nil {
		return err
	}
	var errs []error
	for _, path := range files {
		if err := c.removeFrom(path); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", path, err))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("%s stays, for it may be needed: %w", c.binary(), err)
	}
	if c.KeepBinary {
		return nil
	}
	err = os.Remove(c.binary())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		c.Logger.Info("plugin deleted", "file", c.binary())
	}
	return err
}

func (c Config) binary() string { return filepath.Join(c.BinDir, cni.PluginType) }

func (c Config) copyBinary() error {
	text, err := os.ReadFile(filepath.Join(c.Source, cni.PluginType))
	if err != nil {
		return err
	}
	const mode = 0o755
	info, err := os.Stat(c.binary())
	if err == nil && info.Mode().Perm() == mode {
		if has, err := os.ReadFile(c.binary()); err == nil && bytes.Equal(has, text) {
			return nil
		}
	}
	if err := write(c.binary(), text, mode); err != nil {
		return err
	}
	c.Logger.Info("plugin copied", "file", c.binary())
	return nil
}

// files returns the configurations in the order in which a container runtime
// considers them.
func (c Config) files() ([]string, error) {
	entries, err := os.ReadDir(c.ConfDir) // sorted by name
	if err != nil {
		return nil, fmt.Errorf("CNI configuration: %w", err)
	}
	var paths []string
	for _, e := range entries {
		if !e.IsDir() && slices.Contains([]string{".conflist", ".conf", ".json"}, filepath.Ext(e.Name())) {
			paths = append(paths, filepath.Join(c.ConfDir, e.Name()))
		}
	}
	return paths, nil
}

// wrapperEnd ends the names of the lists that we write for single plugins. '-' comes
// before '.', so such a list comes before the file that it is made for.
const wrapperEnd = "-portcullis.conflist"

func isWrapper(path string) bool { return strings.HasSuffix(path, wrapperEnd) }

func wrapperOf(path string) string {
	return strings.TrimSuffix(path, filepath.Ext(path)) + wrapperEnd
}

// configure puts the plugin into the active configuration.
func (c Config) configure() error {
	files, err := c.files()
	if err != nil {
		return err
	}
	var invalid []error
	for _, path := range files {
		if isWrapper(path) {
			continue
		}
		wrapper, err := c.configureFile(path)
		var no *invalidError
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue // deleted meanwhile
		case errors.As(err, &no):
			invalid = append(invalid, fmt.Errorf("%s: %w", path, no.reason))
			continue
		case err != nil:
			return fmt.Errorf("%s: %w", path, err)
		}
		for _, err := range invalid {
			c.Logger.Warn("a CNI configuration is not valid", "err", err)
		}
		return c.dropWrappers(files, wrapper)
	}
	if err := c.dropWrappers(files, ""); err != nil {
		return err
	}
	return errors.Join(append([]error{fmt.Errorf("%s: %w", c.ConfDir, ErrNoConfig)}, invalid...)...)
}

// configureFile puts the plugin into one configuration, if that is valid. It returns
// the path of the list that stands for it, if one does.
func (c Config) configureFile(path string) (wrapper string, err error) {
	text, err := readSmall(path)
	if err != nil {
		return "", err
	}
	if filepath.Ext(path) == ".conflist" {
		return "", c.configureList(path, text)
	}
	return wrapperOf(path), c.configureSingle(path, text)
}

// invalidError says why no container runtime can use a configuration.
type invalidError struct{ reason error }

func (e *invalidError) Error() string { return e.reason.Error() }

// configureList puts the plugin into a list of plugins.
func (c Config) configureList(path string, text []byte) error {
	l, err := parseList(text)
	if err != nil {
		return &invalidError{err}
	}
	if err := c.checkInlined(l); err != nil {
		return err
	}
	want, err := l.with(c.Settings)
	if err != nil || bytes.Equal(want, text) {
		return err
	}
	if err := rewrite(path, text, want); err != nil {
		return err
	}
	c.Logger.Info("plugin added", "file", path, "network", l.Name)
	return nil
}

// checkInlined refuses a list whose plugins are in files of their own: specification
// 1.1 appends those of a directory with the network's name. Ours would not be the
// last one, and perhaps the first.
func (c Config) checkInlined(l *list) error {
	if !l.LoadOnlyInlinedPlugins {
		more, err := filepath.Glob(filepath.Join(globQuote(c.ConfDir), globQuote(l.Name), "*.conf"))
		if err != nil {
			return err
		}
		if len(more) > 0 {
			return fmt.Errorf("plugins: further plugins come from %s, which is not supported", filepath.Dir(more[0]))
		}
	}
	if len(l.plugins) == 0 {
		return &invalidError{errors.New("plugins: missing")}
	}
	return nil
}

func globQuote(s string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(s)
}

// configureSingle writes the list that stands for a single plugin.
func (c Config) configureSingle(path string, text []byte) error {
	conf, err := libcni.NetworkPluginConfFromBytes(text)
	if err != nil {
		return &invalidError{err}
	}
	want, err := wrap(conf, c.Settings)
	if err != nil {
		return err
	}
	to := wrapperOf(path)
	if has, err := readSmall(to); err == nil && bytes.Equal(has, want) {
		return nil
	}
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if err := write(to, want, info.Mode().Perm()); err != nil {
		return err
	}
	c.Logger.Info("plugin added, in a list", "file", to, "for", path)
	return nil
}

// dropWrappers deletes the lists that stand for a file which is not the active one.
func (c Config) dropWrappers(files []string, except string) error {
	for _, path := range files {
		if isWrapper(path) && path != except {
			if err := c.removeFrom(path); err != nil {
				return fmt.Errorf("%s: %w", path, err)
			}
		}
	}
	return nil
}

// removeFrom takes the plugin out of a configuration.
func (c Config) removeFrom(path string) error {
	text, err := readSmall(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if filepath.Ext(path) != ".conflist" || !bytes.Contains(text, []byte(cni.PluginType)) {
		return nil
	}
	if isWrapper(path) {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		c.Logger.Info("list deleted", "file", path)
		return nil
	}
	l, err := parseList(text)
	for err == nil && l.ours() >= 0 {
		var less []byte
		if less, err = l.without(l.ours()); err == nil {
			l, err = parseList(less)
		}
	}
	if err != nil || bytes.Equal(l.text, text) {
		return err
	}
	if err := rewrite(path, text, l.text); err != nil {
		return err
	}
	c.Logger.Info("plugin removed", "file", path, "network", l.Name)
	return nil
}
