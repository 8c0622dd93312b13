package tty

import (
	"bytes"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// TestOf asks about a terminal of several widths, about a file and about no file.
func TestOf(t *testing.T) {
	pty, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	require.NoError(t, err)
	defer pty.Close()
	for columns, want := range map[uint16]int{132: 132, 40: 40, 39: 0, 0: 0} {
		require.NoError(t, unix.IoctlSetWinsize(int(pty.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Col: columns, Row: 24}))
		t.Setenv("TERM", "xterm")
		t.Setenv("NO_COLOR", "")
		terminal, colour, width := Of(pty)
		require.True(t, terminal)
		require.True(t, colour)
		require.Equal(t, want, width)
		for name, value := range map[string]string{"NO_COLOR": "1", "TERM": "dumb"} {
			t.Run(name, func(t *testing.T) {
				t.Setenv(name, value)
				_, colour, _ := Of(pty)
				require.False(t, colour)
			})
		}
	}
	file, err := os.Create(t.TempDir() + "/file")
	require.NoError(t, err)
	defer file.Close()
	for _, w := range []interface{ Write([]byte) (int, error) }{file, &bytes.Buffer{}} {
		terminal, colour, width := Of(w)
		require.False(t, terminal)
		require.False(t, colour)
		require.Zero(t, width)
	}
}
