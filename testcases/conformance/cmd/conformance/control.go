package main

import (
	"context"
	"fmt"
	"regexp"
	"strings"

	"github.com/portcullis-netpol/portcullis/testcases/conformance/scenario"
)

// The specs of the negative control: without an agent nothing isolates a pod, so
// those that need isolation must fail, by a wrong truth table and by nothing
// else, and one that does not need it must pass.
var (
	mustFail = []string{
		"should properly isolate pods that are selected by a policy allowing SCTP",
		"should deny egress from pods based on PodSelector",
	}
	mustPass    = []string{"should support allow-all policy"}
	wrongMatrix = "wrong results in reachability matrix"
)

// control runs the negative control.
func (s *suite) control(ctx context.Context) error {
	var focus []string
	for _, name := range append(mustFail, mustPass...) {
		focus = append(focus, regexp.QuoteMeta(name))
	}
	s.focus = strings.Join(focus, "|")
	found, err := s.runBinary(ctx)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if found == nil {
		return fmt.Errorf("the suite left no report: %w", err)
	}
	if err := judgeControl(found); err != nil {
		return err
	}
	// Our own cases all end at the same function with the same error: one will do.
	if err := s.ownControl(ctx, scenario.Cases()[:1]); err != nil {
		return err
	}
	fmt.Println("Negative control: without an agent the specs that need isolation fail, and only they.")
	return nil
}

func judgeControl(found *report) error {
	ran := 0
	for _, c := range found.Cases {
		switch {
		case c.Status == "skipped":
			continue
		case containsAny(c.Name, mustPass):
			if c.Status != "passed" {
				return fmt.Errorf("%w: needs no agent, and %s: %s", errFailed, c.Status, c.Name)
			}
		case c.Status != "failed" || !strings.Contains(c.Failure.Message, wrongMatrix):
			return fmt.Errorf("%w: without an agent should fail with %q, but %s %q: %s",
				errFailed, wrongMatrix, c.Status, c.Failure.Message, c.Name)
		}
		ran++
	}
	if want := len(mustFail) + len(mustPass); ran != want {
		return fmt.Errorf("%w: %d specs of the negative control ran, not %d", errFailed, ran, want)
	}
	return nil
}

func containsAny(s string, parts []string) bool {
	for _, p := range parts {
		if strings.Contains(s, p) {
			return true
		}
	}
	return false
}
