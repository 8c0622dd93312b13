package soak

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
)

// results are what the tests have counted, in the order in which they ended.
var results struct {
	mu   sync.Mutex
	rows [][2]string
}

// result notes what a test has counted. It is among the last things that a test does.
func result(t *testing.T, what, format string, args ...any) {
	t.Helper()
	text := fmt.Sprintf(format, args...)
	if t.Failed() {
		text = "**FAILED** " + text
	}
	t.Logf("RESULT %s: %s", what, text)
	results.mu.Lock()
	defer results.mu.Unlock()
	results.rows = append(results.rows, [2]string{what, text})
}

// result notes what a test of this site has counted.
func (s *site) result(what, format string, args ...any) {
	s.t.Helper()
	result(s.t, what, format, args...)
}

// printResults writes a table of all results in Markdown. A test that ended early is
// not in it.
func printResults(w io.Writer, failed bool) {
	results.mu.Lock()
	defer results.mu.Unlock()
	var b strings.Builder
	b.WriteString("\n| Test | Result |\n|---|---|\n")
	for _, r := range results.rows {
		cell := strings.NewReplacer("|", "\\|", "\n", " ")
		fmt.Fprintf(&b, "| %s | %s |\n", cell.Replace(r[0]), cell.Replace(r[1]))
	}
	if failed {
		b.WriteString("\nSome tests FAILED; what they say stands above the table.\n")
	}
	_, _ = io.WriteString(w, b.String())
}
