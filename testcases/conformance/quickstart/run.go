package quickstart

import (
	"context"
	"fmt"
	"io"
	"regexp"
	"strings"
	"time"
)

// Shell runs a command line and returns its exit status and all that it has printed.
type Shell func(ctx context.Context, command string) (exit int, output string, err error)

// Config says how a document is tried out.
type Config struct {
	Shell    Shell
	Patience time.Duration // how long a command may take to do what the document says
	Out      io.Writer     // for a line about each command
}

// Difference is an error: a command did something else than the document says.
type Difference struct {
	Step   Step
	Exit   int
	Output string
}

func (d *Difference) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "line %d: %s\n", d.Step.Line, d.Step.Command)
	fmt.Fprintf(&b, "The document says, with exit status %d:\n%s", d.Step.Exit, indent(strings.Join(d.Step.Output, "\n")))
	fmt.Fprintf(&b, "It was, with exit status %d:\n%s", d.Exit, indent(d.Output))
	return strings.TrimSuffix(b.String(), "\n")
}

func indent(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		b.WriteString("  | " + strings.TrimRight(line, "\n") + "\n")
	}
	return b.String()
}

// changes matches commands that are not to be run twice.
var changes = regexp.MustCompile(`\bkubectl\b.* (apply|annotate|create|delete|label)\b`)

// pause lies between two attempts.
const pause = 200 * time.Millisecond

// Run runs the steps one after the other until one does not do what it should.
func Run(ctx context.Context, cfg Config, steps []Step) error {
	for _, s := range steps {
		begin := time.Now()
		attempts, err := cfg.run(ctx, s)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		state := "as shown"
		if err != nil {
			state = "differs"
		}
		note := ""
		if attempts > 1 {
			note = fmt.Sprintf(" (attempt %d)", attempts)
		}
		fmt.Fprintf(cfg.Out, "%-8s %5.1f s  %s%s\n", state, time.Since(begin).Seconds(), s.Command, note)
		if err != nil {
			return err
		}
	}
	return nil
}

// run runs a step, again if need be.
func (c Config) run(ctx context.Context, s Step) (attempts int, err error) {
	for deadline := time.Now().Add(c.Patience); ; {
		attempts++
		exit, output, err := c.Shell(ctx, s.Command)
		switch {
		case err != nil:
			return attempts, fmt.Errorf("line %d: %s: %w", s.Line, s.Command, err)
		case s.Matches(exit, output):
			return attempts, nil
		case changes.MatchString(s.Command) || time.Now().After(deadline):
			return attempts, &Difference{Step: s, Exit: exit, Output: output}
		}
		select {
		case <-ctx.Done():
			return attempts, ctx.Err()
		case <-time.After(pause):
		}
	}
}
