package cni

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// prepareDir makes the socket's directory or looks whether it is safe.
func prepareDir(path string) error {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return err
	}
	err := os.Mkdir(dir, 0o700)
	if err == nil || !errors.Is(err, fs.ErrExist) {
		return err
	}
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return &fs.PathError{Op: "stat", Path: dir, Err: err}
	}
	switch {
	case st.Mode&unix.S_IFMT != unix.S_IFDIR:
		return fmt.Errorf("%s is not a directory", dir)
	case st.Uid != 0 && st.Uid != uint32(os.Geteuid()):
		return fmt.Errorf("%s belongs to user %d, who could replace the socket", dir, st.Uid)
	case st.Mode&0o022 != 0:
		return fmt.Errorf("others than its owner may write to %s (mode %#o) and could replace the socket", dir, st.Mode&0o7777)
	}
	return nil
}

// checkPlace reports what is in the way: anything but the socket of an agent that
// has ended.
func checkPlace(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode().Type() != fs.ModeSocket {
		return errors.New("there is a file that is not a socket")
	}
	conn, err := net.DialTimeout("unix", path, time.Second)
	switch {
	case err == nil:
		_ = conn.Close()
		return errors.New("another process listens there")
	case errors.Is(err, unix.ECONNREFUSED), errors.Is(err, fs.ErrNotExist):
		return nil
	}
	return fmt.Errorf("is it in use? %w", err)
}

// bind listens at a new socket and puts it in its place when it has its mode.
func bind(path string) (*Server, error) {
	name := path + fresh
	if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: name, Net: "unix"})
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false)
	err = os.Chmod(name, 0o600)
	if err == nil {
		err = os.Rename(name, path)
	}
	if err != nil {
		_ = l.Close()
		_ = os.Remove(name)
		return nil, err
	}
	return &Server{path: path, listener: l, inode: inodeOf(path), exchange: exchangeTime}, nil
}

// inodeOf returns the number of the file at the path, 0 if there is none.
func inodeOf(path string) uint64 {
	var st unix.Stat_t
	if unix.Lstat(path, &st) != nil {
		return 0
	}
	return st.Ino
}
