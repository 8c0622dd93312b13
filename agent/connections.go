package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"time"

	"k8s.io/utils/clock"

	"github.com/portcullis-netpol/portcullis/nft"
	"github.com/portcullis-netpol/portcullis/nft/conntrack"
	"github.com/portcullis-netpol/portcullis/policy"
	"github.com/portcullis-netpol/portcullis/policy/ir"
)

// flows is what the loop asks of conntrack.Conn.
type flows interface {
	FlowsOf(ctx context.Context, addrs []netip.Addr, each func(conntrack.Flow)) error
	All(ctx context.Context, each func(conntrack.Flow)) error
	Delete(ctx context.Context, f conntrack.Flow) error
}

// judge is what the loop asks of policy.Index.
type judge interface {
	Verdict(src, dst netip.Addr, p ir.Protocol, port uint16) policy.Verdict
	ExistingConnections(policy string) policy.ExistingConnections
}

const (
	// lookAgain is when the flows are looked at a second time: a packet that the
	// old rules let through may have been on its way into the table.
	lookAgain = 100 * time.Millisecond
	// lookAgainSoon is the same where a pod has gone, whose address may soon be
	// another one's.
	lookAgainSoon = 10 * time.Millisecond
	// forbidFor is for how long the server of a cut flow may not take it up
	// again. Its packet would look like the first of a flow of its own, in a
	// direction that may well be allowed. Longer than UDP flows are remembered.
	// For as long, a client that reached its server through a Service is told that
	// its TCP connection is no more.
	forbidFor = 5 * time.Minute
	// tryAgain is the pause after a failure.
	tryAgain = time.Second
)

// affected collects the addresses whose flows may have become forbidden.
type affected struct {
	all bool // of every pod of this node
	// strict says that flows began while there were no rules. Of one that was picked
	// up in the middle it is not known who began, so that it has to be allowed both
	// ways.
	strict bool
	addrs  map[netip.Addr]bool
	// gone are the addresses that no pod has any more: nothing of theirs may
	// pass on to the next pod that gets them.
	gone map[netip.Addr]bool
}

func (a *affected) empty() bool { return !a.all && len(a.addrs) == 0 && len(a.gone) == 0 }

// note takes in what a change may have forbidden. What only opens is not among it.
func (a *affected) note(c ir.Change) {
	if a.addrs == nil {
		a.addrs, a.gone = map[netip.Addr]bool{}, map[netip.Addr]bool{}
	}
	for _, e := range c.Endpoints {
		switch {
		case e.New == nil:
			a.gone[e.Old.Addr] = true
		case e.Old != nil && e.Old.Pod != e.New.Pod:
			a.gone[e.New.Addr] = true
		case e.Old == nil || e.Old.Ingress != e.New.Ingress || e.Old.Egress != e.New.Egress:
			a.addrs[e.New.Addr] = true
		}
	}
	for _, s := range c.PeerSets {
		for _, addr := range s.Leave {
			a.addrs[addr] = true
		}
	}
}

// add takes in what b has.
func (a *affected) add(b affected) {
	a.note(ir.Change{})
	a.all, a.strict = a.all || b.all, a.strict || b.strict
	maps.Copy(a.addrs, b.addrs)
	maps.Copy(a.gone, b.gone)
}

// connections ends those that the rules in force do not allow. It belongs to the
// loop; all methods of the nil *connections do nothing.
type connections struct {
	flows  flows
	index  judge
	forbid func(context.Context, []nft.Tuple, time.Duration) error
	// keep leaves connections alone where no policy says otherwise.
	keep bool
	// podToNode says that packets from a pod to its own node are judged.
	podToNode bool
	// nodeAddrs returns the own node's addresses.
	nodeAddrs func() ([]netip.Addr, error)
	log       *slog.Logger
	clock     clock.Clock
	meters    *meters

	// due is what was changed since the last look, seen what was looked at once, and
	// next what is to be looked at along with it. To look takes the kernel
	// milliseconds, whatever is looked for.
	due, seen, next affected
	timer           <-chan time.Time
}

// changed notes a change that is about to be written.
func (c *connections) changed(change ir.Change) {
	if c != nil {
		c.due.note(change)
	}
}

// everything notes that it is not known what was in force before the next write, or
// that for a while it was nothing.
func (c *connections) everything(nothing bool) {
	if c != nil {
		c.due.all, c.due.strict = true, c.due.strict || nothing
	}
}

// again returns what to wait for before lookAgain.
func (c *connections) again() <-chan time.Time {
	if c == nil {
		return nil
	}
	return c.timer
}

// look ends what the rules that are in force now do not allow any more: at once, but
// where changes follow each other closely, all that they forbid together, a moment later.
// What belongs to a pod that is gone never waits, because the next one may have its
// address.
func (c *connections) look(ctx context.Context) {
	if c == nil || c.due.empty() {
		return
	}
	a := c.due
	c.due = affected{}
	if c.timer != nil && len(a.gone) == 0 && !a.all {
		c.next.add(a)
		return
	}
	c.seen.add(a)
	pause := lookAgain
	if len(c.seen.gone) > 0 {
		pause = lookAgainSoon
	}
	c.timer = c.clock.After(pause)
	c.pass(ctx, a)
}

