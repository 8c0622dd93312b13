package lab

import (
	"fmt"
	"net/netip"
	"os"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestOutsideHasAnyAddress(t *testing.T) {
	everyTopology(t, func(t *testing.T, cfg Config) {
		l := shop(t, cfg)
		far := l.ofFamilies(addrs("172.17.1.7", "8.8.8.8", "255.255.255.254", "2001:db8::7", "fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff")...)
		require.NoError(t, l.AddOutside(far...))
		require.NoError(t, l.AddOutside(far[0]), "a second time")
		pods := addrsOf(l, "shop/a")
		for _, a := range far {
			for protocol, port := range map[string]uint16{"tcp": 80, "udp": 53, "sctp": 36412, "icmp": 0} {
				reaches(t, l, Probe{From: "shop/a", To: a, Protocol: protocol, Port: port})
				for _, pod := range pods {
					if pod.Is4() == a.Is4() {
						p := Probe{From: Outside, Src: a, To: pod, Protocol: protocol, Port: port}
						r := one(t, l, p)
						require.NoError(t, r.Err, "%v", p)
						if protocol == "tcp" || protocol == "udp" {
							require.Equal(t, a, r.Seen.Addr())
						}
					}
				}
			}
		}
	})
}

func TestAddressesThatNobodyMayHave(t *testing.T) {
	l := shop(t, Config{IPv4: true})
	for _, a := range addrs("0.0.0.0", "224.0.0.1", "::1", "fd00:1::1", "192.168.77.200", "::ffff:1.2.3.4") {
		require.Error(t, l.AddOutside(a), "%v", a)
	}
	require.Error(t, l.AddPod("node-1", "shop/x", addrs("fd00:1::1")), "family")
	require.ErrorContains(t, l.AddPod("node-1", "shop/x", addrsOf(l, "shop/a")), "belongs to pod shop/a")
	require.ErrorIs(t, l.AddPod("node-9", "shop/x", nil), os.ErrNotExist)
	require.ErrorIs(t, l.AddPod("node-1", "shop/a", nil), os.ErrExist)
	require.Error(t, l.AddPod("node-1", "x", nil), "no namespace")
	require.ErrorIs(t, l.RemovePod("shop/x"), os.ErrNotExist)
	require.ErrorIs(t, l.MovePod("shop/x", "node-1", nil), os.ErrNotExist)
	require.ErrorIs(t, l.Serve("shop/a", "tcp", 80), os.ErrExist)
	require.ErrorIs(t, l.Serve("shop/a", "sctp", 36412), os.ErrExist)
	require.Error(t, l.Serve("shop/a", "tcp", 0))
	require.Error(t, l.Serve("shop/a", "icmp", 1))
	require.Equal(t, -1, l.NetNS("shop/x"))
	require.Nil(t, l.NodeAddrs("node-9"))
	require.Nil(t, l.PodCIDRs("node-9"))
}

func TestConfigIsChecked(t *testing.T) {
	for _, nodes := range [][]string{{""}, {"a", "a"}, {"outside"}, {"x/y"}, {"fabric"}, make([]string, 100)} {
		_, err := New(Config{Nodes: nodes})
		require.Error(t, err, "%v", nodes)
	}
	for name, want := range map[string]Topology{"routed": Routed, "bridge": Bridged, "bridged": Bridged} {
		got, err := ParseTopology(name)
		require.NoError(t, err)
		require.Equal(t, want, got)
	}
	_, err := ParseTopology("star")
	require.ErrorContains(t, err, "star")
}

// Pods with addresses outside of every pod prefix, as a test case may want.
func TestForeignPodAddresses(t *testing.T) {
	everyTopology(t, func(t *testing.T, cfg Config) {
		l := shop(t, cfg)
		foreign := l.ofFamilies(addrs("10.1.2.3", "fd00:abcd::3")...)
		require.NoError(t, l.AddPod("node-1", "shop/foreign", foreign))
		require.NoError(t, l.Serve("shop/foreign", "tcp", 80))
		for _, to := range foreign {
			for _, from := range []string{"shop/a", "shop/c", "node-1", "node-2", Outside} {
				reaches(t, l, Probe{From: from, To: to, Protocol: "tcp", Port: 80})
			}
		}
		for _, to := range slices.Concat(addrsOf(l, "shop/a"), addrsOf(l, "shop/c"), l.NodeAddrs("node-2"), l.OutsideAddrs()) {
			reaches(t, l, Probe{From: "shop/foreign", To: to, Protocol: "udp", Port: 53})
		}
		require.NoError(t, l.MovePod("shop/foreign", "node-2", foreign))
		for _, to := range foreign {
			for _, from := range []string{"shop/a", "shop/c", "node-1", "node-2", Outside} {
				reaches(t, l, Probe{From: from, To: to, Protocol: "tcp", Port: 80})
			}
		}
	})
}

func TestPodsComeMoveAndGo(t *testing.T) {
	everyTopology(t, func(t *testing.T, cfg Config) {
		l := shop(t, cfg)
		old := slices.Clone(addrsOf(l, "shop/a"))
		moved := l.ofFamilies(addrs("10.244.2.77", "fd00:10:244:2::77")...)
		require.NoError(t, l.MovePod("shop/a", "node-2", moved))
		for _, to := range moved {
			reaches(t, l, Probe{From: "shop/b", To: to, Protocol: "tcp", Port: 80})
			reaches(t, l, Probe{From: "shop/c", To: to, Protocol: "tcp", Port: 80})
		}
		for _, to := range old {
			r := one(t, l, Probe{From: "shop/b", To: to, Protocol: "tcp", Port: 80, Deny: true})
			require.False(t, r.OK)
		}
		// The old addresses are free for another pod at once.
		require.NoError(t, l.AddPod("node-1", "shop/heir", old))
		require.NoError(t, l.Serve("shop/heir", "tcp", 80))
		for _, to := range old {
			r := one(t, l, Probe{From: "shop/b", To: to, Protocol: "tcp", Port: 80})
			require.NoError(t, r.Err)
			require.Equal(t, "shop/heir", r.Server)
		}
		require.NoError(t, l.RemovePod("shop/heir"))
		require.Equal(t, -1, l.NetNS("shop/heir"))
		for _, to := range old {
			r := one(t, l, Probe{From: "node-1", To: to, Protocol: "tcp", Port: 80, Deny: true})
			require.False(t, r.OK)
		}
	})
}

func TestHostPodsAreTheirNode(t *testing.T) {
	l := shop(t, Config{})
	require.NoError(t, l.AddHostPod("node-1", "kube-system/proxy"))
	require.Equal(t, l.NetNS("node-1"), l.NetNS("kube-system/proxy"))
	require.NoError(t, l.Serve("kube-system/proxy", "tcp", 10249))
	for _, to := range l.NodeAddrs("node-1") {
		reaches(t, l, Probe{From: "shop/a", To: to, Protocol: "tcp", Port: 10249})
	}
	require.NoError(t, l.RemovePod("kube-system/proxy"))
	require.Equal(t, -1, l.NetNS("kube-system/proxy"))
	reaches(t, l, Probe{From: "node-1", To: addrsOf(l, "shop/a")[0], Protocol: "tcp", Port: 80})
}

func TestNodeLocalAddress(t *testing.T) {
	everyTopology(t, func(t *testing.T, cfg Config) {
		l := shop(t, cfg)
		local := l.ofFamilies(addrs("169.254.20.10", "fd00:20::10")...)
		require.NoError(t, l.AddNodeAddr("node-1", local...))
		require.Error(t, l.AddNodeAddr("shop/a", local...))
		for _, to := range local {
			reaches(t, l, Probe{From: "shop/a", To: to, Protocol: "udp", Port: 53})
			r := one(t, l, Probe{From: "shop/c", To: to, Protocol: "udp", Port: 53, Deny: true})
			require.False(t, r.OK)
		}
	})
}

// The namespace of this process is as it was before.
func TestNothingOutsideChanges(t *testing.T) {
	look := func() string {
		links, err := os.ReadFile("/proc/thread-self/net/dev")
		require.NoError(t, err)
		var names []string
		for i, c := 0, 0; i < len(links); i++ { // the counters may move, the names not
			if links[i] == '\n' {
				var name string
				_, _ = fmt.Sscan(string(links[c:i]), &name)
				names, c = append(names, name), i+1
			}
		}
		forward, err := os.ReadFile("/proc/sys/net/ipv4/ip_forward")
		require.NoError(t, err)
		self, err := os.Readlink(threadNetNS)
		require.NoError(t, err)
		return fmt.Sprint(names, string(forward), self)
	}
	before := look()
	l := shop(t, Config{Topology: Bridged})
	require.NoError(t, l.AddOutside(netip.MustParseAddr("8.8.4.4")))
	reaches(t, l, Probe{From: "shop/a", To: addrsOf(l, "shop/c")[0], Protocol: "tcp", Port: 80})
	require.Equal(t, before, look())
	require.NoError(t, l.Close())
	require.Equal(t, before, look())
}

func BenchmarkPod(b *testing.B) {
	for _, topology := range []Topology{Routed, Bridged} {
		b.Run(topology.String(), func(b *testing.B) {
			l, err := New(Config{Topology: topology})
			require.NoError(b, err)
			defer l.Close()
			for b.Loop() {
				require.NoError(b, l.AddPod("node-1", "shop/a", addrs("10.244.1.5", "fd00:10:244:1::5")))
				require.NoError(b, l.RemovePod("shop/a"))
			}
		})
	}
}
