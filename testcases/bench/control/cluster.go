package control

import (
	"fmt"
	"net/netip"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Size is how large a cluster is, as one node sees it.
type Size struct {
	// Pods are those of other nodes.
	Pods int `json:"pods"`
	// Policies are those of the whole cluster.
	Policies int `json:"policies"`
	// Local are the pods of the measured node.
	Local int `json:"local"`
	// Crowd policies come in addition. All select the same local pods, each with
	// peers and a port of its own.
	Crowd int `json:"crowd,omitempty"`
}

func (s Size) String() string {
	return fmt.Sprintf("%d pods, %s", s.Pods, s.series())
}

// series names what is not on the x axis of a table.
func (s Size) series() string {
	text := fmt.Sprintf("%d policies, %d local", s.Policies, s.Local)
	if s.Crowd > 0 {
		text += fmt.Sprintf(", %d for one pod", s.Crowd)
	}
	return text
}

const (
	// node is the measured one.
	node = "node-1"
	// nodes are the others'.
	nodes = 999
	// perNamespace pods, or policies / 10, make a namespace.
	perNamespace = 100
	// bigNamespace is the number of pods of the namespace that is relabelled.
	bigNamespace = 1000
	// widePeers is the number of pods that the namespaces labelled wide=yes have.
	widePeers = 10000
	// apps is the number of applications of a namespace, policyKinds that of the
	// forms of policies.
	apps, policyKinds = 5, 10
	teams             = 100
	// firstLocal is the first namespace with a local pod and with a policy, behind
	// the big one, kube-system and monitoring.
	firstLocal = 3
)

// cluster makes the objects of a synthetic cluster. Each is a function of its number
// alone, so that none has to be kept, and two clusters of one size are equal.
//
// There is a namespace for each hundred pods or ten policies. Namespaces have a team
// (one of a hundred) and an env (one of three); pods have an app (one of five in each
// namespace), the tier that goes with it, and a version. The first namespace is ten
// times as large as the others. A namespace has a policy of each kind, see policy.
// Local pods are spread over namespaces like everything else: most policies select
// only pods of other nodes. Of the 10,000 policies of the largest size, about 400
// select one of 110 local pods.
type cluster struct {
	Size
	namespaces int // how many there are
	big        int // pods of the first
	// spec says what a policy of a kind is in namespace n.
	spec func(n, kind int) networkingv1.NetworkPolicySpec
	// extra are policies beside those that Size counts.
	extra []*networkingv1.NetworkPolicy
	// more are events beside those of every cluster.
	more []pair
}

func newCluster(s Size) *cluster {
	c := &cluster{Size: s, big: min(bigNamespace, s.Pods/2), spec: policySpec}
	c.namespaces = max(10, s.Pods/perNamespace, s.Policies/policyKinds)
	return c
}

// mix returns a number that n decides, evenly spread.
func mix(n int) int {
	z := (uint64(n) + 1) * 0x9e3779b97f4a7c15
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return int((z ^ z>>31) >> 1)
}

func namespaceName(n int) string {
	switch n {
	case 1:
		return "kube-system"
	case 2:
		return "monitoring"
	}
	return fmt.Sprintf("ns-%d", n)
}

func teamOf(n int) string { return fmt.Sprintf("team-%d", mix(n)%teams) }
func envOf(n int) string  { return []string{"prod", "staging", "dev"}[mix(n+1<<20)%3] }

// each is the number of pods of an ordinary namespace.
func (c *cluster) each() int { return max(1, (c.Pods-c.big)/(c.namespaces-1)) }

// wide is the number of namespaces that are labelled wide=yes.
func (c *cluster) wide() int {
	return min((widePeers+c.each()-1)/c.each(), c.namespaces-10)
}

// widePods is the number of pods that the namespaces labelled wide=yes have.
func (c *cluster) widePods() int {
	if c.Pods == 0 {
		return 0
	}
	return c.wide() * c.each()
}

func (c *cluster) namespace(n int) *corev1.Namespace {
	labels := map[string]string{corev1.LabelMetadataName: namespaceName(n), "team": teamOf(n), "env": envOf(n)}
	// The first ten have local pods in every size.
	if n >= 10 && n < 10+c.wide() {
		labels["wide"] = "yes"
	}
	return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespaceName(n), UID: uid("ns", n), Labels: labels}}
}

// pod returns the i-th of the other nodes' pods.
func (c *cluster) pod(i int) *corev1.Pod {
	n, ordinal := 0, i
	if i >= c.big {
		n, ordinal = 1+(i-c.big)%(c.namespaces-1), (i-c.big)/(c.namespaces-1)
	}
	on, at := 2+i%nodes, 2+i/nodes
	p := newPod(n, fmt.Sprintf("pod-%d", i), ordinal, fmt.Sprintf("node-%d", on), address4(on, at), address6(on, at))
	p.UID = uid("pod", i)
	switch {
	case n == 1 && ordinal < 2:
		p.Labels["k8s-app"] = "kube-dns"
	case n == 2 && ordinal < 2:
		p.Labels["app"] = "prometheus"
	}
	return p
}

// localPod returns the j-th pod of the measured node.
func (c *cluster) localPod(j int) *corev1.Pod {
	p := newPod((firstLocal+j)%c.namespaces, fmt.Sprintf("local-%d", j), j, node, address4(1, 2+j), address6(1, 2+j))
	p.UID = uid("local", j)
	return p
}

var tiers = [apps]string{"frontend", "api", "backend", "cache", "db"}

