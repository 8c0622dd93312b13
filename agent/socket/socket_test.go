package socket

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

func modeOf(t *testing.T, path string) os.FileMode {
	t.Helper()
	info, err := os.Stat(path)
	require.NoError(t, err)
	return info.Mode().Perm()
}

// place returns where a socket may be.
func place(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "socket") // t.TempDir has the test's name in it: too long
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return filepath.Join(dir, "run", "agent.sock")
}

func listen(t *testing.T, path string) *Listener {
	t.Helper()
	l, err := Listen(path, 0o700)
	require.NoError(t, err)
	t.Cleanup(func() { _ = l.Close() })
	return l
}

func dial(t *testing.T, path string) {
	t.Helper()
	conn, err := net.Dial("unix", path)
	require.NoError(t, err)
	require.NoError(t, conn.Close())
}

// TestSocketModes lets only its owner in, whatever the process's mask is.
func TestSocketModes(t *testing.T) {
	old := syscall.Umask(0)
	defer syscall.Umask(old)
	path := place(t)
	s, err := Listen(path, 0o700)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), modeOf(t, path))
	require.Equal(t, os.FileMode(0o700), modeOf(t, filepath.Dir(path)))
	entries, err := os.ReadDir(filepath.Dir(path))
	require.NoError(t, err)
	require.Len(t, entries, 1)
	require.NoError(t, s.Close())
	require.NoFileExists(t, path)
}

// TestDirectoryIsKept does not change a directory that may be anybody's, such as /run.
func TestDirectoryIsKept(t *testing.T) {
	path := place(t)
	require.NoError(t, os.Mkdir(filepath.Dir(path), 0o755))
	listen(t, path)
	require.Equal(t, os.FileMode(0o755), modeOf(t, filepath.Dir(path)))
	dial(t, path)
}

// TestStaleSocket takes the place of an agent that was killed, and of one that was
// killed while it took its place.
func TestStaleSocket(t *testing.T) {
	path := place(t)
	killed, err := Listen(path, 0o700)
	require.NoError(t, err)
	require.NoError(t, killed.UnixListener.Close())
	require.FileExists(t, path)
	require.NoError(t, os.WriteFile(path+fresh, nil, 0o600))
	listen(t, path)
	dial(t, path)
	// The end of the old one does not take the new one's socket away.
	_ = killed.Close()
	dial(t, path)
}

// TestListenRefuses says what is in the way, and leaves it there.
func TestListenRefuses(t *testing.T) {
	path := place(t)
	dir := filepath.Dir(path)
	listen(t, path)
	_, err := Listen(path, 0o700)
	require.ErrorContains(t, err, "another process listens there")
	dial(t, path)

	file := filepath.Join(dir, "file")
	require.NoError(t, os.WriteFile(file, []byte("mine"), 0o600))
	_, err = Listen(file, 0o700)
	require.ErrorContains(t, err, "not a socket")
	require.FileExists(t, file)
	_, err = Listen(filepath.Join(file, "cni.sock"), 0o700)
	require.ErrorContains(t, err, file)

	link := filepath.Join(dir, "link")
	require.NoError(t, os.Symlink(file, link))
	_, err = Listen(link, 0o700)
	require.ErrorContains(t, err, "not a socket")

	require.NoError(t, os.Chmod(dir, 0o777))
	_, err = Listen(filepath.Join(dir, "other.sock"), 0o700)
	require.ErrorContains(t, err, "others than its owner")

	for _, wrong := range []string{"", "run/cni.sock", "/", "/run/../cni.sock", "/" + strings.Repeat("x", 107)} {
		_, err = Listen(wrong, 0o700)
		require.ErrorContains(t, err, "socket: ")
	}
}

// TestLongestPath is one that a socket's address has room for.
func TestLongestPath(t *testing.T) {
	path := filepath.Dir(place(t))
	path = filepath.Join(path, strings.Repeat("x", 107-len(fresh)-len(path)-1))
	listen(t, path)
	dial(t, path)
}

// TestPeer lets root ask, and nobody else.
func TestPeer(t *testing.T) {
	path := place(t)
	l := listen(t, path)
	dial(t, path)
	conn, err := l.AcceptUnix()
	require.NoError(t, err)
	defer conn.Close()
	require.NoError(t, PeerIsRoot(conn))
	require.NoError(t, mayAsk(&syscall.Ucred{Uid: 0}))
	require.ErrorContains(t, mayAsk(&syscall.Ucred{Uid: 1000}), "user 1000 is not root")
}
