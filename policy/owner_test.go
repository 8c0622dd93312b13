package policy

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
)

func TestPodsWithoutAddresses(t *testing.T) {
	for name, change := range map[string]func(*corev1.Pod){
		"host network": func(p *corev1.Pod) { p.Spec.HostNetwork = true },
		"succeeded":    func(p *corev1.Pod) { p.Status.Phase = corev1.PodSucceeded },
		"failed":       func(p *corev1.Pod) { p.Status.Phase = corev1.PodFailed },
		"no address":   func(p *corev1.Pod) { p.Status.PodIPs = nil },
		"nonsense": func(p *corev1.Pod) {
			p.Status.PodIPs = []corev1.PodIP{{IP: "x"}, {IP: "0.0.0.0"}, {IP: "::"}, {IP: ""}}
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMirror(t, "shop/a", `{podSelector: {}, ingress: [{from: [{podSelector: {}}]}]}`)
			expect(t, m.state, "web>db tcp/1", "!out>web tcp/1")
			p := makePod("shop/web", "app=web", addrs["web"])
			p.Status.PodIP = addrs["web"][0]
			change(p)
			if name == "no address" {
				p.Status.PodIP = ""
			}
			m.x.SetPod(p)
			m.flush(t)
			expect(t, m.state, "!web>db tcp/1", "out>web tcp/1")
			_, ok := m.state.Endpoint(netip.MustParseAddr("10.0.0.1"))
			require.False(t, ok)
		})
	}
}

func TestPodAddresses(t *testing.T) {
	f := func(podIP string, podIPs ...string) []string {
		p := makePod("a/b", "", podIPs)
		p.Status.PodIP = podIP
		var out []string
		for _, a := range parsePod(p, node).claims {
			out = append(out, a.String())
		}
		return out
	}
	require.Equal(t, []string{"10.0.0.1"}, f("10.0.0.1"))
	require.Equal(t, []string{"10.0.0.1", "fd00::1"}, f("10.0.0.9", "fd00::1", "10.0.0.1"))
	require.Equal(t, []string{"10.0.0.1"}, f("", "::ffff:10.0.0.1", "10.0.0.1"))
	require.Equal(t, []string{"10.0.0.1"}, f("", "::ffff:0.0.0.0", "10.0.0.1", "fe80::1%eth0", "10.0.0.300"))
	require.Empty(t, f("10.0.0.1", ""), "podIPs is not empty")
}

// TestAddressReuse: the status of an ended pod may be read after another pod
// has its address.
func TestAddressReuse(t *testing.T) {
	m := newMirror(t,
		"shop/a", `{podSelector: {matchLabels: {app: db}}, ingress: [{from: [{podSelector: {matchLabels: {app: web}}}]}]}`)
	next := makePod("mon/next", "app=next", addrs["web"])
	next.CreationTimestamp = at(2000)
	m.x.SetPod(next)
	m.flush(t)
	require.Equal(t, "mon/next", endpoint(t, m.state, "10.0.0.1").Pod)
	expect(t, m.state, "!web>db tcp/1")

	m.x.SetPod(makePod("shop/web", "app=db", addrs["web"])) // still listed, but no longer its
	require.True(t, m.flush(t).Empty())
	m.x.SetPod(makePod("shop/web", "app=web", addrs["web"]))
	require.True(t, m.flush(t).Empty())

	m.x.DeletePod("mon", "next")
	m.flush(t)
	require.Equal(t, "shop/web", endpoint(t, m.state, "10.0.0.1").Pod)
	expect(t, m.state, "web>db tcp/1")
}

// TestOwnerOrder: whoever comes last in the order owns the address, whatever the
// order of events.
func TestOwnerOrder(t *testing.T) {
	pod := func(name, uid string, sec int64) *corev1.Pod {
		p := makePod(name, "", []string{"10.0.0.7"})
		p.UID, p.CreationTimestamp = "", at(sec)
		if uid != "" {
			p.UID = makePod(uid, "", nil).UID
		}
		return p
	}
	order := []*corev1.Pod{
		pod("z/z", "z/z", 1), // oldest
		pod("y/a", "a/a", 2), // least UID
		pod("a/a", "b/b", 2), // least name
		pod("a/b", "b/b", 2),
	}
	for i, perm := range permutations(len(order)) {
		m := mirror{x: NewIndex(node)}
		best := -1
		for _, k := range perm {
			m.x.SetPod(order[k])
			best = max(best, k)
			m.flush(t)
			require.Equal(t, order[best].Namespace+"/"+order[best].Name, endpoint(t, m.state, "10.0.0.7").Pod, "permutation %d", i)
		}
		left := slices.Clone(perm)
		for range perm {
			m.x.DeletePod(order[left[0]].Namespace, order[left[0]].Name)
			left = left[1:]
			m.flush(t)
			if len(left) == 0 {
				require.Empty(t, m.state.Endpoints)
				continue
			}
			best := slices.Max(left)
			require.Equal(t, order[best].Namespace+"/"+order[best].Name, endpoint(t, m.state, "10.0.0.7").Pod)
		}
		require.Empty(t, m.x.rivals)
		require.Empty(t, m.x.owners)
	}
}

func permutations(n int) [][]int {
	if n == 0 {
		return [][]int{nil}
	}
	var out [][]int
	for _, p := range permutations(n - 1) {
		for i := range n {
			out = append(out, slices.Insert(slices.Clone(p), i, n-1))
		}
	}
	return out
}

// TestReplacedPod: a pod of the same name but with another UID, without a
// deletion in between.
func TestReplacedPod(t *testing.T) {
	m := newMirror(t, "shop/a", `{podSelector: {matchLabels: {app: db}}, ingress: [{from: [{podSelector: {matchLabels: {app: web}}}]}]}`)
	p := makePod("shop/web", "app=web", []string{"10.0.0.50"})
	p.UID = "another"
	m.x.SetPod(p)
	m.flush(t)
	expect(t, m.state, "10.0.0.50>10.0.0.2 tcp/1", "!10.0.0.1>10.0.0.2 tcp/1")
	_, ok := m.state.Endpoint(netip.MustParseAddr("10.0.0.1"))
	require.False(t, ok)
}
