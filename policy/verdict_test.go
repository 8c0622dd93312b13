package policy

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"

	"github.com/portcullis-netpol/portcullis/policy/ir"
)

// checkVerdicts compares the Index's answers about random flows with those of
// the State that its last Flush left.
func checkVerdicts(t testing.TB, c choice, x *Index, s ir.State) {
	t.Helper()
	var ends []netip.Addr
	for i := 1; i <= 13; i++ {
		ends = append(ends, netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}), netip.MustParseAddr(fmt.Sprintf("fd00::%d", i)))
	}
	for range 150 {
		p := ir.Packet{Src: pick(c, ends...), Dst: pick(c, ends...), Protocol: pick(c, ir.TCP, ir.TCP, ir.UDP, ir.SCTP, 1, 58)}
		if p.Protocol != 1 && p.Protocol != 58 {
			p.DstPort = pick(c, uint16(53), 52, 54, 80, 79, 81, 82, 1, 2, 65535, 65534, 0)
		}
		want := Verdict{
			Ingress: Judgement{s.Verdict(ir.Ingress, p) == ir.Accept, s.WouldDeny(ir.Ingress, p), isolating(s, p.Dst, ir.Ingress, p)},
			Egress:  Judgement{s.Verdict(ir.Egress, p) == ir.Accept, s.WouldDeny(ir.Egress, p), isolating(s, p.Src, ir.Egress, p)},
		}
		got := x.Verdict(p.Src, p.Dst, p.Protocol, p.DstPort)
		if !got.Ingress.equal(want.Ingress) || !got.Egress.equal(want.Egress) { // far cheaper than require.Equal
			require.Equal(t, want, got, "%+v", p)
		}
	}
}

func (j Judgement) equal(k Judgement) bool {
	return j.Allowed == k.Allowed && j.WouldDeny == k.WouldDeny && slices.Equal(j.Policies, k.Policies)
}

// isolating returns the policies that isolate the pod at a, or would, by the State.
func isolating(s ir.State, a netip.Addr, d ir.Direction, p ir.Packet) []string {
	e, ok := s.Endpoint(a)
	if !ok || e.Group(d) == "" || p.Src == p.Dst {
		return nil
	}
	g, _ := s.Group(e.Group(d))
	return g.Policies
}

// TestVerdictAgreesWithState plays random events. Most of the questions are put
// between a Flush and the next, while events wait that must not count yet.
func TestVerdictAgreesWithState(t *testing.T) {
	seeds := uint64(100)
	if testing.Short() {
		seeds = 20
	}
	for seed := range seeds {
		w := newWorld(rand.New(rand.NewPCG(seed, 4)))
		x := NewIndex(node)
		flushed := x.State()
		for i := range 80 {
			w.event(x)
			if i%3 == 0 {
				checkVerdicts(t, w, x, flushed)
			}
			if w.chance(30) {
				x.Flush()
				flushed = x.State()
				checkVerdicts(t, w, x, flushed)
			}
		}
	}
}

func TestVerdict(t *testing.T) {
	x := NewIndex(node)
	fleet(x)
	x.SetNetworkPolicy(makePolicy(t, "shop/front", `{podSelector: {matchLabels: {app: db}}, ingress: [{from: [{podSelector: {matchLabels: {app: web}}}], ports: [{port: 9090}]}]}`))
	x.SetNetworkPolicy(makePolicy(t, "shop/all", `{podSelector: {}, policyTypes: [Ingress, Egress], egress: [{to: [{ipBlock: {cidr: 10.0.0.2/32}}]}]}`))
	web, db := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")

	require.True(t, x.Verdict(web, db, ir.TCP, 1).Allowed(), "nothing is in force before the first Flush")
	x.Flush()
	isolated := Judgement{Policies: []string{"shop/all", "shop/front"}}
	require.Equal(t, Verdict{
		Ingress: Judgement{Allowed: true, Policies: []string{"shop/all", "shop/front"}},
		Egress:  Judgement{Allowed: true, Policies: []string{"shop/all"}},
	}, x.Verdict(web, db, ir.TCP, 9090))
	require.Equal(t, isolated, x.Verdict(web, db, ir.TCP, 9091).Ingress)
	require.Equal(t, isolated, x.Verdict(web, db, ir.UDP, 9090).Ingress)
	require.Equal(t, isolated, x.Verdict(web, db, 1, 0).Ingress, "echo needs a rule without ports")
	require.False(t, x.Verdict(db, web, ir.TCP, 9090).Allowed(), "replies are not judged: this is a flow of its own")
	require.True(t, x.Verdict(db, db, ir.TCP, 1).Allowed(), "a pod reaches itself")
	out := netip.MustParseAddr("192.0.2.1")
	require.Equal(t, Judgement{Allowed: true}, x.Verdict(out, web, ir.TCP, 1).Egress, "not a pod of this node")

	x.DeleteNetworkPolicy("shop", "front")
	require.True(t, x.Verdict(web, db, ir.TCP, 9090).Allowed(), "not flushed")
	x.Flush()
	require.False(t, x.Verdict(web, db, ir.TCP, 9090).Allowed())
}

