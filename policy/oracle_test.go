package policy

import (
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/portcullis-netpol/portcullis/policy/evaluate"
	"github.com/portcullis-netpol/portcullis/policy/ir"
)

// cluster returns the world for the naive evaluation.
func (w *world) cluster() evaluate.Cluster {
	var c evaluate.Cluster
	for _, o := range w.pods {
		c.Pods = append(c.Pods, o)
	}
	for _, o := range w.namespaces {
		c.Namespaces = append(c.Namespaces, o)
	}
	for _, o := range w.policies {
		c.Policies = append(c.Policies, o)
	}
	return c
}

// podsOf returns the pods of a namespace that the Index gives back, sorted by name.
func podsOf(x *Index, namespace string) (pods []*corev1.Pod) {
	for _, name := range slices.Sorted(slices.Values(x.PodNames(namespace))) {
		if p, ok := x.PodNamed(namespace, name); ok {
			pods = append(pods, p)
		}
	}
	return pods
}

// given returns the cluster that the Index gives back, with the policies of c.
func given(t testing.TB, x *Index, c evaluate.Cluster) evaluate.Cluster {
	t.Helper()
	out := evaluate.Cluster{Policies: c.Policies}
	names := x.Namespaces()
	require.True(t, slices.IsSorted(names))
	for _, name := range names {
		n, known := x.Namespace(name)
		pods := podsOf(x, name)
		require.True(t, known || len(pods) > 0, name)
		if known {
			out.Namespaces = append(out.Namespaces, n)
		}
		out.Pods = append(out.Pods, pods...)
	}
	require.Len(t, out.Namespaces, len(c.Namespaces))
	return out
}

var oracleEnds = func() []netip.Addr {
	ends := []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("fd00::f")}
	for i := 1; i <= 12; i++ {
		ends = append(ends, netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}), netip.MustParseAddr(fmt.Sprintf("fd00::%d", i)))
	}
	return ends
}()

// checkOracle asks the naive evaluation about flows between all that there is: of the
// directions that this node judges it must agree with the compiled form, and it must
// say the same of what the Index gives back as of what it was given.
func (w *world) checkOracle(t testing.TB, x *Index, s ir.State) {
	t.Helper()
	c := w.cluster()
	again := given(t, x, c)
	for range 150 {
		src, dst := pick(w, oracleEnds...), pick(w, oracleEnds...)
		if src.Is4() != dst.Is4() {
			continue
		}
		proto := pick(w, corev1.ProtocolTCP, corev1.ProtocolTCP, corev1.ProtocolUDP, corev1.ProtocolSCTP, "ICMP")
		p := ir.Packet{Src: src, Dst: dst, Protocol: map[corev1.Protocol]ir.Protocol{"TCP": ir.TCP, "UDP": ir.UDP, "SCTP": ir.SCTP, "ICMP": 1}[proto]}
		if proto != "ICMP" {
			p.DstPort = pick(w, uint16(53), 80, 81, 1, 2, 65535, 82)
		}
		f := evaluate.Flow{Src: src, Dst: dst, Protocol: proto, Port: int32(p.DstPort)}
		v := evaluate.Evaluate(c, f)
		if have := evaluate.Evaluate(again, f); !reflect.DeepEqual(v, have) { // far cheaper than require.Equal
			require.Equal(t, v, have, "%+v: what the Index gives back", p)
		}
		j := x.Verdict(src, dst, p.Protocol, p.DstPort)
		checkDecision(t, s, ir.Egress, src, p, v.Egress, j.Egress)
		checkDecision(t, s, ir.Ingress, dst, p, v.Ingress, j.Ingress)
	}
	w.checkRead(t, x)
}

// checkDecision compares what the three say of one direction, if pod is one of this node.
func checkDecision(t testing.TB, s ir.State, d ir.Direction, pod netip.Addr, p ir.Packet, want evaluate.Decision, j Judgement) {
	t.Helper()
	if _, local := s.Endpoint(pod); !local {
		return
	}
	if want.Allowed != (s.Verdict(d, p) == ir.Accept) || want.WouldDeny != s.WouldDeny(d, p) || want.Allowed != j.Allowed || want.WouldDeny != j.WouldDeny {
		require.Fail(t, "they differ", "%v %+v: %+v, %v %v, %+v", d, p, want, s.Verdict(d, p), s.WouldDeny(d, p), j)
	}
	if p.Src != p.Dst && !slices.Equal(slices.Concat(want.Isolated, want.Audit), j.Policies) {
		require.Fail(t, "other policies", "%v %+v: %+v, %+v", d, p, want, j)
	}
	if (want.Near != nil) && want.Allowed && !want.WouldDeny {
		require.Fail(t, "a rule that is near what passes", "%+v", want)
	}
}

// checkRead compares what the Index says of single objects with the world.
func (w *world) checkRead(t testing.TB, x *Index) {
	t.Helper()
	for _, p := range w.policies {
		name := p.Namespace + "/" + p.Name
		want := ModeEnforce
		switch mode, says := p.Annotations[AnnotationMode]; {
		case says && mode == "audit", !says && w.namespaces[p.Namespace] != nil && w.namespaces[p.Namespace].Annotations[AnnotationMode] == "audit":
			want = ModeAudit
		}
		require.Equal(t, want, x.Mode(name), name)
		selects, err := metav1.LabelSelectorAsSelector(&p.Spec.PodSelector)
		if err != nil {
			selects = labels.Everything()
		}
		n := 0
		for _, o := range podsOf(x, p.Namespace) {
			if o.Spec.NodeName == node && selects.Matches(labels.Set(o.Labels)) {
				n++
			}
		}
		require.Equal(t, n, x.Selected(name), name)
	}
	for _, a := range oracleEnds {
		p, ok := x.Pod(a)
		v := evaluate.Evaluate(w.cluster(), evaluate.Flow{Src: a, Dst: a, Protocol: "ICMP"})
		require.Equal(t, v.Egress.Pod != "", ok, a)
		if ok {
			require.Equal(t, v.Egress.Pod, p.Namespace+"/"+p.Name)
			require.Contains(t, podsOf(x, p.Namespace), p)
		}
	}
	for k, o := range w.namespaces {
		n, ok := x.Namespace(k)
		require.True(t, ok)
		require.True(t, maps.Equal(o.Labels, n.Labels), k)
	}
}
