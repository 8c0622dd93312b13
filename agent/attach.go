package agent

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/portcullis-netpol/portcullis/agent/cni"
)

// attachment is what the CNI plugin said of a pod's interface. The kubelet writes
// the same addresses into the pod's status later, when the pod has long been able to
// send.
type attachment struct {
	pod    key
	uid    types.UID // "" if the container runtime does not tell it
	addrs  []netip.Addr
	device string // the host's end, "" if the plugin does not know it
}

// of reports whether the attachment is one of p's. What the container runtime tells of
// a static pod is the UID of its manifest, which the API server's copy of the pod has
// in an annotation.
func (at attachment) of(p *corev1.Pod) bool {
	return at.pod == podKey(p.Namespace, p.Name) &&
		(at.uid == "" || at.uid == p.UID || string(at.uid) == p.Annotations[staticUID])
}

// staticUID is the kubelet's annotation of the pods that it runs from its own
// manifests.
const staticUID = "kubernetes.io/config.hash"

// attachments knows the pods' interfaces from their ADD to their DEL. It belongs to
// the loop.
type attachments struct {
	node string
	list map[cni.Attachment]attachment
	// pods are those of this node as the source described them last, but for
	// those in the host's network.
	pods map[key]*corev1.Pod
	// changed says that pods may have others than when it was reset.
	changed bool
	// lost are addresses that the pods' status may still name, or even name later: the
	// plugin took them back, or gave them to another pod. A kubelet says so seconds
	// later only.
	lost map[key]map[netip.Addr]bool
	// seen are the pods of this node that the index has with an address.
	seen map[key]bool
	// waiting are the ADDs that are to be answered when the pod's rules are in force.
	waiting map[key][]*waiter
}

// waiter is an ADD without its answer.
type waiter struct {
	attachment
	answered chan struct{}
}

func newAttachments(node string) *attachments {
	return &attachments{
		node: node, list: map[cni.Attachment]attachment{}, pods: map[key]*corev1.Pod{},
		lost: map[key]map[netip.Addr]bool{}, seen: map[key]bool{}, waiting: map[key][]*waiter{},
	}
}

// describe returns p as the index is to see it: with the addresses that its status
// and its attachments name, and without those that it has lost.
func (a *attachments) describe(k key, p *corev1.Pod) *corev1.Pod {
	if p.Spec.NodeName != a.node || p.Spec.HostNetwork {
		a.forget(k)
		return p
	}
	if was := a.pods[k]; was != nil && was.UID != p.UID {
		a.forget(k)
	}
	a.pods[k], a.changed = p, true
	return a.view(k)
}

// view returns the pod k as the index is to see it.
func (a *attachments) view(k key) *corev1.Pod {
	p := a.pods[k]
	addrs := map[netip.Addr]bool{}
	for _, addr := range statusAddrs(p) {
		addrs[addr] = true
	}
	named := maps.Clone(addrs)
	for addr := range a.lost[k] {
		delete(addrs, addr)
	}
	for _, at := range a.list {
		for _, addr := range at.addrs {
			if at.of(p) {
				addrs[addr] = true
			}
		}
	}
	a.seen[k] = len(addrs) > 0
	if maps.Equal(addrs, named) {
		return p
	}
	p = p.DeepCopy()
	p.Status.PodIP, p.Status.PodIPs = "", nil
	for _, addr := range slices.SortedFunc(maps.Keys(addrs), netip.Addr.Compare) {
		p.Status.PodIPs = append(p.Status.PodIPs, corev1.PodIP{IP: addr.String()})
	}
	return p
}

// statusAddrs returns the addresses that p's status names. What is none is left to
// the index.
func statusAddrs(p *corev1.Pod) []netip.Addr {
	var out []netip.Addr
	for _, ip := range append([]corev1.PodIP{{IP: p.Status.PodIP}}, p.Status.PodIPs...) {
		if addr, err := netip.ParseAddr(ip.IP); err == nil {
			out = append(out, addr.Unmap())
		}
	}
	return out
}

// forget is told that what is known of the pod's object is no longer so.
func (a *attachments) forget(k key) {
	a.changed = a.changed || a.pods[k] != nil
	delete(a.pods, k)
	delete(a.lost, k)
	delete(a.seen, k)
}

// add notes an attachment. It returns the pods that are to be set in the index anew:
// the one that has its addresses now, and those that had them.
func (a *attachments) add(id cni.Attachment, at attachment) []*corev1.Pod {
	a.list[id] = at
	var changed []*corev1.Pod
	for k, p := range a.pods {
		if at.of(p) {
			for _, addr := range at.addrs {
				delete(a.lost[k], addr)
			}
		} else {
			named := slices.DeleteFunc(statusAddrs(p), func(addr netip.Addr) bool { return !slices.Contains(at.addrs, addr) })
			if len(named) == 0 {
				continue
			}
			a.lose(k, named)
		}
		changed = append(changed, a.view(k))
	}
	return changed
}

