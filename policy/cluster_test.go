package policy

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"

	"github.com/portcullis-netpol/portcullis/policy/ir"
)

// node is the Index's own node in all tests.
const node = "node-1"

func labelsOf(s string) map[string]string {
	if s == "" {
		return nil
	}
	m := map[string]string{}
	for _, kv := range strings.Split(s, ",") {
		k, v, _ := strings.Cut(kv, "=")
		m[k] = v
	}
	return m
}

func makeNamespace(name, labels string) *corev1.Namespace {
	return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labelsOf(labels)}}
}

// makePod makes a running pod on the own node; ports are "name=number/protocol".
func makePod(fullName, labels string, addrs []string, ports ...string) *corev1.Pod {
	ns, name, _ := strings.Cut(fullName, "/")
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: ns, Name: name, UID: types.UID("uid-" + fullName), Labels: labelsOf(labels),
			CreationTimestamp: metav1.Unix(1000, 0),
		},
		Spec:   corev1.PodSpec{NodeName: node, Containers: []corev1.Container{{Name: "c"}}},
		Status: corev1.PodStatus{Phase: corev1.PodRunning},
	}
	for _, a := range addrs {
		p.Status.PodIPs = append(p.Status.PodIPs, corev1.PodIP{IP: a})
	}
	for _, s := range ports {
		p.Spec.Containers[0].Ports = append(p.Spec.Containers[0].Ports, makePort(s))
	}
	return p
}

func makePort(s string) corev1.ContainerPort {
	name, rest, _ := strings.Cut(s, "=")
	num, proto, _ := strings.Cut(rest, "/")
	n, err := strconv.Atoi(num)
	if err != nil {
		panic(err)
	}
	return corev1.ContainerPort{Name: name, ContainerPort: int32(n), Protocol: corev1.Protocol(proto)}
}

// makePolicy reads the spec of a policy from YAML.
func makePolicy(t testing.TB, fullName, spec string) *networkingv1.NetworkPolicy {
	t.Helper()
	ns, name, _ := strings.Cut(fullName, "/")
	p := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name}}
	require.NoError(t, yaml.UnmarshalStrict([]byte(spec), &p.Spec))
	return p
}

// fleet is the cluster of the table tests. Namespace bare has no object.
//
//	shop/web  app=web        http=8080/TCP
//	shop/db   app=db,tier=   http=9090/TCP, dns=53/UDP
//	mon/prom  app=prom       (namespace purpose=monitoring)
//	bare/x    app=web        http=7070/TCP
//
// All pods are local, all have one address of each family: .1 to .4.
func fleet(x *Index) {
	x.SetNamespace(makeNamespace("shop", "team=shop"))
	x.SetNamespace(makeNamespace("mon", "purpose=monitoring"))
	x.SetPod(makePod("shop/web", "app=web", []string{"10.0.0.1", "fd00::1"}, "http=8080/TCP"))
	x.SetPod(makePod("shop/db", "app=db,tier=", []string{"10.0.0.2", "fd00::2"}, "http=9090/TCP", "dns=53/UDP"))
	x.SetPod(makePod("mon/prom", "app=prom", []string{"10.0.0.3", "fd00::3"}))
	x.SetPod(makePod("bare/x", "app=web", []string{"10.0.0.4", "fd00::4"}, "http=7070/TCP"))
}

// addrs gives the addresses of the names that flows use.
var addrs = map[string][]string{
	"web":  {"10.0.0.1", "fd00::1"},
	"db":   {"10.0.0.2", "fd00::2"},
	"prom": {"10.0.0.3", "fd00::3"},
	"x":    {"10.0.0.4", "fd00::4"},
	"out":  {"192.0.2.1", "2001:db8::1"},
}

// flows reads "web>db tcp/80" into one packet for each address of the names; a
// name can be an address itself. The protocol icmp has no port.
func flows(t testing.TB, s string) []ir.Packet {
	t.Helper()
	ends, l4, ok := strings.Cut(s, " ")
	require.True(t, ok, s)
	src, dst, ok := strings.Cut(ends, ">")
	require.True(t, ok, s)
	resolve := func(n string) []string {
		if as, ok := addrs[n]; ok {
			return as
		}
		return []string{n}
	}
	proto, port, _ := strings.Cut(l4, "/")
	p := ir.Packet{Protocol: map[string]ir.Protocol{"tcp": ir.TCP, "udp": ir.UDP, "sctp": ir.SCTP, "icmp": 1}[proto]}
	require.NotZero(t, p.Protocol, s)
	if port != "" {
		n, err := strconv.ParseUint(port, 10, 16)
		require.NoError(t, err)
		p.DstPort = uint16(n)
	}
	var out []ir.Packet
	for _, a := range resolve(src) {
		for _, b := range resolve(dst) {
			p.Src, p.Dst = netip.MustParseAddr(a), netip.MustParseAddr(b)
			if p.Src.Is4() == p.Dst.Is4() {
				out = append(out, p)
			}
		}
	}
	require.NotEmpty(t, out, s)
	return out
}

func passes(s ir.State, p ir.Packet) bool {
	return s.Verdict(ir.Egress, p) == ir.Accept && s.Verdict(ir.Ingress, p) == ir.Accept
}

