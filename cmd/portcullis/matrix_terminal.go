package main

import (
	"io"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// terminalOf tells whether colours are welcome (see no-color.org), and how wide the terminal is: 80 columns where there
// is none.
func terminalOf(w io.Writer) (colour bool, width int) {
	const unknown, least = 80, 40
	f, ok := w.(*os.File)
	if !ok {
		return false, unknown
	}
	size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return false, unknown
	}
	width = int(size.Col)
	if width < least {
		width = unknown
	}
	return os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb", width
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	return err == nil
}

// printable escapes what a terminal might obey, or show in another order. No name that an API server takes is changed.
func printable(s string) string {
	plain := func(r rune) bool { return r < ' ' || r > '~' }
	if !strings.ContainsFunc(s, plain) {
		return s
	}
	quoted := strconv.QuoteToASCII(s)
	return strings.ReplaceAll(quoted[1:len(quoted)-1], `\"`, `"`)
}

// sanitized is an error with a text that a terminal can show; lines are kept.
func sanitized(err error) error {
	lines := strings.Split(err.Error(), "\n")
	for i, l := range lines {
		lines[i] = printable(l)
	}
	return &plainError{strings.Join(lines, "\n"), err}
}

type plainError struct {
	text string
	err  error
}

func (e *plainError) Error() string { return e.text }
func (e *plainError) Unwrap() error { return e.err }
