package policy

import (
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"

	"github.com/portcullis-netpol/portcullis/policy/ir"
)

// Index holds the objects of a cluster, in small types of its own, and what
// they mean for one node. Its methods are not safe for concurrent use.
type Index struct {
	node string
	// wideAbove is the constant but in tests.
	wideAbove int

	// What there is.
	namespaces map[string]*namespace
	// owners holds the pod that each address stands for, rivals all pods that
	// list it where they are several.
	owners map[netip.Addr]*pod
	rivals map[netip.Addr][]*pod

	// What the policies in force on this node ask for. Each is shared by all
	// who ask for the same, counted, and gone with the last of them.
	places     map[string]*place     // by scope.key
	bySelector labelIndex[*place]    // those whose scope is a namespace selector
	selections map[string]*selection // by podSelector.key
	resolvers  map[string]*resolver  // by resolverSpec.key
	terms      map[string]*term      // by termSpec.key
	sets       map[ir.PeerSetID]*peerSet
	groups     map[ir.GroupID]*group
	recipes    map[string]*recipe // by recipe.key

	// endpoints is what the last Flush left.
	endpoints map[netip.Addr]ir.Endpoint

	// What the events since the last Flush may have changed.
	dirtyPods    map[*pod]struct{}
	dirtyAddrs   map[netip.Addr]struct{}
	dirtyRecipes map[*recipe]struct{}
	dirtySets    map[*peerSet]struct{}

	// visit numbers the walks over selections, see selection.visited.
	visit uint64
	work  work
}

// work counts what an Index does, so that tests can tell that an event costs
// what it changes and not the size of the cluster.
type work struct {
	evaluated int // selectors matched against an object's labels
	scanned   int // pods looked at for a selection that is new, or a namespace that moved
	moved     int // addresses that entered or left a peer set, by term
	compiled  int // groups compiled
}

// NewIndex returns an empty Index for the node with the given name: the pods
// whose spec.nodeName it is are the ones whose traffic is judged here.
func NewIndex(node string) *Index {
	return &Index{
		node:       node,
		wideAbove:  wideAbove,
		namespaces: map[string]*namespace{},
		owners:     map[netip.Addr]*pod{},
		rivals:     map[netip.Addr][]*pod{},

		places:     map[string]*place{},
		bySelector: newLabelIndex[*place](),
		selections: map[string]*selection{},
		resolvers:  map[string]*resolver{},
		terms:      map[string]*term{},
		sets:       map[ir.PeerSetID]*peerSet{},
		groups:     map[ir.GroupID]*group{},
		recipes:    map[string]*recipe{},
		endpoints:  map[netip.Addr]ir.Endpoint{},

		dirtyPods:    map[*pod]struct{}{},
		dirtyAddrs:   map[netip.Addr]struct{}{},
		dirtyRecipes: map[*recipe]struct{}{},
		dirtySets:    map[*peerSet]struct{}{},
	}
}

// SetPod adds the pod or replaces what is known of it. The pod is not kept.
func (x *Index) SetPod(p *corev1.Pod) {
	f := parsePod(p, x.node)
	if len(f.claims) == 0 {
		x.DeletePod(p.Namespace, p.Name)
		return
	}
	x.setPod(x.namespace(p.Namespace), p.Name, f)
}

// DeletePod forgets a pod; one that is not known is no error.
func (x *Index) DeletePod(namespace, name string) {
	ns := x.namespaces[namespace]
	if ns == nil || ns.pods[name] == nil {
		return
	}
	x.setPod(ns, name, podFacts{})
	x.forget(ns)
}

// SetNamespace adds the namespace or replaces its labels and mode. CheckNamespace
// tells what is wrong with it.
func (x *Index) SetNamespace(n *corev1.Namespace) {
	ns := x.namespace(n.Name)
	x.setNamespace(ns, true, newLabelSet(n.Labels))
	m, _ := parseMode(n.Annotations, func(string, string, ...any) {})
	x.setMode(ns, m)
}

// DeleteNamespace forgets the namespace's labels and mode, and no more: its pods and
// policies have events of their own, and stay in force until these come.
func (x *Index) DeleteNamespace(name string) {
	ns := x.namespaces[name]
	if ns == nil {
		return
	}
	x.setNamespace(ns, false, nil)
	x.setMode(ns, ModeEnforce)
	x.forget(ns)
}

// SetNetworkPolicy adds the policy or replaces it. The problems are those of
// the given object, each time it is set; the policy is in force without the
// parts that they name.
func (x *Index) SetNetworkPolicy(p *networkingv1.NetworkPolicy) []Problem {
	spec, problems := parsePolicy(p)
	x.setPolicy(x.namespace(p.Namespace), p.Name, &spec)
	return problems
}

// DeleteNetworkPolicy forgets a policy; one that is not known is no error.
func (x *Index) DeleteNetworkPolicy(namespace, name string) {
	ns := x.namespaces[namespace]
	if ns == nil {
		return
	}
	x.setPolicy(ns, name, nil)
	x.forget(ns)
}