// TestVerdictAllocatesNothing: thousands of flows are judged after a change.
func TestVerdictAllocatesNothing(t *testing.T) {
	x := bigCluster(t, 30, 30)
	x.Flush()
	src, dst := addrOfPod(bigPod(3, 7)), addrOfPod(bigPod(3, 0))
	require.Zero(t, testing.AllocsPerRun(100, func() { x.Verdict(src, dst, ir.TCP, 8080) }))
}

func TestExistingConnections(t *testing.T) {
	x := NewIndex(node)
	fleet(x)
	np := makePolicy(t, "shop/db", `{podSelector: {matchLabels: {app: db}}, ingress: [{ports: [{port: 1}]}]}`)
	require.Equal(t, ExistingUnset, x.ExistingConnections("shop/db"), "no such policy")
	require.Equal(t, ExistingUnset, x.ExistingConnections("shop"), "no name")
	x.SetNetworkPolicy(np)
	require.Equal(t, ExistingUnset, x.ExistingConnections("shop/db"))
	require.False(t, x.Flush().Empty())
	state := x.State()

	for _, want := range []ExistingConnections{ExistingKeep, ExistingCut} {
		np.Annotations = map[string]string{AnnotationExistingConnections: want.String()}
		require.Empty(t, x.SetNetworkPolicy(np))
		require.Equal(t, want, x.ExistingConnections("shop/db"))
		require.Empty(t, x.dirtyPods, "an annotation costs nothing")
		require.True(t, x.Flush().Empty(), "an annotation changes nothing")
	}
	for _, nonsense := range []string{"", "Cut", " keep", "true"} {
		np.Annotations[AnnotationExistingConnections] = nonsense
		require.Equal(t, []Problem{{
			"NetworkPolicy shop/db", "metadata.annotations[portcullis.dev/existing-connections]",
			fmt.Sprintf("%q is neither cut nor keep", nonsense),
		}}, x.SetNetworkPolicy(np))
		require.Equal(t, ExistingUnset, x.ExistingConnections("shop/db"))
		require.True(t, x.Flush().Empty())
	}

	// Together with a change of the spec.
	np.Annotations[AnnotationExistingConnections] = "keep"
	np.Spec.Ingress = nil
	x.SetNetworkPolicy(np)
	require.False(t, x.Flush().Empty())
	require.NotEqual(t, state, x.State())
	require.Equal(t, ExistingKeep, x.ExistingConnections("shop/db"))
	x.DeleteNetworkPolicy("shop", "db")
	require.Equal(t, ExistingUnset, x.ExistingConnections("shop/db"))

	// The name of a policy can be that of its namespace and more.
	np.Namespace, np.Name = "a", "b.c"
	x.SetNetworkPolicy(np)
	require.Equal(t, ExistingKeep, x.ExistingConnections("a/b.c"))
	require.Equal(t, ExistingUnset, x.ExistingConnections("a/b"))
}

// TestAnnotationsAreInNoName: two clusters that differ in annotations only have
// the same State, names included.
func TestAnnotationsAreInNoName(t *testing.T) {
	var states []ir.State
	for _, v := range []string{"", "keep", "cut", "nonsense"} {
		x := NewIndex(node)
		fleet(x)
		np := makePolicy(t, "shop/db", `{podSelector: {matchLabels: {app: db}}, ingress: [{from: [{podSelector: {}}], ports: [{port: http}]}]}`)
		np.Annotations = map[string]string{AnnotationExistingConnections: v}
		x.SetNetworkPolicy(np)
		x.Flush()
		states = append(states, x.State())
	}
	for _, s := range states {
		require.Equal(t, states[0], s)
	}
}

// BenchmarkVerdict judges a flow between two pods of the big cluster.
func BenchmarkVerdict(b *testing.B) {
	benchSizes(b, func(b *testing.B, x *Index) {
		src, dst := addrOfPod(bigPod(3, 7)), addrOfPod(bigPod(3, 0))
		for b.Loop() {
			x.Verdict(src, dst, ir.TCP, 8080)
		}
	})
}

func addrOfPod(p *corev1.Pod) netip.Addr { return netip.MustParseAddr(p.Status.PodIPs[0].IP) }
