package agent

import (
	"context"

	corev1 "k8s.io/api/core/v1"

	"github.com/portcullis-netpol/portcullis/policy/ir"
)

// ended reports whether a pod runs no more, and so has no address any more, whatever its
// status still says.
func ended(p *corev1.Pod) bool {
	return p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed
}

// localPods notes which pods are on this node. The first of them may have brought
// a bridge along.
func (l *loop) localPods(ctx context.Context, c ir.Change) {
	if len(c.Endpoints) == 0 && !l.attachments.changed {
		return
	}
	defer l.countLocal()
	if len(c.Endpoints) == 0 {
		return
	}
	l.senders.changed()
	none := len(l.local) == 0
	for _, e := range c.Endpoints {
		if e.Old != nil {
			delete(l.local, e.Old.Addr)
		}
		if e.New != nil {
			l.local[e.New.Addr] = e.New.Pod
		}
	}
	if none {
		l.lookAtNode(ctx)
	}
}

// countLocal counts this node's pods, and those with an address in force.
func (l *loop) countLocal() {
	l.attachments.changed = false
	pods, quarantined := l.ownPods()
	l.meters.localPods(pods, pods-len(quarantined), len(l.local))
}

// ownPods counts this node's pods that policies may select, and names those without an
// address in force, in any order.
func (l *loop) ownPods() (pods int, quarantined []string) {
	known := map[string]bool{}
	for _, pod := range l.local {
		known[pod] = true
	}
	for k, p := range l.attachments.pods {
		if ended(p) {
			continue
		}
		pods++
		if name := k.namespace + "/" + k.name; !known[name] {
			quarantined = append(quarantined, name)
		}
	}
	return pods, quarantined
}
