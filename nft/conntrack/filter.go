package conntrack

import (
	"context"
	"maps"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"
)

// The kernel can filter a dump by address (CTA_FILTER, since 5.8), which saves
// writing and reading of all the other entries. It must not be believed unseen:
//
//   - before 5.8 it ignores the filter without a word, and tells of everything;
//   - a kernel may refuse it;
//   - for IPv6 the comparison is the wrong way round (6.18 still): it tells
//     of every entry but those that were asked for.
//
// So the first dumps of a family are whole, and one of the entries found is then
// asked for by its addresses. If that entry comes and no other, the filter is
// used from then on; if any other comes, never. Whatever the kernel tells of is
// compared once more here.

// trust is what is known of the kernel's filter for a family.
type trust uint8

const (
	trustUnknown trust = iota
	trusted
	distrusted
)

// wholeDumpAbove is the number of addresses above which one dump of everything
// costs less than two filtered ones for each address.
const wholeDumpAbove = 2

// FlowsOf calls fn for every TCP, UDP and SCTP flow whose Client or Server is one
// of addrs. Flows that begin or end meanwhile may be left out, and one may come
// twice: a caller for whom that matters asks again. The kernel looks through its
// whole table in any case, but for a few addresses it tells only of their flows;
// memory does not grow with the table.
func (c *Conn) FlowsOf(ctx context.Context, addrs []netip.Addr, fn func(Flow)) error {
	wanted := map[uint8]map[netip.Addr]bool{}
	for _, a := range addrs {
		family := familyOf(a)
		if wanted[family] == nil {
			wanted[family] = map[netip.Addr]bool{}
		}
		wanted[family][a] = true
	}
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		if len(wanted[family]) == 0 {
			continue
		}
		if err := c.flowsOf(ctx, family, wanted[family], fn); err != nil {
			return err
		}
	}
	return nil
}

func (c *Conn) flowsOf(ctx context.Context, family uint8, wanted map[netip.Addr]bool, fn func(Flow)) error {
	if c.filters[family] == trusted && len(wanted) <= wholeDumpAbove {
		return c.filtered(ctx, family, wanted, fn)
	}
	var sample Flow
	err := c.dump(ctx, family, nil, func(f Flow) {
		sample = f
		if judged(f.Protocol) && (wanted[f.Client] || wanted[f.Server]) {
			fn(f)
		}
	})
	if err == nil && c.filters[family] == trustUnknown && sample.Client.IsValid() {
		err = c.tryFilter(ctx, sample)
	}
	return err
}

// filtered asks for each address twice: as that of the client, and of the server.
func (c *Conn) filtered(ctx context.Context, family uint8, wanted map[netip.Addr]bool, fn func(Flow)) error {
	for _, a := range slices.SortedFunc(maps.Keys(wanted), netip.Addr.Compare) {
		err := c.dump(ctx, family, func(w *writer) { w.filter(c.dialect, a, netip.Addr{}) }, func(f Flow) {
			if judged(f.Protocol) && f.Client == a {
				fn(f)
			}
		})
		if err != nil {
			return err
		}
		err = c.dump(ctx, family, func(w *writer) { w.filter(c.dialect, netip.Addr{}, a) }, func(f Flow) {
			if judged(f.Protocol) && f.Server == a && !wanted[f.Client] {
				fn(f)
			}
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// tryFilter finds out whether the kernel's filter finds an entry that was there
// a moment ago. It may be gone by now, or be all that there is: then the answer
// is empty and nothing is known yet.
func (c *Conn) tryFilter(ctx context.Context, sample Flow) error {
	family := familyOf(sample.Client)
	right, wrong := false, false
	err := c.dump(ctx, family, func(w *writer) { w.filter(c.dialect, sample.Client, sample.Server) }, func(f Flow) {
		if f.Client == sample.Client && f.Server == sample.Server {
			right = true
		} else {
			wrong = true
		}
	})
	switch {
	case refused(err):
		wrong = true
	case err != nil:
		return err
	}
	if wrong {
		c.filters[family] = distrusted
	} else if right {
		c.filters[family] = trusted
	}
	return nil
}

// dialect is the attribute that holds the filter and the flag that means the source.
type dialect struct {
	kind uint16
	flag uint32
}

// filter asks for entries with this client and this server; one that is not
// valid may be any.
func (w *writer) filter(d dialect, client, server netip.Addr) {
	source := func(tuple uint16, a netip.Addr) (flags uint32) {
		if !a.IsValid() {
			return 0
		}
		w.nest(tuple, func() { w.nest(attrTupleIP, func() { w.addr(a, attrIPv4Src, attrIPv6Src) }) })
		return d.flag
	}
	orig, reply := source(attrTupleOrig, client), source(attrTupleReply, server)
	w.nest(d.kind, func() {
		w.native32(attrFilterOrigFlags, orig)
		w.native32(attrFilterReplyFlags, reply)
	})
}
