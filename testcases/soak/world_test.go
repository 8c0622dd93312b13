package soak

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/portcullis-netpol/portcullis/policy"
	"github.com/portcullis-netpol/portcullis/policy/evaluate"
)

var churnPorts = []uint16{7001, 7002, 7003, 7004}

// inhabitant is a pod of the laboratory. It is always there and always sends; what
// comes and goes is its object.
type inhabitant struct {
	namespace, name, node string
	addrs                 []netip.Addr
}

func (p *inhabitant) fullName() string { return p.namespace + "/" + p.name }

// state is a cluster, and the time during which a packet may have met it.
type state struct {
	evaluate.Cluster
	from, until time.Time // until is zero while it may be in force
}

// world is a cluster that changes, with its history.
type world struct {
	site        *site
	inhabitants []*inhabitant
	nodes       []*corev1.Node
	namespaces  map[string]*corev1.Namespace
	pods        map[string]*corev1.Pod
	policies    map[string]*networkingv1.NetworkPolicy
	indexes     map[string]*policy.Index // by node
	history     []*state                 // the last is the newest
	made        int                      // objects so far
	seals       int
}

var churnNamespaces = []string{"a", "b"}

// sealed is a namespace of objects that no packet has to do with: see seal.
const sealed = "seal"

func newWorld(s *site, random *rand.Rand) *world {
	w := &world{
		site: s, namespaces: map[string]*corev1.Namespace{}, pods: map[string]*corev1.Pod{},
		policies: map[string]*networkingv1.NetworkPolicy{}, indexes: map[string]*policy.Index{},
	}
	for _, o := range s.nodes() {
		n := o.(*corev1.Node)
		w.nodes = append(w.nodes, n)
		w.indexes[n.Name] = policy.NewIndex(n.Name)
	}
	for i := range 8 {
		node := s.Nodes()[i%2]
		w.inhabitants = append(w.inhabitants, &inhabitant{churnNamespaces[i/2%2], fmt.Sprintf("p%d", i), node, s.addresses(node, 20+i)})
	}
	for _, name := range append(churnNamespaces, sealed) {
		w.setNamespace(namespaceOf(name, nil))
	}
	for _, p := range w.inhabitants {
		w.setPod(w.object(p, random))
	}
	for _, node := range s.Nodes() {
		w.setPod(podOf(sealed, "at-"+node, "at-"+node, node, nil, s.addresses(node, 200)...))
	}
	return w
}

// event changes one object that was not touched before, and notes the state that this
// makes. It returns false if it did not find anything to do.
func (w *world) event(random *rand.Rand, touched map[string]bool) bool {
	switch kind := random.IntN(10); {
	case kind < 4:
		p := w.inhabitants[random.IntN(len(w.inhabitants))]
		if touched[p.fullName()] {
			return false
		}
		touched[p.fullName()] = true
		w.changePod(p, random)
	case kind < 9:
		namespace := churnNamespaces[random.IntN(2)]
		name := fmt.Sprintf("policy-%d", random.IntN(3))
		if touched[namespace+"/"+name] {
			return false
		}
		touched[namespace+"/"+name] = true
		if w.policies[namespace+"/"+name] != nil && random.IntN(2) == 0 {
			w.deletePolicy(namespace, name)
		} else {
			w.setPolicy(policyOf(w.site.t, namespace, name, randomPolicy(random)))
		}
	default:
		name := churnNamespaces[random.IntN(2)]
		if touched[name] {
			return false
		}
		touched[name] = true
		if w.namespaces[name] != nil && random.IntN(3) == 0 {
			w.deleteNamespace(name)
		} else {
			w.setNamespace(namespaceOf(name, map[string]string{"team": pick(random, "red", "blue")}))
		}
	}
	return true
}

func pick(random *rand.Rand, list ...string) string { return list[random.IntN(len(list))] }

// object is a new object of an inhabitant, with all that may vary.
func (w *world) object(p *inhabitant, random *rand.Rand) *corev1.Pod {
	w.made++
	o := podOf(p.namespace, p.name, fmt.Sprintf("uid-%d", w.made), p.node, map[string]string{"app": pick(random, "one", "two", "three")}, p.addrs...)
	o.Spec.Containers[0].Ports = []corev1.ContainerPort{
		{Name: "web", Protocol: corev1.ProtocolTCP, ContainerPort: int32(churnPorts[random.IntN(4)])},
		{Name: "dns", Protocol: corev1.ProtocolUDP, ContainerPort: int32(churnPorts[random.IntN(4)])},
	}
	return o
}

