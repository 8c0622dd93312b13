package node

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// AddressesAnnotation of a pod lists the addresses that it is to have, separated by
// commas, that of the primary family first. The pod waits until they are free.
const AddressesAnnotation = "portcullis.test/addresses"

// addrsFor returns the addresses of a new pod.
func (n *Nodes) addrsFor(node string, pod *corev1.Pod) ([]netip.Addr, error) {
	list := pod.Annotations[AddressesAnnotation]
	if list == "" {
		return n.freeAddrs(node)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	var addrs []netip.Addr
	for text := range strings.SplitSeq(list, ",") {
		a, err := netip.ParseAddr(text)
		if err != nil {
			return nil, fmt.Errorf("annotation %s: %w", AddressesAnnotation, err)
		}
		for other, box := range n.sandboxes {
			if slices.Contains(box.addrs, a) {
				return nil, fmt.Errorf("address %v still belongs to pod %s", a, other)
			}
		}
		addrs = append(addrs, a)
	}
	return addrs, nil
}

// freeAddrs returns the next address of each podCIDR of a node that no pod has.
// Like the host-local plugin it goes round, so that an address rests before it
// is somebody else's.
func (n *Nodes) freeAddrs(node string) ([]netip.Addr, error) {
	const first, last = 2, 254 // the first address is the bridge's
	n.mu.Lock()
	defer n.mu.Unlock()
	used := map[netip.Addr]bool{}
	for _, box := range n.sandboxes {
		for _, a := range box.addrs {
			used[a] = true
		}
	}
	for range last - first + 1 {
		number := max(n.next[node], first)
		n.next[node] = number + 1
		if number == last {
			n.next[node] = first
		}
		var addrs []netip.Addr
		for _, c := range n.primaryFirst(n.Lab.PodCIDRs(node)) {
			b := c.Addr().AsSlice()
			b[len(b)-1] = byte(number)
			a, _ := netip.AddrFromSlice(b)
			addrs = append(addrs, a)
		}
		if !used[addrs[0]] {
			return addrs, nil
		}
	}
	return nil, fmt.Errorf("node %s has no free address", node)
}
