package agent

import (
	"fmt"
	"log/slog"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/portcullis-netpol/portcullis/agent/cni"
)

// reports are the subnets that the CNI plugin has named, for nodes whose Node object does
// not say where their pods' addresses are from. One is taken for a block of the node's
// own if nothing says that other nodes' pods have addresses in it, too: to hold those back
// would cut the network of all nodes.
//
// It belongs to the loop; all methods of the nil *reports, of an agent that asks nobody,
// do nothing.
type reports struct {
	// nodeAddrs returns the own node's addresses.
	nodeAddrs func() ([]netip.Addr, error)
	// elsewhere finds a pod of another node in a block.
	elsewhere func(netip.Prefix) (pod string, found bool)
	file      reportFile
	log       *slog.Logger

	// offered are those that have not been looked at, taken those in use.
	offered, taken []cni.Subnet
	// shared are those that had a pod of another node, which is never forgotten.
	shared []netip.Prefix
	// told are the reasons to ignore a subnet that were logged. With addresses like
	// 10.1.0.7/32 every pod has another subnet, and the same reason.
	told map[string]bool
}

// mostSubnets bounds each list. A node has one subnet of each family, or two.
const mostSubnets = 16

// sharedReason is the reason of Events about a subnet that turned out to be shared.
const sharedReason = "PodSubnetShared"

// newReports reads what an earlier agent has taken. It goes through the same checks as
// what is reported now.
func newReports(file reportFile, log *slog.Logger) *reports {
	r := &reports{file: file, log: log, told: map[string]bool{}}
	kept, err := r.file.read()
	if err != nil {
		log.Warn("the reported subnets of an earlier agent are not known", "file", file.path, "error", err)
	}
	r.offered, r.shared = kept.Subnets, kept.Shared
	return r
}

// offer is told subnets of a pod of this node.
func (r *reports) offer(list []cni.Subnet) {
	if r == nil {
		return
	}
	for _, s := range list {
		if len(r.offered) < mostSubnets && !slices.Contains(r.offered, s) && !slices.Contains(r.taken, s) {
			r.offered = append(r.offered, s)
		}
	}
}

// consider looks at what was offered. The objects must all be known. named are the blocks
// of the Node object.
func (r *reports) consider(named []netip.Prefix) {
	if r == nil || len(r.offered) == 0 {
		return
	}
	offered := r.offered
	r.offered = nil
	for _, s := range offered {
		if r.covers(s.Prefix, named) {
			continue
		}
		reason := r.objection(s, named)
		if reason == "" {
			var err error
			if reason, err = r.objectionAround(s); err != nil {
				r.log.Error("a reported subnet cannot be looked at yet", "subnet", s.Prefix, "error", err)
				r.offered = append(r.offered, s)
				continue
			}
		}
		if reason == "" {
			r.taken = append(r.taken, s)
		} else if r.first(reason) {
			r.log.Info("a subnet of the CNI plugin's is not in quarantine", "subnet", s.Prefix, "gateway", s.Gateway, "reason", reason)
		}
	}
	if len(r.offered) == 0 {
		r.save()
	}
}

// first reports whether a reason to ignore a subnet is to be logged.
func (r *reports) first(reason string) bool {
	const most = 100 // then something is wrong that more lines do not make clearer
	if r.told[reason] || len(r.told) == most {
		return false
	}
	r.told[reason] = true
	return true
}

// covers reports whether every address of p is in quarantine.
func (r *reports) covers(p netip.Prefix, named []netip.Prefix) bool {
	return slices.ContainsFunc(append(r.blocks(), named...), func(b netip.Prefix) bool {
		return b.Bits() <= p.Bits() && b.Contains(p.Addr())
	})
}

// objection says what of a subnet itself speaks against it, "" if nothing does. It is asked
// with every pod that is added.
func (r *reports) objection(s cni.Subnet, named []netip.Prefix) string {
	p := s.Prefix
	overlaps := func(q netip.Prefix) bool { return q.Overlaps(p) }
	switch {
	case namesFamily(named, p):
		return "the Node names blocks of its family"
	case p.Bits() == 0:
		return "it is every address there is"
	case p.IsSingleIP():
		return "it is a single address"
	case !p.Contains(s.Gateway):
		return "its gateway is outside of it"
	case slices.ContainsFunc(r.shared, overlaps):
		return isShared(p)
	case len(r.taken) >= mostSubnets, len(r.shared) >= mostSubnets:
		return "there are too many of them"
	}
	return ""
}

