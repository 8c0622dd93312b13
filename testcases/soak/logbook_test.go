package soak

import (
	"bytes"
	"log/slog"
	"strings"
	"sync"
	"testing"
)

// logbook keeps what an agent says.
type logbook struct {
	mu    sync.Mutex
	lines []string
	rest  []byte // of a line that is not complete
}

func (b *logbook) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(b, &slog.HandlerOptions{Level: slog.LevelInfo}))
}

// Write implements io.Writer.
func (b *logbook) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.rest = append(b.rest, p...)
	for {
		line, rest, ok := bytes.Cut(b.rest, []byte("\n"))
		if !ok {
			return len(p), nil
		}
		b.lines = append(b.lines, string(line))
		b.rest = rest
	}
}

// find returns the lines that have all the parts.
func (b *logbook) find(parts ...string) (out []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, line := range b.lines {
		all := true
		for _, part := range parts {
			all = all && strings.Contains(line, part)
		}
		if all {
			out = append(out, line)
		}
	}
	return out
}

// wait returns the first line that has all the parts, once there is one.
func (b *logbook) wait(t *testing.T, parts ...string) string {
	t.Helper()
	var lines []string
	eventually(t, "a line of the agent with "+strings.Join(parts, ", ")+" in\n"+b.String(), func() bool {
		lines = b.find(parts...)
		return len(lines) > 0
	})
	return lines[0]
}

// String returns everything.
func (b *logbook) String() string { return strings.Join(b.find(), "\n") }
