package agent

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"maps"
	"net/netip"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/portcullis-netpol/portcullis/agent/admin"
)

// backend answers at the admin socket. It asks the loop, and changes nothing.
type backend struct {
	node, version string
	started       time.Time
	visits        visits
	health        *health
	audits        *audits
	tally         *tally
	// nodeAddrs returns the own node's addresses.
	nodeAddrs func() ([]netip.Addr, error)
}

var _ admin.Backend = (*backend)(nil)

// Audit returns what policies in audit mode would have denied.
func (b *backend) Audit(ctx context.Context) (admin.Audit, error) {
	s := b.audits.summary()
	s.Node = b.node
	b.tally.read(ctx, func(n *totals) { s.Packets = n.audited[0] + n.audited[1] })
	// The kernel is asked now and then only, and the rows are always up to date.
	s.Packets = max(s.Packets, s.Logged)
	return s, nil
}

// Objects writes the objects of the cluster as far as policies can ask for them. The
// loop is asked for so many at a time, so that what is written may be of several moments.
func (b *backend) Objects(ctx context.Context, w io.Writer) error {
	var namespaces []string
	var node *corev1.Node
	err := b.visits.do(ctx, func(l *loop) {
		namespaces = l.namespaces()
		node = l.nodeObject()
	})
	if err != nil {
		return err
	}
	b.address(node)
	out := bufio.NewWriterSize(w, 1<<16)
	list := &listWriter{w: out}
	list.begin()
	list.add(node)
	for _, name := range namespaces {
		if err := b.objectsOf(ctx, name, list); err != nil {
			return err
		}
	}
	list.end()
	if list.err != nil {
		return list.err
	}
	return out.Flush()
}

// objectsOf writes a namespace, its policies and its pods with addresses, in this order.
// Those that go meanwhile may be missing.
func (b *backend) objectsOf(ctx context.Context, namespace string, list *listWriter) error {
	var objects []runtime.Object
	var policies, pods []string
	err := b.visits.do(ctx, func(l *loop) {
		if n, ok := l.index.Namespace(namespace); ok {
			n.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "Namespace"}
			objects = append(objects, n)
		}
		policies = slices.Collect(maps.Keys(l.policies.all[namespace]))
		pods = l.index.PodNames(namespace)
	})
	if err != nil {
		return err
	}
	for _, kind := range []struct {
		names  []string
		object func(l *loop, namespace, name string) (runtime.Object, bool)
	}{{policies, (*loop).policyObject}, {pods, (*loop).podObject}} {
		slices.Sort(kind.names)
		for some := range slices.Chunk(kind.names, perVisit) {
			err := b.visits.do(ctx, func(l *loop) {
				for _, name := range some {
					if o, ok := kind.object(l, namespace, name); ok {
						objects = append(objects, o)
					}
				}
			})
			if err != nil {
				return err
			}
			for _, o := range objects {
				list.add(o)
			}
			if objects = objects[:0]; list.err != nil {
				return list.err
			}
		}
	}
	for _, o := range objects { // there was nothing but the namespace
		list.add(o)
	}
	return list.err
}

// address gives the own Node the addresses by which its packets can be known. What the
// API server says of it is not kept.
func (b *backend) address(n *corev1.Node) {
	addrs, err := b.nodeAddrs()
	if err != nil {
		return // nothing is said of packets of the node's then
	}
	for _, a := range addrs {
		if !a.IsLoopback() && !a.IsLinkLocalUnicast() {
			n.Status.Addresses = append(n.Status.Addresses, corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: a.String()})
		}
	}
}

// namespaces returns the names of those that have something, sorted.
func (l *loop) namespaces() []string {
	names := map[string]bool{}
	for _, name := range l.index.Namespaces() {
		names[name] = true
	}
	for name := range l.policies.all {
		names[name] = true
	}
	return slices.Sorted(maps.Keys(names))
}

// nodeObject returns what is known of the own Node.
func (l *loop) nodeObject() *corev1.Node {
	n := &corev1.Node{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Node"}, ObjectMeta: metav1.ObjectMeta{Name: l.node}}
	for _, p := range l.blocks {
		n.Spec.PodCIDRs = append(n.Spec.PodCIDRs, p.String())
	}
	if len(n.Spec.PodCIDRs) > 0 {
		n.Spec.PodCIDR = n.Spec.PodCIDRs[0]
	}
	return n
}

// policyObject returns a policy as it was last heard of.
func (l *loop) policyObject(namespace, name string) (runtime.Object, bool) {
	r := l.policies.all[namespace][name]
	if r == nil {
		return nil, false
	}
	p := *r.object
	p.TypeMeta = metav1.TypeMeta{APIVersion: networkingv1.SchemeGroupVersion.String(), Kind: "NetworkPolicy"}
	return &p, true
}

// podObject returns a pod with addresses.
func (l *loop) podObject(namespace, name string) (runtime.Object, bool) {
	p, ok := l.index.PodNamed(namespace, name)
	if !ok {
		return nil, false
	}
	p.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"}
	return p, true
}

// listWriter writes a v1 List. Its first error stays.
type listWriter struct {
	w   io.Writer
	n   int
	err error
}

func (l *listWriter) begin() { l.text(`{"apiVersion":"v1","kind":"List","items":[`) }
func (l *listWriter) end()   { l.text("]}\n") }

func (l *listWriter) add(o runtime.Object) {
	if l.err != nil {
		return
	}
	data, err := json.Marshal(o)
	if err != nil {
		l.err = err
		return
	}
	if l.n++; l.n > 1 {
		l.text(",")
	}
	l.text("\n")
	l.text(string(data))
}

func (l *listWriter) text(s string) {
	if l.err == nil {
		_, l.err = io.WriteString(l.w, s)
	}
}
