package manifest

import (
	"errors"
	"fmt"
	"net/netip"

	corev1 "k8s.io/api/core/v1"
)

// PlaceNode is a node that can run pods.
type PlaceNode struct {
	Name     string
	PodCIDRs []netip.Prefix // usually one of each family
}

// Place does what the scheduler and the kubelets would do. Pods without spec.nodeName get the nodes in turn; pods
// without addresses get the next free address of each CIDR of their node, but not the network's own, the first one (a
// gateway has it), the broadcast address, or one that another pod lists; a pod without a phase is Running. Pods that have
// finished or are in the host's network get no address. The result depends only on the objects and their order. A pod on
// an unknown node, or for which there is no address left, is an error that does not stop the others.
func (o *Objects) Place(nodes []PlaceNode) error {
	p := placement{used: map[netip.Addr]bool{}, last: map[netip.Prefix]netip.Addr{}}
	for _, pod := range o.Pods {
		for _, text := range listed(pod) {
			if addr, err := netip.ParseAddr(text); err == nil {
				p.used[addr.Unmap()] = true
			}
		}
	}
	byName := map[string]PlaceNode{}
	for _, n := range nodes {
		byName[n.Name] = n
	}
	var errs []error
	turn := 0
	for _, pod := range o.Pods {
		if pod.Spec.NodeName == "" && len(nodes) > 0 {
			pod.Spec.NodeName = nodes[turn%len(nodes)].Name
			turn++
		}
		if pod.Status.Phase == "" {
			pod.Status.Phase = corev1.PodRunning
		}
		if pod.Spec.HostNetwork || finished(pod) || len(listed(pod)) > 0 {
			continue
		}
		node, ok := byName[pod.Spec.NodeName]
		if !ok {
			errs = append(errs, fmt.Errorf("%s: spec.nodeName: there is no node %q to place it on", key(pod), pod.Spec.NodeName))
			continue
		}
		errs = append(errs, p.giveAddresses(pod, node))
	}
	return errors.Join(errs...)
}

func finished(pod *corev1.Pod) bool {
	return pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
}

// listed are the addresses in a pod's status.
func listed(pod *corev1.Pod) []string {
	var out []string
	for _, ip := range pod.Status.PodIPs {
		out = append(out, ip.IP)
	}
	if pod.Status.PodIP != "" {
		out = append(out, pod.Status.PodIP)
	}
	return out
}

// placement remembers which addresses are taken.
type placement struct {
	used map[netip.Addr]bool
	last map[netip.Prefix]netip.Addr // last address looked at
}

// giveAddresses gives a pod one address of every CIDR of its node, or none at all.
func (p placement) giveAddresses(pod *corev1.Pod, node PlaceNode) error {
	var ips []corev1.PodIP
	for _, cidr := range node.PodCIDRs {
		addr, ok := p.next(cidr.Masked())
		if !ok {
			return fmt.Errorf("%s: node %s has no free address in %s", key(pod), node.Name, cidr)
		}
		ips = append(ips, corev1.PodIP{IP: addr.String()})
	}
	if len(ips) > 0 {
		pod.Status.PodIPs, pod.Status.PodIP = ips, ips[0].IP
	}
	return nil
}

// next is the next free address of a block.
func (p placement) next(cidr netip.Prefix) (netip.Addr, bool) {
	addr, started := p.last[cidr]
	if !started {
		addr = cidr.Addr().Next() // The network's own and the gateway's address are behind us.
	}
	for {
		addr = addr.Next()
		broadcast := addr.Is4() && !cidr.Contains(addr.Next())
		if !cidr.Contains(addr) || broadcast {
			return netip.Addr{}, false
		}
		p.last[cidr] = addr
		if !p.used[addr] {
			p.used[addr] = true
			return addr, true
		}
	}
}
