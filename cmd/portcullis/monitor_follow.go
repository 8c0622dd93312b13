package main

import (
	"context"
	"encoding/json"
	"errors"
	"hash/maphash"
	"net/netip"

	"github.com/portcullis-netpol/portcullis/agent/admin"
	"github.com/portcullis-netpol/portcullis/cmd/portcullis/fleet"
)

// listening is a line that says that the agent answers: the command that runs in its pod
// may have nothing else to say for long.
type listening struct {
	Listening bool `json:"listening"`
}

// monitorLocal shows what the agent of this node has. One that restarts is waited for,
// unless somebody else's monitor does that, who runs us in the agent's pod.
func (a *app) monitorLocal(ctx context.Context, f *monitorFlags, out *denials) error {
	heard, lost, pauses := false, false, fleet.Pauses()
	for {
		err := a.listen(ctx, f, out, func() {
			if lost {
				a.warn("the agent answers again")
			}
			heard, lost, pauses = true, false, fleet.Pauses()
			if f.leashed {
				out.json(listening{true})
			}
		})
		if err == nil || !f.follow || f.leashed || !heard {
			return err
		}
		if !lost {
			a.warn("%s; trying again", oneLine(err.Error()))
			out.again("")
		}
		lost = true
		select {
		case <-ctx.Done():
			return nil
		case <-a.clock.After(pauses.Step()):
		}
	}
}

// listen shows what this node's agent has until it ends, or ctx does.
func (a *app) listen(ctx context.Context, f *monitorFlags, out *denials, answers func()) error {
	agent := admin.New(f.agents.local.socket)
	denied := agent.Denied(ctx, false)
	if f.follow {
		denied = agent.Follow(ctx, answers)
	}
	for d, err := range denied {
		var lost admin.Lost
		switch {
		case err == nil:
			out.show("", d)
		case errors.As(err, &lost):
			out.missing("", uint64(lost))
		default:
			return localError(err)
		}
	}
	return nil
}

// monitorCluster shows what all agents of a cluster have.
func (a *app) monitorCluster(ctx context.Context, f *monitorFlags, out *denials) error {
	found, err := f.agents.find(ctx, a)
	if err != nil {
		return err
	}
	for _, n := range found.notes {
		a.warn("%s", n)
	}
	command := remote("monitor", "--until-stdin-ends")
	if f.follow {
		k := &fleet.Keeper{Runner: found.runner, Command: command, Find: found.again, To: out, Clock: a.clock}
		return k.Run(ctx, found.list)
	}
	return a.monitorRecent(ctx, f, out, found, append(command, "--follow=false"))
}

// monitorRecent shows what the agents remember, in the order of time.
func (a *app) monitorRecent(ctx context.Context, f *monitorFlags, out *denials, found *agents, command []string) error {
	ctx, stop := context.WithTimeout(ctx, f.agents.timeout)
	defer stop()
	out.hold = true
	good := 0
	fleet.Follow(ctx, found.runner, found.list, command, out.Line, func(is fleet.Agent, err error) {
		switch {
		case err != nil && ctx.Err() == nil:
			a.warn("node %s: %s", printable(is.Node), oneLine(err.Error()))
		case errors.Is(ctx.Err(), context.DeadlineExceeded):
			a.warn("node %s: no answer within %v", printable(is.Node), f.agents.timeout)
		default:
			good++
		}
	})
	out.flush()
	if good == 0 {
		return fleet.ErrNone
	}
	return nil
}

var _ fleet.Listener = (*denials)(nil)

// Line reads what an agent has printed.
func (o *denials) Line(is fleet.Agent, text []byte) {
	var l struct {
		admin.Denial
		listening
		Lost uint64 `json:"lost"`
	}
	switch err := json.Unmarshal(text, &l); {
	case err != nil:
		o.warn("node %s: a line that is not understood: %s", printable(is.Node), oneLine(string(text)))
	case l.Listening:
	case l.Lost > 0:
		o.missing(is.Node, l.Lost)
	default:
		o.show(is.Node, l.Denial)
	}
}

// Lost says that nothing comes from a node for now.
func (o *denials) Lost(is fleet.Agent, err error) {
	why := "it ended"
	if err != nil {
		why = oneLine(err.Error())
	}
	o.warn("node %s: %s; trying again", printable(is.Node), why)
	o.again(is.Node)
}

// Back says that a node is listened to again.
func (o *denials) Back(is fleet.Agent) {
	o.warn("node %s: its agent answers now", printable(is.Node))
}

// Gone forgets a node.
func (o *denials) Gone(is fleet.Agent) { delete(o.shown, is.Node) }

// shown are the packets of a node that were shown last, as many as its agent remembers and
// may tell of once more. Where clocks differ, or are set back, times would not tell.
type shown struct {
	last []uint64 // the oldest is at next once there are admin.Kept
	next int
	told map[uint64]bool // those of them that may come again
}

// shownSeed makes sums that only this process can foresee.
var shownSeed = maphash.MakeSeed()

// sumOf tells packets apart.
func sumOf(d *admin.Denial) uint64 {
	return maphash.Comparable(shownSeed, struct {
		at                  int64
		reason              admin.Reason
		direction, protocol string
		source, destination netip.Addr
		sourcePort, port    uint16
	}{d.Time.UnixNano(), d.Reason, d.Direction, d.Protocol, d.Source.Addr, d.Destination.Addr, d.SourcePort, d.Port})
}

// again is called when a node will tell of its recent packets once more.
func (o *denials) again(node string) {
	s := o.shown[node]
	if s == nil {
		return
	}
	s.told = make(map[uint64]bool, len(s.last))
	for _, sum := range s.last {
		s.told[sum] = true
	}
}

// before reports whether a packet was shown before its node was lost, and remembers it.
func (o *denials) before(node string, d *admin.Denial) bool {
	s := o.shown[node]
	if s == nil {
		s = &shown{}
		o.shown[node] = s
	}
	sum := sumOf(d)
	if s.told[sum] {
		return true
	}
	if len(s.last) < admin.Kept {
		s.last = append(s.last, sum)
	} else {
		s.last[s.next] = sum
		s.next = (s.next + 1) % admin.Kept
	}
	return false
}
