package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode/utf16"

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

// writeJSON prints JSON that a terminal can show: what is not ASCII is escaped, too.
func writeJSON(w io.Writer, v any) error {
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	_, err = w.Write(append(asciiJSON(text), '\n'))
	return err
}

// asciiJSON escapes what JSON itself need not: it stands in strings only.
func asciiJSON(text []byte) []byte {
	plain := func(r rune) bool { return r < 0x7f }
	if !bytes.ContainsFunc(text, func(r rune) bool { return !plain(r) }) {
		return text
	}
	var out []byte
	for _, r := range string(text) {
		if plain(r) {
			out = append(out, byte(r))
			continue
		}
		for _, unit := range utf16.Encode([]rune{r}) {
			out = fmt.Appendf(out, `\u%04x`, unit)
		}
	}
	return out
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