// objectionAround says what of the node, and of pods of other nodes, speaks against a subnet.
func (r *reports) objectionAround(s cni.Subnet) (string, error) {
	own, err := r.nodeAddrs()
	if err != nil {
		return "", fmt.Errorf("addresses of the node: %w", err)
	}
	if !slices.Contains(own, s.Gateway) {
		return "its gateway is not this node", nil
	}
	if pod, found := r.elsewhere(s.Prefix); found {
		r.shared = append(r.shared, s.Prefix)
		r.told[isShared(s.Prefix)] = true // this says more
		return fmt.Sprintf("pod %s of another node is in %s", pod, s.Prefix), nil
	}
	return "", nil
}

// isShared is the reason to ignore a subnet that has had a pod of another node.
func isShared(p netip.Prefix) string { return fmt.Sprintf("pods of other nodes have been in %s", p) }

// namesFamily reports whether one of blocks is of p's family.
func namesFamily(blocks []netip.Prefix, p netip.Prefix) bool {
	return slices.ContainsFunc(blocks, func(b netip.Prefix) bool { return b.Addr().Is4() == p.Addr().Is4() })
}

// yield is told the blocks that the Node names: they take the place of what was reported
// of the same family.
func (r *reports) yield(named []netip.Prefix) {
	if r == nil {
		return
	}
	n := len(r.taken)
	r.taken = slices.DeleteFunc(r.taken, func(s cni.Subnet) bool { return namesFamily(named, s.Prefix) })
	if len(r.taken) < n {
		r.save()
	}
}

// blocks returns those in use.
func (r *reports) blocks() (out []netip.Prefix) {
	if r == nil {
		return nil
	}
	for _, s := range r.taken {
		out = append(out, s.Prefix)
	}
	return out
}

// met is told of a pod, and returns the subnets that are no longer in use because it is
// another node's.
func (r *reports) met(p *corev1.Pod, node string) (shared []netip.Prefix) {
	if r == nil || len(r.taken) == 0 || p.Spec.NodeName == node || p.Spec.HostNetwork || ended(p) {
		return nil
	}
	for _, addr := range statusAddrs(p) {
		r.taken = slices.DeleteFunc(r.taken, func(s cni.Subnet) bool {
			if s.Prefix.Contains(addr) {
				shared = append(shared, s.Prefix)
				return true
			}
			return false
		})
	}
	if len(shared) > 0 {
		for _, p := range shared {
			r.told[isShared(p)] = true // the caller says it
		}
		r.shared = append(r.shared, shared...)
		r.save()
	}
	return shared
}

// save keeps what is taken for the agent that comes after this one: the ADDs are not
// repeated.
func (r *reports) save() {
	if err := r.file.write(kept{Subnets: r.taken, Shared: r.shared}); err != nil {
		r.log.Warn("the next agent will not know the reported subnets", "file", r.file.path, "error", err)
	}
}

// offer notes the subnets of a pod that is being added.
func (l *loop) offer(list []cni.Subnet) {
	l.reports.offer(list)
	l.takeOffers()
}

// takeOffers puts what was reported in quarantine, once it can be told whether it may.
func (l *loop) takeOffers() {
	if l.synced {
		l.reports.consider(l.named)
		l.holdBack()
	}
}

// meet looks whether a pod shows that a block is not this node's alone.
func (l *loop) meet(p *corev1.Pod) {
	for _, block := range l.reports.met(p, l.node) {
		message := fmt.Sprintf("Pods of %s are not held back any more before they are known: the CNI plugin named it as this node's, but pod %s/%s on node %s has an address in it. Name the node's own blocks with --pod-cidrs.",
			block, p.Namespace, p.Name, p.Spec.NodeName)
		l.log.Warn(message, "subnet", block)
		l.warnings.ofNode(sharedReason, message)
		l.holdBack()
	}
}
