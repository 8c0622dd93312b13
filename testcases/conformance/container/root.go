package container

import (
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// devices are what programs expect in /dev.
var devices = []string{"/dev/null", "/dev/zero", "/dev/random", "/dev/urandom"}

// mountRoot gives the calling thread a mount namespace of its own, and mounts the
// container's root there. It goes when the thread and what it has started have ended.
func (c Config) mountRoot() error {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("unshare mount namespace: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("keep mounts to ourselves: %w", err)
	}
	if err := unix.Mount("root", c.Mountpoint, "tmpfs", 0, "mode=755"); err != nil {
		return fmt.Errorf("mount tmpfs: %w", err)
	}
	if err := c.mountFolder("/proc", "/proc"); err != nil {
		return err
	}
	for _, d := range devices {
		if err := c.mountFile(d, d); err != nil {
			return err
		}
	}
	for path, source := range c.Programs {
		if err := c.mountFile(path, source); err != nil {
			return err
		}
	}
	for path, text := range c.Files {
		if err := c.write(path, text); err != nil {
			return err
		}
	}
	for _, v := range c.Volumes {
		if err := c.mountVolume(v); err != nil {
			return err
		}
	}
	if s := c.Security; s != nil && s.ReadOnlyRootFilesystem != nil && *s.ReadOnlyRootFilesystem {
		return readOnly(c.Mountpoint)
	}
	return nil
}

// inside returns where a path of the container is while its root is being made.
func (c Config) inside(path string) string {
	return filepath.Join(c.Mountpoint, filepath.Clean("/"+path))
}

func (c Config) write(path string, text []byte) error {
	at := c.inside(path)
	if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
		return err
	}
	return os.WriteFile(at, text, 0o644)
}

func (c Config) mountFile(path, source string) error {
	if err := c.write(path, nil); err != nil {
		return err
	}
	return bind(source, c.inside(path))
}

func (c Config) mountFolder(path, source string) error {
	at := c.inside(path)
	if err := os.MkdirAll(at, 0o755); err != nil {
		return err
	}
	return bind(source, at)
}

func (c Config) mountVolume(v Volume) error {
	if err := c.mountFolder(v.Path, v.Source); err != nil {
		return err
	}
	if v.ReadOnly {
		return readOnly(c.inside(v.Path))
	}
	return nil
}

// bind mounts with all that is mounted below: a user namespace may not take anything
// away that hides something.
func bind(source, at string) error {
	if err := unix.Mount(source, at, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("mount %s at %s: %w", source, at, err)
	}
	return nil
}

// readOnly forbids writing to a mount and leaves its other flags, which a user namespace
// may not take away.
func readOnly(at string) error {
	const kept = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC | unix.MS_NOATIME | unix.MS_NODIRATIME
	var has unix.Statfs_t
	if err := unix.Statfs(at, &has); err != nil {
		return fmt.Errorf("look at %s: %w", at, err)
	}
	flags := unix.MS_REMOUNT | unix.MS_BIND | unix.MS_RDONLY | uintptr(has.Flags)&kept
	if err := unix.Mount("", at, "", flags, ""); err != nil {
		return fmt.Errorf("make %s read-only: %w", at, err)
	}
	return nil
}
