package manifest

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Stdin is the path that means standard input.
const Stdin = "-"

// Read decodes files and directories (see Files) and merges what they hold, without validating it. A file that is broken
// does not stop the others. The result is never nil.
func Read(paths ...string) (*Objects, error) {
	files, err := Files(paths...)
	errs := []error{err}
	var parts []*Objects
	for _, file := range files {
		data, err := readFile(file)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		name := file
		if file == Stdin {
			name = "standard input"
		}
		part, err := Decode(name, data)
		errs = append(errs, err)
		parts = append(parts, part)
	}
	all, err := Merge(parts...)
	return all, errors.Join(append(errs, err)...)
}

func readFile(file string) ([]byte, error) {
	if file == Stdin {
		data, err := io.ReadAll(os.Stdin)
		if err != nil {
			return nil, fmt.Errorf("reading standard input: %w", err)
		}
		return data, nil
	}
	return os.ReadFile(file) // The error says what was done and with which file.
}

// Files lists the files that paths stand for: a file stands for itself, whatever its name is, a directory for the files
// in it and below it that end in .yaml, .yml or .json, in the order of their names. Names that begin with a dot are left
// out, as editors and the kubelet keep things in them that are not meant to be read. Every file is listed once. A path
// that cannot be read is an error and does not stop the others.
func Files(paths ...string) ([]string, error) {
	var files []string
	var errs []error
	for _, path := range paths {
		if path == Stdin {
			files = append(files, path)
			continue
		}
		info, err := os.Stat(path)
		switch {
		case err != nil:
			errs = append(errs, err)
		case info.IsDir():
			below, err := filesBelow(path)
			files, errs = append(files, below...), append(errs, err)
		default:
			files = append(files, filepath.Clean(path))
		}
	}
	seen := map[string]bool{}
	files = slices.DeleteFunc(files, func(f string) bool {
		again := seen[f]
		seen[f] = true
		return again
	})
	return files, errors.Join(errs...)
}

// filesBelow lists the manifests of a directory. A link to a file is read, as in a mounted ConfigMap; a link to a
// directory is an error, since following it could go on forever and passing it over would hide policies.
func filesBelow(dir string) ([]string, error) {
	// The trailing separator makes the walk go into dir even if it is a link itself.
	root := filepath.Clean(dir) + string(filepath.Separator)
	var files []string
	var errs []error
	visit := func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			errs = append(errs, err)
			return nil
		case path != root && strings.HasPrefix(entry.Name(), "."):
			if entry.IsDir() {
				return fs.SkipDir
			}
			return nil
		case entry.Type()&fs.ModeSymlink != 0:
			info, err := os.Stat(path)
			if err != nil || !info.IsDir() {
				break // A link into nowhere is reported by whoever reads it, if it is a manifest.
			}
			errs = append(errs, fmt.Errorf("%s: a link to a directory is not followed, give the directory itself", path))
			return nil
		case !entry.Type().IsRegular():
			return nil
		}
		if slices.Contains([]string{".yaml", ".yml", ".json"}, strings.ToLower(filepath.Ext(path))) {
			files = append(files, path)
		}
		return nil
	}
	if err := filepath.WalkDir(root, visit); err != nil {
		errs = append(errs, err)
	}
	return files, errors.Join(errs...)
}
