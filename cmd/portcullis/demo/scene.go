package demo

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/portcullis-netpol/portcullis/policy/evaluate"
	"github.com/portcullis-netpol/portcullis/policy/manifest"
	"github.com/portcullis-netpol/portcullis/testcases/lab"
)

// scene is the cluster of the moment, and what is to happen to it. It is plain data:
// the stage has the processes and packets.
type scene struct {
	name     string
	nodes    []string
	objects  *manifest.Objects // without policies
	policies map[string][]byte // files with the policies that exist now
	steps    []step
	ends     []*end // everything that sends or receives, in the order of the table's rows
	families []int  // 4, 6 or both
}

// step is one change of the cluster.
type step struct {
	title string
	text  string
	add   map[string][]byte // policy files that are new or have changed
	drop  []string          // policy files that are deleted
	// change does something to the objects; nil means nothing.
	change func(*scene) error
}

// end is one end of connections: a row, or columns, or both.
type end struct {
	name     string        // as the table has it
	endpoint string        // as the laboratory knows it
	pod      *corev1.Pod   // nil for nodes and outside hosts
	addrs    []netip.Addr  // at most one of each family
	ports    []servicePort // one column each
	sends    bool          // has a row
}

type servicePort struct {
	protocol string // as the laboratory has it: "tcp"
	port     uint16
}

// flow is one connection of the table, in one family.
type flow struct {
	from, to *end
	servicePort
	src, dst netip.Addr
}

func (f flow) family() int {
	if f.dst.Is4() {
		return 4
	}
	return 6
}

func (f flow) probe() lab.Probe {
	return lab.Probe{From: f.from.endpoint, Src: f.src, To: f.dst, Protocol: f.protocol, Port: f.port}
}

// String is how a person would say it: "frontend -> users:8080 (IPv6)".
func (f flow) String() string {
	return fmt.Sprintf("%s -> %s:%s (IPv%d)", f.from.name, f.to.name, f.servicePort, f.family())
}

// String is the port, with its protocol unless that is TCP.
func (p servicePort) String() string {
	if p.protocol == "tcp" {
		return fmt.Sprint(p.port)
	}
	return fmt.Sprintf("%d/%s", p.port, p.protocol)
}

// apply makes a step's change of the objects and policies.
func (s *scene) apply(st step) error {
	for _, file := range st.drop {
		delete(s.policies, file)
	}
	for file, data := range st.add {
		s.policies[file] = data
	}
	if st.change == nil {
		return nil
	}
	return st.change(s)
}

// flows lists every connection of the table, by row, column and family. An end does
// not talk to itself: that never leaves it.
func (s *scene) flows() []flow {
	var out []flow
	for _, from := range s.ends {
		if !from.sends {
			continue
		}
		for _, to := range s.ends {
			if from.endpoint == to.endpoint {
				continue
			}
			for _, p := range to.ports {
				for _, dst := range to.addrs {
					if src, ok := from.addrLike(dst); ok {
						out = append(out, flow{from: from, to: to, servicePort: p, src: src, dst: dst})
					}
				}
			}
		}
	}
	return out
}

func (e *end) addrLike(a netip.Addr) (netip.Addr, bool) {
	for _, own := range e.addrs {
		if own.Is4() == a.Is4() {
			return own, true
		}
	}
	return netip.Addr{}, false
}

// cluster is what Evaluate works on.
func (s *scene) cluster() (evaluate.Cluster, error) {
	c := evaluate.Cluster{Namespaces: s.objects.Namespaces, Pods: s.objects.Pods, Nodes: s.objects.Nodes}
	for _, file := range sortedKeys(s.policies) {
		o, err := manifest.Decode(file, s.policies[file])
		if err != nil {
			return c, err
		}
		c.Policies = append(c.Policies, o.Policies...)
	}
	return c, nil
}

// expectation is what Evaluate says of a flow.
type expectation struct {
	allowed bool
	reason  string
}

