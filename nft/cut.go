package nft

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// Tuple is one direction of a flow as the forward hook sees it, the destination
// after DNAT, the source before SNAT; or as it arrives, the destination before DNAT.
type Tuple struct {
	Src, Dst netip.Addr
	// Protocol is the IANA number.
	Protocol         uint8
	SrcPort, DstPort uint16
}

// String writes the tuple in nft's words.
func (t Tuple) String() string {
	return fmt.Sprintf("%s %s:%d -> %s:%d", Protocol(t.Protocol), t.Src, t.SrcPort, t.Dst, t.DstPort)
}

func (t Tuple) check() error {
	for _, a := range []netip.Addr{t.Src, t.Dst} {
		if !a.IsValid() || a.Is4In6() || a.Zone() != "" {
			return fmt.Errorf("%s: address %s", t, a)
		}
	}
	if t.Src.Is4() != t.Dst.Is4() {
		return fmt.Errorf("%s: two families", t)
	}
	return nil
}

// key returns the tuple as a key of TypeTuple4 or TypeTuple6.
func (t Tuple) key() string {
	port := func(p uint16) string { return portKey(p) + "\x00\x00" }
	return addrKey(t.Src) + string([]byte{t.Protocol, 0, 0, 0}) + port(t.SrcPort) + addrKey(t.Dst) + port(t.DstPort)
}

func (f family) cutSet() *Set { return &Set{Name: "cut" + f.digit, Type: f.tuple, Expires: true} }

// cut denies what Forbid has forbidden.
func (f family) cut() Rule {
	return Rule{Match: []Match{In{f.flow, f.cutSet().Name}}, Action: Verdict{VerdictGoto, chainDeny}}
}

// forwardCutRules stand behind the policies and all else that judges what is forwarded,
// so that they change nothing but the verdict of what would pass.
func forwardCutRules() []Rule {
	return slices.Concat([]Rule{established}, families[1].discovery(), each(family.cut))
}

// fromHostRules are for packets of the node's own processes, which may send what they
// like: but where a pod's flow to its node was cut, the node's end must not open it
// again by sending first. A probe of the pod is not concerned, because it would have
// to come from the very port that the pod was talking to, to the one it used.
func fromHostRules() []Rule { return append([]Rule{established}, each(family.cut)...) }

// beforeNATRules tell a client whose connection was cut that it is. In chain egress the
// packet is translated already, and a bridge sends the reset as it is, from the address
// of a pod that a client of a Service has never heard of. Here it comes from the
// address that the client sends to. A packet that has neither a connection nor the
// flags of a first one is reset also if it is invalid: that is what a client that
// only closes its end sends.
func beforeNATRules() []Rule {
	return append([]Rule{established}, each(func(f family) Rule {
		return Rule{Match: []Match{opensNone, In{f.flow, f.cutSet().Name}}, Action: Verdict{VerdictGoto, chainReset}}
	})...)
}

// Forbid denies new packets of these tuples for a time, whatever policies allow: those
// that the node forwards and, with Config.PodToNode, those of its own processes.
// Connection tracking that has forgotten a flow takes the next packet for the
// first of a new one, also where it is an answer: then the roles are exchanged,
// and it may be allowed. So whoever deletes a flow forbids the answers, for as
// long as they may come. What belongs to a flow that connection tracking knows
// passes all the same.
//
// With Config.Midstream and Config.Bridged, TCP packets of these tuples that open no connection are
// reset as they arrive, before DNAT. So whoever deletes the connection of a client of
// a Service forbids what the client sends to the Service: the packet that opens the
// client's next connection from the same port passes, unless it is forwarded to the
// Service's own address because nobody translates it any more.
//
// Of a tuple that is forbidden already, the new timeout counts from Linux 6.12 on,
// the old one before that. A takeover keeps what is forbidden. After an
// error some tuples may not be forbidden; nothing else is in doubt, and Forbid
// may be called again.
//
// Where nothing was forbidden before, Forbid puts the chains in force that look for it,
// and waits for packets that are past their place: some milliseconds. From then on every
// packet pays for these chains, until Lapse.
func (e *Enforcer) Forbid(ctx context.Context, tuples []Tuple, timeout time.Duration) error {
	if e.table == "" {
		return errors.New("forbid: no table was put in force yet")
	}
	if timeout < time.Millisecond {
		return fmt.Errorf("forbid: for %s", timeout)
	}
	var elements [2][]Element
	for _, t := range tuples {
		if err := t.check(); err != nil {
			return fmt.Errorf("forbid: %w", err)
		}
		i := 0
		if !t.Src.Is4() {
			i = 1
		}
		one := single(t.key())
		one.Timeout = timeout
		elements[i] = append(elements[i], one)
	}
	if len(tuples) == 0 {
		return nil
	}
	var units []unit
	for i, f := range families {
		units = append(units, addElements(f.cutSet(), distinct(elements[i]))...)
	}
	if err := e.bar(ctx, units, timeout); err != nil {
		return fmt.Errorf("forbid: %w", err)
	}
	return nil
}

// distinct sorts elements by key and keeps one of each key, that with the longest
// timeout.
func distinct(list []Element) []Element {
	slices.SortFunc(list, func(a, b Element) int {
		return cmp.Or(cmp.Compare(a.Key, b.Key), cmp.Compare(b.Timeout, a.Timeout))
	})
	return slices.CompactFunc(list, func(a, b Element) bool { return a.Key == b.Key })
}

// forbidden returns what tables forbid, as elements for another one, and for how long
// at most. It is worth no failed takeover: what is lost are flows that nobody may use any
// more in the seconds to come.
func (e *Enforcer) forbidden(ctx context.Context, tables []string) (units []unit, longest time.Duration) {
	for _, f := range families {
		var all []Element
		for _, t := range tables {
			list, err := e.kernel.Elements(ctx, t, f.cutSet())
			if err != nil {
				e.cfg.logger().Warn("what an old table forbids cannot be read", "table", t, "set", f.cutSet().Name, "error", err)
			}
			all = append(all, list...)
		}
		// What has no timeout, or none left, is not of our making or is over.
		all = slices.DeleteFunc(all, func(x Element) bool { return x.Timeout < time.Millisecond })
		for _, x := range all {
			longest = max(longest, x.Timeout)
		}
		units = append(units, addElements(f.cutSet(), distinct(all))...)
	}
	return units, longest
}
