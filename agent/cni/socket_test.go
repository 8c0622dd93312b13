package cni

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func mode(t *testing.T, path string) os.FileMode {
	t.Helper()
	info, err := os.Stat(path)
	require.NoError(t, err)
	return info.Mode().Perm()
}

// TestSocketModes lets only its owner in.
func TestSocketModes(t *testing.T) {
	path := place(t)
	s, err := Listen(path)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), mode(t, path))
	require.Equal(t, os.FileMode(0o700), mode(t, filepath.Dir(path)))
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
	serve(t, path, &recorder{})
	require.Equal(t, os.FileMode(0o755), mode(t, filepath.Dir(path)))
	require.NoError(t, ask(t, path, Request{Command: Status}))
}

// TestStaleSocket takes the place of an agent that was killed, and of one that was
// killed while it took its place.
func TestStaleSocket(t *testing.T) {
	path := place(t)
	killed, err := Listen(path)
	require.NoError(t, err)
	require.NoError(t, killed.listener.Close())
	require.FileExists(t, path)
	require.NoError(t, os.WriteFile(path+fresh, nil, 0o600))
	serve(t, path, &recorder{})
	require.NoError(t, ask(t, path, Request{Command: Status}))
	// The end of the old one does not take the new one's socket away.
	_ = killed.Close()
	require.NoError(t, ask(t, path, Request{Command: Status}))
}

// TestListenRefuses says what is in the way, and leaves it there.
func TestListenRefuses(t *testing.T) {
	path := place(t)
	dir := filepath.Dir(path)
	serve(t, path, &recorder{})
	_, err := Listen(path)
	require.ErrorContains(t, err, "another process listens there")
	require.NoError(t, ask(t, path, Request{Command: Status}))

	file := filepath.Join(dir, "file")
	require.NoError(t, os.WriteFile(file, []byte("mine"), 0o600))
	_, err = Listen(file)
	require.ErrorContains(t, err, "not a socket")
	require.FileExists(t, file)
	_, err = Listen(filepath.Join(file, "cni.sock"))
	require.ErrorContains(t, err, file)

	link := filepath.Join(dir, "link")
	require.NoError(t, os.Symlink(file, link))
	_, err = Listen(link)
	require.ErrorContains(t, err, "not a socket")

	require.NoError(t, os.Chmod(dir, 0o777))
	_, err = Listen(filepath.Join(dir, "other.sock"))
	require.ErrorContains(t, err, "others than its owner")

	for _, wrong := range []string{"", "run/cni.sock", "/", "/run/../cni.sock", "/" + strings.Repeat("x", 107)} {
		_, err = Listen(wrong)
		require.ErrorContains(t, err, "socket: ")
	}
}

// TestLongestPath is one that a socket's address has room for.
func TestLongestPath(t *testing.T) {
	path := filepath.Dir(place(t))
	path = filepath.Join(path, strings.Repeat("x", 107-len(fresh)-len(path)-1))
	serve(t, path, &recorder{})
	_, err := net.Dial("unix", path)
	require.NoError(t, err)
}

// TestSettings have defaults, and each mistake is named by its field.
func TestSettings(t *testing.T) {
	good := Settings{}.WithDefaults()
	require.NoError(t, good.Validate())
	require.Equal(t, Settings{Type: PluginType, Socket: DefaultSocket, Timeout: "3s", OnAgentUnreachable: Allow}, good)
	require.Equal(t, DefaultTimeout, good.Wait())
	for _, timeout := range []string{"3", "soon", "0s", "-1s", "61s"} {
		bad := Settings{Type: "bridge", Socket: "cni.sock", Timeout: timeout, OnAgentUnreachable: "ignore"}.Validate()
		for _, field := range []string{`type: "bridge"`, `socket: "cni.sock"`, "timeout: ", `onAgentUnreachable: "ignore"`} {
			require.ErrorContains(t, bad, field)
		}
	}
}
