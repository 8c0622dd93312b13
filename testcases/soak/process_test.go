package soak

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/portcullis-netpol/portcullis/agent"
	"github.com/portcullis-netpol/portcullis/agent/node"
)

// The environment of this program when it is to be an agent.
const (
	nodeVariable      = "PORTCULLIS_SOAK_NODE"
	manifestsVariable = "PORTCULLIS_SOAK_MANIFESTS"
)

// agentProcess is an agent with everything that belongs to one, until SIGTERM. Its
// log goes to standard error.
func agentProcess() int {
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin) // ends with the test
		os.Exit(3)
	}()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	if err := runAgent(ctx); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func runAgent(ctx context.Context) error {
	release, err := node.Claim(0)
	if err != nil {
		return err
	}
	defer func() { _ = release() }()
	cfg := agent.Config{
		Node: os.Getenv(nodeVariable), Source: agent.Manifests(os.Getenv(manifestsVariable)), Logger: slog.New(slog.NewTextHandler(os.Stderr, nil)),
		PodToNode: true, Quarantine: true, Checker: node.NewChecker(node.Config{}),
	}
	closing, err := open(&cfg)
	if err != nil {
		return err
	}
	defer func() { _ = closing() }()
	return agent.Run(ctx, cfg)
}

// process is an agent in a process of its own.
type process struct {
	cmd   *exec.Cmd
	log   *logbook
	stdin io.Closer
}

// spawn starts an agent process inside a node's namespace.
func (s *site) spawn(t *testing.T, name, manifests string) *process {
	t.Helper()
	self, err := os.Executable()
	require.NoError(t, err)
	p := &process{cmd: exec.Command(self), log: &logbook{}}
	p.cmd.Env = append(os.Environ(), nodeVariable+"="+name, manifestsVariable+"="+manifests)
	p.cmd.Stderr = p.log
	stdin, err := p.cmd.StdinPipe()
	require.NoError(t, err)
	p.stdin = stdin
	// A process is born in the namespace of the thread that starts it.
	require.NoError(t, s.In(name, p.cmd.Start))
	return p
}

// end sends a signal and waits for the end.
func (p *process) end(t *testing.T, signal os.Signal) {
	t.Helper()
	require.NoError(t, p.cmd.Process.Signal(signal), "the agent has ended by itself:\n%s", p.log)
	err := p.cmd.Wait()
	if signal == syscall.SIGTERM && p.log.String() != "" { // else it did not listen yet
		require.NoError(t, err, "%s", p.log)
	}
	_ = p.stdin.Close()
}
