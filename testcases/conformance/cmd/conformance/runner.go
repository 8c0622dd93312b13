package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/portcullis-netpol/portcullis/testcases/conformance/cluster"
	"github.com/portcullis-netpol/portcullis/testcases/conformance/process"
	"github.com/portcullis-netpol/portcullis/testcases/conformance/progress"
	"github.com/portcullis-netpol/portcullis/testcases/lab"
)

// errFailed says that the suite ran and did not show what it should.
var errFailed = errors.New("failed")

// runner carries out what the flags say.
type runner struct {
	*options
	binaries binaries
	starter  *process.Starter
	logger   *slog.Logger
}

func (r *runner) run(ctx context.Context, dir string) error {
	if r.kubeconfig != "" {
		return r.runOn(ctx, dir, r.kubeconfig)
	}
	if r.quickStart != "" {
		return r.runQuickStart(ctx, dir)
	}
	if !r.all {
		return r.runCombination(ctx, dir, r.combination)
	}
	var errs []error
	for i, c := range everyPair {
		fmt.Printf("\n=== %d of %d: %v\n", i+1, len(everyPair), c)
		err := r.runCombination(ctx, filepath.Join(dir, c.folder()), c)
		if err != nil {
			err = fmt.Errorf("%v: %w", c, err)
		}
		if errs = append(errs, err); ctx.Err() != nil {
			break
		}
	}
	return errors.Join(errs...)
}

// runCombination makes a cluster and runs the suite, or the negative control,
// against it.
func (r *runner) runCombination(ctx context.Context, dir string, c combination) error {
	cfg, err := r.clusterConfig(dir, c)
	if err != nil {
		return err
	}
	begin := time.Now()
	made, ctx, err := cluster.Start(ctx, cfg)
	if err != nil {
		return fmt.Errorf("make the cluster: %w", err)
	}
	defer made.Stop()
	if r.agent != "none" {
		if err := made.StartAgents(ctx); err != nil {
			return fmt.Errorf("start the agents: %w", explain(ctx, err))
		}
	}
	fmt.Printf("Cluster of 2 nodes up in %.0f s: %v; agent: %s\n", time.Since(begin).Seconds(), c, r.agent)
	if r.agent != "none" && r.focus == "" {
		if err := dryRun(ctx, made); err != nil {
			return explain(ctx, err)
		}
	}
	s := &suite{runner: r, cluster: made, dir: dir, kubeconfig: made.Kubeconfig, focus: r.focus, noSCTP: !hasSCTP()}
	return explain(ctx, s.inCluster(ctx))
}

// clusterConfig is a cluster of a combination, with its logs in a folder that it makes.
func (r *runner) clusterConfig(dir string, c combination) (cluster.Config, error) {
	topology, err := lab.ParseTopology(c.topology)
	if err != nil {
		return cluster.Config{}, err
	}
	return cluster.Config{
		Starter: r.starter, Topology: topology, IPv6First: c.family == "6", KubeProxy: c.proxy, Deny: c.deny,
		Kube: r.binaries.path("kube"), Agnhost: r.binaries.path("agnhost"), Portcullis: r.binaries.path("portcullis"),
		Manifests: filepath.Join(r.binaries.root, "manifests"), Dir: dir, Logger: r.logger,
	}, os.MkdirAll(dir, 0o755)
}

// dryRun has the API server judge the manifests and the chart.
func dryRun(ctx context.Context, made *cluster.Cluster) error {
	begin := time.Now()
	objects, err := made.DryRun(ctx)
	if err != nil {
		return fmt.Errorf("%w: dry run of the manifests and the chart: %w", errFailed, err)
	}
	fmt.Printf("Dry run of the manifests and the chart: %d objects, in %.1f s\n", objects, time.Since(begin).Seconds())
	return nil
}

// inCluster runs in one of our own clusters what the flags say: the suite and then
// our own cases, or one of both, or the negative control.
func (s *suite) inCluster(ctx context.Context) error {
	switch {
	case s.agent == "none" && s.options.own:
		chosen, err := ownCases(s.focus)
		if err != nil {
			return err
		}
		return s.ownControl(ctx, chosen)
	case s.agent == "none":
		return s.control(ctx)
	case s.options.own:
		return errors.Join(s.runCases(ctx), s.writeJUnit())
	}
	err := s.conformance(ctx)
	if s.focus == "" && ctx.Err() == nil {
		err = errors.Join(err, s.runCases(ctx))
	}
	return errors.Join(err, s.writeJUnit())
}

// runOn runs the suite against a cluster that is there already.
func (r *runner) runOn(ctx context.Context, dir, kubeconfig string) error {
	file, err := filepath.Abs(kubeconfig)
	if err != nil {
		return err
	}
	s := &suite{runner: r, dir: dir, kubeconfig: file, focus: r.focus}
	return errors.Join(s.conformance(ctx), s.writeJUnit())
}

