package agent

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/utils/clock"

	"github.com/portcullis-netpol/portcullis/policy/ir"
)

// advance puts a table without any pod in force while the objects have not all been
// read: on a node where there is none yet, pods would run without policies until then.
// Every address of its blocks is held back. The loop's first write takes that table over
// as it does any other.
//
// It belongs to the loop; all methods of the nil *advance, that of a node where a table
// is in force already, do nothing.
type advance struct {
	// enforcer is not the loop's: nothing that the loop knows of its own writes is
	// true of this one.
	enforcer enforcer
	health   *health
	log      *slog.Logger
	clock    clock.Clock
	backoff  wait.Backoff

	blocks []netip.Prefix // those in force, nil if it is not known
	timer  <-chan time.Time
}

// again returns what to wait for before the next attempt, nil if there is no need.
func (a *advance) again() <-chan time.Time {
	if a == nil {
		return nil
	}
	return a.timer
}

// rest is told that the pause is over.
func (a *advance) rest() { a.timer = nil }

// hold holds back every address of blocks. disturbed says that somebody else may have
// changed the table. It reports whether the kernel holds what it should.
func (a *advance) hold(ctx context.Context, blocks []netip.Prefix, disturbed bool) bool {
	if a == nil || len(blocks) == 0 || a.timer != nil {
		return false
	}
	if slices.Equal(blocks, a.blocks) && !disturbed {
		return true
	}
	a.health.doing("writing rules")
	defer a.health.doing("")
	err := a.write(ctx, blocks)
	if ctx.Err() != nil {
		return false
	}
	if err != nil {
		pause := a.backoff.Step()
		a.blocks, a.timer = nil, a.clock.After(pause)
		a.health.unhealthy(aboutRules, "the node's pods cannot be held back yet: "+err.Error())
		a.log.Error("the node's pods cannot be held back while the objects are read", "error", err, "retryIn", pause)
		return false
	}
	if !slices.Equal(blocks, a.blocks) {
		a.log.Info("pods are held back until all objects have been read", "podCIDRs", blocks)
	}
	a.blocks, a.backoff = blocks, retries()
	a.health.unhealthy(aboutRules, "")
	a.health.notReady(aboutRules, fmt.Sprintf("all pods in %s are held back until the cluster's objects have been read", joined(blocks)))
	return true
}

func (a *advance) write(ctx context.Context, blocks []netip.Prefix) error {
	a.enforcer.SetPodCIDRs(blocks)
	if a.blocks == nil {
		return a.enforcer.Takeover(ctx, ir.State{})
	}
	return a.enforcer.Repair(ctx, ir.State{})
}
