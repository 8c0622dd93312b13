package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"

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
			"It needs neither root nor a cluster. Pods of other nodes appear as peers.",
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			objects, err := manifest.Load(files...)
			if err != nil {
				return wrongInput(err)
			}
			return a.renderNode(objects, node, rules.config())
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
	if node == "" {
		return wrongInput(errors.New("--node is empty"))
	}
	a.warnAboutNode(o, node)
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

// warnAboutNode tells why rules or elements may be missing that the reader expects.
func (a *app) warnAboutNode(o *manifest.Objects, node string) {
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