// born is when all objects were created: a constant, so that they are equal.
var born = metav1.NewTime(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC))

func newPod(n int, name string, ordinal int, on string, addrs ...netip.Addr) *corev1.Pod {
	app := ordinal % apps
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: namespaceName(n), Name: name, UID: types.UID(name), CreationTimestamp: born,
			Labels: map[string]string{
				"app": fmt.Sprintf("app-%d", app), "tier": tiers[app],
				"version": fmt.Sprintf("v%d", 1+ordinal/apps%2), "pod-template-hash": fmt.Sprintf("%010x", mix(n*apps+app)&0xffffffffff),
			},
		},
		Spec: corev1.PodSpec{NodeName: on, Containers: []corev1.Container{{Name: "main", Ports: []corev1.ContainerPort{
			{Name: "http", ContainerPort: int32(8080 + app%2), Protocol: corev1.ProtocolTCP},
			{Name: "metrics", ContainerPort: 9090, Protocol: corev1.ProtocolTCP},
		}}}},
		Status: corev1.PodStatus{Phase: corev1.PodRunning},
	}
	for _, a := range addrs {
		p.Status.PodIPs = append(p.Status.PodIPs, corev1.PodIP{IP: a.String()})
	}
	p.Status.PodIP = addrs[0].String()
	return p
}

// uid looks like a real one, in length and in how little it can be compressed.
func uid(kind string, n int) types.UID {
	a, b := mix(n+len(kind)<<40), mix(n+len(kind)<<41)
	return types.UID(fmt.Sprintf("%08x-%04x-4%03x-8%03x-%012x", a&0xffffffff, a>>32&0xffff, a>>48&0xfff, b>>48&0xfff, b&0xffffffffffff))
}

// address4 returns an address of a node's block, 10.64.0.0/10 cut into /24.
func address4(node, n int) netip.Addr {
	return netip.AddrFrom4([4]byte{10, byte(64 + node>>8), byte(node), byte(n)})
}

// address6 returns an address of a node's block, a /64 of fd00:64::/32.
func address6(node, n int) netip.Addr {
	return netip.AddrFrom16([16]byte{0xfd, 0, 0, 0x64, 0, 0, byte(node >> 8), byte(node), 14: byte(n >> 8), 15: byte(n)})
}

// policy returns the k-th policy. The first are in the namespaces that have local
// pods, and of another kind in each.
func (c *cluster) policy(k int) *networkingv1.NetworkPolicy {
	n, kind := (firstLocal+k)%c.namespaces, (k/c.namespaces+k%c.namespaces)%policyKinds
	p := newPolicy(n, fmt.Sprintf("policy-%d", k), c.spec(n, kind))
	p.UID = uid("np", k)
	return p
}

// crowdPolicy returns the k-th of many policies for the pods with app-0 of one namespace.
func crowdPolicy(k int) *networkingv1.NetworkPolicy {
	peers := []networkingv1.NetworkPolicyPeer{
		block(fmt.Sprintf("198.%d.%d.0/30", 18+k>>8, k&0xff)), {PodSelector: selector("version", fmt.Sprintf("crowd-%d", k))},
	}
	return newPolicy(home, fmt.Sprintf("crowd-%d", k), ingress(*selector("app", "app-0"), numbered(int32(10000+k)), peers...))
}

func newPolicy(n int, name string, spec networkingv1.NetworkPolicySpec) *networkingv1.NetworkPolicy {
	return &networkingv1.NetworkPolicy{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespaceName(n), Name: name, UID: types.UID(name), CreationTimestamp: born},
		Spec:       spec,
	}
}

// objects hands out all objects, in the order in which informers might: namespaces,
// pods, policies. It calls each with chunks of at most some thousand.
func (c *cluster) objects(each func(chunk []any)) {
	for _, r := range []resource{namespaces, pods, policies} {
		c.of(r, each)
	}
}

// of hands out the objects of one kind.
func (c *cluster) of(r resource, each func(chunk []any)) {
	var chunk []any
	add := func(o any) {
		if chunk = append(chunk, o); len(chunk) == 1024 {
			each(chunk)
			chunk = chunk[:0]
		}
	}
	switch r {
	case namespaces:
		for n := range c.namespaces {
			add(c.namespace(n))
		}
	case pods:
		for i := range c.Pods {
			add(c.pod(i))
		}
		for j := range c.Local {
			add(c.localPod(j))
		}
	case policies:
		for k := range c.Policies {
			add(c.policy(k))
		}
		for k := range c.Crowd {
			add(crowdPolicy(k))
		}
		for _, p := range c.extra {
			add(p)
		}
	}
	each(chunk)
}

// localBlocks are those of the measured node's pods.
func localBlocks() []netip.Prefix {
	return []netip.Prefix{netip.PrefixFrom(address4(1, 0), 24), netip.PrefixFrom(address6(1, 0), 64)}
}

// eventAddress4 and eventAddress6 return addresses that no pod of the cluster has.
func eventAddress4(n int) netip.Addr {
	return netip.AddrFrom4([4]byte{10, 126 + byte(n>>16), byte(n >> 8), byte(n)})
}

func eventAddress6(n int) netip.Addr {
	return netip.AddrFrom16([16]byte{0xfd, 0, 1, 0x26, 13: byte(n >> 16), 14: byte(n >> 8), 15: byte(n)})
}

// isEvent reports whether a is an eventAddress4.
func isEvent(a netip.Addr) bool {
	b := a.As16()
	return a.Is4() && b[12] == 10 && b[13] >= 126
}
