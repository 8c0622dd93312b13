package policy

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestElsewhere finds pods of other nodes by their block, and none that has no address
// of its own there.
func TestElsewhere(t *testing.T) {
	x := NewIndex("node-1")
	set := func(name, node string, change func(*corev1.Pod), addrs ...string) {
		p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name}, Spec: corev1.PodSpec{NodeName: node}}
		for _, a := range addrs {
			p.Status.PodIPs = append(p.Status.PodIPs, corev1.PodIP{IP: a})
		}
		if change != nil {
			change(p)
		}
		x.SetPod(p)
	}
	v4, v6 := netip.MustParsePrefix("10.9.1.0/24"), netip.MustParsePrefix("fd00:9:1::/64")
	nowhere := func() {
		t.Helper()
		for _, block := range []netip.Prefix{v4, v6} {
			pod, found := x.Elsewhere(block)
			require.False(t, found, pod)
		}
	}
	nowhere()
	set("own", "node-1", nil, "10.9.1.2", "fd00:9:1::2")
	set("beside", "node-2", nil, "10.9.2.2", "fd00:9:2::2")
	set("host", "node-2", func(p *corev1.Pod) { p.Spec.HostNetwork = true }, "10.9.1.3", "fd00:9:1::3")
	set("ended", "node-2", func(p *corev1.Pod) { p.Status.Phase = corev1.PodFailed }, "10.9.1.4", "fd00:9:1::4")
	nowhere()

	set("there", "node-2", nil, "10.9.2.5", "fd00:9:1::5")
	pod, found := x.Elsewhere(v6)
	require.True(t, found)
	require.Equal(t, "shop/there", pod)
	_, found = x.Elsewhere(v4)
	require.False(t, found)

	// It lists an address that stands for another pod.
	set("also", "node-3", nil, "10.9.1.2")
	set("own", "node-1", func(p *corev1.Pod) { p.CreationTimestamp = metav1.Now() }, "10.9.1.2")
	pod, _ = x.Elsewhere(v4)
	require.Equal(t, "shop/also", pod)
	set("another", "node-3", nil, "10.9.1.9")
	pod, _ = x.Elsewhere(v4)
	require.Equal(t, "shop/also", pod)

	for _, name := range []string{"also", "another", "there"} {
		x.DeletePod("shop", name)
	}
	nowhere()
}
