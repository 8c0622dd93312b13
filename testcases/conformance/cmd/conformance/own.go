package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"time"

	"github.com/portcullis-netpol/portcullis/testcases/conformance/progress"
	"github.com/portcullis-netpol/portcullis/testcases/conformance/scenario"
)

// How long a step of our own cases may take to show its effect. Without an agent it
// never does, so the negative control need not wait for it.
const (
	ownPatience        = 30 * time.Second
	ownControlPatience = 2 * time.Second
)

// ownResult is what became of one of our own cases.
type ownResult struct {
	name    string
	seconds float64
	err     error
}

// runCases runs our own cases, which say more than the upstream suite.
func (s *suite) runCases(ctx context.Context) error {
	chosen, err := ownCases(s.focus)
	if err != nil {
		return err
	}
	failed := 0
	for _, r := range s.runOwn(ctx, chosen, ownPatience) {
		s.results = append(s.results, r)
		if r.err != nil {
			failed++
		}
	}
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case failed > 0:
		return fmt.Errorf("%w: %d of %d own cases", errFailed, failed, len(chosen))
	}
	return nil
}

// ownControl shows that our own cases fail without an agent, by flows that are open
// and by nothing else.
func (s *suite) ownControl(ctx context.Context, chosen []scenario.Case) error {
	for _, r := range s.runOwn(ctx, chosen, ownControlPatience) {
		if err := judgeOwnControl(r); err != nil && ctx.Err() == nil {
			return err
		}
	}
	return ctx.Err()
}

func judgeOwnControl(r ownResult) error {
	var wrong *scenario.WrongFlows
	if errors.As(r.err, &wrong) && wrong.Lax() {
		return nil
	}
	return fmt.Errorf("%w: without an agent should fail by open flows, but ended with %v: %s", errFailed, r.err, r.name)
}

// ownCases returns our own cases whose name the expression matches; all, if there is
// none.
func ownCases(focus string) ([]scenario.Case, error) {
	name, err := regexp.Compile(focus)
	if err != nil {
		return nil, fmt.Errorf("--focus: %w", err)
	}
	var chosen []scenario.Case
	for _, c := range scenario.Cases() {
		if name.MatchString(c.Name) {
			chosen = append(chosen, c)
		}
	}
	if len(chosen) == 0 {
		return nil, fmt.Errorf("%w: no own case matches %q", errFailed, focus)
	}
	return chosen, nil
}

// runOwn runs cases one after the other and prints what becomes of them.
func (s *suite) runOwn(ctx context.Context, cases []scenario.Case, patience time.Duration) []ownResult {
	cfg := scenario.Config{Cluster: s.cluster, Patience: patience, Out: os.Stdout}
	if s.agent != "none" {
		cfg.Look = s.lookAtOwn
	}
	var results []ownResult
	for i, c := range cases {
		begin := time.Now()
		r := ownResult{name: c.Name, err: c.Run(ctx, cfg)}
		r.seconds = time.Since(begin).Seconds()
		results = append(results, r)
		if ctx.Err() != nil {
			return results
		}
		state := "passed"
		if r.err != nil {
			state = "failed"
		}
		fmt.Printf("own %d %-7s %5.1f s  %s\n", i+1, state, r.seconds, c.Name)
	}
	return results
}

// lookAtOwn leaves what can be known about a case that has failed.
func (s *suite) lookAtOwn(ctx context.Context, c scenario.Case, failure error) {
	f := &findings{suite: s, dir: filepath.Join(s.dir, "own-"+c.Slug())}
	err := f.look(ctx)
	var wrong *scenario.WrongFlows
	if errors.As(failure, &wrong) {
		for _, w := range wrong.Flows {
			if w.FromPod == "" || w.ToPod == "" {
				continue // explain knows pods
			}
			cell := progress.Cell{From: w.FromPod, To: w.ToPod, Expected: "blocked", Service: fmt.Sprintf("tcp/%d", w.Port)}
			if w.Open {
				cell.Expected = "allowed"
			}
			f.cells = append(f.cells, cell)
		}
	}
	if err := errors.Join(err, f.finish(progress.Event{Spec: c.Name, Failure: failure.Error()})); err != nil {
		s.logger.Warn("findings", "err", err)
	}
}