// remove forgets an attachment; at says what it is if the agent was not told of its
// ADD. It returns the pods that are to be set in the index anew.
func (a *attachments) remove(id cni.Attachment, at attachment) []*corev1.Pod {
	if known, ok := a.list[id]; ok {
		at = known
	}
	delete(a.list, id)
	p := a.pods[at.pod]
	if p == nil || !at.of(p) {
		return nil
	}
	a.lose(at.pod, at.addrs)
	return []*corev1.Pod{a.view(at.pod)}
}

// lose notes that k has lost addrs. Its status may name them, or will: the kubelet can
// write it when the plugin has taken them back already.
func (a *attachments) lose(k key, addrs []netip.Addr) {
	if a.lost[k] == nil {
		a.lost[k] = map[netip.Addr]bool{}
	}
	for _, addr := range addrs {
		a.lost[k][addr] = true
	}
}

// answer is called when the kernel holds what the index holds.
func (a *attachments) answer() {
	for k, list := range a.waiting {
		var rest []*waiter
		for _, w := range list {
			if a.has(w.attachment) {
				close(w.answered)
			} else {
				rest = append(rest, w)
			}
		}
		if a.waiting[k] = rest; len(rest) == 0 {
			delete(a.waiting, k)
		}
	}
}

// has reports whether the index has the pod of at, with an address.
func (a *attachments) has(at attachment) bool {
	return a.seen[at.pod] && at.of(a.pods[at.pod])
}

// giveUp forgets an ADD that nobody waits for any more.
func (a *attachments) giveUp(w *waiter) {
	k := w.pod
	a.waiting[k] = slices.DeleteFunc(a.waiting[k], func(x *waiter) bool { return x == w })
	if len(a.waiting[k]) == 0 {
		delete(a.waiting, k)
	}
}

// handler answers the CNI plugin. Its methods run in the server's goroutines and ask
// the loop.
type handler struct {
	ask   chan<- func(*loop)
	ended <-chan struct{} // closed when the loop has ended
}

// in has the loop run f, and write what follows from it.
func (h handler) in(ctx context.Context, f func(*loop)) error {
	select {
	case h.ask <- f:
		return nil
	case <-h.ended:
		return errEnded
	case <-ctx.Done():
		return fmt.Errorf("the agent is busy: %w", context.Cause(ctx))
	}
}

func podKey(namespace, name string) key { return key{podKind, namespace, name} }

func attachmentOf(r cni.Request) attachment {
	return attachment{pod: podKey(r.Namespace, r.Name), uid: types.UID(r.UID), addrs: r.Addrs, device: r.HostInterface}
}

// Add returns once the kernel holds the rules of the pod.
func (h handler) Add(ctx context.Context, r cni.Request) error {
	w := &waiter{attachmentOf(r), make(chan struct{})}
	err := h.in(ctx, func(l *loop) {
		l.offer(r.Subnets)
		l.attached(l.attachments.add(r.Attachment, w.attachment))
		l.attachments.waiting[w.pod] = append(l.attachments.waiting[w.pod], w)
	})
	if err != nil {
		return err
	}
	select {
	case <-w.answered:
		return nil
	case <-h.ended:
		return errEnded
	case <-ctx.Done():
	}
	_ = h.in(context.WithoutCancel(ctx), func(l *loop) { l.attachments.giveUp(w) })
	return fmt.Errorf("%s: its policies are not in force yet: %w", w.pod, context.Cause(ctx))
}

// Del takes an attachment back. It returns when that is written, and the connections of
// its addresses have ended: the plugins that are asked after it give the addresses to
// other pods.
func (h handler) Del(ctx context.Context, r cni.Request) error {
	err := h.in(ctx, func(l *loop) { l.attached(l.attachments.remove(r.Attachment, attachmentOf(r))) })
	if err != nil {
		return err
	}
	return h.in(ctx, func(*loop) {}) // taken when all that follows from the first is done
}

// GC takes back every attachment that is not among those that exist.
func (h handler) GC(ctx context.Context, valid []cni.Attachment) error {
	return h.in(ctx, func(l *loop) {
		for id := range l.attachments.list {
			if !slices.Contains(valid, id) {
				l.attached(l.attachments.remove(id, attachment{}))
			}
		}
	})
}

// attached is told what an attachment that came or went makes of pods.
func (l *loop) attached(changed []*corev1.Pod) {
	for _, p := range changed {
		l.index.SetPod(p)
	}
	l.senders.changed()
}

// Check reports whether the pod's rules are in force.
func (h handler) Check(ctx context.Context, r cni.Request) error {
	at := attachmentOf(r)
	result := make(chan error, 1)
	err := h.in(ctx, func(l *loop) {
		switch {
		case !l.taken || l.uncertain:
			result <- errors.New("the agent's rules are not in force")
		case !l.attachments.has(at):
			result <- fmt.Errorf("%s is not known to the agent, or has no address", at.pod)
		default:
			result <- nil
		}
	})
	if err != nil {
		return err
	}
	select {
	case err := <-result:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
