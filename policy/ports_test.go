package policy

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/portcullis-netpol/portcullis/policy/ir"
)

// TestSplitPorts compares the segments with the allows that they are made of,
// port by port.
func TestSplitPorts(t *testing.T) {
	some := []*peers{
		{blocks: prefixes("10.0.0.1/32")}, {blocks: prefixes("10.0.0.2/32")}, {blocks: prefixes("10.0.0.1/32", "10.0.0.3/32")},
		{any: true}, {}, {terms: []termSpec{plainTerm(everyPod)}},
	}
	interesting := []uint16{0, 1, 2, 79, 80, 81, 82, 90, 65533, 65534, 65535}
	for seed := range uint64(500) {
		rng := rand.New(rand.NewPCG(seed, 4))
		var allows []allow
		for range rng.IntN(8) {
			a := allow{protocol: pick(rng, ir.AnyProtocol, ir.TCP, ir.TCP, ir.UDP, ir.SCTP), peers: pick(rng, some...)}
			if a.peers.any && rng.IntN(3) > 0 {
				a.peers = some[0]
			}
			if a.protocol != ir.AnyProtocol {
				a.first, a.last = pick(rng, interesting...), pick(rng, interesting...)
				if a.first > a.last {
					a.first, a.last = a.last, a.first
				}
			}
			allows = append(allows, a)
		}
		segments := splitPorts(allows)
		for _, protocol := range []ir.Protocol{1, ir.TCP, ir.UDP, ir.SCTP} {
			for _, port := range interesting {
				var list []*peers
				for _, a := range allows {
					if a.protocol == ir.AnyProtocol || a.protocol == protocol && a.first <= port && port <= a.last {
						list = append(list, a.peers)
					}
				}
				want, have := union(list), peers{}
				i := slices.IndexFunc(segments, func(s segment) bool {
					return s.protocol == ir.AnyProtocol || s.protocol == protocol && s.first <= port && port <= s.last
				})
				if i >= 0 {
					have = *segments[i].peers
				}
				require.Equal(t, want.id(), have.id(), "seed %d %s/%d", seed, protocol, port)
				require.Equal(t, want.any, have.any)
				require.False(t, i >= 0 && have.empty())
			}
		}
	}
}

// TestSplitPortsIsMinimal: what can be one segment, or none, is.
func TestSplitPortsIsMinimal(t *testing.T) {
	a, b := &peers{blocks: prefixes("10.0.0.1/32")}, &peers{blocks: prefixes("10.0.0.2/32")}
	show := func(allows ...allow) (out []allow) {
		for _, s := range splitPorts(allows) {
			out = append(out, allow{s.protocol, s.first, s.last, nil})
		}
		return out
	}
	require.Equal(t, []allow{{ir.TCP, 1, 9, nil}}, show(allow{ir.TCP, 1, 5, a}, allow{ir.TCP, 6, 9, a}), "adjacent")
	require.Equal(t, []allow{{ir.TCP, 1, 9, nil}}, show(allow{ir.TCP, 1, 7, a}, allow{ir.TCP, 3, 9, a}), "overlapping")
	require.Equal(t, []allow{{ir.TCP, 1, 2, nil}, {ir.TCP, 3, 7, nil}, {ir.TCP, 8, 9, nil}}, show(allow{ir.TCP, 1, 7, a}, allow{ir.TCP, 3, 9, b}))
	require.Equal(t, []allow{{ir.AnyProtocol, 0, 0, nil}}, show(allow{ir.TCP, 1, 7, a}, allow{protocol: ir.AnyProtocol, peers: a}), "says what any port says")
	require.Equal(t, []allow{{ir.UDP, 5, 5, nil}, {ir.AnyProtocol, 0, 0, nil}}, show(allow{protocol: ir.AnyProtocol, peers: a}, allow{ir.UDP, 5, 5, b}))
	require.Equal(t, []allow{{ir.AnyProtocol, 0, 0, nil}}, show(allow{ir.TCP, 1, 7, a}, allow{protocol: ir.AnyProtocol, peers: &peers{any: true}}), "everything is allowed")
	require.Equal(t, []allow{{ir.TCP, 0, 65535, nil}}, show(allow{ir.TCP, 0, 65535, a}, allow{ir.TCP, 443, 443, a}))
	require.Empty(t, show(allow{ir.TCP, 1, 7, &peers{}}, allow{protocol: ir.AnyProtocol, peers: &peers{}}))
}

// TestPeerSetIdentity: sets are one if they are made of the same.
func TestPeerSetIdentity(t *testing.T) {
	id := func(list ...*peers) ir.PeerSetID { u := union(list); return u.id() }
	web := &peers{terms: []termSpec{plainTerm(newPodSelector(scope{namespace: "a"}, selectAll))}}
	all := &peers{terms: []termSpec{plainTerm(everyPod)}}
	block := func(ss ...string) *peers { return &peers{blocks: prefixes(ss...)} }
	require.Equal(t, id(web, all), id(all, web, all))
	require.NotEqual(t, id(web), id(all))
	require.NotEqual(t, id(web), id(web, block("10.0.0.0/8")))
	require.Equal(t, id(block("10.0.0.0/9"), block("10.128.0.0/9", "10.0.0.0/16")), id(block("10.0.0.0/8")))
	// The same bits in another family.
	require.NotEqual(t, id(block("1.2.3.4/32")), id(&peers{blocks: []netip.Prefix{netip.MustParsePrefix("102:304::/32")}}))
	r := newResolverSpec(peer{}, true, portName{"http", ir.TCP})
	require.NotEqual(t, id(&peers{terms: []termSpec{namedTerm(&r, 80)}}), id(&peers{terms: []termSpec{namedTerm(&r, 81)}}))
	require.NotEqual(t, id(&peers{terms: []termSpec{namedTerm(&r, 80)}}), id(all))
}
