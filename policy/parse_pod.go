package policy

import (
	"net/netip"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/portcullis-netpol/portcullis/policy/ir"
)

// portName is what a policy asks for with a named port.
type portName struct {
	name     string
	protocol ir.Protocol
}

// podPort is what a pod says the name is.
type podPort struct {
	portName
	number uint16
}

// podFacts is what matters of a Pod object.
type podFacts struct {
	// uid and created decide who owns an address that several pods list.
	uid     string
	created time.Time
	// local is set if the pod runs on the Index's node.
	local  bool
	labels labelSet
	ports  []podPort
	// claims are the addresses that the pod lists, sorted and distinct. A pod
	// without any is of no consequence.
	claims []netip.Addr
}

func (f podFacts) equal(g podFacts) bool {
	return f.uid == g.uid && f.created.Equal(g.created) && f.local == g.local &&
		slices.Equal(f.labels, g.labels) && slices.Equal(f.ports, g.ports) && slices.Equal(f.claims, g.claims)
}

func parsePod(p *corev1.Pod, node string) podFacts {
	f := podFacts{
		uid:     string(p.UID),
		created: p.CreationTimestamp.UTC(),
		local:   p.Spec.NodeName != "" && p.Spec.NodeName == node,
		claims:  parseClaims(p),
	}
	if len(f.claims) == 0 {
		return podFacts{}
	}
	f.labels = newLabelSet(p.Labels)
	f.ports = parsePodPorts(p.Spec)
	return f
}

// parseClaims returns the addresses that stand for the pod, and only for it: a
// pod in the node's network has none of its own, and one that has ended has
// given its back, whatever its status still says.
func parseClaims(p *corev1.Pod) []netip.Addr {
	if p.Spec.HostNetwork || p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed {
		return nil
	}
	ips := make([]string, 0, 2)
	for _, ip := range p.Status.PodIPs {
		ips = append(ips, ip.IP)
	}
	if len(ips) == 0 {
		ips = append(ips, p.Status.PodIP)
	}
	var as []netip.Addr
	for _, ip := range ips {
		a, err := netip.ParseAddr(ip)
		a = a.Unmap()
		if err != nil || a.IsUnspecified() || a.Zone() != "" {
			continue
		}
		as = append(as, a)
	}
	slices.SortFunc(as, netip.Addr.Compare)
	return slices.Compact(as)
}

// parsePodPorts returns the named ports in the order in which they count. Init
// containers that keep running serve like any other.
func parsePodPorts(s corev1.PodSpec) []podPort {
	var out []podPort
	add := func(ports []corev1.ContainerPort) {
		for _, p := range ports {
			proto, ok := parseProtocol(p.Protocol)
			if p.Name == "" || !ok {
				continue
			}
			number := uint16(p.ContainerPort)
			if p.ContainerPort < 1 || p.ContainerPort > 65535 {
				number = 0 // no later one counts, and this one means nothing
			}
			out = append(out, podPort{portName{p.Name, proto}, number})
		}
	}
	for _, c := range s.Containers {
		add(c.Ports)
	}
	for _, c := range s.InitContainers {
		if c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways {
			add(c.Ports)
		}
	}
	return slices.Clip(out)
}

// parseProtocol reads the protocol of a container port, TCP where it is unset.
func parseProtocol(p corev1.Protocol) (ir.Protocol, bool) {
	switch p {
	case corev1.ProtocolTCP, "":
		return ir.TCP, true
	case corev1.ProtocolUDP:
		return ir.UDP, true
	case corev1.ProtocolSCTP:
		return ir.SCTP, true
	}
	return 0, false
}

// number returns the first number that the ports give n, or 0.
func number(ports []podPort, n portName) uint16 {
	for _, p := range ports {
		if p.portName == n {
			return p.number
		}
	}
	return 0
}
