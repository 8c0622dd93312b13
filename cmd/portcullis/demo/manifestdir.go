package demo

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/portcullis-netpol/portcullis/agent"
)

// manifestDir is a directory of manifests whose content changes as a whole: the
// agents follow a symbolic link, and each version is a directory of its own, as in
// a mounted ConfigMap.
type manifestDir struct {
	root     string
	versions int
	revision string // of the version that the link leads to
}

// path is what the agents follow.
func (d *manifestDir) path() string { return filepath.Join(d.root, "manifests") }

// version is a set of files that is written, but that nobody follows yet.
type version struct {
	dir      string
	revision string
}

// write prepares a version.
func (d *manifestDir) write(files map[string][]byte) (version, error) {
	d.versions++
	dir := filepath.Join(d.root, fmt.Sprintf("version-%d", d.versions))
	if err := os.Mkdir(dir, 0o755); err != nil {
		return version{}, err
	}
	for name, data := range files {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
			return version{}, err
		}
	}
	revision, err := agent.Revision(dir)
	return version{dir, revision}, err
}

// use makes a version the one that is followed, and returns the moment before.
func (d *manifestDir) use(v version) (time.Time, error) {
	next := filepath.Join(d.root, "next")
	if err := os.Symlink(filepath.Base(v.dir), next); err != nil {
		return time.Time{}, err
	}
	now := time.Now()
	if err := os.Rename(next, d.path()); err != nil {
		return now, err
	}
	d.revision = v.revision
	return now, nil
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
