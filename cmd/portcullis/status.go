package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/portcullis-netpol/portcullis/agent/admin"
	"github.com/portcullis-netpol/portcullis/cmd/portcullis/fleet"
)

const statusVersion = 1 // of the JSON; fields may be added to a version

// statusJSON is what status prints.
type statusJSON struct {
	Version  int            `json:"version"`
	InForce  bool           `json:"inForce"` // every policy is in force on every node that has to
	Nodes    []nodeStatus   `json:"nodes"`
	Policies []policyStatus `json:"policies"`
}

// nodeStatus is what a node's agent says, or why it says nothing.
type nodeStatus struct {
	Node  string       `json:"node"`
	Pod   string       `json:"pod,omitempty"` // that the agent runs in
	Error string       `json:"error,omitempty"`
	State *admin.State `json:"state,omitempty"`
}

// policyStatus is what has become of a policy on all nodes that were asked.
type policyStatus struct {
	Policy     string    `json:"policy"` // "namespace/name"
	Mode       string    `json:"mode"`
	Generation int64     `json:"generation"` // the newest that an agent has heard of
	InForce    bool      `json:"inForce"`
	Since      time.Time `json:"since,omitzero"` // when the last of these nodes came to have it in force
	Pods       int       `json:"pods"`           // that it selects
	Nodes      int       `json:"nodes"`          // that have such pods
	Has        int       `json:"nodesInForce"`   // of these, on how many it is in force
	Behind     []behind  `json:"behind,omitempty"`
	// Problems are parts of it that cannot be enforced as written.
	Problems []admin.Problem `json:"problems,omitempty"`
}

// behind is a node on which a policy is not in force.
type behind struct {
	Node string `json:"node"`
	Why  string `json:"why"`
}

type statusFlags struct {
	agents    agentsFlags
	namespace []string
	policies  []string
	output    choice[bool]
}

const statusLong = `Show whether the policies are in force: the nodes with their agents, and for every policy
its mode, its generation, since when it is in force, and on how many of the nodes that have pods
which it selects. The agents of a cluster are asked by exec in their pods (as 'kubectl exec' does),
so whoever may do that may ask. On a node, --agent asks its own.

-o json has "version": 1, inForce, nodes (with the whole state of each agent, or an error) and
policies.

Exit code 0: every node is ready, and every policy shown is in force as written; 1: something is
not; 2: it cannot be found out.`

func (a *app) status() *cobra.Command {
	var f statusFlags
	f.output = textOrJSON()
	c := &cobra.Command{
		Use:   "status",
		Short: "Show whether the policies are in force, and on which nodes",
		Long:  statusLong,
		Example: fmt.Sprintf(`  %[1]s status                          # of the cluster
  %[1]s status -n shop                  # policies of one namespace
  %[1]s status --policy shop/frontend   # one policy
  %[1]s status --agent                  # of this node
  until %[1]s status --policy shop/frontend >/dev/null; do sleep 1; done`, a.name),
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return a.runStatus(c.Context(), &f) },
	}
	flags := c.Flags()
	f.agents.add(flags)
	flags.StringArrayVarP(&f.namespace, "namespace", "n", nil, "show the policies of this `namespace` (repeatable; default: all)")
	flags.StringArrayVar(&f.policies, "policy", nil, "show this `policy`, as namespace/name (repeatable; default: all)")
	flags.VarP(&f.output, "output", "o", "how to print it")
	return c
}

func textOrJSON() choice[bool] {
	return choice[bool]{words: []string{"text", "json"}, values: []bool{false, true}}
}

func (a *app) runStatus(ctx context.Context, f *statusFlags) error {
	if err := f.agents.validate(); err != nil {
		return wrongInput(err)
	}
	if err := checkNames(f.policies); err != nil {
		return wrongInput(fmt.Errorf("--policy %w", err))
	}
	nodes, err := a.states(ctx, &f.agents)
	if err != nil {
		return err
	}
	s := newStatus(nodes, f.wanted)
	for _, name := range f.policies {
		if !slices.ContainsFunc(s.Policies, func(p policyStatus) bool { return p.Policy == name }) {
			a.warn("no agent that answered knows a policy %s", name)
			s.InForce = false
		}
	}
	if f.output.value() {
		err = writeJSON(a.stdout, s)
	} else {
		err = s.print(a.stdout, styleOf(a.stdout), a.now())
	}
	if err != nil {
		return &failure{exitInput, fmt.Errorf("print the status: %w", err)}
	}
	if !s.InForce {
		return &failure{code: exitFailure}
	}
	return nil
}

