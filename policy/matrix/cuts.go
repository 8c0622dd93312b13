package matrix

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// cuts are the ports at which a verdict can change, by protocol: the first port of what a policy names, and the first
// behind it.
type cuts struct {
	at    [icmp][]int32
	named bool // a policy asks for ports by name; then the destination's ports are cuts, too
}

func (c *cuts) add(ports []networkingv1.NetworkPolicyPort) {
	for _, p := range ports {
		protocol := corev1.ProtocolTCP
		if p.Protocol != nil {
			protocol = *p.Protocol
		}
		if p.Port == nil {
			continue
		}
		if p.Port.Type == intstr.String {
			c.named = true
			continue
		}
		last := p.Port.IntVal
		if p.EndPort != nil {
			last = *p.EndPort
		}
		c.between(protocol, p.Port.IntVal, last)
	}
}

func (c *cuts) between(protocol corev1.Protocol, first, last int32) {
	i := slices.Index(protocols[:icmp], protocol)
	if i < 0 {
		return
	}
	if 1 < first && first <= lastPort {
		c.at[i] = append(c.at[i], first)
	}
	if 1 <= last && last < lastPort {
		c.at[i] = append(c.at[i], last+1)
	}
}

func (c *cuts) sort() {
	for i := range c.at {
		slices.Sort(c.at[i])
		c.at[i] = slices.Compact(c.at[i])
	}
}

// stretches are the ranges of each protocol in which no verdict can change, for a flow to pod (or to no pod) that is
// judged by what has these cuts.
func (c *cuts) stretches(pod *corev1.Pod) [len(protocols)][]Range {
	all := cuts{}
	for i := range all.at {
		all.at[i] = append([]int32{1}, c.at[i]...)
	}
	if c.named && pod != nil {
		for _, c := range containers(pod) {
			for _, p := range c.Ports {
				protocol := p.Protocol
				if protocol == "" {
					protocol = corev1.ProtocolTCP
				}
				all.between(protocol, p.ContainerPort, p.ContainerPort)
			}
		}
	}
	all.sort()
	var out [len(protocols)][]Range
	for i, at := range all.at {
		for j, first := range at {
			last := int32(lastPort)
			if j+1 < len(at) {
				last = at[j+1] - 1
			}
			out[i] = append(out[i], Range{first, last})
		}
	}
	out[icmp] = []Range{{0, 0}}
	return out
}
