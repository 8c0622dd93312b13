package manifest

import (
	"errors"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Objects is what manifests say, in the order in which it was read. Objects that were made (the pods of workloads,
// missing namespaces) come last.
type Objects struct {
	Namespaces []*corev1.Namespace
	Pods       []*corev1.Pod
	Policies   []*networkingv1.NetworkPolicy
	Nodes      []*corev1.Node
	Services   []*corev1.Service

	// Origins tells where each object stands. The key is the kind and the name, "Pod shop/web" or "Node node-1". A pod
	// of a workload has the origin of the workload; a namespace that was made has none.
	Origins map[string]Origin

	workloads []*workload
	made      map[string]bool // keys of the objects that stand in no file
}

// Origin is a place in a file.
type Origin struct {
	File     string
	Document int    // counts from 1; documents that are empty do not count
	Line     int    // line of the file at which the document begins, from 1
	Item     string // "items[2]" inside of a List, or empty
}

// String is the place as an error message begins with it.
func (o Origin) String() string {
	s := fmt.Sprintf("%s, document %d (line %d)", o.File, o.Document, o.Line)
	if o.Item != "" {
		s += ", " + o.Item
	}
	return s
}

// Load reads files and directories (see Read), and validates what they hold. The result is never nil; with an error it
// holds what was right or at least of the right form.
func Load(paths ...string) (*Objects, error) {
	o, err := Read(paths...)
	return o, errors.Join(err, o.Validate())
}

// Merge joins objects that were decoded apart, and makes what is missing: the pods of all workloads and the namespaces.
// The same object twice is an error that names both places; the first one is kept. What Place did to the pods of
// workloads is lost, so place after merging. The parts share their objects with the result, which is never nil.
func Merge(parts ...*Objects) (*Objects, error) {
	all := &Objects{Origins: map[string]Origin{}, made: map[string]bool{}}
	var errs []error
	for _, part := range parts {
		for _, obj := range part.given() {
			k := key(obj)
			origin, known := part.Origins[k]
			if !known {
				origin = Origin{File: "unknown file"}
			}
			errs = append(errs, all.add(obj, origin))
		}
	}
	errs = append(errs, all.makePods())
	all.makeNamespaces()
	return all, errors.Join(errs...)
}

// object is what every kind that matters here has in common.
type object = metav1.Object

// given lists the objects that stand in a file.
func (o *Objects) given() []object {
	var out []object
	out = appendGiven(out, o, o.Namespaces)
	out = appendGiven(out, o, o.Nodes)
	out = appendGiven(out, o, o.Pods)
	out = appendGiven(out, o, o.workloads)
	out = appendGiven(out, o, o.Services)
	return appendGiven(out, o, o.Policies)
}

func appendGiven[T object](out []object, o *Objects, list []T) []object {
	for _, obj := range list {
		if !o.made[key(obj)] {
			out = append(out, obj)
		}
	}
	return out
}

// add takes an object up, unless there is one with its name.
func (o *Objects) add(obj object, origin Origin) error {
	k := key(obj)
	if first, twice := o.Origins[k]; twice {
		return fmt.Errorf("%s: %s: the same object is also in %s", origin, k, first)
	}
	o.Origins[k] = origin
	switch obj := obj.(type) {
	case *corev1.Namespace:
		o.Namespaces = append(o.Namespaces, withNameLabel(obj))
	case *corev1.Node:
		o.Nodes = append(o.Nodes, obj)
	case *corev1.Pod:
		o.Pods = append(o.Pods, obj)
	case *corev1.Service:
		o.Services = append(o.Services, obj)
	case *networkingv1.NetworkPolicy:
		o.Policies = append(o.Policies, obj)
	case *workload:
		o.workloads = append(o.workloads, obj)
	}
	return nil
}

// withNameLabel gives a namespace the label that the API server gives to every namespace, over whatever the file says.
func withNameLabel(ns *corev1.Namespace) *corev1.Namespace {
	if ns.Labels == nil {
		ns.Labels = map[string]string{}
	}
	ns.Labels[corev1.LabelMetadataName] = ns.Name
	return ns
}

// makeNamespaces adds the namespaces that are used and not given, in the order in which they are first used.
func (o *Objects) makeNamespaces() {
	have := map[string]bool{}
	for _, ns := range o.Namespaces {
		have[ns.Name] = true
	}
	for _, obj := range o.given() {
		name := obj.GetNamespace()
		if name == "" || have[name] {
			continue
		}
		have[name] = true
		ns := withNameLabel(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}})
		o.made[key(ns)] = true
		o.Namespaces = append(o.Namespaces, ns)
	}
}

// key names an object the way people do: "Pod shop/web", "Node node-1".
func key(obj object) string {
	var kind string
	switch obj := obj.(type) {
	case *corev1.Namespace:
		kind = "Namespace"
	case *corev1.Node:
		kind = "Node"
	case *corev1.Pod:
		kind = "Pod"
	case *corev1.Service:
		kind = "Service"
	case *networkingv1.NetworkPolicy:
		kind = "NetworkPolicy"
	case *workload:
		kind = obj.kind
	}
	return kind + " " + strings.TrimPrefix(obj.GetNamespace()+"/"+obj.GetName(), "/")
}