// explain prefers the reason why a context ended to what followed from it.
func explain(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); err != nil && cause != nil {
		return cause
	}
	return err
}

// hasSCTP tells whether this kernel has SCTP sockets.
func hasSCTP() bool {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_SCTP)
	if err != nil {
		return false
	}
	_ = unix.Close(fd)
	return true
}

// suite is one run of the upstream test binary.
type suite struct {
	*runner
	cluster    *cluster.Cluster // nil: not one of ours
	dir        string
	kubeconfig string
	focus      string
	noSCTP     bool // leave out the specs that need SCTP sockets
	results    []ownResult
}

// conformance runs the specs and reports.
func (s *suite) conformance(ctx context.Context) error {
	found, runErr := s.runBinary(ctx)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err := printSummary(os.Stdout, filepath.Join(s.dir, "suite.log")); err != nil {
		return err
	}
	if found == nil {
		return fmt.Errorf("the suite left no report: %w", runErr)
	}
	if s.noSCTP {
		fmt.Println("Not run, because this kernel has no SCTP sockets:")
		for _, name := range found.skipped(sctpSpecs) {
			fmt.Println("  " + name)
		}
	}
	return errors.Join(runErr, s.complete(found))
}

// sctpSpecs matches the specs that need SCTP sockets.
var sctpSpecs = regexp.MustCompile(`SCTPConnectivity`)

// complete finds specs that should have run and did not.
func (s *suite) complete(found *report) error {
	var missing []string
	for _, c := range found.Cases {
		left := c.Status == "skipped" && s.focus == "" && !(s.noSCTP && sctpSpecs.MatchString(c.Name))
		if left {
			missing = append(missing, c.Name)
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("%w: not run:\n  %s", errFailed, strings.Join(missing, "\n  "))
	}
	if found.count("skipped") == len(found.Cases) {
		return fmt.Errorf("%w: no spec has run", errFailed)
	}
	return nil
}

// runBinary runs the test binary. The report is nil if there is none.
func (s *suite) runBinary(ctx context.Context) (*report, error) {
	log, err := os.Create(filepath.Join(s.dir, "suite.log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	pipe, err := s.openPipe()
	if err != nil {
		return nil, err
	}
	defer func() { _, _ = pipe.Close(), os.Remove(pipe.Name()) }()
	watcher := &watcher{suite: s, findings: map[int]*findings{}}
	followed := make(chan struct{})
	go func() {
		defer close(followed)
		watcher.follow(ctx, pipe)
	}()
	spec := process.Spec{Name: "suite", Path: s.binaries.path("ginkgo"), Args: s.arguments(pipe.Name()), Stdout: log, Stderr: log}
	if s.cluster != nil {
		spec.NetNS = s.cluster.NetNS(lab.Outside)
	}
	err = s.starter.Run(ctx, spec)
	if e := progress.Send(pipe, progress.Event{State: progress.End}); e != nil {
		return nil, errors.Join(err, e)
	}
	<-followed
	if code := process.ExitCode(err); code != 0 {
		err = fmt.Errorf("%w: exit code %d of the suite", errFailed, code)
	}
	found, readErr := readReport(filepath.Join(s.dir, reportFile))
	if readErr != nil {
		return nil, errors.Join(err, readErr)
	}
	return found, err
}

// arguments are those of the ginkgo command, which runs the test binary in
// several processes and puts their reports together.
func (s *suite) arguments(pipe string) []string {
	focus := s.focus
	if focus == "" {
		focus = "Netpol" // without any, the framework skips all specs with a feature
	}
	args := []string{
		"run", fmt.Sprintf("--procs=%d", s.procs), "-v", "--no-color", "--timeout=2h",
		"--output-dir=" + s.dir, "--junit-report=" + reportFile, "--focus=" + focus,
	}
	if s.noSCTP {
		args = append(args, "--skip=SCTPConnectivity")
	}
	args = append(args, s.binaries.path("suite.test"), "--",
		"-kubeconfig="+s.kubeconfig, "-provider=local", "-allowed-not-ready-nodes=0", "-progress="+pipe)
	if s.cluster != nil {
		args = append(args, "-num-nodes=2")
	}
	return args
}

const reportFile = "junit.xml"

// openPipe makes the pipe through which the suite tells how far it is.
func (s *suite) openPipe() (*os.File, error) {
	name := filepath.Join(s.dir, "progress")
	if err := unix.Mkfifo(name, 0o600); err != nil {
		return nil, fmt.Errorf("make pipe: %w", err)
	}
	// Opened for writing, too: then opening does not wait for the suite, and
	// the end is told here, behind all that the suite has written.
	return os.OpenFile(name, os.O_RDWR, 0)
}
