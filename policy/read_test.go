package policy

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestRead gives back what was set, as far as policies can ask for it.
func TestRead(t *testing.T) {
	x := NewIndex(node)
	require.Empty(t, x.Namespaces())
	fleet(x)
	x.SetNamespace(makeNamespace("empty", ""))
	x.SetNetworkPolicy(makePolicy(t, "only-policies/p", `{podSelector: {}}`))
	require.Equal(t, []string{"bare", "empty", "mon", "shop"}, x.Namespaces())

	db, ok := x.Pod(netip.MustParseAddr("fd00::2"))
	require.True(t, ok)
	want := makePod("shop/db", "app=db,tier=", []string{"10.0.0.2", "fd00::2"}, "http=9090/TCP", "dns=53/UDP")
	want.Status.Phase, want.Status.PodIP, want.Spec.Containers[0].Name = "", "10.0.0.2", ""
	want.CreationTimestamp = metav1.NewTime(want.CreationTimestamp.UTC())
	require.Equal(t, want, db)
	require.ElementsMatch(t, []string{"db", "web"}, x.PodNames("shop"))
	named, ok := x.PodNamed("shop", "db")
	require.True(t, ok)
	require.Equal(t, want, named)
	require.Empty(t, x.PodNames("none"))
	for _, name := range [][2]string{{"none", "db"}, {"shop", "none"}} {
		_, ok = x.PodNamed(name[0], name[1])
		require.False(t, ok, name)
	}
	_, ok = x.Pod(netip.MustParseAddr("192.0.2.1"))
	require.False(t, ok)

	n, ok := x.Namespace("shop")
	require.True(t, ok)
	require.Equal(t, makeNamespace("shop", "team=shop"), n)
	_, ok = x.Namespace("bare")
	require.False(t, ok, "it has no object")
	for mode, kept := range map[string]map[string]string{"audit": {AnnotationMode: "audit"}, "enforce": nil, "?": nil} {
		x.SetNamespace(shopInMode(mode))
		n, _ = x.Namespace("shop")
		require.Equal(t, kept, n.Annotations)
	}

	// They are the caller's.
	db.Labels["app"], n.Labels["team"] = "x", "x"
	again, _ := x.Pod(netip.MustParseAddr("10.0.0.2"))
	require.Equal(t, "db", again.Labels["app"])
	n, _ = x.Namespace("shop")
	require.Equal(t, "shop", n.Labels["team"])
}

// TestReadPodsThatShare: the address is that of the newest, and all of them list it.
func TestReadPodsThatShare(t *testing.T) {
	x := NewIndex(node)
	old, young := makePod("a/old", "", []string{"10.0.0.1", "10.0.0.2"}), makePod("a/young", "", []string{"10.0.0.1"})
	young.CreationTimestamp, young.Spec.NodeName = at(2000), "node-2"
	x.SetPod(old)
	x.SetPod(young)
	p, _ := x.Pod(netip.MustParseAddr("10.0.0.1"))
	require.Equal(t, "young", p.Name)
	require.Empty(t, p.Spec.NodeName, "of another node")
	p, _ = x.Pod(netip.MustParseAddr("10.0.0.2"))
	require.Equal(t, "old", p.Name)
	require.Equal(t, node, p.Spec.NodeName)
	require.Equal(t, []corev1.PodIP{{IP: "10.0.0.1"}, {IP: "10.0.0.2"}}, p.Status.PodIPs)
	young.Status.Phase = corev1.PodSucceeded
	x.SetPod(young)
	require.Equal(t, []string{"old"}, x.PodNames("a"))
	p, _ = x.Pod(netip.MustParseAddr("10.0.0.1"))
	require.Equal(t, "old", p.Name)
}

func TestSelected(t *testing.T) {
	x := NewIndex(node)
	fleet(x)
	far := makePod("shop/far", "app=web", []string{"10.0.0.9"})
	far.Spec.NodeName = "node-2"
	x.SetPod(far)
	for spec, want := range map[string]int{
		`{podSelector: {}}`: 2, `{podSelector: {matchLabels: {app: web}}}`: 1, `{podSelector: {matchLabels: {app: none}}}`: 0,
		`{podSelector: {matchLabels: {"a b": c}}}`: 2, `{podSelector: {}, policyTypes: [Egress]}`: 2,
	} {
		x.SetNetworkPolicy(makePolicy(t, "shop/p", spec))
		require.Equal(t, want, x.Selected("shop/p"), spec)
	}
	x.DeleteNetworkPolicy("shop", "p")
	require.Zero(t, x.Selected("shop/p"))
}
