package demo

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/yaml"

	"github.com/portcullis-netpol/portcullis/policy/manifest"
	"github.com/portcullis-netpol/portcullis/testcases/lab"
)

// InputError says that the user's manifests are wrong, as opposed to something that
// failed while running.
type InputError struct{ Err error }

func (e *InputError) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *InputError) Unwrap() error { return e.Err }

// newScene is the story, or the user's own manifests.
func newScene(o Options) (*scene, error) {
	families := map[string][]int{"4": {4}, "6": {6}, "dual": {4, 6}, "": {4, 6}}[o.IPFamily]
	if o.Manifests == "" {
		return newStory(families)
	}
	objects, err := manifest.Load(o.Manifests)
	if err != nil {
		return nil, &InputError{err}
	}
	s, err := newOwn(objects, families)
	if err != nil {
		return nil, &InputError{fmt.Errorf("%s: %w", o.Manifests, err)}
	}
	s.name = "the policies in " + o.Manifests
	return s, nil
}

// newOwn makes a scene of the user's objects: the cluster without its policies
// first, then with all of them.
func newOwn(objects *manifest.Objects, families []int) (*scene, error) {
	s := &scene{objects: objects, policies: map[string][]byte{}, families: families}
	s.nodes = ownNodes(objects)
	var running []*corev1.Pod
	for _, pod := range objects.Pods {
		if !slices.Contains(s.nodes, pod.Spec.NodeName) {
			pod.Spec.NodeName = "" // on a node that is not here; any other will do
		}
		if isRunning(pod) {
			running = append(running, pod)
		}
	}
	if len(running) == 0 {
		return nil, fmt.Errorf("no pods, and no workloads that would make some")
	}
	policies := objects.Policies
	objects.Policies = nil
	for _, pod := range running {
		s.ends = append(s.ends, &end{
			name:     s.ownName(pod, running),
			endpoint: pod.Namespace + "/" + pod.Name,
			pod:      pod,
			ports:    ownPorts(pod, policies),
			sends:    true,
		})
	}
	s.ends = append(s.ends, &end{name: s.nodes[0], endpoint: s.nodes[0], sends: true})
	s.ends = append(s.ends, s.outsideEnds(policies)...)
	files, err := policyFiles(policies)
	if err != nil {
		return nil, err
	}
	s.steps = []step{
		{title: "Without policies", text: "Everybody reaches everybody."},
		{title: fmt.Sprintf("With all policies (%d)", len(policies)), add: files},
	}
	if len(policies) == 0 {
		s.steps = s.steps[:1]
	}
	return s, nil
}

// ownNodes are the given nodes, as far as there are not too many, or two.
func ownNodes(objects *manifest.Objects) []string {
	const most = 5
	var out []string
	for _, n := range objects.Nodes {
		if len(out) < most && n.Name != lab.Outside {
			out = append(out, n.Name)
		}
	}
	if len(out) == 0 {
		return []string{"node-1", "node-2"}
	}
	return out
}

// ownName is short where that is clear.
func (s *scene) ownName(pod *corev1.Pod, all []*corev1.Pod) string {
	for _, other := range all {
		if other != pod && other.Name == pod.Name || pod.Name == s.nodes[0] || pod.Name == internet {
			return pod.Namespace + "/" + pod.Name
		}
	}
	return pod.Name
}

// ownPorts are the ports that a pod declares and the numbers in ingress rules that
// select it; 80 if there are none.
func ownPorts(pod *corev1.Pod, policies []*networkingv1.NetworkPolicy) []servicePort {
	const most = 6
	out := podPorts(pod)
	for _, np := range policies {
		selector, err := metav1.LabelSelectorAsSelector(&np.Spec.PodSelector)
		if err != nil || np.Namespace != pod.Namespace || !selector.Matches(labels.Set(pod.Labels)) {
			continue
		}
		for _, rule := range np.Spec.Ingress {
			for _, p := range rule.Ports {
				if p.Port == nil || p.Port.IntValue() <= 0 || p.Port.StrVal != "" || p.Port.IntValue() > 65535 {
					continue
				}
				protocol := corev1.ProtocolTCP
				if p.Protocol != nil {
					protocol = *p.Protocol
				}
				port := servicePort{strings.ToLower(string(protocol)), uint16(p.Port.IntValue())}
				if !slices.Contains(out, port) && len(out) < most {
					out = append(out, port)
				}
			}
		}
	}
	if len(out) == 0 {
		out = []servicePort{{"tcp", 80}}
	}
	return out
}

