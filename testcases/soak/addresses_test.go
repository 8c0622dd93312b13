package soak

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"

	"github.com/portcullis-netpol/portcullis/testcases/lab"
)

// TestSeveralAddresses starts a guarded pod with several addresses of each family, one
// of them outside the blocks of its node. All are held back until the pod is known, but
// for the one outside, which the quarantine does not cover; from then on its policies
// hold for all. An address that the pod gives up is held back again.
func TestSeveralAddresses(t *testing.T) {
	for _, topo := range topologies {
		t.Run(topo.String(), func(t *testing.T) {
			t.Parallel()
			lab.Require(t, needs...)
			s := &multiSite{site: newSite(t, topo)}
			s.prepare()
			s.startAll()
			// Not known yet.
			s.check(s.inside, false, false)
			s.check(s.outside, true, true)
			s.api.makePod(t, s.object(s.all()...))
			s.settle()
			s.check(s.all(), true, false)
			// One address less.
			s.api.setPod(t, s.object(slices.Concat(s.inside[1:], s.outside)...))
			s.settle()
			s.check(s.inside[:1], false, false)
			s.check(slices.Concat(s.inside[1:], s.outside), true, false)
			// The pod has ended, and its addresses are nobody's.
			s.api.deletePod(t, s.object())
			s.settle()
			s.check(s.inside, false, false)
			s.result("pod with several addresses, "+topo.String(), "%d addresses, %d of them outside the node's blocks: %d flows each judged rightly when the pod was not known, known, had an address less, and was gone",
				len(s.all()), len(s.outside), s.probes)
		})
	}
}

// multiSite is a site with clients on both nodes and a pod of many addresses.
type multiSite struct {
	*site
	inside, outside []netip.Addr
	clients         map[string][]netip.Addr
	probes          int
}

func (s *multiSite) prepare() {
	s.t.Helper()
	s.api.makeNamespace(s.t, namespaceOf("shop", nil))
	s.api.putPolicy(s.t, policyOf(s.t, "shop", "guarded", guarded))
	s.clients = map[string][]netip.Addr{}
	for i, node := range s.Nodes() {
		name := []string{"near", "far"}[i]
		addrs := s.addresses(node, 10)
		require.NoError(s.t, s.AddPod(node, "shop/"+name, addrs))
		s.api.makePod(s.t, podOf("shop", name, name, node, nil, addrs...))
		s.clients["shop/"+name] = addrs
	}
	s.inside = slices.Concat(s.addresses("node-1", 30), s.addresses("node-1", 31), s.addresses("node-1", 32))
	s.outside = []netip.Addr{netip.MustParseAddr("10.250.7.7"), netip.MustParseAddr("fd00:10:250::7")}
	require.NoError(s.t, s.AddPod("node-1", "shop/multi", s.all()))
	for endpoint := range s.clients {
		s.serve(endpoint)
	}
	s.serve("shop/multi")
}

func (s *multiSite) serve(endpoint string) {
	s.t.Helper()
	for _, protocol := range []string{"tcp", "udp"} {
		for _, port := range []uint16{openPort, closedPort} {
			require.NoError(s.t, s.Serve(endpoint, protocol, port))
		}
	}
}

func (s *multiSite) all() []netip.Addr { return slices.Concat(s.inside, s.outside) }

// object is the pod with many addresses.
func (s *multiSite) object(addrs ...netip.Addr) *corev1.Pod {
	return podOf("shop", "multi", "multi", "node-1", map[string]string{"guarded": "yes"}, addrs...)
}

// check sends to and from addresses of the pod: what is for the open port is to pass,
// or not, and what is for the closed one.
func (s *multiSite) check(addrs []netip.Addr, open, closed bool) {
	s.t.Helper()
	var probes []lab.Probe
	for _, a := range addrs {
		for endpoint, list := range s.clients {
			to := list[slices.IndexFunc(list, func(b netip.Addr) bool { return b.Is4() == a.Is4() })]
			for _, protocol := range []string{"tcp", "udp"} {
				for _, port := range []uint16{openPort, closedPort} {
					deny := port == openPort && !open || port == closedPort && !closed
					probes = append(probes, lab.Probe{From: endpoint, To: a, Protocol: protocol, Port: port, Deny: deny},
						lab.Probe{From: "shop/multi", Src: a, To: to, Protocol: protocol, Port: port, Deny: deny})
				}
			}
		}
	}
	s.probes += len(probes)
	for i, r := range s.Probe(s.t.Context(), probes, lab.Timing{Allow: patience}) {
		require.Equal(s.t, !probes[i].Deny, r.OK, "%v: %v", probes[i], r.Err)
	}
}
