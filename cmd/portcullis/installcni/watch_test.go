package installcni

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/portcullis-netpol/portcullis/agent/cni"
)

// output is a log that can be read while it is written.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// eventually waits until it holds.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("never: ", what)
		}
	}
}

func (h host) has(name, text string) func() bool {
	return func() bool {
		got, err := os.ReadFile(filepath.Join(h.ConfDir, name))
		return err == nil && string(got) == text
	}
}

// start runs a watch that looks again only after lookAgain.
func (h host) start(t *testing.T, lookAgain time.Duration) (log *output) {
	t.Helper()
	log = &output{}
	h.Logger = slog.New(slog.NewTextHandler(log, nil))
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- h.watch(ctx, time.Millisecond, lookAgain) }()
	t.Cleanup(func() {
		cancel()
		require.NoError(t, <-ended)
	})
	return log
}

// TestWatch puts the plugin in when the main plugin's configuration comes, when it is
// written again in place and by renaming, when another one becomes active, and when
// the binary is deleted.
func TestWatch(t *testing.T) {
	h := newHost(t, nil)
	log := h.start(t, time.Hour)
	eventually(t, "a warning", func() bool { return strings.Contains(log.String(), ErrNoConfig.Error()) })
	for range 3 {
		h.put(t, "10-flannel.conflist", flannel)
		eventually(t, "put in after writing", h.has("10-flannel.conflist", flannelWithOurs))
		h.put(t, "new", flannel)
		require.NoError(t, os.Rename(filepath.Join(h.ConfDir, "new"), filepath.Join(h.ConfDir, "10-flannel.conflist")))
		eventually(t, "put in after renaming", h.has("10-flannel.conflist", flannelWithOurs))
	}
	require.Contains(t, log.String(), "the CNI plugin is installed; watching")
	h.put(t, "05-first.conflist", flannel)
	eventually(t, "put into the new one", h.has("05-first.conflist", flannelWithOurs))
	for range 3 { // the first time, what happened before may still be at work
		require.NoError(t, os.Remove(h.binary()))
		eventually(t, "copied again", func() bool {
			text, err := os.ReadFile(h.binary())
			return err == nil && string(text) == "binary"
		})
	}
}

// TestWatchLeavesItInPlace when it ends.
func TestWatchLeavesItInPlace(t *testing.T) {
	h := newHost(t, map[string]string{"10-flannel.conflist": flannel})
	t.Run("watch", func(t *testing.T) {
		h.start(t, time.Hour)
		eventually(t, "put in", h.has("10-flannel.conflist", flannelWithOurs))
	})
	h.holds(t, map[string]string{"10-flannel.conflist": flannelWithOurs})
	require.FileExists(t, h.binary())
}

// TestWatchNewDirectory finds a directory that was deleted and made again.
func TestWatchNewDirectory(t *testing.T) {
	h := newHost(t, map[string]string{"10-flannel.conflist": flannel})
	log := h.start(t, 5*time.Millisecond)
	eventually(t, "put in", h.has("10-flannel.conflist", flannelWithOurs))
	require.NoError(t, os.RemoveAll(h.ConfDir))
	eventually(t, "a warning", func() bool { return strings.Contains(log.String(), "not installed yet") })
	require.NoError(t, os.Mkdir(h.ConfDir, 0o755))
	h.put(t, "10-flannel.conflist", flannel)
	eventually(t, "put in again", h.has("10-flannel.conflist", flannelWithOurs))
}

// TestWatchBehindLink looks again by itself at what no event tells of.
func TestWatchBehindLink(t *testing.T) {
	h := newHost(t, nil)
	real := filepath.Join(t.TempDir(), "real")
	require.NoError(t, os.WriteFile(real, []byte(flannel), 0o600))
	require.NoError(t, os.Symlink(real, filepath.Join(h.ConfDir, "10.conflist")))
	h.start(t, 5*time.Millisecond)
	for range 3 {
		eventually(t, "put in", h.has("10.conflist", flannelWithOurs))
		require.NoError(t, os.WriteFile(real+".new", []byte(flannel), 0o600))
		require.NoError(t, os.Rename(real+".new", real))
	}
	eventually(t, "put in at last", h.has("10.conflist", flannelWithOurs))
}

// TestWatchWrongSettings ends at once.
func TestWatchWrongSettings(t *testing.T) {
	h := newHost(t, nil)
	h.Settings = cni.Settings{}
	require.Error(t, h.Watch(t.Context()))
}
