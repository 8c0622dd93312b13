package agent

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// PodCIDRs returns the blocks that a Node's pods get their addresses from, masked
// and sorted; none if the Node does not say. An error names the Node and the field.
func PodCIDRs(n *corev1.Node) ([]netip.Prefix, error) {
	texts := n.Spec.PodCIDRs
	if len(texts) == 0 && n.Spec.PodCIDR != "" {
		texts = []string{n.Spec.PodCIDR}
	}
	var blocks []netip.Prefix
	for i, text := range texts {
		p, err := netip.ParsePrefix(text)
		if err == nil && p.Bits() == 0 {
			err = errors.New("that is every address there is")
		}
		if err != nil {
			return nil, fmt.Errorf("spec.podCIDRs[%d] of Node %s: %q: %w", i, n.Name, text, err)
		}
		blocks = append(blocks, p)
	}
	return canonical(blocks), nil
}

// canonical masks and sorts blocks and leaves out what is there twice.
func canonical(blocks []netip.Prefix) []netip.Prefix {
	var out []netip.Prefix
	for _, p := range blocks {
		out = append(out, p.Masked())
	}
	slices.SortFunc(out, netip.Prefix.Compare)
	return slices.Compact(out)
}

// ownNode takes in what the own Node says of its pods' addresses. A Node that says
// nothing, any more or yet, changes nothing: to lift a quarantine takes more than a
// missing field.
func (l *loop) ownNode(n *corev1.Node) {
	if n.Name != l.node || !l.quarantine || len(l.fixedCIDRs) > 0 {
		return
	}
	blocks, err := PodCIDRs(n)
	if err != nil {
		l.log.Error("the quarantine of new pods stays as it is", "error", err)
		return
	}
	if len(blocks) > 0 {
		l.named = blocks
		l.reports.yield(blocks)
		l.holdBack()
	}
}

// holdBack quarantines, from the next write on, the addresses of the blocks that the own
// Node names, and of those that the CNI plugin reported.
func (l *loop) holdBack() {
	blocks := canonical(slices.Concat(l.named, l.reports.blocks()))
	if len(l.fixedCIDRs) > 0 || slices.Equal(blocks, l.blocks) {
		return
	}
	if len(blocks) > 0 {
		l.log.Info("new pods are held back until their policies are in force", "podCIDRs", blocks)
	} else {
		l.log.Warn("new pods are not held back until their policies are in force: no block is known to be this node's")
	}
	l.blocks = blocks
	l.enforcer.SetPodCIDRs(blocks)
	l.rebuild = true // the blocks stand in rules
}

// joined writes blocks for people.
func joined(blocks []netip.Prefix) string {
	var texts []string
	for _, p := range blocks {
		texts = append(texts, p.String())
	}
	return strings.Join(texts, ", ")
}
