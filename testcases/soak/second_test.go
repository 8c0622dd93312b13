package soak

import (
	"math/rand/v2"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/portcullis-netpol/portcullis/agent"
	"github.com/portcullis-netpol/portcullis/testcases/lab"
)

// TestSecondAgent starts agents on a node that has one: they refuse, and nothing that
// is in force suffers from it. When the first agent is gone, the next may be one.
func TestSecondAgent(t *testing.T) {
	lab.Require(t, needs...)
	r := newRestarts(t, lab.Routed, rand.New(rand.NewPCG(*seed, 1<<20)))
	all, talks := r.traffic()
	first := r.spawn(t, "node-1", r.dir)
	first.log.wait(t, "table in force")
	// The table of the earlier layout goes when the new one is in force.
	eventually(t, "one table", func() bool { return len(r.tables()) == 1 })
	tables := r.tables()
	attempts := max(2, *restarts/8)
	for range attempts {
		second := r.spawn(t, "node-1", r.dir)
		require.Error(t, second.wait(t), "the second agent ends without a complaint")
		second.log.wait(t, "another Portcullis agent runs")
		require.Empty(t, second.log.find("table in force"))
		require.Equal(t, tables, r.tables(), "a second agent has written rules")
	}
	// The first one works as before.
	r.change(1)
	revision, err := agent.Revision(r.dir)
	require.NoError(t, err)
	first.log.wait(t, "in force", revision)
	first.end(t, syscall.SIGKILL)
	next := r.spawn(t, "node-1", r.dir)
	next.log.wait(t, "table in force")
	next.end(t, syscall.SIGTERM)
	for _, k := range talks {
		require.NoError(t, k.stop())
	}
	allowed, denied, dropped, passed := all.stop(t)
	r.result("second agent on a node", "%d refused; %d of %d allowed packets dropped, %d of %d forbidden packets passed", attempts, dropped, allowed, passed, denied)
}

// wait waits for a process that ends by itself.
func (p *process) wait(t *testing.T) error {
	t.Helper()
	ended := make(chan error, 1)
	go func() { ended <- p.cmd.Wait() }()
	select {
	case err := <-ended:
		return err
	case <-time.After(patience):
		_ = p.cmd.Process.Kill()
		<-ended
		t.Fatalf("the process goes on:\n%s", p.log)
		return nil
	}
}