// expect evaluates flows.
func (s *scene) expect(flows []flow) ([]expectation, error) {
	c, err := s.cluster()
	if err != nil {
		return nil, err
	}
	out := make([]expectation, len(flows))
	for i, f := range flows {
		v := evaluate.Evaluate(c, evaluate.Flow{
			Src: f.src, Dst: f.dst, Protocol: corev1.Protocol(strings.ToUpper(f.protocol)), Port: int32(f.port),
		})
		out[i] = expectation{v.Allowed(), fmt.Sprintf("egress: %s; ingress: %s", v.Egress.Reason, v.Ingress.Reason)}
	}
	return out, nil
}

// files renders the scene as the directory that the agents follow.
func (s *scene) files() (map[string][]byte, error) {
	out := map[string][]byte{}
	for file, data := range s.policies {
		out[file] = data
	}
	var err error
	render := func(file string, objects ...metav1.Object) {
		var docs []string
		for _, o := range objects {
			doc, e := yaml.Marshal(o)
			err = cmp.Or(err, e)
			docs = append(docs, string(doc))
		}
		out[file] = []byte(strings.Join(docs, "---\n"))
	}
	render("nodes.yaml", asObjects(s.objects.Nodes)...)
	render("namespaces.yaml", asObjects(s.objects.Namespaces)...)
	render("pods.yaml", asObjects(s.objects.Pods)...)
	return out, err
}

func asObjects[T metav1.Object](list []T) []metav1.Object {
	var out []metav1.Object
	for _, o := range list {
		out = append(out, o)
	}
	return out
}

// network is what the scene must know of the laboratory.
type network interface {
	NodeAddrs(node string) []netip.Addr
	PodCIDRs(node string) []netip.Prefix
}

// place puts the pods on the nodes and gives every end its addresses. Calling it
// again gives addresses to pods that have none.
func (s *scene) place(n network) error {
	labels := map[string]map[string]string{}
	for _, node := range s.objects.Nodes {
		labels[node.Name] = node.Labels
	}
	s.objects.Nodes = nil
	var places []manifest.PlaceNode
	for _, name := range s.nodes {
		node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels[name]}}
		node.APIVersion, node.Kind = "v1", "Node"
		for _, a := range n.NodeAddrs(name) {
			node.Status.Addresses = append(node.Status.Addresses, corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: a.String()})
		}
		s.objects.Nodes = append(s.objects.Nodes, node)
		places = append(places, manifest.PlaceNode{Name: name, PodCIDRs: n.PodCIDRs(name)})
	}
	if err := s.objects.Place(places); err != nil {
		return err
	}
	for _, ns := range s.objects.Namespaces {
		ns.APIVersion, ns.Kind = "v1", "Namespace"
	}
	for _, pod := range s.objects.Pods {
		pod.APIVersion, pod.Kind = "v1", "Pod"
	}
	for _, e := range s.ends {
		switch {
		case e.pod != nil && e.pod.Spec.HostNetwork:
			e.addrs = n.NodeAddrs(e.pod.Spec.NodeName)
		case e.pod != nil:
			e.addrs = podAddrs(e.pod)
		case slices.Contains(s.nodes, e.endpoint):
			e.addrs = n.NodeAddrs(e.endpoint)
		}
		e.addrs = slices.DeleteFunc(e.addrs, func(a netip.Addr) bool { return !s.hasFamily(a) })
	}
	return nil
}

func (s *scene) hasFamily(a netip.Addr) bool {
	if a.Is4() {
		return slices.Contains(s.families, 4)
	}
	return slices.Contains(s.families, 6)
}

func podAddrs(pod *corev1.Pod) []netip.Addr {
	var out []netip.Addr
	for _, ip := range pod.Status.PodIPs {
		if a, err := netip.ParseAddr(ip.IP); err == nil {
			out = append(out, a.Unmap())
		}
	}
	return out
}

// podPorts lists the ports that a pod's containers declare.
func podPorts(pod *corev1.Pod) []servicePort {
	var out []servicePort
	for _, c := range pod.Spec.Containers {
		for _, p := range c.Ports {
			protocol := strings.ToLower(string(cmp.Or(p.Protocol, corev1.ProtocolTCP)))
			port := servicePort{protocol, uint16(p.ContainerPort)}
			if !slices.Contains(out, port) {
				out = append(out, port)
			}
		}
	}
	return out
}
