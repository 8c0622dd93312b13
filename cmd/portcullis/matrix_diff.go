package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"

	"github.com/portcullis-netpol/portcullis/cmd/portcullis/matrixpage"
	"github.com/portcullis-netpol/portcullis/policy/manifest"
	"github.com/portcullis-netpol/portcullis/policy/matrix"
)

const matrixDiffLong = `Say what a change of policies opens and closes: for every pair of pods that both states have, what
passes in NEW and did not in OLD, and the other way round. OLD and NEW are files or directories.
If NEW has neither pods nor workloads, it is judged with those of OLD.

Without them, OLD is a cluster and NEW is the cluster once the policies and namespaces of -f have
been applied to it: they replace those of the same name, and nothing is deleted. Workloads of -f
are passed over; the cluster's own pods count.

-o json has "version": 1, ends as those of 'matrix', changes (from, to, and opened and closed, by
family, each as every and some pair has it), and gone and added: the pods that only OLD or only
NEW has. Nothing is said of their traffic.

Exit code 0: no difference; 1: differences; 2: error.`

func (a *app) matrixDiff() *cobra.Command {
	var f matrixFlags
	c := &cobra.Command{
		Use:   "diff [OLD NEW]",
		Short: "Show what a change of policies opens and closes",
		Long:  matrixDiffLong,
		Example: fmt.Sprintf(`  %[1]s matrix diff old/ new/
  %[1]s matrix diff -f policies/                   # applied to the cluster
  %[1]s matrix diff main/ branch/ -o html > change.html`, a.name),
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 0 && len(args) != 2 {
				return fmt.Errorf("takes OLD and NEW, or none of them and -f; there are %d arguments", len(args))
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			err := a.runMatrixDiff(c.Context(), &f, args)
			var is *failure
			if err != nil && !errors.As(err, &is) {
				return &failure{exitInput, err} // 1 would mean that there are differences
			}
			return err
		},
	}
	f.add(c, matrix.ByWorkload, matrix.ByPod, matrix.ByNamespace)
	return c
}

func (a *app) runMatrixDiff(ctx context.Context, f *matrixFlags, args []string) error {
	if err := f.read(); err != nil {
		return wrongInput(err)
	}
	before, after, err := f.states(ctx, a, args)
	if err != nil {
		return &failure{exitInput, err}
	}
	options := matrix.Options{Views: []matrix.By{f.by.value()}, Namespaces: f.namespaces, Progress: a.newProgress().of("kinds of pods")}
	d, err := matrix.Compare(ctx, before.input, after.input, options)
	if err != nil {
		return cmp.Or(ctx.Err(), wrongInput(err))
	}
	if len(f.asked) > 0 {
		var ports matrix.Ports
		for _, s := range f.asked {
			ports = ports.Union(matrix.PortsOf(s.protocol, s.port))
		}
		d.Only(ports)
	}
	notes := slices.Compact(slices.Sorted(slices.Values(slices.Concat(before.notes, after.notes))))
	for _, n := range notes {
		a.warn("%s", printable(n))
	}
	switch f.output.value() {
	case "html":
		source := strings.Join(args, " → ")
		if len(args) == 0 {
			source = f.source.cluster.describe() + " → " + strings.Join(f.source.files, ", ")
		}
		err = matrixpage.Write(a.stdout, matrixpage.Page{Source: source, Diff: d, Ports: f.portNames(), Notes: notes})
	case "json":
		err = writeJSON(a.stdout, newDiffJSON(d, notes))
	default:
		err = writeDiffText(a.stdout, d, styleOf(a.stdout))
	}
	if err != nil {
		return fmt.Errorf("print the difference: %w", err)
	}
	if !d.Same() {
		return &failure{code: exitFailure}
	}
	return nil
}

// states loads both states.
func (f *matrixFlags) states(ctx context.Context, a *app, args []string) (before, after *loaded, err error) {
	if f.source.agent.socket != "" {
		return nil, nil, errors.New("--agent is for matrix alone; a change is compared with files or with a cluster")
	}
	if len(args) == 2 {
		if len(f.source.files) > 0 || f.source.cluster.given() {
			return nil, nil, errors.New("OLD and NEW are given as arguments; there is nothing for -f or --kubeconfig to say")
		}
		return twoStates(args[0], args[1])
	}
	if len(f.source.files) == 0 {
		return nil, nil, errors.New("what is to be compared? Give OLD and NEW, or -f NEW to compare with a cluster")
	}
	change, err := manifest.Load(f.source.files...)
	if err != nil {
		return nil, nil, sanitized(err)
	}
	objects, err := f.source.cluster.objects(ctx, a.newProgress())
	if err != nil {
		return nil, nil, err
	}
	before = prepare(objects)
	after = prepare(applied(objects, change))
	if len(change.Pods) > 0 {
		after.notes = append(after.notes, "pods and workloads of -f are passed over; the cluster's own pods count")
	}
	return before, after, nil
}

func twoStates(before, after string) (*loaded, *loaded, error) {
	b, err1 := manifest.Load(before)
	a, err2 := manifest.Load(after)
	if err := errors.Join(err1, err2); err != nil {
		return nil, nil, sanitized(err)
	}
	old := prepare(b)
	if len(a.Pods) == 0 {
		a = merged(b, a, a.Policies)
	}
	return old, prepare(a), nil
}

// merged is base with the namespaces that change gives, and with these policies.
func merged(base, change *manifest.Objects, policies []*networkingv1.NetworkPolicy) *manifest.Objects {
	out := *base
	out.Policies = policies
	out.Namespaces = slices.Clone(base.Namespaces)
	for _, ns := range change.Namespaces {
		i := slices.IndexFunc(out.Namespaces, func(is *corev1.Namespace) bool { return is.Name == ns.Name })
		_, given := change.Origins["Namespace "+ns.Name] // others were only made up
		switch {
		case i < 0:
			out.Namespaces = append(out.Namespaces, ns)
		case given:
			out.Namespaces[i] = ns
		}
	}
	return &out
}

// applied is a cluster once a change has been applied to it.
func applied(base, change *manifest.Objects) *manifest.Objects {
	policies := slices.Clone(base.Policies)
	for _, p := range change.Policies {
		same := func(is *networkingv1.NetworkPolicy) bool { return is.Namespace == p.Namespace && is.Name == p.Name }
		policies = append(slices.DeleteFunc(policies, same), p)
	}
	return merged(base, change, policies)
}
