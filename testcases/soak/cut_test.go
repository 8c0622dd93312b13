package soak

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/portcullis-netpol/portcullis/agent"
	"github.com/portcullis-netpol/portcullis/policy"
	"github.com/portcullis-netpol/portcullis/testcases/lab"
)

// end is one of the two ends of a flow.
type end int

const (
	client end = iota
	server
)

func (e end) String() string { return [...]string{"client", "server"}[e] }

func (e end) other() end { return 1 - e }

// line is a flow in use: TCP, UDP or SCTP.
type line interface {
	// say sends a message from one end and reports whether the other end gets it
	// in time. An error means that one of them knows that the flow is over.
	say(from end, wait time.Duration) (arrived bool, err error)
	close()
}

// place says where a flow goes.
type place struct {
	protocol string
	server   string // endpoint
	to       netip.Addr
	port     uint16
	first    end // who sends first after the change
}

func (p place) String() string {
	return fmt.Sprintf("%s to %s at %s:%d, the %s sends first", p.protocol, p.server, p.to, p.port, p.first)
}

// Ports from victimPorts on lose their permission, those from keptPorts on do not.
const victimPorts, keptPorts = 8000, 8500

// cutCases change the cluster so that ports below keptPorts are not allowed any more.
var cutCases = []struct {
	name   string
	before []string // policies, by their place in the list
	after  []string
	// relabel takes away the client's label app=client.
	relabel bool
}{
	{name: "ingress", before: []string{`{podSelector: {matchLabels: {app: server}}, ingress: [` + someFrom(8000, "{}") + `]}`},
		after: []string{`{podSelector: {matchLabels: {app: server}}, ingress: [` + someFrom(8500, "{}") + `]}`}},
	{name: "egress", before: nil,
		after: []string{`{podSelector: {matchLabels: {role: client}}, policyTypes: [Egress], egress: [{ports: ` + somePorts(8500) + `}]}`}},
	{name: "peer", relabel: true,
		before: []string{`{podSelector: {matchLabels: {app: server}}, ingress: [` + someFrom(8000, "{matchLabels: {app: client}}") + `, ` + someFrom(8500, "{}") + `]}`}},
}

func someFrom(first int, pods string) string {
	return fmt.Sprintf(`{from: [{podSelector: %s}], ports: %s}`, pods, somePorts(first))
}

func somePorts(first int) string {
	var list []string
	for _, p := range []string{"TCP", "UDP", "SCTP"} {
		list = append(list, fmt.Sprintf("{protocol: %s, port: %d, endPort: 8999}", p, first))
	}
	return "[" + strings.Join(list, ", ") + "]"
}

// TestCut changes policies under flows that exist: those that are not allowed any more
// stop in both directions, whoever sends first, and the others go on.
func TestCut(t *testing.T) {
	for _, topo := range topologies {
		for _, c := range cutCases {
			t.Run(topo.String()+"/"+c.name, func(t *testing.T) {
				t.Parallel()
				lab.Require(t, needs...)
				s := newCutSite(t, topo)
				s.startAll()
				s.policies(c.before)
				places := s.places()
				victims, kept := s.connect(places), s.connect(onKeptPorts(places))
				begin := time.Now()
				if c.relabel {
					s.relabel()
				} else {
					s.policies(c.after)
				}
				var longest time.Duration
				var mu sync.Mutex
				s.each(places, func(i int, p place) error {
					at, err := over(victims[i], p, whoIsTold(topo, p)...)
					mu.Lock()
					longest = max(longest, at.Sub(begin))
					mu.Unlock()
					return err
				})
				s.settle()
				s.each(onKeptPorts(places), func(i int, p place) error { return goesOn(kept[i]) })
				s.result(fmt.Sprintf("established flows cut by a change of %s, %s", c.name, topo), "%d flows of TCP, UDP and SCTP cut, all within %s; %d others went on", len(victims), longest.Round(time.Millisecond), len(kept))
			})
		}
	}
}

// TestKeep leaves flows that are not allowed any more alone, where that is wanted.
func TestKeep(t *testing.T) {
	for _, c := range []struct {
		name       string
		keep       bool
		annotation string
		goesOn     bool
	}{
		{"flag", true, "", true},
		{"flag and annotation keep", true, "keep", true},
		{"annotation keep", false, "keep", true},
		{"annotation cut", true, "cut", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			lab.Require(t, needs...)
			s := newCutSite(t, lab.Routed)
			s.startAll(func(cfg *agent.Config) { cfg.KeepConnections = c.keep })
			s.policies(cutCases[0].before)
			places := s.places()
			lines := s.connect(places)
			p := policyOf(t, "shop", "p0", cutCases[0].after[0])
			if c.annotation != "" {
				p.Annotations = map[string]string{policy.AnnotationExistingConnections: c.annotation}
			}
			s.api.putPolicy(t, p)
			s.settle()
			s.each(places, func(i int, p place) error {
				if c.goesOn {
					return goesOn(lines[i])
				}
				_, err := over(lines[i], p, client, server)
				return err
			})
			s.result("established flows, "+c.name, "%d flows of TCP, UDP and SCTP, all %s", len(lines), map[bool]string{true: "went on", false: "cut"}[c.goesOn])
		})
	}
}

