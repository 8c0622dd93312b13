package main

import (
	"cmp"
	"io"
	"strconv"
	"strings"

	"github.com/portcullis-netpol/portcullis/cmd/portcullis/tty"
)

// styleOf returns how text is printed to w: in 80 columns where there is no terminal.
func styleOf(w io.Writer) textStyle {
	const columns = 80
	_, colour, width := tty.Of(w)
	return textStyle{colour, cmp.Or(width, columns)}
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
