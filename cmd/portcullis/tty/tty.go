// Package tty tells what is at the other end of a writer.
package tty

import (
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// least is the width of a terminal that is believed, in columns.
const least = 40

// Of returns whether w is a terminal, whether colours are welcome there (see
// no-color.org), and how many columns it has; 0 if that is not known.
func Of(w io.Writer) (terminal, colour bool, width int) {
	f, ok := w.(*os.File)
	if !ok {
		return false, false, 0
	}
	size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return false, false, 0
	}
	if width = int(size.Col); width < least {
		width = 0
	}
	return true, os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb", width
}
