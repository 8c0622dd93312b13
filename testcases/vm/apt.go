package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// apt asks Debian for packages, in a folder of its own: the machine's lists and
// packages stay as they are.
type apt struct {
	dir   string // absolute
	suite string // "" means the machine's own sources
}

// kernelPackage is the package of a kernel with all its drivers. Its version has at
// least three numbers; meta packages have two.
var kernelPackage = regexp.MustCompile(`^linux-image-(\d+\.\d+\.\d+[0-9a-z.+~-]*)-amd64$`)

// fetch returns the package files of the newest kernel of a series ("6.1"; "" for
// the newest of all): one, and the others that its contents are spread over since
// Debian 14. What is there already is not looked for again.
func (a *apt) fetch(ctx context.Context, series string) ([]string, error) {
	folder := filepath.Join(a.dir, cmp.Or(a.suite, "default"), "packages")
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return nil, err
	}
	deb := newestFile(folder, series)
	if deb == "" {
		var err error
		if deb, err = a.fetchNewest(ctx, series, folder); err != nil {
			return nil, err
		}
	}
	depends, err := exec.CommandContext(ctx, "dpkg-deb", "--field", deb, "Depends").Output()
	if err != nil {
		return nil, fmt.Errorf("read what %s depends on: %w", deb, err)
	}
	debs := []string{deb}
	for _, name := range parts(deb, string(depends)) {
		// A package file's name begins with the package's, and no package's
		// has an underscore.
		if have, _ := filepath.Glob(filepath.Join(folder, name+"_*.deb")); len(have) > 0 {
			debs = append(debs, have[0])
			continue
		}
		part, err := a.download(ctx, name, folder)
		if err != nil {
			return nil, err
		}
		debs = append(debs, part)
	}
	return debs, nil
}

// parts lists the packages among the dependencies of a kernel package that belong
// to the same kernel.
func parts(deb, depends string) []string {
	image, _, _ := strings.Cut(filepath.Base(deb), "_")
	release := strings.TrimPrefix(image, "linux-image-")
	var out []string
	for word := range strings.FieldsSeq(depends) {
		if kind, ok := strings.CutSuffix(word, "-"+release); ok && strings.HasPrefix(kind, "linux-") {
			out = append(out, word)
		}
	}
	return out
}

// fetchNewest looks for a package and downloads it.
func (a *apt) fetchNewest(ctx context.Context, series, folder string) (string, error) {
	if err := a.update(ctx); err != nil {
		return "", err
	}
	out, err := a.run(ctx, folder, "apt-cache", "search", "--names-only", "^linux-image-[0-9]")
	if err != nil {
		return "", err
	}
	var names []string
	for line := range strings.Lines(out) {
		name, _, _ := strings.Cut(line, " ")
		names = append(names, name)
	}
	name := newestPackage(names, series)
	if name == "" {
		return "", fmt.Errorf("no kernel package of series %q among %d of suite %q", series, len(names), a.suite)
	}
	return a.download(ctx, name, folder)
}

// download fetches a package. It is in the folder only when it is complete.
func (a *apt) download(ctx context.Context, name, folder string) (string, error) {
	partial, err := os.MkdirTemp(folder, "partial-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(partial)
	if _, err := a.run(ctx, partial, "apt-get", "download", name); err != nil {
		return "", err
	}
	files, _ := filepath.Glob(filepath.Join(partial, "*.deb"))
	if len(files) != 1 {
		return "", fmt.Errorf("apt-get download %s left %d files", name, len(files))
	}
	deb := filepath.Join(folder, filepath.Base(files[0]))
	return deb, os.Rename(files[0], deb)
}

// update fetches the lists of packages.
func (a *apt) update(ctx context.Context) error {
	root := filepath.Join(a.dir, cmp.Or(a.suite, "default"))
	for _, d := range []string{"state/lists/partial", "cache/archives/partial"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			return err
		}
	}
	if a.suite != "" {
		const source = "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian"
		text := fmt.Sprintf("%s %s main\n", source, a.suite)
		if a.suite != "sid" {
			text += fmt.Sprintf("%s-security %[2]s-security main\n", source, a.suite)
		}
		if err := os.WriteFile(filepath.Join(root, "sources.list"), []byte(text), 0o644); err != nil {
			return err
		}
	}
	_, err := a.run(ctx, root, "apt-get", "-qq", "update")
	return err
}

// run runs an apt program and returns what it prints.
func (a *apt) run(ctx context.Context, dir, program string, args ...string) (string, error) {
	root := filepath.Join(a.dir, cmp.Or(a.suite, "default"))
	options := []string{
		"-o", "Dir::State=" + root + "/state", "-o", "Dir::State::status=/var/lib/dpkg/status",
		"-o", "Dir::Cache=" + root + "/cache",
		"-o", "APT::Sandbox::User=root", // another user could not write here
	}
	if a.suite != "" {
		options = append(options, "-o", "Dir::Etc::sourcelist="+root+"/sources.list", "-o", "Dir::Etc::sourceparts=-")
	}
	cmd := exec.CommandContext(ctx, program, append(options, args...)...)
	cmd.Dir = dir
	out, err := cmd.Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			err = fmt.Errorf("%w\n%s", err, exit.Stderr)
		}
		return "", fmt.Errorf("%s %s: %w", program, strings.Join(args, " "), err)
	}
	return string(out), nil
}

// newestFile finds the package file of the newest kernel of a series in a folder.
func newestFile(folder, series string) string {
	files, _ := filepath.Glob(filepath.Join(folder, "*.deb")) // the pattern is not malformed
	byName := map[string]string{}
	var names []string
	for _, f := range files {
		name, _, _ := strings.Cut(filepath.Base(f), "_")
		byName[name] = f
		names = append(names, name)
	}
	return byName[newestPackage(names, series)]
}

// newestPackage chooses among package names the kernel of a series with the
// highest version, and "" if there is none.
func newestPackage(names []string, series string) string {
	newest, highest := "", []int(nil)
	for _, name := range names {
		m := kernelPackage.FindStringSubmatch(name)
		if m == nil || strings.Contains(name, "-cloud-") || strings.Contains(name, "-rt-") {
			continue
		}
		if series != "" && !strings.HasPrefix(m[1], series+".") {
			continue
		}
		if v := numbers(m[1]); newest == "" || slices.Compare(v, highest) > 0 {
			newest, highest = name, v
		}
	}
	return newest
}

var digits = regexp.MustCompile(`\d+`)

// numbers returns the numbers in a version, "6.1.0-56" as 6, 1, 0, 56.
func numbers(version string) []int {
	var out []int
	for _, d := range digits.FindAllString(version, -1) {
		n, _ := strconv.Atoi(d) // too many digits count as the highest number
		out = append(out, n)
	}
	return out
}
