package datapath

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/portcullis-netpol/portcullis/nft"
	"github.com/portcullis-netpol/portcullis/policy"
	"github.com/portcullis-netpol/portcullis/policy/ir"
	"github.com/portcullis-netpol/portcullis/testcases/lab"
)

// maxDistinct is the largest number of policies with peers of their own. More than
// that share their peers.
const maxDistinct = 10_000

// world is a cluster as policies see it, and how a node enforces them.
type world struct {
	// policies isolate the server, each with a port and, up to maxDistinct, with
	// peers of its own.
	policies int
	// peers is how many addresses the last policy allows beside the client.
	peers int
	// egress isolates the client as well.
	egress bool
	// config says what of nft.Config is on, for a site.
	config func(*site) nft.Config
}

// oneDirection is one isolated pod and nothing else.
func oneDirection(policies, peers int) world {
	return world{policies: policies, peers: peers, config: func(*site) nft.Config { return nft.Config{} }}
}

// fullModel is what an agent enforces by default, with both ends isolated.
func fullModel(policies, peers int) world {
	return world{policies: policies, peers: peers, egress: true, config: everything}
}

// everything is how an agent configures it.
func everything(s *site) nft.Config {
	return nft.Config{PodToNode: true, Midstream: true, PodCIDRs: s.PodCIDRs(node), Bridged: s.topology == lab.Bridged, LogGroup: 4040}
}

// enforce puts the policies in force. It compiles them for the first site; all sites
// have to be of one place.
func (w world) enforce(ctx context.Context) func(*site) error {
	var state ir.State
	return func(s *site) (err error) {
		cfg := w.config(s)
		cfg.NetNS = s.NetNS(node)
		kernel, err := nft.OpenKernel(cfg)
		if err != nil {
			return fmt.Errorf("open nftables: %w", err)
		}
		defer func() { err = errors.Join(err, kernel.Close()) }()
		if len(state.Endpoints) == 0 {
			if state, err = w.state(s.place); err != nil {
				return err
			}
		}
		return nft.NewEnforcer(cfg, kernel).Takeover(ctx, state)
	}
}

// state compiles the policies, and sees to it that they say what they should.
func (w world) state(p place) (ir.State, error) {
	x, err := w.index()
	if err != nil {
		return ir.State{}, err
	}
	x.Flush()
	state := x.State()
	w.addPeers(p, state)
	return state, w.check(p, state)
}

// index holds the objects.
func (w world) index() (*policy.Index, error) {
	x := policy.NewIndex(node)
	x.SetNamespace(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop"}})
	x.SetPod(pod("client", node, "client", clientAddrs))
	x.SetPod(pod("server", node, "server", serverAddrs))
	for i := range min(w.policies, maxDistinct) + 1 { // and one for a policy to come
		x.SetPod(pod(fmt.Sprintf("peer-%d", i), "node-2", peerLabel(i), []netip.Addr{place{six: false}.peerAddr(i), place{six: true}.peerAddr(i)}))
	}
	for _, n := range w.objects() {
		if problems := x.SetNetworkPolicy(n); len(problems) > 0 {
			return nil, fmt.Errorf("policy %s: %v", n.Name, problems)
		}
	}
	return x, nil
}

func (w world) objects() []*networkingv1.NetworkPolicy {
	var out []*networkingv1.NetworkPolicy
	for i := range w.policies {
		out = append(out, w.object(i))
	}
	if w.egress {
		n := object("client", "client", networkingv1.PolicyTypeEgress)
		n.Spec.Egress = []networkingv1.NetworkPolicyEgressRule{{To: []networkingv1.NetworkPolicyPeer{selects("server")}, Ports: ports(deniedPort, firstRule, allowedPort)}}
		out = append(out, n)
	}
	return out
}

// object is policy i, which isolates the server.
func (w world) object(i int) *networkingv1.NetworkPolicy {
	var peers []networkingv1.NetworkPolicyPeer
	if w.policies <= maxDistinct {
		peers = append(peers, selects(peerLabel(i)))
	}
	if i == 0 || i == w.policies-1 || w.policies > maxDistinct {
		peers = append(peers, selects("client"))
	}
	n := object(fmt.Sprintf("policy-%d", i), "server", networkingv1.PolicyTypeIngress)
	n.Spec.Ingress = []networkingv1.NetworkPolicyIngressRule{{From: peers, Ports: ports(policyPort(i, w.policies))}}
	return n
}

func peerLabel(i int) string { return fmt.Sprintf("peer-%d", i) }

func pod(name, node, app string, addrs []netip.Addr) *corev1.Pod {
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, Labels: map[string]string{"app": app}},
		Spec:       corev1.PodSpec{NodeName: node},
		Status:     corev1.PodStatus{Phase: corev1.PodRunning},
	}
	for _, a := range addrs {
		p.Status.PodIPs = append(p.Status.PodIPs, corev1.PodIP{IP: a.String()})
	}
	p.Status.PodIP = addrs[0].String()
	return p
}

func object(name, app string, t networkingv1.PolicyType) *networkingv1.NetworkPolicy {
	return &networkingv1.NetworkPolicy{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name},
		Spec: networkingv1.NetworkPolicySpec{
			PodSelector: metav1.LabelSelector{MatchLabels: map[string]string{"app": app}},
			PolicyTypes: []networkingv1.PolicyType{t},
		},
	}
}

func selects(app string) networkingv1.NetworkPolicyPeer {
	return networkingv1.NetworkPolicyPeer{PodSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": app}}}
}

func ports(numbers ...uint16) []networkingv1.NetworkPolicyPort {
	var out []networkingv1.NetworkPolicyPort
	for _, n := range numbers {
		for _, protocol := range []corev1.Protocol{corev1.ProtocolUDP, corev1.ProtocolTCP} {
			out = append(out, networkingv1.NetworkPolicyPort{Protocol: &protocol, Port: &intstr.IntOrString{IntVal: int32(n)}})
		}
	}
	return out
}

// addPeers lets that many pods more join the peers of the last policy. They are put
// into the compiled form, which is what so many pods would make of it.
func (w world) addPeers(p place, state ir.State) {
	end, _ := state.Endpoint(p.of(serverAddrs))
	group, ok := state.Group(end.Ingress)
	if !ok || w.peers == 0 {
		return
	}
	var id ir.PeerSetID
	for _, r := range group.Steps[0].Rules {
		if r.First == allowedPort {
			id = r.Peers.Set
		}
	}
	for i := range state.PeerSets {
		s := &state.PeerSets[i]
		if s.ID != id {
			continue
		}
		s.Addrs = slices.Clone(s.Addrs)
		for k := range w.peers {
			s.Addrs = append(s.Addrs, p.peerAddr(manyPeers+k))
		}
		slices.SortFunc(s.Addrs, netip.Addr.Compare)
	}
}

// check makes sure that the client may use the ports that it is to be measured on.
func (w world) check(p place, state ir.State) error {
	for _, port := range []uint16{allowedPort, policyPort(0, w.policies), deniedPort} {
		want := ir.Accept
		if port == deniedPort {
			want = ir.Deny
		}
		packet := ir.Packet{Src: p.of(clientAddrs), Dst: p.of(serverAddrs), Protocol: ir.UDP, DstPort: port}
		if got := state.Verdict(ir.Ingress, packet); got != want {
			return fmt.Errorf("port %d is judged %s, not %s", port, got, want)
		}
		if got := state.Verdict(ir.Egress, packet); got != ir.Accept {
			return fmt.Errorf("egress to port %d is judged %s", port, got)
		}
	}
	return nil
}
