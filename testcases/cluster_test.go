package testcases

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/portcullis-netpol/portcullis/policy/evaluate"
	"github.com/portcullis-netpol/portcullis/policy/manifest"
)

// The addresses of the laboratory, known without one. The first address of each
// pair is IPv4. TestLabAddresses compares them with a real laboratory.
var (
	nodeNames = []string{"node-1", "node-2"}
	nodeAddrs = map[string][2]netip.Addr{
		"node-1": {netip.MustParseAddr("192.168.77.11"), netip.MustParseAddr("fd00:77::11")},
		"node-2": {netip.MustParseAddr("192.168.77.12"), netip.MustParseAddr("fd00:77::12")},
	}
	podCIDRs = map[string][]netip.Prefix{
		"node-1": {netip.MustParsePrefix("10.244.1.0/24"), netip.MustParsePrefix("fd00:10:244:1::/64")},
		"node-2": {netip.MustParsePrefix("10.244.2.0/24"), netip.MustParsePrefix("fd00:10:244:2::/64")},
	}
	outsideAddrs = [2]netip.Addr{netip.MustParseAddr("192.168.78.10"), netip.MustParseAddr("fd00:78::10")}
)

const outside = "outside"

// cluster is every object that there is at the moment.
type cluster struct {
	objects manifest.Objects
	// known is what pods returned, until the next apply.
	known []pod
}

// event is one change of a cluster: an object that is set, or one that is deleted.
type event struct {
	Namespace *corev1.Namespace
	Pod       *corev1.Pod
	Policy    *networkingv1.NetworkPolicy
	Delete    objectRef
}

// apply carries out a step and returns it as events, deletions first. An object
// that is already there is replaced; a pod that is set again keeps its node and,
// as long as it stays there, its addresses, unless the step gives others.
func (c *cluster) apply(s step) ([]event, error) {
	var events []event
	for _, ref := range s.Deletes {
		c.remove(ref)
		events = append(events, event{Delete: ref})
	}
	o := s.Applies
	for _, n := range o.Namespaces {
		if _, given := o.Origins["Namespace "+n.Name]; given {
			c.objects.Namespaces = put(c.objects.Namespaces, n.DeepCopy())
		}
	}
	for _, p := range o.Pods {
		p = p.DeepCopy()
		if old := find(c.objects.Pods, p.Namespace, p.Name); old != nil {
			keepPlace(p, old)
		}
		c.objects.Pods = put(c.objects.Pods, p)
	}
	for _, p := range o.Policies {
		c.objects.Policies = put(c.objects.Policies, p.DeepCopy())
	}
	for _, v := range o.Services {
		c.objects.Services = put(c.objects.Services, v.DeepCopy())
	}
	if err := c.place(); err != nil {
		return nil, err
	}
	for _, n := range o.Namespaces {
		if _, given := o.Origins["Namespace "+n.Name]; given {
			events = append(events, event{Namespace: find(c.objects.Namespaces, "", n.Name)})
		}
	}
	for _, p := range o.Pods {
		events = append(events, event{Pod: find(c.objects.Pods, p.Namespace, p.Name)})
	}
	for _, p := range o.Policies {
		events = append(events, event{Policy: find(c.objects.Policies, p.Namespace, p.Name)})
	}
	return events, nil
}

// place does what scheduler and kubelets would do.
func (c *cluster) place() error {
	c.known = nil
	var nodes []manifest.PlaceNode
	for _, n := range nodeNames {
		nodes = append(nodes, manifest.PlaceNode{Name: n, PodCIDRs: podCIDRs[n]})
	}
	if err := c.objects.Place(nodes); err != nil {
		return err
	}
	for _, p := range c.objects.Pods {
		if p.Spec.HostNetwork && len(p.Status.PodIPs) == 0 {
			for _, a := range nodeAddrs[p.Spec.NodeName] {
				p.Status.PodIPs = append(p.Status.PodIPs, corev1.PodIP{IP: a.String()})
			}
		}
	}
	return nil
}

func keepPlace(p, old *corev1.Pod) {
	if p.Spec.NodeName == "" {
		p.Spec.NodeName = old.Spec.NodeName
	}
	if p.Spec.NodeName == old.Spec.NodeName && len(p.Status.PodIPs) == 0 && p.Status.PodIP == "" {
		p.Status.PodIP, p.Status.PodIPs = old.Status.PodIP, slices.Clone(old.Status.PodIPs)
	}
}

func (c *cluster) remove(ref objectRef) {
	gone := func(o metav1.Object) bool { return o.GetNamespace() == ref.Namespace && o.GetName() == ref.Name }
	switch ref.Kind {
	case "Namespace":
		c.objects.Namespaces = slices.DeleteFunc(c.objects.Namespaces, func(o *corev1.Namespace) bool { return gone(o) })
	case "Pod":
		c.objects.Pods = slices.DeleteFunc(c.objects.Pods, func(o *corev1.Pod) bool { return gone(o) })
	case "NetworkPolicy":
		c.objects.Policies = slices.DeleteFunc(c.objects.Policies, func(o *networkingv1.NetworkPolicy) bool { return gone(o) })
	}
}

func put[T metav1.Object](list []T, o T) []T {
	for i, have := range list {
		if have.GetNamespace() == o.GetNamespace() && have.GetName() == o.GetName() {
			list[i] = o
			return list
		}
	}
	return append(list, o)
}

func find[T interface {
	metav1.Object
	comparable
}](list []T, namespace, name string) T {
	for _, o := range list {
		if o.GetNamespace() == namespace && o.GetName() == name {
			return o
		}
	}
	var none T
	return none
}