// lookAgain does it once more for what was looked at a moment ago, and for the first time
// for what has changed since.
func (c *connections) lookAgain(ctx context.Context) {
	a, next := c.seen, c.next
	c.seen, c.next, c.timer = affected{}, affected{}, nil
	if !next.empty() {
		a.add(next)
		c.seen, c.timer = next, c.clock.After(lookAgain)
	}
	c.pass(ctx, a)
}

// pass goes through the connections of a. What could not be looked at is due again.
func (c *connections) pass(ctx context.Context, a affected) {
	n, err := c.run(ctx, a)
	c.meters.endedConnections(n)
	if n > 0 {
		c.log.Info("ended connections that are no longer allowed", "connections", n)
	}
	if err == nil || ctx.Err() != nil {
		return
	}
	c.log.Error("connections that are no longer allowed may go on; trying again", "error", err, "retryIn", tryAgain)
	c.seen.add(a)
	c.timer = c.clock.After(tryAgain)
}

// run looks at the flows of a and ends those that are not allowed. It returns how
// many it ended.
func (c *connections) run(ctx context.Context, a affected) (int, error) {
	own, err := c.nodeAddrs()
	if err != nil {
		return 0, fmt.Errorf("addresses of the node: %w", err)
	}
	victims := map[conntrack.Flow]bool{}
	err = c.each(ctx, a, func(f conntrack.Flow) {
		switch {
		case a.gone[f.Client] || a.gone[f.Server]:
			victims[f] = false
		case c.forbidden(f, own), a.strict && f.PickedUp && c.forbidden(reversed(f), own):
			victims[f] = true
		}
	})
	return len(victims), errors.Join(err, c.end(ctx, victims, own))
}

// each calls look with every flow that a concerns, some of them twice.
func (c *connections) each(ctx context.Context, a affected, look func(conntrack.Flow)) error {
	if a.all {
		return c.flows.All(ctx, look)
	}
	addrs := slices.AppendSeq(slices.Collect(maps.Keys(a.addrs)), maps.Keys(a.gone))
	return c.flows.FlowsOf(ctx, addrs, look)
}

// forbidden reports whether f must not go on. Both ends must allow it, as they must
// allow a new flow; that the node reaches its own pods is no matter of policy, and an
// expected flow (FTP's data) belongs to another, which is judged itself.
func (c *connections) forbidden(f conntrack.Flow, own []netip.Addr) bool {
	if f.Client == f.Server || f.Expected || slices.Contains(own, f.Client) {
		return false
	}
	if !c.podToNode && slices.Contains(own, f.Server) {
		return false
	}
	v := c.index.Verdict(f.Client, f.Server, ir.Protocol(f.Protocol), f.ServerPort)
	return c.cuts(v.Egress) || c.cuts(v.Ingress)
}

// reversed returns f as if its server had begun it.
func reversed(f conntrack.Flow) conntrack.Flow {
	f.Client, f.Server, f.ClientPort, f.ServerPort = f.Server, f.Client, f.ServerPort, f.ClientPort
	return f
}

// cuts reports whether a direction is denied and one of the policies that isolate
// the pod wants that to count for connections that exist.
func (c *connections) cuts(j policy.Judgement) bool {
	return !j.Allowed && slices.ContainsFunc(j.Policies, func(name string) bool {
		switch c.index.ExistingConnections(name) {
		case policy.ExistingCut:
			return true
		case policy.ExistingKeep:
			return false
		}
		return !c.keep
	})
}

// end ends flows: first what must not take them up again is barred, then they are
// forgotten. A flow of a pod that is gone (false) needs no bar: whoever has its address
// now is another.
func (c *connections) end(ctx context.Context, victims map[conntrack.Flow]bool, own []netip.Addr) error {
	var barred []nft.Tuple
	for f, bar := range victims {
		if bar {
			barred = append(barred, bars(f, slices.Contains(own, f.Server))...)
		}
	}
	var errs []error
	if len(barred) > 0 {
		errs = append(errs, c.forbid(ctx, barred, forbidFor))
	}
	for f := range victims {
		errs = append(errs, c.flows.Delete(ctx, f))
	}
	return errors.Join(errs...)
}

// bars returns what is barred when f ends.
//
// The server's way back: what it sends to when nobody translates for it any more. A
// client's next packet is judged as that of a new flow. TCP needs no such bar, because
// a packet from the middle of a connection that nobody knows is answered with a reset;
// but what the node itself sends is not looked at for that.
//
// The way of a TCP client to a Service, as the client sends: where pods are on a bridge,
// a reset of what is translated already would come from the server's own address, which
// means nothing to the client.
func bars(f conntrack.Flow, toNode bool) (out []nft.Tuple) {
	bar := func(from, to netip.AddrPort) {
		out = append(out, nft.Tuple{Src: from.Addr(), Dst: to.Addr(), Protocol: f.Protocol, SrcPort: from.Port(), DstPort: to.Port()})
	}
	isTCP := ir.Protocol(f.Protocol) == ir.TCP
	if !isTCP || toNode {
		bar(f.Reply())
	}
	if isTCP && f.Translated() {
		bar(f.Original())
	}
	return out
}
