package agent

import (
	"cmp"
	"maps"
	"path/filepath"
	"reflect"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/portcullis-netpol/portcullis/policy/manifest"
)

// manifestFiles remembers what each file said when it could last be decoded, and
// what all of them together said when they last fitted together.
type manifestFiles struct {
	root  string
	files map[string]goodFile
	// objects is what was delivered last.
	objects map[key]runtime.Object
	nodes   []string
}

type goodFile struct {
	data    []byte
	objects *manifest.Objects
}

func newManifestFiles(root string) *manifestFiles {
	return &manifestFiles{root: root, files: map[string]goodFile{}, objects: map[key]runtime.Object{}}
}

// update takes what the files say now and returns what has changed since the last
// update, and what is wrong.
func (m *manifestFiles) update(files []content) ([]event, []error) {
	var problems []error
	now := map[string]goodFile{}
	for _, f := range files {
		good, known := m.files[f.name]
		next, err := m.decode(f, good)
		if err != nil {
			problems = append(problems, err)
		}
		if err == nil || known {
			now[f.name] = next
		}
	}
	m.files = now
	var parts []*manifest.Objects
	for _, name := range slices.Sorted(maps.Keys(now)) {
		parts = append(parts, now[name].objects)
	}
	all, err := manifest.Merge(parts...)
	if err != nil {
		// Two files contradict each other. Which of them is right cannot be
		// known, so everything stays as it is.
		return nil, append(problems, err)
	}
	return m.replace(all), problems
}

// decode returns what f says, or last along with an error.
func (m *manifestFiles) decode(f content, last goodFile) (goodFile, error) {
	if f.err != nil {
		return last, f.err
	}
	if last.objects != nil && string(last.data) == string(f.data) {
		return last, nil
	}
	objects, err := manifest.Decode(filepath.Join(m.root, filepath.FromSlash(f.name)), f.data)
	if err == nil {
		err = objects.Validate()
	}
	if err != nil {
		return last, err
	}
	return goodFile{f.data, objects}, nil
}

// replace makes all the objects that are known and returns the difference, sorted.
func (m *manifestFiles) replace(all *manifest.Objects) []event {
	now := map[key]runtime.Object{}
	for _, o := range all.Namespaces {
		now[key{namespaceKind, "", o.Name}] = o
	}
	for _, o := range all.Pods {
		now[key{podKind, o.Namespace, o.Name}] = o
	}
	for _, o := range all.Policies {
		now[key{policyKind, o.Namespace, o.Name}] = o
	}
	m.nodes = nil
	for _, o := range all.Nodes {
		now[key{nodeKind, "", o.Name}] = o
		m.nodes = append(m.nodes, o.Name)
	}
	var events []event
	for k, o := range now {
		if was, ok := m.objects[k]; !ok || !reflect.DeepEqual(was, o) {
			// A copy: the next Merge may write to what it is given, while the
			// loop reads.
			events = append(events, event{k, o.DeepCopyObject()})
		}
	}
	for k := range m.objects {
		if _, ok := now[k]; !ok {
			events = append(events, event{k, nil})
		}
	}
	m.objects = now
	slices.SortFunc(events, func(a, b event) int { return compareKeys(a.key, b.key) })
	return events
}

func compareKeys(a, b key) int {
	return cmp.Or(cmp.Compare(a.kind, b.kind), cmp.Compare(a.namespace, b.namespace), cmp.Compare(a.name, b.name))
}

// knowsNode reports whether the manifests have a Node of that name, or no Nodes at
// all: they need not have any.
func (m *manifestFiles) knowsNode(name string) bool {
	return len(m.nodes) == 0 || slices.Contains(m.nodes, name)
}

// local counts the pods of a node.
func (m *manifestFiles) local(node string) int {
	n := 0
	for _, o := range m.objects {
		if p, ok := o.(*corev1.Pod); ok && p.Spec.NodeName == node {
			n++
		}
	}
	return n
}
