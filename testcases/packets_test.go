package testcases

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"

	"github.com/portcullis-netpol/portcullis/nft"
	"github.com/portcullis-netpol/portcullis/testcases/lab"
)

// timing bounds the wait for packets. What should pass has all the time that a
// busy machine may need; what should not is over when its answer would long have
// been there.
var timing = lab.Timing{Allow: 5 * time.Second, Deny: 250 * time.Millisecond}

// labsPerTopology bounds how many cases are at work with packets at once. They
// spend their time waiting for what must not come.
const labsPerTopology = 3

var topologies = []lab.Topology{lab.Routed, lab.Bridged}

// labs lends out laboratories, which are made when they are first needed and
// stay until the test process ends.
type labs struct {
	free map[lab.Topology]chan *bench
}

// bench is a laboratory and what stays in it from case to case.
type bench struct {
	*lab.Lab
	served map[serverKey]bool // on nodes and the outside host
	owned  map[netip.Addr]bool
}

type serverKey struct {
	endpoint string
	protoPort
}

var pool = newLabs()

func newLabs() *labs {
	l := &labs{free: map[lab.Topology]chan *bench{}}
	for _, topo := range topologies {
		l.free[topo] = make(chan *bench, labsPerTopology)
		for range labsPerTopology {
			l.free[topo] <- nil
		}
	}
	return l
}

// borrow waits for a laboratory. One in which a test failed is not lent again:
// nobody knows what is left in it.
func (l *labs) borrow(t *testing.T, topo lab.Topology) *bench {
	t.Helper()
	b := <-l.free[topo]
	t.Cleanup(func() {
		if t.Failed() && b != nil {
			_ = b.Close()
			b = nil
		}
		l.free[topo] <- b
	})
	if b == nil {
		made, err := lab.New(lab.Config{Topology: topo})
		require.NoError(t, err)
		b = &bench{Lab: made, served: map[serverKey]bool{}, owned: map[netip.Addr]bool{}}
	}
	return b
}

// TestLabAddresses compares the addresses that the tests take for granted.
func TestLabAddresses(t *testing.T) {
	lab.Require(t, lab.NFTables)
	b := pool.borrow(t, lab.Routed)
	require.Equal(t, nodeNames, b.Nodes())
	for _, n := range nodeNames {
		want := nodeAddrs[n]
		assert.Equal(t, want[:], b.NodeAddrs(n))
		assert.Equal(t, podCIDRs[n], b.PodCIDRs(n))
	}
	assert.Equal(t, outsideAddrs[:], b.OutsideAddrs())
}

// site is a bench with the pods, Services and enforcers of one case.
type site struct {
	*bench
	t         *testing.T
	cfg       nft.Config
	pods      map[string]pod
	served    map[serverKey]bool // on pods
	services  map[string]bool
	followers map[string]*follower
}

func newSite(t *testing.T, topo lab.Topology, cfg nft.Config) *site {
	t.Helper()
	s := &site{
		bench: pool.borrow(t, topo), t: t, cfg: cfg,
		pods: map[string]pod{}, served: map[serverKey]bool{}, services: map[string]bool{}, followers: map[string]*follower{},
	}
	t.Cleanup(s.clean)
	s.forgetFlows()
	for _, n := range nodeNames {
		cfg.NetNS = s.NetNS(n)
		k, err := nft.OpenKernel(cfg)
		require.NoError(t, err)
		f, err := newFollower(t.Context(), n, k, cfg)
		s.followers[n] = &follower{kernel: k}
		require.NoError(t, err)
		s.followers[n] = f
	}
	return s
}

// forgetFlows empties the nodes' connection tracking: pods that are made again have
// the addresses of earlier ones and begin with the same source ports.
func (s *site) forgetFlows() {
	s.t.Helper()
	for _, n := range nodeNames {
		require.NoError(s.t, s.In(n, func() error { return netlink.ConntrackTableFlush(netlink.ConntrackTable) }))
	}
}

// clean leaves the bench as it was. It runs before the bench is given back.
func (s *site) clean() {
	ctx := context.Background() // that of the test has ended
	for _, f := range s.followers {
		assert.NoError(s.t, nft.Cleanup(ctx, f.kernel))
		assert.NoError(s.t, f.kernel.Close())
	}
	for name := range s.services {
		assert.NoError(s.t, s.RemoveService(name))
	}
	for name := range s.pods {
		assert.NoError(s.t, s.RemovePod(name))
	}
}

// enforce gives the events to the nodes' enforcers, as one change, and has them
// verify what the kernel holds.
func (s *site) enforce(events []event) {
	s.t.Helper()
	for _, n := range nodeNames {
		f := s.followers[n]
		require.NoError(s.t, f.follow(s.t.Context(), events))
		require.NoError(s.t, f.enforcer.Tidy(s.t.Context()))
		differences, err := f.enforcer.Verify(s.t.Context(), f.index.State())
		require.NoError(s.t, err)
		require.Empty(s.t, differences, "%s: the kernel's table is not what it should be", n)
	}
}

// populate makes the laboratory's pods and Services those of the cluster.
func (s *site) populate(c *cluster) {
	s.t.Helper()
	want := map[string]pod{}
	for _, p := range c.pods() {
		if len(p.addrs()) > 0 {
			want[p.Name] = p
		}
	}
	removed := false
	for name, p := range s.pods {
		if want[name] != p {
			removed = true
			require.NoError(s.t, s.RemovePod(name))
			delete(s.pods, name)
			maps.DeleteFunc(s.served, func(k serverKey, _ bool) bool { return k.endpoint == name })
		}
	}
	if removed {
		s.forgetFlows()
	}
	for _, name := range slices.Sorted(maps.Keys(want)) {
		p := want[name]
		if _, there := s.pods[name]; there {
			continue
		}
		if p.HostNetwork {
			require.NoError(s.t, s.AddHostPod(p.Node, name))
		} else {
			require.NoError(s.t, s.AddPod(p.Node, name, p.addrs()))
		}
		s.pods[name] = p
	}
	for _, o := range c.objects.Services {
		v, _ := c.service(o.Namespace + "/" + o.Name)
		require.NoError(s.t, s.SetService(labService(v)))
		s.services[v.Name] = true
	}
}

