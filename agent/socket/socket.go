package socket

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// mode lets nobody but the owner connect.
const mode fs.FileMode = 0o600

// fresh ends the name of a socket that is not in its place yet.
const fresh = ".new"

// Check wants a clean absolute path that a socket's address has room for: 108 bytes
// with a final NUL.
func Check(path string) error {
	const room = 107
	switch {
	case !filepath.IsAbs(path) || filepath.Clean(path) != path || path == "/":
		return fmt.Errorf("%q is not the absolute path of a file", path)
	case len(path)+len(fresh) > room:
		return fmt.Errorf("%q has more than %d bytes", path, room-len(fresh))
	}
	return nil
}

// Listener is a socket of mode 0600.
type Listener struct {
	*net.UnixListener
	path  string
	inode uint64
}

// Listen makes the socket. A connection that comes before Accept waits.
//
// The directory is made with the mode dir if it is missing; one that exists is used as
// it is, and refused if others could put a socket of theirs in ours' place. A socket
// that was left behind is replaced, without a moment at which there is none; one that
// somebody listens at, or a file that is no socket, is an error.
func Listen(path string, dir fs.FileMode) (*Listener, error) {
	if err := Check(path); err != nil {
		return nil, fmt.Errorf("socket: %w", err)
	}
	if err := prepareDir(path, dir); err != nil {
		return nil, fmt.Errorf("socket %s: %w", path, err)
	}
	if err := checkPlace(path); err != nil {
		return nil, fmt.Errorf("socket %s: %w", path, err)
	}
	l, err := bind(path)
	if err != nil {
		return nil, fmt.Errorf("socket %s: %w", path, err)
	}
	return l, nil
}

// Close removes the socket, if it is still ours, and ends Accept.
func (l *Listener) Close() error {
	if inodeOf(l.path) == l.inode {
		_ = os.Remove(l.path)
	}
	return l.UnixListener.Close()
}

// Path returns where the socket is.
func (l *Listener) Path() string { return l.path }

// prepareDir makes the socket's directory or looks whether it is safe.
func prepareDir(path string, mode fs.FileMode) error {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return err
	}
	err := os.Mkdir(dir, mode)
	if err == nil || !errors.Is(err, fs.ErrExist) {
		return err
	}
	var st syscall.Stat_t
	if err := syscall.Stat(dir, &st); err != nil {
		return &fs.PathError{Op: "stat", Path: dir, Err: err}
	}
	switch {
	case st.Mode&syscall.S_IFMT != syscall.S_IFDIR:
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
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, fs.ErrNotExist):
		return nil
	}
	return fmt.Errorf("is it in use? %w", err)
}

// bind listens at a new socket and puts it in its place.
func bind(path string) (*Listener, error) {
	name := path + fresh
	if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	// The file of a socket gets the mode that the socket has when it is bound, less
	// the process's mask.
	config := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var failed error
		err := c.Control(func(fd uintptr) { failed = syscall.Fchmod(int(fd), uint32(mode)) })
		return errors.Join(err, os.NewSyscallError("fchmod", failed))
	}}
	listener, err := config.Listen(context.Background(), "unix", name)
	if err != nil {
		return nil, err
	}
	l := listener.(*net.UnixListener)
	l.SetUnlinkOnClose(false)
	if err := os.Rename(name, path); err != nil {
		_ = l.Close()
		_ = os.Remove(name)
		return nil, err
	}
	return &Listener{UnixListener: l, path: path, inode: inodeOf(path)}, nil
}

// inodeOf returns the number of the file at the path, 0 if there is none.
func inodeOf(path string) uint64 {
	var st syscall.Stat_t
	if syscall.Lstat(path, &st) != nil {
		return 0
	}
	return st.Ino
}
