package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"syscall"

	"github.com/portcullis-netpol/portcullis/testcases/lab"
)

// Options says what to show and how.
type Options struct {
	Topology  lab.Topology
	IPFamily  string   // "4", "6" or "dual"; empty means dual
	Manifests string   // file or directory with the user's own objects, instead of the story
	Keep      bool     // leave everything up at the end, until ctx is done
	JSON      bool     // one JSON document a step instead of tables
	Agent     []string // command line that starts the agent, without its flags; nil means this program's own agent command
}

// Validate reports options that cannot be meant.
func (o Options) Validate() error {
	if !slices.Contains([]string{"", "4", "6", "dual"}, o.IPFamily) {
		return fmt.Errorf("IP family %q: must be one of 4, 6, dual", o.IPFamily)
	}
	if o.Topology != lab.Routed && o.Topology != lab.Bridged {
		return fmt.Errorf("unknown topology %d", o.Topology)
	}
	if o.Manifests != "" {
		if _, err := os.Stat(o.Manifests); err != nil {
			return fmt.Errorf("manifests: %w", err)
		}
	}
	return nil
}

// MismatchError says that packets were not judged as the specification wants,
// although every agent had said that the policies are in force.
type MismatchError struct {
	Step  string   // title of the step
	Cells []string // one line a wrong cell
}

func (e *MismatchError) Error() string {
	return fmt.Sprintf("step %q: %d connections are not judged as they should be", e.Step, len(e.Cells))
}

// Run builds everything, shows the story (or the user's manifests) on stdout and
// takes everything down again. Without root it starts the program again in a user
// namespace of its own first, see [lab.Enter]; so do nothing before it that must
// not be done twice. When ctx ends early, Run cleans up and returns its error; at
// the end of a kept demonstration that is no error.
func Run(ctx context.Context, opts Options, stdout, stderr io.Writer) (err error) {
	if err := opts.Validate(); err != nil {
		return err
	}
	if err := lab.Enter(); err != nil {
		return fmt.Errorf("the demo needs network namespaces: %w", err)
	}
	// A closed terminal or pipe ends the demo like Ctrl-C does, not at once: there are
	// files to remove.
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGHUP)
	defer stop()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	out := &closingWriter{w: stdout, closed: cancel}
	pipe := make(chan os.Signal, 1) // nobody listens: asking for SIGPIPE turns it into EPIPE
	signal.Notify(pipe, syscall.SIGPIPE)
	defer signal.Stop(pipe)

	scene, err := newScene(opts)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "portcullis-demo-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	s := &stage{opts: opts, scene: scene, manifests: manifestDir{root: dir}, out: newPrinter(out, stderr, opts.JSON, scene), errOut: stderr}
	if err := s.build(); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	err = s.play(ctx)
	if err != nil && ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		err = context.Cause(ctx)
	}
	if opts.Keep && ctx.Err() == nil && s.agents != nil {
		s.keep(ctx)
	}
	return err
}

// closingWriter reports the first write that fails.
type closingWriter struct {
	w      io.Writer
	closed context.CancelCauseFunc
}

func (c *closingWriter) Write(b []byte) (int, error) {
	n, err := c.w.Write(b)
	if err != nil {
		c.closed(fmt.Errorf("write output: %w", err))
	}
	return n, err
}

// agentCommand is the command line that starts an agent.
func (o Options) agentCommand() ([]string, error) {
	if len(o.Agent) > 0 {
		return o.Agent, nil
	}
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program to start agents: %w", err)
	}
	return []string{filepath.Clean(self), "agent"}, nil
}
