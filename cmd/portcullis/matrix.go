package main

import (
	"cmp"
	"context"
	"fmt"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"

	"github.com/portcullis-netpol/portcullis/cmd/portcullis/matrixpage"
	"github.com/portcullis-netpol/portcullis/policy/matrix"
)

// matrixFlags are the flags of matrix and of matrix diff.
type matrixFlags struct {
	source     sourceFlags
	namespaces []string
	by         choice[matrix.By]
	ports      []string
	output     choice[string]

	asked []service // ports, read
}

// service is a port that was asked for.
type service struct {
	name     string // "tcp/5432"
	protocol corev1.Protocol
	port     int32
}

func (f *matrixFlags) add(c *cobra.Command, by ...matrix.By) {
	f.by = choice[matrix.By]{values: by}
	for _, b := range by {
		f.by.words = append(f.by.words, string(b))
	}
	words := []string{"text", "json", "html"}
	f.output = choice[string]{words: words, values: words}
	flags := c.Flags()
	f.source.add(flags)
	flags.StringArrayVarP(&f.namespaces, "namespace", "n", nil, "show the pods of this `namespace`, other namespaces as one row each (repeatable; default: all)")
	flags.Var(&f.by, "by", "what a row stands for: pods that no policy tells apart, a workload, or a namespace")
	flags.StringArrayVar(&f.ports, "port", nil, "ask only whether this `protocol/port` passes, as in tcp/5432 or icmp (repeatable)")
	flags.VarP(&f.output, "output", "o", "how to print it")
}

func (f *matrixFlags) read() error {
	for _, text := range f.ports {
		protocol, port, err := parseService(text)
		if err != nil {
			return fmt.Errorf("--port %w", err)
		}
		s := service{protocol: protocol, port: port}
		s.name = matrix.PortsOf(protocol, port).String()
		f.asked = append(f.asked, s)
	}
	return nil
}

const matrixLong = `Say who reaches whom: for every pair of pods, and for addresses outside and the nodes, the
protocols and ports that pass. The objects come from files, from this node's agent (--agent), or
from a cluster: that of --kubeconfig, of $KUBECONFIG or of ~/.kube/config. Nothing is changed there.

In files, workloads stand for their pods, and pods without addresses get some. Pods in the
host's network are their node.

Rows send, columns receive. 'outside' is any address that is no pod's and no node's, 'own node'
the node that a pod runs on. Every verdict is the one of 'explain', which says more about one
flow; so does the page that -o html writes, for every cell.

-o json has "version": 1 and
  ends       fullName, name, namespace, workload, pods,
             kind (pods, namespace, outside, ownNode, otherNode)
  cells      from, to (full names of ends); verdict (all, ports, none, mixed, or noFamily if the
             ends have no address family in common); ipv4 and ipv6: what passes between every pair
             of the two ends, as tcp/80, udp/1-99, sctp/* or icmp; someIPv4 and someIPv6 if more
             passes between some; asked: with --port, for each port allowed, denied or mixed by
             family; parts: the profiles of both directions, for pairs that are judged alike
  profiles of both directions, for pairs that are judged alike
  profiles   ipv4 and ipv6: ports and the decision about them
  decisions  allowed, reason, and the policies, rules and selectors that decide
Cells of a pod and itself, which always passes, are left out.

Exit code 0: done; 1: it cannot be done; 2: wrong flags or objects.`

func (a *app) matrix() *cobra.Command {
	var f matrixFlags
	c := &cobra.Command{
		Use:   "matrix [-f PATH...]",
		Short: "Show who reaches whom, and what a change opens and closes",
		Long:  matrixLong,
		Example: fmt.Sprintf(`  %[1]s matrix -f ./manifests                      # of files
  %[1]s matrix -n shop --by workload               # of the cluster, one namespace
  %[1]s matrix -f ./manifests --port tcp/5432      # one port
  %[1]s matrix -f ./manifests -o html > who.html   # a page to look around in
  %[1]s matrix -f ./manifests -o json |
    jq -r '.cells[] | select(.from == "outside" and .verdict != "none") | .to'
  %[1]s matrix diff old/ new/                      # what a change opens and closes`, a.name),
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return a.runMatrix(c.Context(), &f) },
	}
	f.add(c, matrix.ByPod, matrix.ByWorkload, matrix.ByNamespace)
	c.AddCommand(a.matrixDiff())
	return c
}

func (a *app) runMatrix(ctx context.Context, f *matrixFlags) error {
	if err := f.read(); err != nil {
		return wrongInput(err)
	}
	loaded, err := f.source.load(ctx, a)
	if err != nil {
		return err
	}
	options := matrix.Options{Views: []matrix.By{f.by.value()}, Namespaces: f.namespaces, Progress: a.newProgress().of("kinds of pods")}
	if f.output.value() == "html" && f.by.value() != matrix.ByNamespace {
		options.Views = append(options.Views, matrix.ByNamespace)
	}
	m, err := matrix.Compute(ctx, loaded.input, options)
	if err != nil {
		return cmp.Or(ctx.Err(), wrongInput(err))
	}
	notes := append(loaded.notes, leftOut(loaded.input.Cluster.Pods, m.LeftOut)...)
	for _, n := range notes {
		a.warn("%s", printable(n))
	}
	switch f.output.value() {
	case "html":
		err = matrixpage.Write(a.stdout, matrixpage.Page{Source: f.source.describe(), Matrix: m, Ports: f.portNames(), Notes: notes})
	case "json":
		err = writeJSON(a.stdout, newMatrixJSON(m, f.asked, notes))
	default:
		err = writeMatrixText(a.stdout, m, f.asked, styleOf(a.stdout))
	}
	if err != nil {
		return fmt.Errorf("print the matrix: %w", err)
	}
	return nil
}

func (f *matrixFlags) portNames() []string {
	var out []string
	for _, s := range f.asked {
		out = append(out, s.name)
	}
	return out
}

// leftOut says which pods take no part, and why.
func leftOut(pods []*corev1.Pod, names []string) []string {
	out := map[string]bool{}
	for _, n := range names {
		out[n] = true
	}
	var host, without []string
	for _, p := range pods {
		name := p.Namespace + "/" + p.Name
		switch {
		case !out[name] || ended(p):
		case p.Spec.HostNetwork:
			host = append(host, name)
		default:
			without = append(without, name)
		}
	}
	var notes []string
	if len(host) > 0 {
		notes = append(notes, "these pods use their node's network and count as the node: "+few(host))
	}
	if len(without) > 0 {
		notes = append(notes, "these pods own no address and are left out: "+few(without))
	}
	return notes
}
