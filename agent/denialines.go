package agent

import (
	"cmp"
	"log/slog"
	"time"

	"k8s.io/utils/clock"

	"github.com/portcullis-netpol/portcullis/agent/admin"
)

// Bounds of what is logged of denied packets.
const (
	lineEvery = 30 * time.Second // a line for each kind of flow
	maxKinds  = 4096             // kinds that are remembered
	maxLines  = 300              // lines of all kinds together within lineEvery
)

// flowKind is what one line is about.
type flowKind struct {
	reason              admin.Reason
	direction, protocol string
	source, destination string // a pod's name, or an address
	port                uint16
}

// denialLines logs denied packets, so that a flood of packets is none of lines. It
// belongs to one goroutine.
type denialLines struct {
	log   *slog.Logger
	clock clock.PassiveClock

	kinds *recent[flowKind, lineOf]
	since time.Time // when the present lineEvery began
	lines int       // that were written in it
	quiet uint64    // packets that got no line because there were too many lines
}

// lineOf is what is known of the lines of a kind.
type lineOf struct {
	at   time.Time // of the last one
	more uint64    // packets since then
}

func newDenialLines(log *slog.Logger, c clock.PassiveClock) *denialLines {
	return &denialLines{log: log, clock: c, kinds: newRecent[flowKind, lineOf](maxKinds), since: c.Now()}
}

// add logs d, or counts it for the next line of its kind.
func (n *denialLines) add(d admin.Denial) {
	now := n.clock.Now()
	if now.Sub(n.since) >= lineEvery {
		if n.quiet > 0 {
			n.log.Info("packets denied, of too many kinds for a line each", "packets", n.quiet)
		}
		n.since, n.lines, n.quiet = now, 0, 0
	}
	k, _ := n.kinds.use(flowKind{d.Reason, d.Direction, d.Protocol, nameOf(d.Source), nameOf(d.Destination), d.Port})
	if !k.at.IsZero() && now.Sub(k.at) < lineEvery {
		k.more++
		return
	}
	if n.lines == maxLines {
		n.quiet++
		return
	}
	n.lines++
	n.log.Info(headline(d.Reason), attributes(d, k.more)...)
	*k = lineOf{at: now}
}

func headline(r admin.Reason) string {
	if r == admin.ReasonAudit {
		return "packet would be denied"
	}
	return "packet denied"
}

// attributes are what a line says; more is how many packets of the kind had none.
func attributes(d admin.Denial, more uint64) []any {
	list := []any{"reason", string(d.Reason)}
	if d.Direction != "" {
		list = append(list, "direction", d.Direction)
	}
	for _, e := range []struct {
		what string
		end  admin.End
	}{{"source", d.Source}, {"destination", d.Destination}} {
		list = append(list, e.what, e.end.Addr)
		if e.end.Pod != "" {
			list = append(list, e.what+"Pod", e.end.Pod)
		}
	}
	list = append(list, "protocol", d.Protocol)
	if d.Port != 0 {
		list = append(list, "port", d.Port)
	}
	if len(d.Policies) > 0 {
		list = append(list, "policies", d.Policies)
	}
	if c := d.Closest; c != nil {
		list = append(list, "closest", c.Policy+" "+c.Rule, "missing", c.Missing)
	}
	if more > 0 {
		list = append(list, "more", more)
	}
	return list
}

// nameOf names an end by its pod, or its address.
func nameOf(e admin.End) string { return cmp.Or(e.Pod, e.Addr.String()) }
