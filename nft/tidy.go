package nft

import (
	"context"
	"fmt"
	"maps"
	"net/netip"

	"github.com/portcullis-netpol/portcullis/policy/ir"
)

// remains are what changes left behind: nothing leads to it any more, but a packet may
// still be in it. To wait for that would hold up the next change.
type remains struct {
	units []unit
	// names are those of sets and chains that are to go, addrs those of pods that
	// still have elements to go. They must not be made again before.
	names map[string]bool
	addrs map[netip.Addr]bool
}

func (r *remains) empty() bool { return len(r.units) == 0 }

// add takes in what is to go, of the pods with addrs among others.
func (r *remains) add(units []unit, addrs []netip.Addr) {
	if len(units) == 0 {
		return
	}
	if r.names == nil {
		r.names, r.addrs = map[string]bool{}, map[netip.Addr]bool{}
	}
	r.units = append(r.units, units...)
	for _, u := range units {
		for _, op := range u {
			switch op := op.(type) {
			case DelSet:
				r.names[op.Name] = true
			case DelChain:
				r.names[op.Name] = true
			}
		}
	}
	for _, a := range addrs {
		r.addrs[a] = true
	}
}

// merge takes in what o has.
func (r *remains) merge(o remains) {
	if r.names == nil {
		*r = o
		return
	}
	r.units = append(r.units, o.units...)
	maps.Copy(r.names, o.names)
	maps.Copy(r.addrs, o.addrs)
}

// meets reports whether steps make something anew that is still to go, or are about a
// pod with an address of which something is.
func (r *remains) meets(steps []step, changes []ir.EndpointChange) bool {
	if r.empty() {
		return false
	}
	for _, c := range changes {
		if c.New != nil && r.addrs[c.New.Addr] {
			return true
		}
	}
	for _, s := range steps {
		for _, u := range s.units {
			for _, op := range u {
				switch op := op.(type) {
				case AddSet:
					if r.names[op.Set.Name] {
						return true
					}
				case AddChain:
					if r.names[op.Chain.Name] {
						return true
					}
				}
			}
		}
	}
	return false
}

// Untidy reports whether changes have left something behind that Tidy would remove.
func (e *Enforcer) Untidy() bool { return !e.remains.empty() }

// Tidy removes what changes left behind, when no packet can be in it any more: it waits
// for that. It changes no verdict, and is not urgent. An error wraps ErrUncertain, as one
// of Apply.
func (e *Enforcer) Tidy(ctx context.Context) error {
	if e.book == nil || e.remains.empty() {
		return nil
	}
	b := e.book
	e.book = nil // until all is well
	if err := e.tidy(ctx); err != nil {
		return fmt.Errorf("tidy: %w", err)
	}
	e.book = b
	return nil
}

func (e *Enforcer) tidy(ctx context.Context) error {
	r := e.remains
	e.remains = remains{}
	if r.empty() {
		return nil
	}
	return e.send(ctx, e.table, []step{{grace: true, units: r.units}})
}