// internet is the outside host that is in no ipBlock, unless the block is large.
const internet = "internet"

// outsideEnds are hosts outside of the cluster: one in no block, and one in each
// ipBlock and each of its exceptions.
func (s *scene) outsideEnds(policies []*networkingv1.NetworkPolicy) []*end {
	const most = 6
	ports := []servicePort{{"tcp", 80}, {"tcp", 443}}
	anywhere := s.ofFamilies([]netip.Addr{netip.MustParseAddr("198.51.100.77"), netip.MustParseAddr("2001:db8:77::77")})
	out := []*end{{name: internet, endpoint: lab.Outside, addrs: anywhere, ports: ports, sends: true}}
	for _, block := range blocks(policies) {
		a, ok := s.outsideAddr(block)
		known := slices.ContainsFunc(out, func(e *end) bool { return slices.Contains(e.addrs, a) })
		if ok && !known && len(out) <= most {
			out = append(out, &end{name: a.String(), endpoint: lab.Outside, addrs: []netip.Addr{a}, ports: ports[:1], sends: true})
		}
	}
	return out
}

// block is a range of addresses without some others.
type block struct {
	netip.Prefix
	except []netip.Prefix
}

// blocks lists every ipBlock and every exception, in order.
func blocks(policies []*networkingv1.NetworkPolicy) []block {
	var out []block
	add := func(peers []networkingv1.NetworkPolicyPeer) {
		for _, peer := range peers {
			if peer.IPBlock == nil {
				continue
			}
			var except []netip.Prefix
			for _, e := range peer.IPBlock.Except {
				if p, err := netip.ParsePrefix(e); err == nil {
					except = append(except, p.Masked())
				}
			}
			if p, err := netip.ParsePrefix(peer.IPBlock.CIDR); err == nil {
				out = append(out, block{p.Masked(), except})
			}
			for _, e := range except {
				out = append(out, block{Prefix: e})
			}
		}
	}
	for _, np := range policies {
		for _, r := range np.Spec.Ingress {
			add(r.From)
		}
		for _, r := range np.Spec.Egress {
			add(r.To)
		}
	}
	return out
}

// clusterNets are where the laboratory's own addresses are.
var clusterNets = []netip.Prefix{
	netip.MustParsePrefix("10.244.0.0/16"), netip.MustParsePrefix("fd00:10:244::/48"),
	netip.MustParsePrefix("192.168.76.0/22"), netip.MustParsePrefix("fd00:77::/32"), netip.MustParsePrefix("fd00:78::/32"),
	netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("169.254.0.0/16"), netip.MustParsePrefix("0.0.0.0/8"),
}

// outsideAddr finds an address of a block that a host outside can have: its first
// that will do, or the first behind an exception.
func (s *scene) outsideAddr(b block) (netip.Addr, bool) {
	if !s.hasFamily(b.Addr()) {
		return netip.Addr{}, false
	}
	candidates := []netip.Addr{b.Addr()}
	if b.Bits() < b.Addr().BitLen() {
		candidates = append(candidates, b.Addr().Next())
	}
	for _, e := range slices.Concat(b.except, clusterNets) {
		if after := lastOf(e).Next(); after.IsValid() {
			candidates = append(candidates, after, after.Next())
		}
	}
	for _, a := range candidates {
		if !b.Contains(a) || !a.IsGlobalUnicast() || a == b.Addr() && !b.IsSingleIP() {
			continue
		}
		inside := func(p netip.Prefix) bool { return p.Contains(a) }
		if !slices.ContainsFunc(b.except, inside) && !slices.ContainsFunc(clusterNets, inside) && !s.podHas(a) {
			return a, true
		}
	}
	return netip.Addr{}, false
}

func (s *scene) podHas(a netip.Addr) bool {
	return slices.ContainsFunc(s.objects.Pods, func(p *corev1.Pod) bool { return slices.Contains(podAddrs(p), a) })
}

// lastOf is the last address of a prefix.
func lastOf(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// policyFiles writes each policy to a file of its own.
func policyFiles(policies []*networkingv1.NetworkPolicy) (map[string][]byte, error) {
	out := map[string][]byte{}
	var err error
	for i, np := range policies {
		np.APIVersion, np.Kind = "networking.k8s.io/v1", "NetworkPolicy"
		data, e := yaml.Marshal(np)
		err = cmp.Or(err, e)
		// The number keeps names apart that are too long for a file.
		out[fmt.Sprintf("policy-%d-%.60s.yaml", i+1, np.Name)] = data
	}
	return out, err
}
