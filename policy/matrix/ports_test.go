package matrix

import (
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestPorts compares sets with plain membership.
func TestPorts(t *testing.T) {
	g := rand.New(rand.NewPCG(1, 1))
	random := func() Ports {
		var p Ports
		for range g.IntN(4) {
			first := g.Int32N(20) + 1
			var one Ports
			one.ranges[g.IntN(icmp)] = []Range{{first, first + g.Int32N(6)}}
			p = p.Union(one)
		}
		if g.IntN(2) == 0 {
			p = p.Union(PortsOf("ICMP", 0))
		}
		return p
	}
	for range 500 {
		a, b := random(), random()
		for i, protocol := range protocols {
			for port := range int32(30) {
				if i == icmp {
					port = 0
				}
				inA, inB := a.Contains(protocol, port), b.Contains(protocol, port)
				require.Equal(t, inA || inB, a.Union(b).Contains(protocol, port), "%v or %v", a, b)
				require.Equal(t, inA && inB, a.Intersect(b).Contains(protocol, port), "%v and %v", a, b)
				require.Equal(t, inA && !inB, a.Minus(b).Contains(protocol, port), "%v minus %v", a, b)
			}
		}
		require.True(t, a.Equal(a.Minus(b).Union(a.Intersect(b))), "%v, %v", a, b)
	}
	require.Equal(t, "none", Ports{}.String())
	require.Equal(t, "all", allPorts().String())
	some := allPorts().Minus(PortsOf("UDP", 53)).Minus(PortsOf("ICMP", 0))
	require.Equal(t, "tcp/* udp/1-52,54-65535 sctp/*", some.String())
	require.Equal(t, []string{"tcp/*", "udp/1-52", "udp/54-65535", "sctp/*"}, some.List())
}

// TestAtoms asks one address of each part of the world, and none that is somebody's.
func TestAtoms(t *testing.T) {
	prefix := netip.MustParsePrefix
	got := map[string]string{}
	blocks := []netip.Prefix{prefix("10.0.0.0/8"), prefix("10.9.0.0/16"), prefix("198.51.100.0/24"), prefix("192.168.0.0/31"),
		prefix("192.168.0.0/32"), prefix("192.168.0.1/32"), prefix("255.255.255.255/32"), prefix("fd00::/8")}
	avoid := []netip.Prefix{prefix("10.0.0.0/9")}
	taken := map[netip.Addr]bool{netip.MustParseAddr("10.128.0.0"): true}
	for _, a := range atoms(blocks, avoid, taken) {
		got[a.block.String()] = a.addr.String()
	}
	require.Equal(t, map[string]string{
		"0.0.0.0/0": "203.0.113.1", "10.0.0.0/8": "10.128.0.1", "198.51.100.0/24": "198.51.100.1", "192.168.0.0/32": "192.168.0.0",
		"192.168.0.1/32": "192.168.0.1", "255.255.255.255/32": "255.255.255.255", "::/0": "2001:db8::1", "fd00::/8": "fd00::",
	}, got)
}
