package scenario

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/portcullis-netpol/portcullis/testcases/conformance/cluster"
)

// Config says where cases run.
type Config struct {
	Cluster *cluster.Cluster
	// Patience bounds the wait for flows to become what a step says they should be.
	Patience time.Duration
	// Out gets a line per step.
	Out io.Writer
	// Look, if not nil, is called when a case has failed, with everything still
	// as it was.
	Look func(ctx context.Context, c Case, err error)
}

// Case is a story.
type Case struct {
	Name string
	// namespaces are made for it and deleted behind it.
	namespaces []string
	run        func(*stage)
}

// Slug is a name for the case's files.
func (c Case) Slug() string { return c.namespaces[0] }

// Cases returns all cases in the order in which they run. Each one needs an agent
// to pass: without one its flows are wrong.
func Cases() []Case {
	return []Case{
		{"namespace relabelled, of subjects and of peers", []string{"relabel-subject", "relabel-peer"}, relabel},
		{"pod re-created with its name and address and another label", []string{"recreate"}, recreate},
		{"address of a finished Job's pod reused", []string{"job"}, finishedJob},
		{"hostNetwork pods as subjects and as peers", []string{"hostnet", "hostnet-other"}, hostNetwork},
		{"200 policies on one pod", []string{"many"}, manyPolicies},
		{"policy that cannot be enforced in full", []string{"unenforceable"}, unenforceable},
		{"policies churned under new connections", []string{"churn"}, churn},
	}
}

// Run runs a case. The error wraps a *WrongFlows if, and only if, flows were not
// as they should be.
func (c Case) Run(ctx context.Context, cfg Config) (err error) {
	s := &stage{Config: cfg, ctx: ctx, targets: map[string]target{}}
	defer s.deleteNamespaces(c.namespaces)
	defer func() {
		for _, o := range s.closers {
			_ = o.Close()
		}
	}()
	if err = s.play(c); err != nil && cfg.Look != nil && ctx.Err() == nil {
		cfg.Look(ctx, c, err)
	}
	return err
}

// play runs the case and turns what must aborts it with into an error.
func (s *stage) play(c Case) (err error) {
	begin := time.Now()
	defer func() {
		err = recovered(recover())
		s.told(begin, err)
	}()
	s.doing = "make namespaces"
	s.makeNamespaces(c.namespaces)
	s.nodes()
	s.doing, begin = "", time.Now()
	s.began = &begin
	c.run(s)
	return nil
}

// aborted is what must panics with.
type aborted struct{ error }

// recovered returns the error that a case was aborted with; other panics go on.
func recovered(r any) error {
	switch r := r.(type) {
	case nil:
		return nil
	case aborted:
		return r.error
	default:
		panic(r)
	}
}

// must ends the case if there is an error. Cases are long lists of things that can
// fail, and none goes on after one has.
func (s *stage) must(err error) {
	if err == nil {
		return
	}
	var wrong *WrongFlows
	if s.doing != "" && !errors.As(err, &wrong) {
		err = fmt.Errorf("%s: %w", s.doing, err)
	}
	panic(aborted{err})
}

// step ends the last step and begins the next one.
func (s *stage) step(format string, args ...any) {
	s.told(*s.began, nil)
	s.doing, *s.began = fmt.Sprintf(format, args...), time.Now()
}

// told prints a step that has ended.
func (s *stage) told(began time.Time, err error) {
	if s.doing == "" {
		return
	}
	mark := ""
	if err != nil {
		mark = "  <- " + strings.TrimPrefix(err.Error(), s.doing+": ")
	}
	fmt.Fprintf(s.Out, "             %5.1f s  %s%s\n", time.Since(began).Seconds(), s.doing, mark)
	s.doing = ""
}

// deleteNamespaces lets the cluster clean up; nobody waits for it.
func (s *stage) deleteNamespaces(names []string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(s.ctx), 5*time.Second)
	defer cancel()
	for _, name := range names {
		_ = s.Cluster.Client.CoreV1().Namespaces().Delete(ctx, name, metav1.DeleteOptions{})
	}
}