// changePod relabels, ends, deletes or makes a pod's object.
func (w *world) changePod(p *inhabitant, random *rand.Rand) {
	old := w.pods[p.fullName()]
	switch kind := random.IntN(6); {
	case old == nil:
		w.setPod(w.object(p, random))
	case kind == 0:
		w.deletePod(p.namespace, p.name)
	case kind == 1:
		o := old.DeepCopy()
		o.Status.Phase = []corev1.PodPhase{corev1.PodSucceeded, corev1.PodFailed}[random.IntN(2)]
		w.setPod(o)
	case kind == 2: // made again under its name
		w.deletePod(p.namespace, p.name)
		w.setPod(w.object(p, random))
	default:
		o := w.object(p, random)
		o.UID = old.UID
		o.Spec = old.Spec
		w.setPod(o)
	}
}

// randomPolicy writes the spec of a policy.
func randomPolicy(random *rand.Rand) string {
	selector := func() string {
		return pick(random, "{}", "{matchLabels: {app: one}}", "{matchLabels: {app: two}}", "{matchExpressions: [{key: app, operator: NotIn, values: [one]}]}")
	}
	peer := func() string {
		switch random.IntN(5) {
		case 0:
			return "{podSelector: " + selector() + "}"
		case 1:
			return "{namespaceSelector: " + pick(random, "{}", "{matchLabels: {team: red}}", "{matchLabels: {kubernetes.io/metadata.name: a}}") + "}"
		case 2:
			return "{namespaceSelector: {matchLabels: {team: " + pick(random, "red", "blue") + "}}, podSelector: " + selector() + "}"
		case 3:
			return pick(random, "{ipBlock: {cidr: 10.244.1.0/24}}", "{ipBlock: {cidr: 10.244.0.0/16, except: [10.244.1.20/31]}}", `{ipBlock: {cidr: 0.0.0.0/0}}`)
		}
		return pick(random, `{ipBlock: {cidr: "fd00:10:244:2::/64"}}`, `{ipBlock: {cidr: "::/0", except: ["fd00:10:244:1::14/127"]}}`)
	}
	rules := func(word string) string {
		var list []string
		for range random.IntN(3) {
			var parts []string
			if random.IntN(4) > 0 {
				parts = append(parts, word+": ["+peer()+", "+peer()+"]")
			}
			if random.IntN(4) > 0 {
				parts = append(parts, "ports: ["+pick(random, "{port: 7001}", "{protocol: UDP, port: 7002}", "{protocol: UDP}")+", "+
					pick(random, "{port: 7002, endPort: 7003}", "{protocol: UDP, port: 7003, endPort: 65535}", "{port: web}", "{protocol: UDP, port: dns}")+"]")
			}
			list = append(list, "{"+strings.Join(parts, ", ")+"}")
		}
		return "[" + strings.Join(list, ", ") + "]"
	}
	return fmt.Sprintf("{podSelector: %s, policyTypes: %s, ingress: %s, egress: %s}", selector(),
		pick(random, "[Ingress]", "[Egress]", "[Ingress, Egress]"), rules("from"), rules("to"))
}

// seal changes an object of each kind in a way that shows in the rules of every node.
// The events of one kind are delivered in their order: a node that holds the seals has
// had all events before them, also those that left no trace.
func (w *world) seal() {
	w.seals++
	n := fmt.Sprint(w.seals)
	w.setNamespace(namespaceOf(sealed, map[string]string{"seal": n}))
	w.setPod(podOf(sealed, "pod", "pod", "nowhere", map[string]string{"seal": n}, netip.MustParseAddr("192.0.2.1")))
	w.setPolicy(policyOf(w.site.t, sealed, "policy", fmt.Sprintf(
		`{podSelector: {matchExpressions: [{key: seal, operator: DoesNotExist}]}, ingress: [{ports: [{port: %d}], from: [{podSelector: {matchLabels: {seal: %q}}, namespaceSelector: {matchLabels: {seal: %q}}}]}]}`,
		1000+w.seals%50000, n, n)))
}

// note notes the state that a change is about to make. It is called before the API
// server knows of it.
func (w *world) note() {
	c := evaluate.Cluster{Nodes: w.nodes}
	for _, k := range slices.Sorted(maps.Keys(w.namespaces)) {
		c.Namespaces = append(c.Namespaces, w.namespaces[k])
	}
	for _, k := range slices.Sorted(maps.Keys(w.pods)) {
		c.Pods = append(c.Pods, w.pods[k])
	}
	for _, k := range slices.Sorted(maps.Keys(w.policies)) {
		c.Policies = append(c.Policies, w.policies[k])
	}
	w.history = append(w.history, &state{Cluster: c, from: time.Now()})
}

// confirmed is told that every node holds the newest state.
func (w *world) confirmed(now time.Time) {
	for _, s := range w.history[:len(w.history)-1] {
		if s.until.IsZero() {
			s.until = now
		}
	}
}

// forget drops the states that were over before a time.
func (w *world) forget(before time.Time) {
	w.history = slices.DeleteFunc(w.history, func(s *state) bool { return !s.until.IsZero() && s.until.Before(before) })
}

