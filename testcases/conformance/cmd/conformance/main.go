// Command conformance runs the unmodified upstream network policy suite, either
// against a cluster that it makes for this purpose out of network namespaces and
// processes, with a Portcullis agent on each of two nodes, or against the cluster
// of a kubeconfig.
//
// Exit code 0: every spec that can run here has passed. 1: one has not. 2: wrong
// usage, or the cluster could not be made. 130: interrupted.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/portcullis-netpol/portcullis/testcases/conformance/process"
	"github.com/portcullis-netpol/portcullis/testcases/lab"
)

const (
	exitFailed      = 1
	exitBroken      = 2
	exitInterrupted = 130
)

// binariesVariable tells the program that all is built, and where: in bin/conformance
// of a folder that has the manifests. It is for the program that lab.Enter starts anew,
// as root of namespaces of its own, which has no network to build, and for machines
// without Go.
const binariesVariable = "PORTCULLIS_CONFORMANCE_BINARIES"

// options are the flags.
type options struct {
	combination
	all        bool
	own        bool
	agent      string
	focus      string
	junit      string
	kubeconfig string
	artifacts  string
	procs      int
	buildOnly  bool
	quickStart string
}

func main() {
	o, err := parse(os.Args[1:])
	if errors.Is(err, flag.ErrHelp) {
		os.Exit(0)
	}
	if err == nil {
		err = run(o)
	}
	switch {
	case err == nil:
		return
	case errors.Is(err, context.Canceled):
		fmt.Fprintln(os.Stderr, "conformance: interrupted")
		os.Exit(exitInterrupted)
	}
	fmt.Fprintf(os.Stderr, "conformance: %v\n", err)
	if errors.Is(err, errFailed) {
		os.Exit(exitFailed)
	}
	os.Exit(exitBroken)
}

func parse(args []string) (*options, error) {
	o := &options{}
	flags := flag.NewFlagSet("conformance", flag.ContinueOnError)
	flags.StringVar(&o.topology, "topology", "routed", "how pods are attached: routed or bridge")
	flags.StringVar(&o.family, "ip-family", "4", "primary family of the dual-stack cluster: 4 or 6")
	flags.StringVar(&o.proxy, "kube-proxy", "nftables", "mode of kube-proxy: nftables or iptables")
	flags.StringVar(&o.deny, "deny", "drop", "the agents' --deny: drop or reject")
	flags.BoolVar(&o.all, "all", false, "run the combinations that have every pair of values of these four flags, one after the other")
	flags.StringVar(&o.agent, "agent", "portcullis", "portcullis, or none: then a few specs are run that must fail, and one that must pass")
	flags.BoolVar(&o.own, "own", false, "run only Portcullis's own cases, which otherwise follow the suite; with --agent=none they must fail")
	flags.StringVar(&o.focus, "focus", "", "run only the specs, or with --own the cases, that match this regular `expression`")
	flags.StringVar(&o.junit, "junit", "", "write a JUnit report to this `file`")
	flags.StringVar(&o.kubeconfig, "kubeconfig", "", "run the suite against the cluster of this `file` instead")
	flags.StringVar(&o.artifacts, "artifacts", "", "keep all logs in this `folder`; without it they are kept, in a temporary one, only if something fails")
	flags.IntVar(&o.procs, "procs", 4, "how many specs run at once; they wait most of the time")
	flags.BoolVar(&o.buildOnly, "build-only", false, "build the programs in bin/conformance and run nothing")
	flags.StringVar(&o.quickStart, "quick-start", "", "in a cluster without agents, run the commands of this `document`'s quick start, and compare what they print with it")
	if err := flags.Parse(args); err != nil {
		return nil, err
	}
	return o, o.validate(flags)
}

func (o *options) validate(flags *flag.FlagSet) error {
	errs := []error{o.combination.validate()}
	if flags.NArg() > 0 {
		errs = append(errs, fmt.Errorf("unexpected arguments: %q", flags.Args()))
	}
	if o.procs < 1 {
		errs = append(errs, fmt.Errorf("--procs %d: want at least 1", o.procs))
	}
	if o.agent != "portcullis" && o.agent != "none" {
		errs = append(errs, fmt.Errorf("--agent %q: want portcullis or none", o.agent))
	}
	if o.agent == "none" && (o.focus != "" && !o.own || o.kubeconfig != "" || o.all || o.junit != "") {
		errs = append(errs, errors.New("--agent=none chooses its specs itself: no --focus, --junit, --kubeconfig or --all"))
	}
	if o.own && o.kubeconfig != "" {
		errs = append(errs, errors.New("--own needs a cluster made here: not with --kubeconfig"))
	}
	if o.all && (o.kubeconfig != "" || o.junit != "") {
		errs = append(errs, errors.New("--all makes several clusters and reports: no --kubeconfig or --junit"))
	}
	if o.quickStart != "" {
		flags.Visit(func(f *flag.Flag) {
			switch f.Name {
			case "deny", "all", "agent", "own", "focus", "junit", "kubeconfig", "procs", "build-only":
				errs = append(errs, fmt.Errorf("--%s is not for the quick start", f.Name))
			}
		})
	}
	if o.kubeconfig != "" {
		flags.Visit(func(f *flag.Flag) {
			switch f.Name {
			case "topology", "ip-family", "kube-proxy", "deny":
				errs = append(errs, fmt.Errorf("--%s is for clusters made here: not with --kubeconfig", f.Name))
			}
		})
	}
	return errors.Join(errs...)
}

func run(o *options) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	b, err := build(ctx, o.kubeconfig == "", o.quickStart == "")
	if err != nil || o.buildOnly {
		return err
	}
	if o.kubeconfig == "" {
		if err := os.Setenv(binariesVariable, b.dir); err != nil {
			return err
		}
		// The program that Enter may start gets the signals from here.
		if err := lab.Enter(); err != nil {
			return err
		}
	}
	dir, err := folder(o.artifacts)
	if err != nil {
		return err
	}
	starter, err := process.NewStarter()
	if err != nil {
		return err
	}
	r := &runner{
		options: o, binaries: b, starter: starter,
		logger: slog.New(slog.NewTextHandler(os.Stderr, nil)),
	}
	err = r.run(ctx, dir)
	if o.artifacts == "" && (err == nil || ctx.Err() != nil) {
		return errors.Join(err, os.RemoveAll(dir))
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "conformance: logs and what was found are in %s\n", dir)
	}
	return err
}

// folder makes the folder for logs: the one given, or a temporary one.
func folder(given string) (string, error) {
	if given == "" {
		return os.MkdirTemp("", "portcullis-conformance-")
	}
	dir, err := filepath.Abs(given)
	if err != nil {
		return "", err
	}
	return dir, os.MkdirAll(dir, 0o755)
}

func oneOf(name, value string, words ...string) error {
	for _, w := range words {
		if value == w {
			return nil
		}
	}
	return fmt.Errorf("--%s %q: want %s", name, value, strings.Join(words, " or "))
}
