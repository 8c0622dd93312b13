// Package progress is what the processes of the suite tell the program that
// started them, one line of JSON per event, through one named pipe.
package progress

import (
	"bytes"
	"encoding/json"
	"io"
	"net"
	"regexp"
	"sync"
)

// States of events that are not Ginkgo's.
const (
	Started = "started"
	Wrong   = "wrong" // a cell of the truth table; the spec may still pass
	End     = "end"   // no more will come
)

// Event is something that happened to a spec.
type Event struct {
	Process int    // of the suite, counted from 1: each runs one spec at a time
	Spec    string // full name
	State   string
	Seconds float64
	Failure string
	Cell    *Cell // of state Wrong
}

// Cell is a cell of a truth table that is not as expected.
type Cell struct {
	From, To string // namespace/pod
	Expected string // allowed, blocked
	Service  string // tcp/80
	Step     int    // number of the spec's truth table
}

// maxFailure keeps a line shorter than what a pipe takes in one piece.
const maxFailure = 1000

// Send writes an event in one piece.
func Send(w io.Writer, e Event) error {
	e.Failure = e.Failure[:min(len(e.Failure), maxFailure)]
	line, err := json.Marshal(e)
	if err != nil {
		return err
	}
	_, err = w.Write(append(line, '\n'))
	return err
}

// Log takes the log of one process of the suite and finds the wrong cells.
type Log struct {
	Found func(Cell)

	mu       sync.Mutex
	rest     []byte // of a line
	cell     Cell   // that the log is talking about
	step     int
	deciding bool // a truth table is being made that is not about servers that start
}

// Reset begins another spec.
func (l *Log) Reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.rest, l.cell, l.step, l.deciding = nil, Cell{}, 0, false
}

// Write implements io.Writer.
func (l *Log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.rest = append(l.rest, p...)
	for {
		line, rest, whole := bytes.Cut(l.rest, []byte("\n"))
		if !whole {
			return len(p), nil
		}
		l.line(line)
		l.rest = rest
	}
}

var (
	// What changes the expectation, so that another truth table follows.
	changeLine = regexp.MustCompile(`(creating|updating|deleting) network policy|VALIDATION SUCCESSFUL|failed first probe`)
	wrongLine  = regexp.MustCompile(`Validation of (\S+) -> (\S+) FAILED`)
	probeLine  = regexp.MustCompile(`Expected (allowed|blocked) pod connection .* connect (\S+) --timeout\S* --protocol=(\w+)`)
)

func (l *Log) line(line []byte) {
	if changeLine.Match(line) {
		l.deciding = true
		l.step++
		return
	}
	if !l.deciding {
		return
	}
	if m := wrongLine.FindSubmatch(line); m != nil {
		l.cell = Cell{From: string(m[1]), To: string(m[2]), Step: l.step}
		return
	}
	m := probeLine.FindSubmatch(line)
	if m == nil || l.cell.From == "" {
		return
	}
	c := l.cell
	l.cell = Cell{}
	if c.From == c.To {
		return // the suite does not judge a pod's connection to itself
	}
	c.Expected = string(m[1])
	if _, port, err := net.SplitHostPort(string(m[2])); err == nil {
		c.Service = string(m[3]) + "/" + port
	}
	l.Found(c)
}