// evaluated is the cluster as package evaluate wants it.
func (c *cluster) evaluated() evaluate.Cluster {
	e := evaluate.Cluster{Namespaces: c.objects.Namespaces, Pods: c.objects.Pods, Policies: c.objects.Policies}
	for _, n := range nodeNames {
		node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: n}}
		for _, a := range nodeAddrs[n] {
			node.Status.Addresses = append(node.Status.Addresses, corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: a.String()})
		}
		e.Nodes = append(e.Nodes, node)
	}
	return e
}

// namespaces lists the namespaces that are used and are not there.
func (c *cluster) missingNamespaces() []string {
	var out []string
	look := func(o metav1.Object) {
		if find(c.objects.Namespaces, "", o.GetNamespace()) == nil {
			out = append(out, o.GetNamespace())
		}
	}
	for _, p := range c.objects.Pods {
		look(p)
	}
	for _, p := range c.objects.Policies {
		look(p)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// pod is a pod as the network sees it.
type pod struct {
	Name        string // "namespace/name"
	Namespace   string
	Node        string
	HostNetwork bool
	V4, V6      netip.Addr // what the pod owns; a hostNetwork pod has its node's
}

func (p pod) addrs() []netip.Addr {
	return slices.DeleteFunc([]netip.Addr{p.V4, p.V6}, func(a netip.Addr) bool { return !a.IsValid() })
}

// pods lists the pods with the addresses that are theirs: a finished pod has
// none, and of several pods that list one address the youngest has it.
func (c *cluster) pods() []pod {
	if c.known == nil {
		c.known = c.livePods()
	}
	return c.known
}

func (c *cluster) livePods() []pod {
	owner := map[netip.Addr]*corev1.Pod{}
	for _, p := range c.objects.Pods {
		if p.Spec.HostNetwork || p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed {
			continue
		}
		for _, a := range listedAddrs(p) {
			if o := owner[a]; o == nil || younger(p, o) {
				owner[a] = p
			}
		}
	}
	out := []pod{}
	for _, p := range c.objects.Pods {
		v := pod{Name: p.Namespace + "/" + p.Name, Namespace: p.Namespace, Node: p.Spec.NodeName, HostNetwork: p.Spec.HostNetwork}
		for _, a := range listedAddrs(p) {
			switch {
			case !p.Spec.HostNetwork && owner[a] != p:
			case a.Is4():
				v.V4 = a
			default:
				v.V6 = a
			}
		}
		out = append(out, v)
	}
	return out
}

func listedAddrs(p *corev1.Pod) []netip.Addr {
	texts := []string{p.Status.PodIP}
	if len(p.Status.PodIPs) > 0 {
		texts = nil
		for _, ip := range p.Status.PodIPs {
			texts = append(texts, ip.IP)
		}
	}
	var out []netip.Addr
	for _, text := range texts {
		if a, err := netip.ParseAddr(text); err == nil {
			out = append(out, a)
		}
	}
	return out
}

func younger(a, b *corev1.Pod) bool {
	return cmp.Or(
		a.CreationTimestamp.Compare(b.CreationTimestamp.Time),
		cmp.Compare(a.UID, b.UID),
		cmp.Compare(a.Namespace+"/"+a.Name, b.Namespace+"/"+b.Name)) > 0
}

// service is a Service as the network sees it.
type service struct {
	Name  string
	IPs   [2]netip.Addr
	Ports []corev1.ServicePort
	Pods  []pod
}

func (c *cluster) service(name string) (*service, bool) {
	for _, o := range c.objects.Services {
		if o.Namespace+"/"+o.Name != name {
			continue
		}
		s := &service{Name: name, Ports: o.Spec.Ports}
		for _, ip := range o.Spec.ClusterIPs {
			a := netip.MustParseAddr(ip)
			if a.Is4() {
				s.IPs[0] = a
			} else {
				s.IPs[1] = a
			}
		}
		for i, p := range c.objects.Pods {
			if p.Namespace == o.Namespace && containsLabels(p.Labels, o.Spec.Selector) {
				s.Pods = append(s.Pods, c.pods()[i])
			}
		}
		return s, true
	}
	return nil, false
}

func containsLabels(labels, want map[string]string) bool {
	for k, v := range want {
		if got, ok := labels[k]; !ok || got != v {
			return false
		}
	}
	return true
}

// owner finds out whose an address is: of a pod, of a node (the pod is empty), or
// of the outside (the node is empty too).
func (c *cluster) owner(a netip.Addr) (name, node string) {
	for n, addrs := range nodeAddrs {
		if slices.Contains(addrs[:], a) {
			return "", n
		}
	}
	for _, p := range c.pods() {
		if !p.HostNetwork && (p.V4 == a || p.V6 == a) {
			return p.Name, p.Node
		}
	}
	return "", ""
}

// port finds the port of a Service by its own number or by its node port.
func (s *service) port(p protoPort, nodePort bool) (target uint16, err error) {
	for _, sp := range s.Ports {
		number := sp.Port
		if nodePort {
			number = sp.NodePort
		}
		if protocolOf(sp.Protocol) == p.Protocol && uint16(number) == p.Port {
			if sp.TargetPort.IntVal == 0 {
				return 0, errors.New("only numeric target ports are known here")
			}
			return uint16(sp.TargetPort.IntVal), nil
		}
	}
	return 0, fmt.Errorf("Service %s has no port %v", s.Name, p)
}

func protocolOf(p corev1.Protocol) string {
	switch p {
	case corev1.ProtocolUDP:
		return "udp"
	case corev1.ProtocolSCTP:
		return "sctp"
	}
	return "tcp"
}
