package matrix

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Kind is what an end is.
type Kind string

// The kinds of ends.
const (
	Pods      Kind = "pods"      // pods of one namespace that no policy tells apart, or of one workload
	Namespace Kind = "namespace" // all pods of a namespace
	Outside   Kind = "outside"   // any address outside
	OwnNode   Kind = "ownNode"   // the node that a pod runs on
	OtherNode Kind = "otherNode" // the nodes that it does not run on
)

// End is a row and a column.
type End struct {
	Kind      Kind     `json:"kind"`
	Namespace string   `json:"namespace,omitempty"` // empty if these are no pods
	Name      string   `json:"name"`                // unique together with Namespace
	Workload  string   `json:"workload,omitempty"`  // kind and name, if the pods belong to one
	Pods      []string `json:"pods,omitempty"`      // names of its pods, sorted
}

// FullName is the name of the end, with its namespace if it has one. It is unique.
func (e End) FullName() string {
	switch e.Kind {
	case Pods:
		return e.Namespace + "/" + e.Name
	case Namespace:
		return e.Namespace + "/*"
	}
	return e.Name
}

// end is an End with its pods by class.
type end struct {
	End
	members map[int][]*subject
	classes []int // keys of members, sorted
	context bool  // shown only as the other end of something
}

func (e *end) add(s *subject) {
	if e.members[s.class] == nil {
		e.classes = append(e.classes, s.class)
	}
	e.members[s.class] = append(e.members[s.class], s)
	e.Pods = append(e.Pods, s.name)
}

// endsOf groups subjects, which are sorted, and adds the ends that are no pods.
func endsOf(all []*subject, by By, namespaces []string, nodes int) []*end {
	var out []*end
	byKey := map[string]*end{}
	sizes := map[string]int{} // of workloads
	for _, s := range all {
		sizes[s.namespace+"/"+s.workload]++
		context := len(namespaces) > 0 && !slices.Contains(namespaces, s.namespace)
		level := by
		if context {
			level = ByNamespace
		}
		key := s.key(level)
		e := byKey[key]
		if e == nil {
			e = &end{End: End{Kind: Pods, Namespace: s.namespace, Workload: s.workload}, members: map[int][]*subject{}, context: context}
			if level == ByNamespace {
				e.Kind, e.Workload = Namespace, ""
			}
			byKey[key] = e
			out = append(out, e)
		}
		e.add(s)
	}
	for _, e := range out {
		slices.Sort(e.classes)
		e.name(sizes[e.Namespace+"/"+e.Workload])
	}
	disambiguate(out)
	slices.SortStableFunc(out, func(a, b *end) int {
		return cmp.Or(strings.Compare(a.Namespace, b.Namespace), strings.Compare(a.Name, b.Name))
	})
	out = append(out, &end{End: End{Kind: Outside, Name: "outside"}, context: true})
	if nodes > 0 {
		out = append(out, &end{End: End{Kind: OwnNode, Name: "own node"}, context: true})
	}
	if nodes > 1 {
		out = append(out, &end{End: End{Kind: OtherNode, Name: "other nodes"}, context: true})
	}
	return out
}

// key is the same for subjects that share a row.
func (s *subject) key(by By) string {
	switch {
	case by == ByNamespace:
		return s.namespace
	case by == ByWorkload && s.workload == "":
		return fmt.Sprintf("%s/pod %q", s.namespace, s.name)
	case by == ByWorkload:
		return fmt.Sprintf("%s/%q", s.namespace, s.workload)
	case s.workload == "":
		return fmt.Sprintf("%s/%d %s", s.namespace, s.class, s.labels)
	}
	return fmt.Sprintf("%s/%d %q", s.namespace, s.class, s.workload)
}

// name names an end after its workload if it has all of the workload's pods, and after its pods otherwise.
func (e *end) name(workloadSize int) {
	_, workload, _ := strings.Cut(e.Workload, " ")
	switch {
	case e.Kind == Namespace:
		e.Name = "*"
	case e.Workload != "" && len(e.Pods) == workloadSize:
		e.Name = workload
	case len(e.Pods) == 1:
		e.Name = e.Pods[0]
	default:
		e.Name = e.Pods[0] + " +" + strconv.Itoa(len(e.Pods)-1)
	}
}

// disambiguate gives ends of one name their kind, or the name of a pod.
func disambiguate(ends []*end) {
	for round := range 2 {
		count := map[string]int{}
		for _, e := range ends {
			count[e.FullName()]++
		}
		for _, e := range ends {
			if count[e.FullName()] < 2 {
				continue
			}
			kind, _, _ := strings.Cut(cmp.Or(e.Workload, "Pod"), " ")
			if round == 0 {
				e.Name += " (" + kind + ")"
			} else {
				e.Name = e.Pods[0] + " (" + kind + " " + e.Name + ")"
			}
		}
	}
}