// met returns the states that a packet under way between two times may have met.
func (w *world) met(from, to time.Time) (out []*state) {
	for _, s := range w.history {
		if !s.from.After(to) && (s.until.IsZero() || !s.until.Before(from)) {
			out = append(out, s)
		}
	}
	return out
}

// decide says what a state makes of a packet, for each of its ends. The address of no
// pod's object is in quarantine.
func (s *state) decide(p packet) (egress, ingress bool) {
	f := evaluate.Flow{Src: p.src, Dst: p.dst, Port: int32(p.dport), Protocol: corev1.ProtocolUDP}
	if p.protocol == unix.IPPROTO_TCP {
		f.Protocol = corev1.ProtocolTCP
	}
	v := evaluate.Evaluate(s.Cluster, f)
	return v.Egress.Allowed && v.Egress.Pod != "", v.Ingress.Allowed && v.Ingress.Pod != ""
}

// verdicts says whether what became of a packet can be right, and whether it can be
// wrong. The nodes of its two ends may have held different states.
func verdicts(states []*state, p packet, arrived bool) (right, wrong bool) {
	var yes, no [2]bool
	for _, s := range states {
		egress, ingress := s.decide(p)
		for i, v := range []bool{egress, ingress} {
			yes[i], no[i] = yes[i] || v, no[i] || !v
		}
	}
	mayPass, mayNot := yes[0] && yes[1], no[0] || no[1]
	if arrived {
		return mayPass, mayNot
	}
	return mayNot, mayPass
}

// mixtures returns what an agent may hold between states: events of one kind of object
// are delivered in their order, but those of two kinds in any. So it may have the pods
// of one of the states, the policies of another and the namespaces of a third.
func mixtures(states []*state) (out []*state) {
	for _, pods := range states {
		for _, policies := range states {
			for _, namespaces := range states {
				out = append(out, &state{Cluster: evaluate.Cluster{
					Nodes: pods.Nodes, Pods: pods.Pods, Policies: policies.Policies, Namespaces: namespaces.Namespaces,
				}})
			}
		}
	}
	return out
}

// explain says what was wrong with a packet's fate.
func (w *world) explain(p packet, from, to time.Time, arrived bool) string {
	out := fmt.Sprintf("%s at %s arrived: %v;", p, from.Format("05.000"), arrived)
	for _, s := range w.met(from, to) {
		egress, ingress := s.decide(p)
		out += fmt.Sprintf(" state of %s to %s: egress %v, ingress %v;", s.from.Format("05.000"), s.until.Format("05.000"), egress, ingress)
	}
	return out
}

// What changes an object changes it here, in the indexes, and at the API server.

func (w *world) setPod(p *corev1.Pod) {
	_, there := w.pods[p.Namespace+"/"+p.Name]
	w.pods[p.Namespace+"/"+p.Name] = p
	w.note()
	for _, x := range w.indexes {
		x.SetPod(p)
	}
	if there {
		w.site.api.setPod(w.site.t, p.DeepCopy())
	} else {
		w.site.api.makePod(w.site.t, p.DeepCopy())
	}
}

func (w *world) deletePod(namespace, name string) {
	p := w.pods[namespace+"/"+name]
	delete(w.pods, namespace+"/"+name)
	w.note()
	for _, x := range w.indexes {
		x.DeletePod(namespace, name)
	}
	w.site.api.deletePod(w.site.t, p)
}

func (w *world) setNamespace(n *corev1.Namespace) {
	_, there := w.namespaces[n.Name]
	w.namespaces[n.Name] = n
	w.note()
	for _, x := range w.indexes {
		x.SetNamespace(n)
	}
	if !there {
		w.site.api.makeNamespace(w.site.t, n.DeepCopy())
		return
	}
	_, err := w.site.api.CoreV1().Namespaces().Update(context.Background(), n.DeepCopy(), metav1.UpdateOptions{})
	require.NoError(w.site.t, err)
}

func (w *world) deleteNamespace(name string) {
	delete(w.namespaces, name)
	w.note()
	for _, x := range w.indexes {
		x.DeleteNamespace(name)
	}
	require.NoError(w.site.t, w.site.api.CoreV1().Namespaces().Delete(context.Background(), name, metav1.DeleteOptions{}))
}

func (w *world) setPolicy(p *networkingv1.NetworkPolicy) {
	w.policies[p.Namespace+"/"+p.Name] = p
	w.note()
	for _, x := range w.indexes {
		x.SetNetworkPolicy(p)
	}
	w.site.api.putPolicy(w.site.t, p.DeepCopy())
}

func (w *world) deletePolicy(namespace, name string) {
	delete(w.policies, namespace+"/"+name)
	w.note()
	for _, x := range w.indexes {
		x.DeleteNetworkPolicy(namespace, name)
	}
	require.NoError(w.site.t, w.site.api.NetworkingV1().NetworkPolicies(namespace).Delete(context.Background(), name, metav1.DeleteOptions{}))
}
