package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/portcullis-netpol/portcullis/testcases/conformance/progress"
)

// watcher prints a line per spec, and looks at the cluster while a truth table
// is going wrong: afterwards the suite deletes everything.
type watcher struct {
	suite    *suite
	done     int               // specs
	found    int               // specs with something wrong
	findings map[int]*findings // by process of the suite: of the spec that it runs
}

// follow watches until the suite ends.
func (w *watcher) follow(ctx context.Context, events io.Reader) {
	for decoder := json.NewDecoder(events); ; {
		var e progress.Event
		if err := decoder.Decode(&e); err != nil || e.State == progress.End {
			return
		}
		switch e.State {
		case progress.Started:
		case progress.Wrong:
			if w.suite.cluster != nil {
				w.wrong(ctx, e.Process, *e.Cell)
			}
		default:
			w.ended(e)
		}
	}
}

func (w *watcher) ended(e progress.Event) {
	w.done++
	fmt.Printf("%3d %-7s %5.1f s  %s\n", w.done, e.State, e.Seconds, e.Spec)
	f := w.findings[e.Process]
	delete(w.findings, e.Process)
	switch {
	case f == nil:
	case e.State == "passed": // it was wrong for a moment, as the suite allows
		_ = os.RemoveAll(f.dir)
	default:
		if err := f.finish(e); err != nil {
			w.suite.logger.Warn("findings", "err", err)
		}
	}
}

// wrong notes a wrong cell, and what the cluster looks like at the first one of
// a truth table.
func (w *watcher) wrong(ctx context.Context, process int, c progress.Cell) {
	f := w.findings[process]
	if f == nil {
		w.found++
		f = &findings{suite: w.suite, dir: filepath.Join(w.suite.dir, fmt.Sprintf("spec-%d", w.found))}
		w.findings[process] = f
	}
	if len(f.cells) == 0 || f.cells[0].Step != c.Step {
		f.cells = nil
		if err := f.look(ctx); err != nil {
			w.suite.logger.Warn("look at the cluster", "err", err)
		}
	}
	f.cells = append(f.cells, c)
}
