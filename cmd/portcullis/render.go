package main

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"

	"github.com/portcullis-netpol/portcullis/agent"
	"github.com/portcullis-netpol/portcullis/nft"
	"github.com/portcullis-netpol/portcullis/policy"
	"github.com/portcullis-netpol/portcullis/policy/manifest"
)

// renderedTable is the name that the first table of an agent has.
const renderedTable = "portcullis-a"

func (a *app) render() *cobra.Command {
	var (
		files []string
		node  string
		rules rulesFlags
	)
	c := &cobra.Command{
		Use:   "render -f PATH... --node NODE",
		Short: "Print the rules of a node in nft's own syntax",
		Long: "Print the rules that the agent would put in force on a node, as 'nft -f' reads them.\n" +
			"It needs neither root nor a cluster. Pods of other nodes appear as peers.\n\n" +
			"Pods are held back until the agent knows them where the files have the Node and its\n" +
			"spec.podCIDRs, or with --pod-cidrs.",
		Example: "  portcullis render -f ./manifests --node node-1\n" +
			"  portcullis render -f ./manifests --node node-1 --denied-packets off | nft --check -f -",
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			objects, err := manifest.Load(files...)
			if err != nil {
				return wrongInput(err)
			}
			c, err := a.rulesOf(objects, node, &rules)
			if err != nil {
				return wrongInput(err)
			}
			return a.renderNode(objects, node, c)
		},
	}
	flags := c.Flags()
	addFiles(flags, &files)
	flags.StringVar(&node, "node", "", "`name` of the node, as in spec.nodeName of its pods (required)")
	rules.add(flags)
	for _, name := range []string{"filename", "node"} {
		if err := c.MarkFlagRequired(name); err != nil {
			panic(err) // the flags are defined above
		}
	}
	return c
}

func (a *app) renderNode(o *manifest.Objects, node string, rules nft.Config) error {
	a.warnAboutPods(o, node)
	index := policy.NewIndex(node)
	for _, n := range o.Namespaces {
		index.SetNamespace(n)
	}
	for _, p := range o.Pods {
		index.SetPod(p)
	}
	for _, p := range o.Policies {
		for _, problem := range index.SetNetworkPolicy(p) {
			a.warn("%v", problem)
		}
	}
	index.Flush()
	table, err := nft.Build(rules, renderedTable, index.State())
	if err != nil {
		return fmt.Errorf("render %s: %w", node, err)
	}
	return nft.WriteTable(a.stdout, table)
}

// rulesOf returns the rules that the agent of a node makes, with these objects and flags.
func (a *app) rulesOf(o *manifest.Objects, node string, f *rulesFlags) (nft.Config, error) {
	if node == "" {
		return nft.Config{}, errors.New("--node is empty")
	}
	c, err := f.config()
	if err != nil {
		return nft.Config{}, err
	}
	i := slices.IndexFunc(o.Nodes, func(n *corev1.Node) bool { return n.Name == node })
	if i < 0 && len(o.Nodes) > 0 {
		a.warn("these files have Nodes, but none named %q; an agent that follows them waits for it and writes nothing", node)
	}
	if !f.quarantine.value() {
		c.PodCIDRs = nil
		return c, nil
	}
	if len(c.PodCIDRs) > 0 {
		return c, nil
	}
	if i >= 0 {
		if c.PodCIDRs, err = ownBlocks(o.Nodes[i]); err != nil {
			return nft.Config{}, err
		}
	}
	if len(c.PodCIDRs) == 0 {
		a.warn("neither these files (Node %s, spec.podCIDRs) nor --pod-cidrs say where pods get their addresses from; no new pod is held back", node)
	}
	return c, nil
}

// ownBlocks returns the blocks that a Node's pods get their addresses from, if rules
// can be made of them.
func ownBlocks(n *corev1.Node) ([]netip.Prefix, error) {
	blocks, err := agent.PodCIDRs(n)
	if err != nil {
		return nil, err
	}
	if err := (nft.Config{PodCIDRs: blocks}).Validate(); err != nil {
		return nil, fmt.Errorf("spec.podCIDRs of Node %s: %w", n.Name, err)
	}
	return blocks, nil
}

// warnAboutPods tells why rules or elements may be missing that the reader expects.
func (a *app) warnAboutPods(o *manifest.Objects, node string) {
	local, absent := 0, 0
	for _, p := range o.Pods {
		missing := !p.Spec.HostNetwork && !ended(p) && len(podAddrs(p)) == 0
		switch {
		case p.Spec.NodeName == node:
			local++
			if missing {
				a.warn("pod %s/%s of node %s has no address; there are no rules for it", p.Namespace, p.Name, node)
			}
		case missing:
			absent++
		}
	}
	if local == 0 {
		a.warn("no pod of these files is on node %q (spec.nodeName)", node)
	}
	if absent > 0 {
		a.warn("%d pods of other nodes have no address and cannot be among the peers", absent)
	}
}

// ended reports whether the pod has run to its end and owns no address any more.
func ended(p *corev1.Pod) bool {
	return p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed
}

// warn prints one line to stderr.
func (a *app) warn(format string, args ...any) {
	fmt.Fprintf(a.stderr, "portcullis: warning: "+format+"\n", args...)
}
