package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/pflag"
	corev1 "k8s.io/api/core/v1"

	"github.com/portcullis-netpol/portcullis/policy"
	"github.com/portcullis-netpol/portcullis/policy/manifest"
	"github.com/portcullis-netpol/portcullis/policy/matrix"
)

// sourceFlags say where the objects come from: files, this node's agent, or else a cluster.
type sourceFlags struct {
	files   []string
	agent   agentFlag
	cluster clusterFlags
}

func (f *sourceFlags) add(to *pflag.FlagSet) {
	addFiles(to, &f.files)
	f.agent.add(to)
	f.cluster.add(to)
}

// describe names the source, for a title.
func (f *sourceFlags) describe() string {
	switch {
	case len(f.files) > 0:
		return strings.Join(f.files, ", ")
	case f.agent.socket != "":
		return "the agent at " + f.agent.socket
	}
	return f.cluster.describe()
}

// place names the source within a sentence.
func (f *sourceFlags) place() string {
	switch {
	case len(f.files) > 0:
		return "these files"
	case f.agent.socket != "":
		return "what the agent knows"
	}
	return "the cluster"
}

// objects reads the objects, those of files strictly. The objects of a running cluster are
// not validated: what an API server took in has to be judged as it is.
func (f *sourceFlags) objects(ctx context.Context, a *app) (*manifest.Objects, error) {
	given := 0
	for _, is := range []bool{len(f.files) > 0, f.agent.socket != "", f.cluster.given()} {
		if is {
			given++
		}
	}
	if given > 1 {
		return nil, wrongInput(errors.New("the objects come from --filename, from a cluster or from --agent, not from more than one of them"))
	}
	switch {
	case len(f.files) > 0:
		objects, err := manifest.Load(f.files...)
		if err != nil {
			return nil, wrongInput(sanitized(err))
		}
		return objects, nil
	case f.agent.socket != "":
		return f.agent.objects(ctx, a)
	}
	return f.cluster.objects(ctx, a.newProgress())
}

// loaded is a state of a cluster, and what its reader should know.
type loaded struct {
	objects *manifest.Objects
	input   matrix.Input
	notes   []string
}

func (f *sourceFlags) load(ctx context.Context, a *app) (*loaded, error) {
	objects, err := f.objects(ctx, a)
	if err != nil {
		return nil, err
	}
	if f.agent.socket == "" {
		return prepare(objects), nil
	}
	// An agent does not say where pods of other nodes run: they must not be given a node.
	l := &loaded{objects: objects, notes: []string{agentView(objects)}}
	for _, n := range objects.Nodes {
		l.input.PodCIDRs = append(l.input.PodCIDRs, podCIDRs(n)...)
	}
	return l.describe(&cluster{objects: objects}, nil), nil
}

// agentView says what the objects of an agent leave out.
func agentView(o *manifest.Objects) string {
	if len(o.Nodes) == 0 {
		return "this is what one node's agent knows; it does not know which nodes the pods elsewhere run on"
	}
	return "this is what the agent of node " + o.Nodes[0].Name + " knows; it does not know which nodes the pods elsewhere run on"
}

// prepare places pods and collects what is doubtful. It is done once for the objects.
func prepare(o *manifest.Objects) *loaded {
	l := &loaded{objects: o}
	for _, n := range placeNodes(o) {
		l.input.PodCIDRs = append(l.input.PodCIDRs, n.PodCIDRs...)
	}
	made := map[string]bool{}
	for _, p := range o.Pods {
		made[p.Namespace+"/"+p.Name] = !p.Spec.HostNetwork && !ended(p) && len(podAddrs(p)) == 0
	}
	c, err := place(o)
	if err != nil { // the pods that are meant are left out
		l.notes = append(l.notes, err.Error())
		c = &cluster{objects: o}
	}
	return l.describe(c, made)
}

// describe fills in the rest: the cluster, and what is doubtful in it.
func (l *loaded) describe(c *cluster, made map[string]bool) *loaded {
	l.input.Cluster = c.world()
	l.input.Workload = workloads(c.objects)
	index := policy.NewIndex("")
	for _, p := range c.objects.Policies {
		for _, problem := range index.SetNetworkPolicy(p) {
			l.notes = append(l.notes, problem.Error()+" (this part matches nothing)")
		}
	}
	var without []string
	for _, p := range c.objects.Pods {
		if made[p.Namespace+"/"+p.Name] && len(podAddrs(p)) > 0 {
			without = append(without, p.Namespace+"/"+p.Name)
		}
	}
	if len(without) > 0 && c.hasBlocks() {
		l.notes = append(l.notes, "these pods have no address yet; ipBlocks are judged by addresses that were made up: "+few(without))
	}
	return l
}

// few are a few of many names.
func few(names []string) string {
	const most = 4
	names = slices.Sorted(slices.Values(names))
	if len(names) <= most+1 {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
}

// workloads names the workload of a pod: its controller, or the object of these files that it was made for, which
// stands where the pod does.
func workloads(o *manifest.Objects) func(*corev1.Pod) string {
	byOrigin := map[manifest.Origin]string{}
	for key, origin := range o.Origins {
		kind, name, _ := strings.Cut(key, " ")
		switch kind {
		case "Namespace", "Node", "Pod", "Service", "NetworkPolicy":
		default:
			_, name, _ = strings.Cut(name, "/")
			byOrigin[origin] = kind + " " + name
		}
	}
	return func(p *corev1.Pod) string {
		if w := matrix.WorkloadOf(p); w != "" {
			return w
		}
		if origin, known := o.Origins["Pod "+p.Namespace+"/"+p.Name]; known {
			return byOrigin[origin]
		}
		return ""
	}
}
