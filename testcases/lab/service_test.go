package lab

import (
	"context"
	"net/netip"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// withService gives pods a and c a Service of their own families.
func withService(t *testing.T, l *Lab, backends ...string) Service {
	t.Helper()
	s := Service{
		Name:       "shop/web",
		ClusterIPs: l.ofFamilies(addrs("10.96.0.10", "fd00:96::10")...),
		Ports: []ServicePort{
			{Protocol: "tcp", Port: 8000, TargetPort: 80, NodePort: 30080},
			{Protocol: "udp", Port: 53, NodePort: 30053},
			{Protocol: "sctp", Port: 36412, NodePort: 30412},
		},
	}
	for _, b := range backends {
		s.Backends = append(s.Backends, addrsOf(l, b)...)
	}
	require.NoError(t, l.SetService(s))
	return s
}

func TestClusterIP(t *testing.T) {
	everyTopology(t, func(t *testing.T, cfg Config) {
		l := shop(t, cfg)
		s := withService(t, l, "shop/b")
		for _, to := range s.ClusterIPs {
			// b itself is the hairpin.
			for _, from := range []string{"shop/a", "shop/b", "shop/c", "node-1", "node-2"} {
				r := one(t, l, Probe{From: from, To: to, Protocol: "tcp", Port: 8000})
				require.NoError(t, r.Err, "%s", from)
				require.Equal(t, "shop/b", r.Server)
				pod := slices.Contains([]string{"shop/a", "shop/c"}, from)
				require.Equal(t, pod, slices.Contains(addrsOf(l, from), r.Seen.Addr()) && from[:4] == "shop", "%s seen as %v", from, r.Seen)
				reaches(t, l, Probe{From: from, To: to, Protocol: "udp", Port: 53})
				reaches(t, l, Probe{From: from, To: to, Protocol: "sctp", Port: 36412})
			}
		}
	})
}

func TestNodePort(t *testing.T) {
	everyTopology(t, func(t *testing.T, cfg Config) {
		l := shop(t, cfg)
		withService(t, l, "shop/b")
		for _, node := range l.Nodes() {
			for _, to := range l.NodeAddrs(node) {
				for _, from := range []string{Outside, "shop/a", "shop/b", "shop/c", "node-1", "node-2"} {
					r := one(t, l, Probe{From: from, To: to, Protocol: "tcp", Port: 30080})
					require.NoError(t, r.Err, "%s to %s", from, node)
					require.Equal(t, "shop/b", r.Server)
					if from == Outside {
						require.NotContains(t, l.OutsideAddrs(), r.Seen.Addr(), "not masqueraded")
					}
					reaches(t, l, Probe{From: from, To: to, Protocol: "udp", Port: 30053})
					reaches(t, l, Probe{From: from, To: to, Protocol: "sctp", Port: 30412})
				}
			}
		}
	})
}

func TestServiceUsesEveryBackend(t *testing.T) {
	l := shop(t, Config{})
	s := withService(t, l, "shop/a", "shop/b", "shop/c")
	var probes []Probe
	for range 60 {
		for _, to := range s.ClusterIPs {
			probes = append(probes, Probe{From: "node-1", To: to, Protocol: "tcp", Port: 8000})
		}
	}
	seen := map[string]int{}
	for _, r := range l.Probe(context.Background(), probes, timing) {
		require.NoError(t, r.Err)
		seen[r.Server]++
	}
	// Each of the three misses all 120 with a chance of (2/3)^120.
	require.Len(t, seen, 3, "%v", seen)
}

func TestServicesAreReplacedAndRemoved(t *testing.T) {
	l := shop(t, Config{})
	s := withService(t, l, "shop/b")
	s.Backends = addrsOf(l, "shop/c")[:1] // IPv4 only
	require.NoError(t, l.SetService(s))
	r := one(t, l, Probe{From: "shop/a", To: s.ClusterIPs[0], Protocol: "tcp", Port: 8000})
	require.NoError(t, r.Err)
	require.Equal(t, "shop/c", r.Server)
	for _, gone := range []netip.Addr{s.ClusterIPs[1]} {
		require.False(t, one(t, l, Probe{From: "shop/a", To: gone, Protocol: "tcp", Port: 8000, Deny: true}).OK)
	}
	require.NoError(t, l.RemoveService(s.Name))
	require.NoError(t, l.RemoveService(s.Name))
	require.False(t, one(t, l, Probe{From: "shop/a", To: s.ClusterIPs[0], Protocol: "tcp", Port: 8000, Deny: true}).OK)
	require.Error(t, l.SetService(Service{Name: "x", Ports: []ServicePort{{Protocol: "icmp", Port: 1}}}))
}
