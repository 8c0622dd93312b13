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
// loop is asked for one namespace at a time, so that what is written may be of several
// moments.
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
		var objects []runtime.Object
		if err := b.visits.do(ctx, func(l *loop) { objects = l.objectsOf(name) }); err != nil {
			return err
		}
		for _, o := range objects {
			list.add(o)
		}
		if list.err != nil {
			return list.err
		}
	}
	list.end()
	if list.err != nil {
		return list.err
	}
	return out.Flush()
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

// objectsOf returns a namespace, its policies and its pods with addresses, in this order.
func (l *loop) objectsOf(namespace string) (out []runtime.Object) {
	if n, ok := l.index.Namespace(namespace); ok {
		n.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "Namespace"}
		out = append(out, n)
	}
	in := l.policies.all[namespace]
	for _, name := range slices.Sorted(maps.Keys(in)) {
		p := *in[name].object
		p.TypeMeta = metav1.TypeMeta{APIVersion: networkingv1.SchemeGroupVersion.String(), Kind: "NetworkPolicy"}
		out = append(out, &p)
	}
	for _, p := range l.index.Pods(namespace) {
		p.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"}
		out = append(out, p)
	}
	return out
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
