package agent

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// maxFile bounds one manifest, in bytes. The API server takes objects of 3 MiB.
const maxFile = 64 << 20

// content is one file as it was read. err is set where it could not be.
type content struct {
	name string // relative to the directory, with slashes
	data []byte
	err  error
}

// directory reads the files of a directory of manifests.
type directory struct {
	root string
	// entered is called with each directory before it is listed, and with the
	// directory of each file that a link leads to before it is read, so that no
	// change is missed between a look and a watch.
	entered func(dir string)
}

// read returns the files sorted by name. It takes regular files whose names end in
// .yaml, .yml or .json, follows symbolic links, and passes over names that begin
// with a dot: in a mounted ConfigMap those are the directories that the links swap.
func (d directory) read() ([]content, error) {
	var files []content
	if err := d.walk("", nil, &files); err != nil {
		return nil, err
	}
	slices.SortFunc(files, func(a, b content) int { return strings.Compare(a.name, b.name) })
	return files, nil
}

// walk reads the directory rel; above are the real paths of those it lies in.
func (d directory) walk(rel string, above []string, files *[]content) error {
	dir := filepath.Join(d.root, rel)
	real, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return err
	}
	if slices.Contains(above, real) {
		return fmt.Errorf("%s: a symbolic link that leads back to %s", dir, real)
	}
	above = append(slices.Clip(above), real)
	d.entered(real)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") {
			continue
		}
		name := filepath.Join(rel, e.Name())
		path := filepath.Join(d.root, name)
		info, err := os.Stat(path)
		if err == nil && info.IsDir() {
			if err := d.walk(name, above, files); err != nil {
				return err
			}
			continue
		}
		if !isManifest(e.Name()) {
			continue
		}
		f := content{name: filepath.ToSlash(name), err: err}
		if err == nil {
			f.data, f.err = d.readFile(path, info, e.Type())
		}
		*files = append(*files, f)
	}
	return nil
}

func (d directory) readFile(path string, info os.FileInfo, entry os.FileMode) ([]byte, error) {
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s: not a regular file", path)
	}
	if info.Size() > maxFile {
		return nil, fmt.Errorf("%s: larger than %d bytes", path, maxFile)
	}
	if entry&os.ModeSymlink != 0 {
		if real, err := filepath.EvalSymlinks(path); err == nil {
			d.entered(filepath.Dir(real))
		}
	}
	return os.ReadFile(path)
}

func isManifest(name string) bool {
	switch filepath.Ext(name) {
	case ".yaml", ".yml", ".json":
		return true
	}
	return false
}

// Revision names the content of a directory of manifests: the hexadecimal SHA-256
// over the names and contents of its files, sorted by name, each preceded by its
// length. A file that cannot be read is an error.
func Revision(dir string) (string, error) {
	files, err := directory{root: dir, entered: func(string) {}}.read()
	if err != nil {
		return "", fmt.Errorf("read manifests: %w", err)
	}
	var errs []error
	for _, f := range files {
		errs = append(errs, f.err)
	}
	if err := errors.Join(errs...); err != nil {
		return "", fmt.Errorf("read manifests: %w", err)
	}
	return revision(files), nil
}

func revision(files []content) string {
	h := sha256.New()
	put := func(b []byte) {
		var n [8]byte
		binary.BigEndian.PutUint64(n[:], uint64(len(b)))
		h.Write(n[:])
		h.Write(b)
	}
	for _, f := range files {
		put([]byte(f.name))
		put(f.data)
	}
	return hex.EncodeToString(h.Sum(nil))
}
