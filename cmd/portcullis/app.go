package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/client-go/rest"
	"k8s.io/utils/clock"

	"github.com/portcullis-netpol/portcullis/cmd/portcullis/fleet"
	"github.com/portcullis-netpol/portcullis/nft"
)

// The exit codes of every command.
const (
	exitOK      = 0
	exitFailure = 1 // something failed while running, or the answer is no
	exitInput   = 2 // flags, arguments or files are wrong, or there is no answer
)

// app is the command with what it touches of the world.
type app struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	name           string // as the user called the program
	openKernel     func(nft.Config) (nft.Kernel, error)
	// execIn returns what runs commands in the agents' pods of a namespace.
	execIn func(config *rest.Config, namespace string) (fleet.Runner, error)
	// now is the time that ages are counted from.
	now func() time.Time
	// clock times pauses.
	clock clock.Clock
	// netns is a file descriptor of the network namespace to work in; 0 is the
	// process's. Less than 0, nothing of the node is touched but the kernel that
	// openKernel gives.
	netns int
}

func newApp(stdout, stderr io.Writer) *app {
	a := &app{stdin: os.Stdin, stdout: stdout, stderr: stderr, name: commandName(os.Args[0]), execIn: fleet.Exec, now: time.Now, clock: clock.RealClock{}}
	a.openKernel = func(c nft.Config) (nft.Kernel, error) {
		c.NetNS = a.netns
		return nft.OpenKernel(c)
	}
	return a
}

// commandName is how the user called the program: kubectl runs its plugin
// kubectl-portcullis as "kubectl portcullis".
func commandName(program string) string {
	if strings.HasPrefix(filepath.Base(program), "kubectl-") {
		return "kubectl portcullis"
	}
	return "portcullis"
}

// failure is an error with the exit code that belongs to it. A failure without an
// error says nothing more.
type failure struct {
	code int
	err  error
}

func (f *failure) Error() string {
	if f.err == nil {
		return fmt.Sprintf("exit code %d", f.code)
	}
	return f.err.Error()
}

func (f *failure) Unwrap() error { return f.err }

// wrongInput marks an error as a mistake in what the user gave.
func wrongInput(err error) error { return &failure{exitInput, err} }

// run carries out one command line and returns its exit code.
func (a *app) run(ctx context.Context, args []string) int {
	started := false
	root := a.root(&started)
	root.SetArgs(append([]string{}, args...)) // nil would mean os.Args
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	code := exitFailure
	if !started {
		code = exitInput // an unknown command or flag, or a required flag missing
	}
	var f *failure
	if errors.As(err, &f) {
		code = f.code
		if f.err == nil {
			return code
		}
	}
	fmt.Fprintf(a.stderr, "portcullis: %v\n", err)
	if !started {
		fmt.Fprintf(a.stderr, "See '%s --help'.\n", a.name)
	}
	return code
}

// root returns the tree of commands. started is set once flags and arguments have
// been found right.
func (a *app) root(started *bool) *cobra.Command {
	root := &cobra.Command{
		Use:               "portcullis",
		Short:             "Kubernetes NetworkPolicies, enforced with nftables",
		SilenceUsage:      true,
		SilenceErrors:     true,
		Args:              cobra.NoArgs,
		RunE:              func(c *cobra.Command, _ []string) error { return c.Help() },
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true}, // ours says more
		Example: fmt.Sprintf(`  %[1]s status                                         # is everything in force?
  %[1]s explain shop/frontend svc/shop/users:http      # may this connect to that, and why?
  %[1]s monitor -n shop                                # what is denied at this moment?
  %[1]s matrix -f ./manifests                          # who reaches whom?`, a.name),
		Annotations: map[string]string{cobra.CommandDisplayNameAnnotation: a.name},
	}
	root.SetOut(a.stdout)
	root.SetErr(a.stderr)
	root.SetHelpCommand(&cobra.Command{Hidden: true}) // --help is enough
	root.AddCommand(a.agent(), a.audit(), a.cleanup(), a.completion(), a.demo(), a.explain(), a.installCNI(), a.matrix(),
		a.monitor(), a.render(), a.status(), a.version())
	markStarted(root, started)
	a.completeFlags(root)
	return root
}

// markStarted makes every command of a tree say that it has started.
func markStarted(c *cobra.Command, started *bool) {
	do := c.RunE
	c.RunE = func(c *cobra.Command, args []string) error {
		*started = true
		return do(c, args)
	}
	for _, sub := range c.Commands() {
		markStarted(sub, started)
	}
}
