package policy

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

func prefixes(ss ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, s := range ss {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

func TestCIDRMinus(t *testing.T) {
	for _, c := range []struct {
		cidr    string
		excepts []netip.Prefix
		want    []netip.Prefix
	}{
		{"10.0.0.0/8", nil, prefixes("10.0.0.0/8")},
		{"10.0.0.0/30", prefixes("10.0.0.1/32"), prefixes("10.0.0.0/32", "10.0.0.2/31")},
		{"10.0.0.0/30", prefixes("10.0.0.0/31", "10.0.0.2/31"), nil},
		{"10.0.0.0/30", prefixes("10.0.0.0/31", "10.0.0.1/32"), prefixes("10.0.0.2/31")},
		{"0.0.0.0/0", prefixes("128.0.0.0/1"), prefixes("0.0.0.0/1")},
		{"255.255.255.252/30", prefixes("255.255.255.255/32"), prefixes("255.255.255.252/31", "255.255.255.254/32")},
		{"255.255.255.254/31", prefixes("255.255.255.254/32"), prefixes("255.255.255.255/32")},
		{"::/0", prefixes("::/1"), prefixes("8000::/1")},
		{"ffff::/16", prefixes("ffff:8000::/17"), prefixes("ffff::/17")},
	} {
		require.Equal(t, c.want, cidrMinus(netip.MustParsePrefix(c.cidr), c.excepts), "%s - %v", c.cidr, c.excepts)
	}
}

func TestMergePrefixes(t *testing.T) {
	for _, c := range []struct{ in, want []netip.Prefix }{
		{nil, nil},
		{prefixes("10.0.0.0/9", "10.128.0.0/9"), prefixes("10.0.0.0/8")},
		{prefixes("10.1.0.0/16", "10.0.0.0/8", "10.0.0.0/8"), prefixes("10.0.0.0/8")},
		{prefixes("0.0.0.0/1", "128.0.0.0/1", "::/1", "8000::/1"), prefixes("0.0.0.0/0", "::/0")},
		{prefixes("255.255.255.255/32", "::/128"), prefixes("255.255.255.255/32", "::/128")},
		{prefixes("10.0.0.1/32", "10.0.0.2/32", "10.0.0.3/32"), prefixes("10.0.0.1/32", "10.0.0.2/31")},
	} {
		require.Equal(t, c.want, mergePrefixes(c.in), "%v", c.in)
	}
}

// TestBlocksAgainstEnumeration compares the algebra with asking, address by
// address, both at the bottom and at the top of each family.
func TestBlocksAgainstEnumeration(t *testing.T) {
	for _, base := range []string{"10.0.0.0/25", "255.255.255.128/25", "::/121", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ff80/121"} {
		all := netip.MustParsePrefix(base)
		rng := rand.New(rand.NewPCG(1, uint64(all.Bits())))
		random := func(within netip.Prefix) netip.Prefix {
			bits := within.Bits() + rng.IntN(within.Addr().BitLen()-within.Bits()+1)
			a := within.Addr()
			for n := rng.IntN(1 << (within.Addr().BitLen() - within.Bits())); n > 0; n-- {
				a = a.Next()
			}
			return netip.PrefixFrom(a, bits).Masked()
		}
		for range 200 {
			type peer struct {
				cidr    netip.Prefix
				excepts []netip.Prefix
			}
			var ps []peer
			var have []netip.Prefix
			for range 1 + rng.IntN(4) {
				p := peer{cidr: random(all)}
				for range rng.IntN(4) {
					p.excepts = append(p.excepts, random(p.cidr))
				}
				ps = append(ps, p)
				have = append(have, cidrMinus(p.cidr, p.excepts)...)
			}
			have = mergePrefixes(have)
			for a := all.Addr(); a.IsValid() && all.Contains(a); a = a.Next() {
				want := slices.ContainsFunc(ps, func(p peer) bool {
					return p.cidr.Contains(a) && !slices.ContainsFunc(p.excepts, func(e netip.Prefix) bool { return e.Contains(a) })
				})
				require.Equal(t, want, inPrefixes(have, a), "%v %v in %v", ps, a, have)
			}
			for i := 1; i < len(have); i++ {
				before, this := spanOf(have[i-1]), spanOf(have[i])
				require.True(t, before.last.Less(this.first))
				merged := netip.PrefixFrom(have[i-1].Addr(), have[i-1].Bits()-1).Masked()
				require.False(t, have[i-1].Bits() == have[i].Bits() && merged.Contains(this.first) && merged.Addr() == before.first, "not the fewest: %v", have)
			}
		}
	}
}
