package lab

import (
	"context"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestMain(m *testing.M) { Main(m, NFTables, BridgeNetfilter) }

var timing = Timing{Allow: 5 * time.Second, Deny: 200 * time.Millisecond}

func addrs(list ...string) []netip.Addr {
	var out []netip.Addr
	for _, s := range list {
		out = append(out, netip.MustParseAddr(s))
	}
	return out
}

// shop builds a laboratory with two pods on node-1 and one on node-2, all of
// which serve tcp/80, udp/53 and sctp/36412, as do nodes and outside host.
func shop(t *testing.T, cfg Config) *Lab {
	t.Helper()
	Require(t, NFTables, BridgeNetfilter)
	l, err := New(cfg)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, l.Close()) })
	for i, name := range []string{"shop/a", "shop/b", "shop/c"} {
		n := 1 + i/2
		pod := l.ofFamilies(addrs(fmt.Sprintf("10.244.%d.%d", n, 10+i), fmt.Sprintf("fd00:10:244:%d::%d", n, 10+i))...)
		require.NoError(t, l.AddPod(fmt.Sprintf("node-%d", n), name, pod))
	}
	for _, e := range []string{"shop/a", "shop/b", "shop/c", "node-1", "node-2", Outside} {
		require.NoError(t, l.Serve(e, "tcp", 80))
		require.NoError(t, l.Serve(e, "udp", 53))
		require.NoError(t, l.Serve(e, "sctp", 36412))
	}
	return l
}

// addrsOf returns the addresses of an endpoint.
func addrsOf(l *Lab, endpoint string) []netip.Addr {
	if endpoint == Outside {
		return l.OutsideAddrs()
	}
	if p := l.pods[endpoint]; p != nil {
		return p.addrs
	}
	return l.NodeAddrs(endpoint)
}

func everyTopology(t *testing.T, f func(t *testing.T, cfg Config)) {
	for _, topology := range []Topology{Routed, Bridged} {
		for _, family := range []struct{ v4, v6 bool }{{true, false}, {false, true}, {true, true}} {
			cfg := Config{Topology: topology, IPv4: family.v4, IPv6: family.v6}
			t.Run(fmt.Sprintf("%v,v4=%v,v6=%v", topology, family.v4, family.v6), func(t *testing.T) { f(t, cfg) })
		}
	}
}

func TestEverybodyReachesEverybody(t *testing.T) {
	everyTopology(t, func(t *testing.T, cfg Config) {
		start := time.Now()
		l := shop(t, cfg)
		t.Logf("built in %v", time.Since(start))
		var probes []Probe
		endpoints := []string{"shop/a", "shop/b", "shop/c", "node-1", "node-2", Outside}
		for _, from := range endpoints {
			for _, to := range endpoints {
				for _, a := range addrsOf(l, to) {
					probes = append(probes,
						Probe{From: from, To: a, Protocol: "tcp", Port: 80},
						Probe{From: from, To: a, Protocol: "udp", Port: 53},
						Probe{From: from, To: a, Protocol: "sctp", Port: 36412},
						Probe{From: from, To: a, Protocol: "icmp"})
				}
			}
		}
		start = time.Now()
		results := l.Probe(context.Background(), probes, timing)
		t.Logf("%d probes in %v", len(probes), time.Since(start))
		for i, r := range results {
			require.NoError(t, r.Err, "%v", probes[i])
			require.True(t, r.OK, "%v", probes[i])
			require.False(t, r.Refused)
			if r.RTT > 500*time.Millisecond {
				t.Logf("slow: %v %v", probes[i], r.RTT)
			}
		}
	})
}
