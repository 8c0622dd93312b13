package policy

import (
	"net/netip"
	"slices"
)

// span is a range of addresses of one family, both ends inclusive. Ends that
// are inclusive need no address behind the last one of the family.
type span struct{ first, last netip.Addr }

func spanOf(p netip.Prefix) span {
	p = p.Masked()
	b := p.Addr().AsSlice()
	for i := range b {
		host := 8*(i+1) - p.Bits() // host bits in this byte
		switch {
		case host >= 8:
			b[i] = 0xff
		case host > 0:
			b[i] |= 1<<host - 1
		}
	}
	last, _ := netip.AddrFromSlice(b)
	return span{p.Addr(), last}
}

// mergeSpans returns the union of spans: sorted, disjoint and not adjacent.
func mergeSpans(in []span) []span {
	in = slices.Clone(in)
	slices.SortFunc(in, func(a, b span) int { return a.first.Compare(b.first) })
	var out []span
	for _, s := range in {
		if n := len(out); n > 0 && touches(out[n-1], s) {
			if out[n-1].last.Less(s.last) {
				out[n-1].last = s.last
			}
			continue
		}
		out = append(out, s)
	}
	return out
}

// touches reports whether b, which does not begin before a, overlaps a or
// follows it directly. The address behind the last of a family is invalid, and
// so equal to no first address.
func touches(a, b span) bool {
	if a.first.BitLen() != b.first.BitLen() {
		return false
	}
	return b.first.Compare(a.last) <= 0 || a.last.Next() == b.first
}

// subtractSpans returns what of s lies in none of cut.
func subtractSpans(s span, cut []span) []span {
	var out []span
	for _, c := range mergeSpans(cut) {
		if c.first.BitLen() != s.first.BitLen() || c.last.Less(s.first) || s.last.Less(c.first) {
			continue
		}
		if s.first.Less(c.first) {
			out = append(out, span{s.first, c.first.Prev()})
		}
		if c.last.Compare(s.last) >= 0 {
			return out
		}
		s.first = c.last.Next()
	}
	return append(out, s)
}

// prefixes returns the fewest prefixes that make up s.
func (s span) prefixes() []netip.Prefix {
	var out []netip.Prefix
	for at := s.first; at.IsValid() && at.Compare(s.last) <= 0; {
		best := netip.PrefixFrom(at, at.BitLen())
		for bits := at.BitLen() - 1; bits >= 0; bits-- {
			p := netip.PrefixFrom(at, bits)
			if p.Masked().Addr() != at || s.last.Less(spanOf(p).last) {
				break
			}
			best = p
		}
		out = append(out, best)
		at = spanOf(best).last.Next()
	}
	return out
}

// cidrMinus returns the prefixes of cidr without its excepts.
func cidrMinus(cidr netip.Prefix, excepts []netip.Prefix) []netip.Prefix {
	var cut []span
	for _, e := range excepts {
		cut = append(cut, spanOf(e))
	}
	var out []netip.Prefix
	for _, s := range subtractSpans(spanOf(cidr), cut) {
		out = append(out, s.prefixes()...)
	}
	return out
}

// mergePrefixes returns the union of ps: sorted, disjoint, as few as possible.
func mergePrefixes(ps []netip.Prefix) []netip.Prefix {
	spans := make([]span, 0, len(ps))
	for _, p := range ps {
		spans = append(spans, spanOf(p))
	}
	var out []netip.Prefix
	for _, s := range mergeSpans(spans) {
		out = append(out, s.prefixes()...)
	}
	return out
}

// inPrefixes reports whether a lies in one of ps, which are sorted and disjoint.
func inPrefixes(ps []netip.Prefix, a netip.Addr) bool {
	i, found := slices.BinarySearchFunc(ps, a, func(p netip.Prefix, a netip.Addr) int { return p.Addr().Compare(a) })
	return found || i > 0 && ps[i-1].Contains(a)
}
