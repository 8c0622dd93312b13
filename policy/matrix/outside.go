package matrix

import (
	"net/netip"
	"slices"
)

// atom is a part of the world outside that policies cannot tell apart: a block without the longer blocks in it.
type atom struct {
	block netip.Prefix
	addr  netip.Addr // one address of it
}

// everything is each family as a block.
var everything = [families]netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}

// strangers are addresses that are nobody's, to be asked about first.
var strangers = []netip.Addr{
	netip.MustParseAddr("198.51.100.1"), netip.MustParseAddr("203.0.113.1"), netip.MustParseAddr("192.0.2.1"),
	netip.MustParseAddr("2001:db8::1"),
}

// atoms splits the addresses outside by blocks. Addresses in avoid, and those that are taken, are not outside.
func atoms(blocks, avoid []netip.Prefix, taken map[netip.Addr]bool) []atom {
	blocks = append(slices.Clone(blocks), everything[:]...)
	slices.SortFunc(blocks, netip.Prefix.Compare)
	blocks = slices.Compact(blocks)
	var out []atom
	for _, b := range blocks {
		var holes []netip.Prefix
		for _, other := range blocks {
			if other != b && within(other, b) {
				holes = append(holes, other)
			}
		}
		for _, a := range avoid {
			if within(a, b) || within(b, a) {
				holes = append(holes, a)
			}
		}
		if addr, ok := free(b, holes, taken); ok {
			out = append(out, atom{b, addr})
		}
	}
	return out
}

// within tells whether all of a is in b.
func within(a, b netip.Prefix) bool { return a.Bits() >= b.Bits() && b.Contains(a.Addr()) }

// free finds an address of a block that is in no hole and not taken.
func free(block netip.Prefix, holes []netip.Prefix, taken map[netip.Addr]bool) (netip.Addr, bool) {
	hole := func(a netip.Addr) (netip.Prefix, bool) {
		for _, h := range holes {
			if h.Contains(a) {
				return h, true
			}
		}
		return netip.Prefix{}, false
	}
	for _, a := range strangers {
		if _, in := hole(a); !in && block.Contains(a) && !taken[a] {
			return a, true
		}
	}
	addr := block.Addr()
	if addr.IsUnspecified() {
		addr = addr.Next()
	}
	for addr.IsValid() && block.Contains(addr) {
		if h, in := hole(addr); in {
			addr = last(h).Next()
			continue
		}
		if !taken[addr] {
			return addr, true
		}
		addr = addr.Next()
	}
	return netip.Addr{}, false
}

// last is the last address of a block.
func last(p netip.Prefix) netip.Addr {
	bytes := p.Addr().AsSlice()
	for bit := p.Bits(); bit < len(bytes)*8; bit++ {
		bytes[bit/8] |= 1 << (7 - bit%8)
	}
	addr, _ := netip.AddrFromSlice(bytes)
	return addr
}
