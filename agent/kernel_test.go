package agent

import (
	"fmt"
	"os"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/portcullis-netpol/portcullis/nft"
	"github.com/portcullis-netpol/portcullis/testcases/lab"
)

// namespace returns a new network namespace. It has no name and vanishes with the
// file.
func namespace(t *testing.T) *os.File {
	t.Helper()
	type result struct {
		file *os.File
		err  error
	}
	made := make(chan result)
	go func() {
		// The thread is not unlocked: it ends with the goroutine, and no other
		// one gets to run in the new namespace.
		runtime.LockOSThread()
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			made <- result{err: fmt.Errorf("unshare: %w", err)}
			return
		}
		f, err := os.Open("/proc/thread-self/ns/net")
		made <- result{f, err}
	}()
	r := <-made
	require.NoError(t, r.err)
	t.Cleanup(func() { _ = r.file.Close() })
	return r.file
}

// TestAgentWithKernel goes from a directory to rules and back in a real kernel.
func TestAgentWithKernel(t *testing.T) {
	lab.Require(t, lab.NFTables)
	ns := int(namespace(t).Fd())
	open := func() nft.Kernel {
		k, err := nft.OpenKernel(nft.Config{NetNS: ns})
		require.NoError(t, err)
		t.Cleanup(func() { _ = k.Close() })
		return k
	}
	k, look := open(), open()
	enforceManifests(t, k, look)
	require.NoError(t, nft.Cleanup(t.Context(), look))
	require.Equal(t, "0 tables", outcome(t, look))
}
