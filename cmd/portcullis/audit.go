package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/portcullis-netpol/portcullis/agent/admin"
	"github.com/portcullis-netpol/portcullis/cmd/portcullis/fleet"
)

const auditVersion = 1 // of the JSON; fields may be added to a version

// auditJSON is what audit prints.
type auditJSON struct {
	Version int         `json:"version"`
	Nodes   []auditNode `json:"nodes"`
	// Packets counts what would have been denied on these nodes, Logged those that Rows
	// are made of.
	Packets uint64           `json:"packets"`
	Logged  uint64           `json:"logged"`
	Rows    []admin.AuditRow `json:"rows"` // seen most often first
}

// auditNode is what a node has counted, or why that is not known.
type auditNode struct {
	Node      string    `json:"node"`
	Pod       string    `json:"pod,omitempty"` // that the agent runs in
	Error     string    `json:"error,omitempty"`
	Since     time.Time `json:"since,omitzero"`
	Packets   uint64    `json:"packets"`
	Logged    uint64    `json:"logged"`
	Forgotten uint64    `json:"forgotten,omitempty"` // of Logged, whose rows are no longer kept
}

type auditFlags struct {
	agents     agentsFlags
	namespaces []string
	policies   []string
	output     choice[bool]
}

const auditLong = `Sum up the traffic that policies in audit mode would have denied, had they been enforced: by
policy, source, destination and port, how often, when last, and the rule that comes closest to
allowing it. A policy is in audit mode with the annotation portcullis.dev/mode: audit, its own or
its namespace's. It denies nothing then.

Each agent counts from its own start. The kernel passes on only so many packets a second: how many
more there were is said, and -n and --policy cannot tell whose these are.

The agents of a cluster are asked by exec in their pods (as 'kubectl exec' does), so whoever may do
that may ask. On a node, --agent asks its own.

Exit code 0: nothing would have been denied; 1: something would, or packets were not logged in
detail; 2: it cannot be found out, on one node at least.`

func (a *app) audit() *cobra.Command {
	var f auditFlags
	f.output = textOrJSON()
	c := &cobra.Command{
		Use:   "audit",
		Short: "Sum up what policies in audit mode would have denied",
		Long:  auditLong,
		Example: fmt.Sprintf(`  kubectl -n shop annotate networkpolicy frontend portcullis.dev/mode=audit
  %[1]s audit -n shop                   # of all nodes of the cluster
  %[1]s audit --policy shop/frontend && kubectl -n shop annotate networkpolicy frontend portcullis.dev/mode-
  %[1]s audit --agent -o json | jq '.rows[].closest'`, a.name),
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return a.runAudit(c.Context(), &f) },
	}
	flags := c.Flags()
	f.agents.add(flags)
	flags.StringArrayVarP(&f.namespaces, "namespace", "n", nil, "sum up the policies of this `namespace` (repeatable; default: all)")
	flags.StringArrayVar(&f.policies, "policy", nil, "sum up this `policy`, as namespace/name (repeatable; default: all)")
	flags.VarP(&f.output, "output", "o", "how to print it")
	return c
}

func (a *app) runAudit(ctx context.Context, f *auditFlags) error {
	if err := f.agents.validate(); err != nil {
		return wrongInput(err)
	}
	if err := checkNames(f.policies); err != nil {
		return wrongInput(fmt.Errorf("--policy %w", err))
	}
	parts, err := a.audits(ctx, &f.agents)
	if err != nil {
		return err
	}
	sum := sumUp(parts)
	sum.Rows = slices.DeleteFunc(sum.Rows, func(r admin.AuditRow) bool { return !slices.ContainsFunc(r.Policies, f.wanted) })
	if f.output.value() {
		err = writeJSON(a.stdout, sum)
	} else {
		err = sum.print(a.stdout, styleOf(a.stdout), a.now(), len(f.namespaces)+len(f.policies) > 0)
	}
	if err != nil {
		return &failure{exitInput, fmt.Errorf("print the sums: %w", err)}
	}
	silent := slices.ContainsFunc(sum.Nodes, func(n auditNode) bool { return n.Error != "" })
	switch {
	case len(sum.Rows) > 0 || sum.unseen() > 0:
		return &failure{code: exitFailure}
	case silent:
		return &failure{exitInput, errors.New("not all nodes have answered")}
	}
	return nil
}

// wanted tells whether a policy is asked for.
func (f *auditFlags) wanted(policy string) bool {
	namespace, _, _ := strings.Cut(policy, "/")
	return (len(f.namespaces) == 0 || slices.Contains(f.namespaces, namespace)) &&
		(len(f.policies) == 0 || slices.Contains(f.policies, policy))
}

// audits asks the agents.
func (a *app) audits(ctx context.Context, f *agentsFlags) ([]auditJSON, error) {
	if f.local.socket != "" {
		ctx, cancel := context.WithTimeout(ctx, f.timeout)
		defer cancel()
		is, err := admin.New(f.local.socket).Audit(ctx)
		if err != nil {
			return nil, localError(err)
		}
		node := auditNode{Node: is.Node, Since: is.Since, Packets: is.Packets, Logged: is.Logged, Forgotten: is.Forgotten}
		return []auditJSON{{Nodes: []auditNode{node}, Rows: is.Rows}}, nil
	}
	var parts []auditJSON
	err := ask(ctx, a, f, "audit", func(is fleet.Agent, part auditJSON) {
		for i := range part.Nodes {
			part.Nodes[i].Node, part.Nodes[i].Pod = is.Node, is.Pod
		}
		parts = append(parts, part)
	}, func(is fleet.Agent, why string) {
		parts = append(parts, auditJSON{Nodes: []auditNode{{Node: is.Node, Pod: is.Pod, Error: why}}})
	})
	return parts, err
}

// sumUp adds up what several nodes have counted. Rows about the same flows become one.
func sumUp(parts []auditJSON) auditJSON {
	sum := auditJSON{Version: auditVersion, Nodes: []auditNode{}}
	rows := map[string]*admin.AuditRow{}
	for _, part := range parts {
		for _, n := range part.Nodes {
			sum.Nodes = append(sum.Nodes, n)
			sum.Packets += n.Packets
			sum.Logged += n.Logged
		}
		for _, r := range part.Rows {
			key := rowKey(&r)
			into := rows[key]
			switch {
			case into == nil:
				rows[key] = &r
				continue
			case r.Last.After(into.Last):
				into.Source, into.Destination, into.Closest, into.Last = r.Source, r.Destination, r.Closest, r.Last
			}
			into.Count += r.Count
			if r.First.Before(into.First) {
				into.First = r.First
			}
		}
	}
	sum.Rows = []admin.AuditRow{}
	for _, key := range slices.Sorted(maps.Keys(rows)) {
		sum.Rows = append(sum.Rows, *rows[key])
	}
	slices.SortStableFunc(sum.Rows, func(a, b admin.AuditRow) int { return cmp.Compare(b.Count, a.Count) })
	return sum
}

// rowKey is the same for rows about the same flows.
func rowKey(r *admin.AuditRow) string {
	text, err := json.Marshal([]any{r.Policies, r.Direction, r.Source.Workload(), r.Destination.Workload(), r.Protocol, r.Port})
	if err != nil {
		panic(err) // plain data
	}
	return string(text)
}

// unseen is how many packets no row is about.
func (s *auditJSON) unseen() uint64 {
	var n uint64
	for _, is := range s.Nodes {
		if is.Packets > is.Logged {
			n += is.Packets - is.Logged
		}
		n += is.Forgotten
	}
	return n
}
