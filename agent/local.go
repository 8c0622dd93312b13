package agent

import (
	"context"

	corev1 "k8s.io/api/core/v1"

	"github.com/portcullis-netpol/portcullis/policy/ir"
)

// localPods notes which pods are on this node. The first of them may have brought
// a bridge along.
func (l *loop) localPods(ctx context.Context, c ir.Change) {
	if len(c.Endpoints) == 0 && !l.ownChanged {
		return
	}
	defer l.countOwn()
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

// noteOwn takes note of a pod, nil if it is gone, for the count of this node's.
func (l *loop) noteOwn(k key, p *corev1.Pod) {
	mine := p != nil && p.Spec.NodeName == l.node && !p.Spec.HostNetwork && p.Status.Phase != corev1.PodSucceeded && p.Status.Phase != corev1.PodFailed
	if mine == l.own[k] {
		return
	}
	l.ownChanged = true
	if mine {
		l.own[k] = true
	} else {
		delete(l.own, k)
	}
}

// countOwn counts this node's pods, and those with an address in force.
func (l *loop) countOwn() {
	l.ownChanged = false
	known := map[string]bool{}
	for _, pod := range l.local {
		known[pod] = true
	}
	l.meters.localPods(len(l.own), min(len(known), len(l.own)), len(l.local))
}