// checkNames reports names that are not namespace/name.
func checkNames(names []string) error {
	for _, n := range names {
		if ns, name, ok := strings.Cut(n, "/"); !ok || ns == "" || name == "" {
			return fmt.Errorf("%q: must be namespace/name", n)
		}
	}
	return nil
}

// wanted tells whether a policy is asked for.
func (f *statusFlags) wanted(namespace, name string) bool {
	return (len(f.namespace) == 0 || slices.Contains(f.namespace, namespace)) &&
		(len(f.policies) == 0 || slices.Contains(f.policies, namespace+"/"+name))
}

// states asks the agents.
func (a *app) states(ctx context.Context, f *agentsFlags) ([]nodeStatus, error) {
	if f.local.socket != "" {
		ctx, cancel := context.WithTimeout(ctx, f.timeout)
		defer cancel()
		state, err := admin.New(f.local.socket).State(ctx)
		if err != nil {
			return nil, localError(err)
		}
		return []nodeStatus{{Node: state.Node, State: &state}}, nil
	}
	var nodes []nodeStatus
	err := ask(ctx, a, f, "status", func(is fleet.Agent, s statusJSON) {
		n := nodeStatus{Node: is.Node, Pod: is.Pod, Error: "its answer has no state in it"}
		if len(s.Nodes) == 1 && s.Nodes[0].State != nil {
			n.State, n.Error = s.Nodes[0].State, ""
		}
		nodes = append(nodes, n)
	}, func(is fleet.Agent, why string) {
		nodes = append(nodes, nodeStatus{Node: is.Node, Pod: is.Pod, Error: why})
	})
	return nodes, err
}

// newStatus sums up what the nodes say about the policies that are wanted.
func newStatus(nodes []nodeStatus, wanted func(namespace, name string) bool) statusJSON {
	s := statusJSON{Version: statusVersion, InForce: true, Nodes: nodes, Policies: []policyStatus{}}
	places := map[string][]placed{}
	for _, n := range nodes {
		if n.State == nil || !n.State.Ready {
			s.InForce = false
		}
		if n.State == nil {
			continue
		}
		for i := range n.State.Policies {
			p := &n.State.Policies[i]
			if name := p.Namespace + "/" + p.Name; wanted(p.Namespace, p.Name) {
				places[name] = append(places[name], placed{n.Node, p})
			}
		}
	}
	for name, list := range places {
		p := newPolicyStatus(name, list, nodes)
		s.InForce = s.InForce && p.InForce
		s.Policies = append(s.Policies, p)
	}
	slices.SortFunc(s.Policies, func(a, b policyStatus) int { return strings.Compare(a.Policy, b.Policy) })
	return s
}

// placed is a policy on a node.
type placed struct {
	node string
	is   *admin.PolicyStatus
}

// newPolicyStatus sums up what the nodes say about one policy.
func newPolicyStatus(name string, list []placed, nodes []nodeStatus) policyStatus {
	newest := slices.MaxFunc(list, func(a, b placed) int { return cmp.Compare(a.is.Generation, b.is.Generation) }).is
	p := policyStatus{Policy: name, Mode: newest.Mode, Generation: newest.Generation, Problems: newest.Problems}
	for _, at := range list {
		p.Pods += at.is.Pods
		if at.is.Pods == 0 {
			continue
		}
		p.Nodes++
		if why := lacking(at.is, newest); why != "" {
			p.Behind = append(p.Behind, behind{at.node, why})
			continue
		}
		p.Has++
		if at.is.Since.After(p.Since) {
			p.Since = at.is.Since
		}
	}
	for _, n := range nodes {
		if n.State != nil && !slices.ContainsFunc(list, func(at placed) bool { return at.node == n.Node }) {
			p.Nodes++ // as far as anybody can tell
			p.Behind = append(p.Behind, behind{n.Node, "has not heard of it"})
		}
	}
	p.InForce = len(p.Behind) == 0 && len(p.Problems) == 0
	slices.SortFunc(p.Behind, func(a, b behind) int { return strings.Compare(a.Node, b.Node) })
	return p
}

// lacking says why the newest form of a policy is not in force on a node, or nothing. A
// policy from a file has no generation.
func lacking(is, newest *admin.PolicyStatus) string {
	switch {
	case is.Generation < newest.Generation:
		return fmt.Sprintf("has not heard of generation %d, only of %d", newest.Generation, is.Generation)
	case is.Since.IsZero() || is.InForce == 0 && is.Generation != 0:
		return "not yet in force"
	case is.InForce != is.Generation:
		return fmt.Sprintf("generation %d is still in force", is.InForce)
	case is.Mode != newest.Mode:
		return fmt.Sprintf("its mode is %s here", is.Mode)
	}
	return ""
}