// cutSite is a site with a client on node-1, and servers on both nodes behind
// cluster IPs.
type cutSite struct{ *site }

func newCutSite(t *testing.T, topo lab.Topology) *cutSite {
	s := &cutSite{newSite(t, topo)}
	s.api.makeNamespace(t, namespaceOf("shop", nil))
	for _, p := range []struct {
		node, name string
		labels     map[string]string
	}{
		{"node-1", "client", map[string]string{"app": "client", "role": "client"}},
		{"node-1", "near", map[string]string{"app": "server"}},
		{"node-2", "far", map[string]string{"app": "server"}},
	} {
		addrs := s.addresses(p.node, 10+len(p.name))
		require.NoError(t, s.AddPod(p.node, "shop/"+p.name, addrs))
		s.api.makePod(t, podOf("shop", p.name, p.name, p.node, p.labels, addrs...))
	}
	s.track()
	return s
}

var clusterIPs = map[string][]netip.Addr{
	"near": {netip.MustParseAddr("10.96.0.1"), netip.MustParseAddr("fd00:10:96::1")},
	"far":  {netip.MustParseAddr("10.96.0.2"), netip.MustParseAddr("fd00:10:96::2")},
}

// services translate the cluster IPs, as kube-proxy would, but for all ports.
const services = `
table ip services {
	chain prerouting {
		type nat hook prerouting priority dstnat
		ip daddr 10.96.0.1 dnat to 10.244.1.14
		ip daddr 10.96.0.2 dnat to 10.244.2.13
	}
}
table ip6 services {
	chain prerouting {
		type nat hook prerouting priority dstnat
		ip6 daddr fd00:10:96::1 dnat to fd00:10:244:1::e
		ip6 daddr fd00:10:96::2 dnat to fd00:10:244:2::d
	}
}
`

// track has the nodes track connections before the agents come, as the nodes of a
// cluster do. Otherwise agents wait a while before they reset what they do not know.
func (s *cutSite) track() {
	s.t.Helper()
	for _, n := range s.Nodes() {
		s.nft(n, services)
	}
	for _, name := range []string{"near", "far"} {
		r := s.Probe(s.t.Context(), []lab.Probe{{From: "shop/client", To: clusterIPs[name][0], Protocol: "icmp"}}, lab.Timing{Allow: patience})
		require.NoError(s.t, r[0].Err)
	}
}

// places returns a place for each protocol, server, family, way and first sender.
func (s *cutSite) places() (out []place) {
	for _, protocol := range []string{"tcp", "udp", "sctp"} {
		for _, name := range []string{"near", "far"} {
			direct := s.addresses(map[string]string{"near": "node-1", "far": "node-2"}[name], 10+len(name))
			for _, to := range slices.Concat(direct, clusterIPs[name]) {
				for _, first := range []end{client, server} {
					out = append(out, place{protocol, "shop/" + name, to, uint16(victimPorts + len(out)), first})
				}
			}
		}
	}
	return out
}

func onKeptPorts(places []place) (out []place) {
	for _, p := range places {
		p.port += keptPorts - victimPorts
		out = append(out, p)
	}
	return out
}

// policies makes policies the only ones, each in its place.
func (s *cutSite) policies(specs []string) {
	s.t.Helper()
	for i, spec := range specs {
		s.api.putPolicy(s.t, policyOf(s.t, "shop", fmt.Sprintf("p%d", i), spec))
	}
	s.settle()
}

func (s *cutSite) relabel() {
	s.t.Helper()
	s.api.setPod(s.t, podOf("shop", "client", "client", "node-1", map[string]string{"role": "client"}, s.addresses("node-1", 10+len("client"))...))
	s.settle()
}

// each works on all places at once.
func (s *cutSite) each(places []place, work func(int, place) error) {
	s.t.Helper()
	errs := make([]error, len(places))
	var all sync.WaitGroup
	for i, p := range places {
		all.Go(func() { errs[i] = work(i, p) })
	}
	all.Wait()
	for i, err := range errs {
		assert.NoError(s.t, err, places[i])
	}
}

// connect makes a flow for each place and uses it in both directions.
func (s *cutSite) connect(places []place) []line {
	s.t.Helper()
	lines := make([]line, len(places))
	s.each(places, func(i int, p place) (err error) {
		source := s.addresses("node-1", 10+len("client"))[0]
		if p.to.Is6() {
			source = s.addresses("node-1", 10+len("client"))[1]
		}
		switch p.protocol {
		case "tcp":
			lines[i], err = s.dialTCP("shop/client", p)
		case "udp":
			lines[i], err = s.dialUDP("shop/client", p)
		case "sctp":
			lines[i], err = s.dialSCTP("shop/client", source, p)
		}
		if err != nil {
			return err
		}
		s.t.Cleanup(lines[i].close)
		return goesOn(lines[i])
	})
	if s.t.Failed() {
		s.t.FailNow()
	}
	return lines
}