// expect checks flows, of which those that begin with "!" must not pass.
func expect(t testing.TB, s ir.State, list ...string) {
	t.Helper()
	for _, f := range list {
		bare, deny := strings.CutPrefix(f, "!")
		for _, p := range flows(t, bare) {
			require.Equal(t, !deny, passes(s, p), "%s (%+v)", f, p)
		}
	}
}

// checkState checks what ir says of a State.
func checkState(t testing.TB, s ir.State) {
	t.Helper()
	require.True(t, slices.IsSortedFunc(s.Endpoints, ir.CompareEndpoints))
	require.True(t, slices.IsSortedFunc(s.Groups, ir.CompareGroups))
	require.True(t, slices.IsSortedFunc(s.PeerSets, ir.ComparePeerSets))
	groups, sets := map[ir.GroupID]bool{}, map[ir.PeerSetID]bool{}
	for _, e := range s.Endpoints {
		for _, id := range []ir.GroupID{e.Ingress, e.Egress} {
			if id != "" {
				_, ok := s.Group(id)
				require.True(t, ok, id)
				groups[id] = true
			}
		}
	}
	require.Len(t, s.Groups, len(groups), "groups that no endpoint has")
	for _, g := range s.Groups {
		require.Len(t, g.Steps, 1)
		checkRules(t, s, g.Steps[0].Rules)
		for _, r := range g.Steps[0].Rules {
			if !r.Peers.Any {
				sets[r.Peers.Set] = true
			}
		}
	}
	require.Len(t, s.PeerSets, len(sets), "sets that no rule has")
	for _, p := range s.PeerSets {
		require.LessOrEqual(t, len(p.About), aboutLen)
		require.Equal(t, p.Blocks, mergePrefixes(p.Blocks))
		require.True(t, slices.IsSortedFunc(p.Addrs, netip.Addr.Compare))
		require.Len(t, slices.Compact(slices.Clone(p.Addrs)), len(p.Addrs))
		require.True(t, p.Selects || len(p.Addrs) == 0)
		require.True(t, p.Selects || len(p.Blocks) > 0, "a set that never matches")
	}
}

// checkRules checks that the first rule that matches protocol and port decides.
func checkRules(t testing.TB, s ir.State, rules []ir.Rule) {
	t.Helper()
	for i, r := range rules {
		if !r.Peers.Any {
			_, ok := s.PeerSet(r.Peers.Set)
			require.True(t, ok, r.Peers.Set)
		}
		if r.Protocol == ir.AnyProtocol {
			require.Equal(t, len(rules)-1, i, "the rule for every protocol is last")
			require.Zero(t, r.First)
			require.Zero(t, r.Last)
			continue
		}
		require.LessOrEqual(t, r.First, r.Last)
		if i > 0 && rules[i-1].Protocol == r.Protocol {
			require.Less(t, rules[i-1].Last, r.First)
			same := rules[i-1].Peers == r.Peers && rules[i-1].Last+1 == r.First
			require.False(t, same, "two rules that could be one")
		} else if i > 0 {
			require.Less(t, protocolRank(rules[i-1].Protocol), protocolRank(r.Protocol))
		}
	}
}

func protocolRank(p ir.Protocol) int { return int(p) }

// mirror follows an Index by its Changes alone.
type mirror struct {
	x     *Index
	state ir.State
}

// flush applies the Change and checks that it leads to the State.
func (m *mirror) flush(t testing.TB) ir.Change {
	t.Helper()
	before := m.x.State()
	require.Equal(t, m.state, before, "State before Flush is that of the last one")
	c := m.x.Flush()
	next, err := m.state.Apply(c)
	require.NoError(t, err)
	m.state = m.x.State()
	requireSame(t, m.state, next)
	require.Equal(t, expectedMembers(before, m.state, c), c.Members)
	checkState(t, next)
	checkIndex(t, m.x)
	if c.Empty() {
		require.Equal(t, before, m.state)
	} else {
		require.NotEqual(t, before, m.state, "a Change that changes nothing")
	}
	require.True(t, m.x.Flush().Empty(), "a second Flush")
	return c
}

// expectedMembers returns what c.Members is to be.
func expectedMembers(before, after ir.State, c ir.Change) (out []ir.PeerSet) {
	sets := func(groups []ir.Group) map[ir.PeerSetID]bool {
		out := map[ir.PeerSetID]bool{}
		for _, g := range groups {
			for _, s := range g.Steps {
				for _, r := range s.Rules {
					out[r.Peers.Set] = out[r.Peers.Set] || g.Wide && !r.Peers.Any
				}
			}
		}
		return out
	}
	had, has := sets(before.Groups), sets(c.AddGroups)
	for _, p := range before.PeerSets {
		if _, stays := after.PeerSet(p.ID); stays && p.Selects && has[p.ID] && !had[p.ID] {
			out = append(out, p)
		}
	}
	return out
}

func requireSame(t testing.TB, want, have ir.State) {
	t.Helper()
	// Comparing the text first is far cheaper than a reflective diff.
	if fmt.Sprint(want) != fmt.Sprint(have) {
		require.Equal(t, want, have)
	}
}

func at(sec int64) metav1.Time { return metav1.NewTime(time.Unix(sec, 0)) }
