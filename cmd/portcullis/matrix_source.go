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

// sourceFlags say where the objects come from: files, or a cluster if there are none.
type sourceFlags struct {
	files   []string
	cluster clusterFlags
}

func (f *sourceFlags) add(to *pflag.FlagSet) {
	addFiles(to, &f.files)
	f.cluster.add(to)
}

// describe names the source, for a title.
func (f *sourceFlags) describe() string {
	if len(f.files) > 0 {
		return strings.Join(f.files, ", ")
	}
	return f.cluster.describe()
}

// loaded is a state of a cluster, and what its reader should know.
type loaded struct {
	objects *manifest.Objects
	input   matrix.Input
	notes   []string
}

func (f *sourceFlags) load(ctx context.Context) (*loaded, error) {
	if len(f.files) > 0 {
		if f.cluster.given() {
			return nil, wrongInput(errors.New("the objects come from --filename or from a cluster, not from both"))
		}
		return loadFiles(f.files...)
	}
	objects, err := f.cluster.objects(ctx)
	if err != nil {
		return nil, err
	}
	return prepare(objects), nil
}

func loadFiles(paths ...string) (*loaded, error) {
	objects, err := manifest.Load(paths...)
	if err != nil {
		return nil, wrongInput(sanitized(err))
	}
	return prepare(objects), nil
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
	l.input.Cluster = c.world()
	l.input.Workload = workloads(o)
	index := policy.NewIndex("")
	for _, p := range o.Policies {
		for _, problem := range index.SetNetworkPolicy(p) {
			l.notes = append(l.notes, problem.Error()+" (this part matches nothing)")
		}
	}
	var without []string
	for _, p := range o.Pods {
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
