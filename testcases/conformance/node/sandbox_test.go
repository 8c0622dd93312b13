package node

import (
	"net/netip"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestAddressesAnnotation: a pod gets the addresses that it asks for, once they are
// free.
func TestAddressesAnnotation(t *testing.T) {
	want := []netip.Addr{netip.MustParseAddr("10.244.1.9"), netip.MustParseAddr("fd00::9")}
	n := &Nodes{sandboxes: map[string]*sandbox{"shop/web": {addrs: want[1:]}}}
	ask := func(list string) ([]netip.Addr, error) {
		return n.addrsFor("node-1", &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Annotations: map[string]string{AddressesAnnotation: list}}})
	}
	if _, err := ask("10.244.1.9,fd00::9"); err == nil {
		t.Error("an address has two pods")
	}
	delete(n.sandboxes, "shop/web")
	if got, err := ask("10.244.1.9,fd00::9"); err != nil || !slices.Equal(got, want) {
		t.Error(got, err)
	}
	if _, err := ask("10.244.1.9,"); err == nil {
		t.Error("no address is an address")
	}
}
