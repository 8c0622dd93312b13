package installcni

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/version"

	"github.com/portcullis-netpol/portcullis/agent/cni"
)

// span is a part of a text: a plugin of a list.
type span struct {
	start, end int
	kind       string // its type
}

// list is a list of plugins with its text, and where in that they are.
type list struct {
	*libcni.NetworkConfigList
	text    []byte
	plugins []span // none if there is no field "plugins"
}

// parseList finds the plugins of a list. Whether it is valid is decided by the library
// of the container runtimes, so an error means that they cannot use it either.
func parseList(text []byte) (*list, error) {
	conf, err := libcni.NetworkConfFromBytes(text)
	if err != nil {
		return nil, err
	}
	l := &list{NetworkConfigList: conf, text: text}
	d := json.NewDecoder(bytes.NewReader(text))
	if _, err := d.Token(); err != nil { // {
		return nil, err
	}
	for d.More() {
		key, err := d.Token()
		if err != nil {
			return nil, err
		}
		if key == "plugins" {
			err = l.findPlugins(d)
		} else {
			err = d.Decode(&json.RawMessage{})
		}
		if err != nil {
			return nil, err
		}
	}
	if len(l.plugins) != len(conf.Plugins) {
		return nil, fmt.Errorf("plugins: %d or %d of them?", len(l.plugins), len(conf.Plugins))
	}
	for i, p := range conf.Plugins {
		l.plugins[i].kind = p.Network.Type
	}
	return l, nil
}

// findPlugins notes where the plugins are; the decoder stands before them. Of a field
// that is there twice, the last one counts.
func (l *list) findPlugins(d *json.Decoder) error {
	l.plugins = nil
	if _, err := d.Token(); err != nil { // [
		return err
	}
	for d.More() {
		var raw json.RawMessage
		if err := d.Decode(&raw); err != nil {
			return err
		}
		end := int(d.InputOffset())
		l.plugins = append(l.plugins, span{start: end - len(raw), end: end})
	}
	_, err := d.Token() // ]
	return err
}

// checkVersion reports a list of a specification without chains: its plugins are not
// told what those before them did.
func checkVersion(v string) error {
	chains, err := version.GreaterThanOrEqualTo(v, "0.3.0")
	switch {
	case v == "":
		return errors.New("cniVersion: missing, which means 0.1.0; chained plugins need 0.3.0")
	case err != nil:
		return fmt.Errorf("cniVersion: %w", err)
	case !chains:
		return fmt.Errorf("cniVersion: %s; chained plugins need 0.3.0", v)
	}
	return nil
}

// ours returns the index of our plugin, -1 if it is not there.
func (l *list) ours() int {
	for i, p := range l.plugins {
		if p.kind == cni.PluginType {
			return i
		}
	}
	return -1
}

// with returns the list's text with our plugin, once, with these settings.
func (l *list) with(s cni.Settings) ([]byte, error) {
	if err := checkVersion(l.CNIVersion); err != nil {
		return nil, err
	}
	for i := l.ours(); i >= 0; i = l.ours() {
		if i > 0 && !l.hasOursAfter(i) {
			return l.corrected(i, s)
		}
		// At the first place, or one of several.
		text, err := l.without(i)
		if err != nil {
			return nil, err
		}
		if l, err = parseList(text); err != nil {
			return nil, err
		}
	}
	last := l.plugins[len(l.plugins)-1]
	plugin, err := l.indented(last, s)
	if err != nil {
		return nil, err
	}
	return l.splice(last.end, last.end, append([]byte(","+l.before(last)), plugin...)), nil
}

func (l *list) hasOursAfter(i int) bool {
	for _, p := range l.plugins[i+1:] {
		if p.kind == cni.PluginType {
			return true
		}
	}
	return false
}

// corrected gives our plugin the settings, unless it has them.
func (l *list) corrected(i int, s cni.Settings) ([]byte, error) {
	p := l.plugins[i]
	var has, wants any
	plain, err := json.Marshal(s)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(json.Unmarshal(l.text[p.start:p.end], &has), json.Unmarshal(plain, &wants)); err != nil {
		return nil, err
	}
	if reflect.DeepEqual(has, wants) {
		return l.text, nil
	}
	plugin, err := l.indented(p, s)
	if err != nil {
		return nil, err
	}
	return l.splice(p.start, p.end, plugin), nil
}

// without returns the list's text without its plugin i, and without the comma that it
// no longer needs.
func (l *list) without(i int) ([]byte, error) {
	switch {
	case len(l.plugins) == 1:
		return nil, fmt.Errorf("plugins: %s is the only one", l.plugins[i].kind)
	case i > 0:
		return l.splice(l.plugins[i-1].end, l.plugins[i].end, nil), nil
	}
	return l.splice(l.plugins[0].start, l.plugins[1].start, nil), nil
}

// splice returns the text with a part of it replaced.
func (l *list) splice(start, end int, by []byte) []byte {
	text := append([]byte{}, l.text[:start]...)
	text = append(text, by...)
	return append(text, l.text[end:]...)
}

// before returns the white space in front of a plugin.
func (l *list) before(p span) string {
	head := string(l.text[:p.start])
	return head[len(strings.TrimRight(head, " \t\r\n")):]
}

// indented returns our plugin as it looks beside another one: on one line if that is,
// or with its indentation.
func (l *list) indented(like span, s cni.Settings) ([]byte, error) {
	text := string(l.text[like.start:like.end])
	if !strings.Contains(text, "\n") {
		return json.Marshal(s)
	}
	margin := func(line string) string { return line[:len(line)-len(strings.TrimLeft(line, " \t"))] }
	space := l.before(like)
	outer := space[strings.LastIndex(space, "\n")+1:]
	_, second, _ := strings.Cut(text, "\n")
	inner, deeper := strings.CutPrefix(margin(second), outer)
	if !deeper || inner == "" {
		inner = "  "
	}
	return json.MarshalIndent(s, outer, inner)
}

// wrap returns a list of a single plugin's configuration and ours.
func wrap(conf *libcni.PluginConfig, s cni.Settings) ([]byte, error) {
	if err := checkVersion(conf.Network.CNIVersion); err != nil {
		return nil, err
	}
	if conf.Network.Name == "" {
		return nil, errors.New("name: missing")
	}
	head, err := json.Marshal(map[string]string{"cniVersion": conf.Network.CNIVersion, "name": conf.Network.Name})
	if err != nil {
		return nil, err
	}
	ours, err := json.Marshal(s)
	if err != nil {
		return nil, err
	}
	return fmt.Appendf(nil, "%s,\n\"plugins\": [\n%s,\n%s\n]}\n",
		bytes.TrimSuffix(head, []byte("}")), bytes.TrimSpace(conf.Bytes), ours), nil
}
