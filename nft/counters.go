package nft

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"github.com/portcullis-netpol/portcullis/policy/ir"
)

// LogReason says why a packet was logged.
type LogReason uint8

// The reasons.
const (
	// LogPolicy: the pod is isolated, and no policy allows the packet.
	LogPolicy LogReason = iota
	// LogAudit: the packet passed, and would be denied if the pod's group were not on
	// trial (ir.Group.Audit).
	LogAudit
	// LogQuarantine: the address is one of the node's pods, and no endpoint.
	LogQuarantine
	// LogCut: the flow was cut (Enforcer.Forbid). There is no direction.
	LogCut
)

// String returns the reason as it stands in the prefix of what is logged.
func (r LogReason) String() string {
	switch r {
	case LogPolicy:
		return "policy"
	case LogAudit:
		return "audit"
	case LogQuarantine:
		return "quarantine"
	case LogCut:
		return "cut"
	}
	return fmt.Sprintf("reason(%d)", uint8(r))
}

func logPrefix(r LogReason, d ir.Direction) string {
	if r == LogCut {
		return "portcullis cut"
	}
	return "portcullis " + r.String() + " " + d.String()
}

// ParseLogPrefix reads what the table logs packets with. The direction says which end
// of the packet was judged, but for LogCut, where it means nothing. ok is false for what
// is not of this package's making.
func ParseLogPrefix(prefix string) (r LogReason, d ir.Direction, ok bool) {
	for r := LogPolicy; r <= LogCut; r++ {
		for _, d := range directions {
			if prefix == logPrefix(r, d) {
				return r, d, true
			}
		}
	}
	return 0, 0, false
}

// Counters are numbers of packets since the table in force was put in force, by
// ir.Direction where there are two. They begin at 0 with every takeover (Takeovers).
//
// TCP packets that were reset because they belong to no known connection
// (Config.Midstream) are in none of them.
type Counters struct {
	// Denied are the packets that policies denied to a direction of a pod, by the pod's
	// address. An address to which nothing was denied for a day is left out and
	// begins at 0.
	Denied map[netip.Addr][2]uint64
	// Audited are those that passed because the group that denies them is on trial.
	Audited [2]uint64
	// Quarantined are those of addresses in quarantine.
	Quarantined [2]uint64
	// Cut are those of flows that Forbid has forbidden, and LinkLocal those between
	// pods with a link-local address.
	Cut, LinkLocal uint64
}

// Counters reads what the table in force has counted. It costs more, the more sets and
// chains there are.
func (e *Enforcer) Counters(ctx context.Context) (Counters, error) {
	c := Counters{Denied: map[netip.Addr][2]uint64{}}
	if e.table == "" {
		return c, errors.New("counters: no table was put in force yet")
	}
	of := map[string]*uint64{endChain(LogCut, 0): &c.Cut, chainLinkLocal: &c.LinkLocal, chainNear: &c.LinkLocal}
	for _, d := range directions {
		of[endChain(LogAudit, d)] = &c.Audited[d]
		of[endChain(LogQuarantine, d)] = &c.Quarantined[d]
	}
	names := make([]string, 0, len(of))
	for name := range of {
		names = append(names, name)
	}
	t, _, err := e.kernel.Read(ctx, e.table, names...)
	if err != nil {
		return c, fmt.Errorf("counters: %w", err)
	}
	for _, chain := range t.Chains {
		for _, r := range chain.Rules {
			for _, m := range r.Match {
				if n, ok := m.(Counter); ok {
					*of[chain.Name] += n.Packets
				}
			}
		}
	}
	for _, f := range families {
		for _, d := range directions {
			list, err := e.kernel.Elements(ctx, e.table, f.deniedSet(d))
			if err != nil {
				return c, fmt.Errorf("counters: %w", err)
			}
			for _, x := range list {
				a := keyAddr(x.Key)
				n := c.Denied[a]
				n[d] = x.Packets
				c.Denied[a] = n
			}
		}
	}
	return c, nil
}