func labService(v *service) lab.Service {
	out := lab.Service{Name: v.Name}
	for _, a := range v.IPs {
		if a.IsValid() {
			out.ClusterIPs = append(out.ClusterIPs, a)
		}
	}
	for _, p := range v.Pods {
		out.Backends = append(out.Backends, p.addrs()...)
	}
	for _, p := range v.Ports {
		out.Ports = append(out.Ports, lab.ServicePort{
			Protocol: protocolOf(p.Protocol), Port: uint16(p.Port),
			TargetPort: uint16(p.TargetPort.IntVal), NodePort: uint16(p.NodePort),
		})
	}
	return out
}

// endpoint is where in the laboratory an address is.
func (c *cluster) endpoint(a netip.Addr) string {
	name, node := c.owner(a)
	switch {
	case name != "":
		return name
	case node != "":
		return node
	}
	return outside
}

// probe turns a check into a probe: it sees to the addresses of the outside host
// and to the servers, on every pod that may answer.
func (s *site) probe(c *cluster, ch check) (lab.Probe, error) {
	src, dst := ch.Src.addr(ch.V4), ch.Dst.addr(ch.V4)
	for _, a := range []netip.Addr{src, dst} {
		if ch.Dst.Service != nil && a == dst {
			continue
		}
		if err := s.ownOutside(c, a); err != nil {
			return lab.Probe{}, err
		}
	}
	paths, err := c.paths(ch)
	if err != nil {
		return lab.Probe{}, err
	}
	for _, p := range paths {
		if ch.Want == closedPort || ch.Port.Protocol == "icmp" {
			continue
		}
		if err := s.serve(c.endpoint(p.Dst), protoPort{ch.Port.Protocol, p.Port}); err != nil {
			return lab.Probe{}, err
		}
	}
	p := lab.Probe{From: c.endpoint(src), To: dst, Protocol: ch.Port.Protocol, Port: ch.Port.Port, Deny: !ch.Want.allowed()}
	if name, node := c.owner(src); name != "" || node == "" {
		p.Src = src // a node's process leaves the choice to the node's routes
	}
	return p, nil
}

// ownOutside gives the outside host an address that is nobody else's.
func (s *site) ownOutside(c *cluster, a netip.Addr) error {
	if c.endpoint(a) != outside || slices.Contains(outsideAddrs[:], a) || s.owned[a] {
		return nil
	}
	s.owned[a] = true
	return s.AddOutside(a)
}

func (s *site) serve(endpoint string, p protoPort) error {
	k := serverKey{endpoint, p}
	served := s.served
	if _, isPod := s.pods[endpoint]; !isPod {
		served = s.bench.served
	}
	if served[k] {
		return nil
	}
	served[k] = true
	return s.Serve(endpoint, p.Protocol, p.Port)
}

// run sends all checks at once and compares what comes back.
func (s *site) run(c *cluster, checks []check) {
	s.t.Helper()
	var probes []lab.Probe
	var sent []check
	for _, ch := range checks {
		if ch.NoPackets {
			continue
		}
		p, err := s.probe(c, ch)
		require.NoError(s.t, err, ch)
		probes, sent = append(probes, p), append(sent, ch)
	}
	for i, r := range s.Probe(s.t.Context(), probes, timing) {
		if err := judge(sent[i].Want, r); err != nil {
			assert.NoError(s.t, fmt.Errorf("%v (%v): want %s: %w", sent[i], probes[i], sent[i].Want, err))
		}
	}
}

// judge compares what became of a probe with what should have.
func judge(want verdict, r lab.Result) error {
	neverStarted := r.Err != nil && !r.Refused && !isTimeout(r.Err)
	switch {
	case neverStarted:
		return fmt.Errorf("probe failed: %w", r.Err)
	case want != closedPort && want.allowed() && !r.OK:
		return fmt.Errorf("no answer: %w", r.Err)
	case want == closedPort && !r.Refused:
		return fmt.Errorf("no refusal: %w", errors.Join(errors.New("answered or timed out"), r.Err))
	case !want.allowed() && (r.OK || r.Refused):
		return fmt.Errorf("passed (refused: %v)", r.Refused)
	}
	return nil
}

// runPackets plays a case in a laboratory.
func runPackets(t *testing.T, c testCase, topo lab.Topology) {
	lab.Require(t, needs...)
	s := newSite(t, topo, tableConfig)
	play(t, c, func(t *testing.T, st stage) {
		s.populate(st.cluster)
		s.enforce(st.Events)
		s.run(st.cluster, st.Checks)
	})
	s.restart()
}

// restart hands the last state to another enforcer, as a new process would, and
// verifies what it made of it.
func (s *site) restart() {
	s.t.Helper()
	for _, n := range nodeNames {
		f := s.followers[n]
		cfg := s.cfg
		cfg.NetNS = s.NetNS(n)
		next := nft.NewEnforcer(cfg, f.kernel)
		require.NoError(s.t, next.Takeover(s.t.Context(), f.index.State()))
		differences, err := next.Verify(s.t.Context(), f.index.State())
		require.NoError(s.t, err)
		require.Empty(s.t, differences, "%s: the kernel's table after a restart", n)
		_, err = f.table(s.t.Context())
		require.NoError(s.t, err)
	}
}
