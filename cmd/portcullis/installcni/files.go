package installcni

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// maxFile is how many bytes a configuration may have; containerd's bound is twice
// this.
const maxFile = 1 << 20

// readSmall reads a configuration.
func readSmall(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, err
	}
	if len(text) > maxFile {
		return nil, fmt.Errorf("%s has more than %d bytes", path, maxFile)
	}
	return text, nil
}

// errChanged means that somebody else wrote the file meanwhile.
var errChanged = errors.New("somebody else changed it meanwhile")

// rewrite replaces a file's text by another one, with its mode and owner. Where the
// path is a symbolic link, what it leads to is replaced. It looks whether the file is
// still the same just before the renaming; nothing can close the instant in between.
func rewrite(path string, old, text []byte) error {
	path, err := filepath.EvalSymlinks(path)
	if err != nil {
		return err
	}
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	owner, _ := info.Sys().(*syscall.Stat_t)
	return replace(path, text, info.Mode(), owner, func() error {
		now, err := readSmall(path)
		if err == nil && !bytes.Equal(now, old) {
			err = errChanged
		}
		return err
	})
}

// write makes a file or replaces it.
func write(path string, text []byte, mode fs.FileMode) error {
	return replace(path, text, mode, nil, func() error { return nil })
}

// replace writes a file beside the path and renames it when it is complete and the
// last look says that it may. Its name has none of the endings that a container
// runtime looks for.
func replace(path string, text []byte, mode fs.FileMode, owner *syscall.Stat_t, lastLook func() error) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), ".portcullis-*.tmp")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name())
		}
	}()
	_, err = f.Write(text)
	// Only to give a file away, a right is needed.
	if err == nil && owner != nil && (int(owner.Uid) != os.Geteuid() || int(owner.Gid) != os.Getegid()) {
		err = f.Chown(int(owner.Uid), int(owner.Gid))
	}
	if err == nil {
		err = f.Chmod(mode.Perm())
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := lastLook(); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
