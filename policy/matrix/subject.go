package matrix

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/portcullis-netpol/portcullis/policy/evaluate"
)

// families are indices of everything that there is once a family.
const families = 2

// familyOf is 0 for IPv4 and 1 for IPv6.
func familyOf(a netip.Addr) int {
	if a.Is4() {
		return 0
	}
	return 1
}

// subject is a pod that takes part: it exists on all sides and owns an address there.
type subject struct {
	namespace, name, workload string
	labels                    string // of the first side, as a key
	node                      string // of the first side
	sides                     []subjectSide
	class                     int
}

type subjectSide struct {
	pod   *corev1.Pod
	addrs [families]netip.Addr // the first that the pod owns; the zero value if there is none
}

func (s *subject) fullName() string { return s.namespace + "/" + s.name }

// owners finds who owns each address. Who of several pods does is for evaluate to say; it is asked with these pods
// only, since nobody else can.
func owners(pods []*corev1.Pod) map[netip.Addr]*corev1.Pod {
	listed := map[netip.Addr][]*corev1.Pod{}
	for _, pod := range pods {
		for _, a := range addresses(pod) {
			listed[a] = append(listed[a], pod)
		}
	}
	out := make(map[netip.Addr]*corev1.Pod, len(listed))
	for a, candidates := range listed {
		v := evaluate.Decide(evaluate.Cluster{Pods: candidates}, evaluate.Flow{Src: a, Dst: a, Protocol: "ICMP"})
		for _, pod := range candidates {
			if v.Egress.Pod == pod.Namespace+"/"+pod.Name {
				out[a] = pod
			}
		}
	}
	return out
}

// addresses are those of a pod's status, in their order.
func addresses(pod *corev1.Pod) []netip.Addr {
	texts := []string{pod.Status.PodIP}
	for _, ip := range pod.Status.PodIPs {
		texts = append(texts, ip.IP)
	}
	if len(pod.Status.PodIPs) > 0 {
		texts = texts[1:]
	}
	var out []netip.Addr
	for _, text := range texts {
		if a, err := netip.ParseAddr(text); err == nil && !slices.Contains(out, a.Unmap()) {
			out = append(out, a.Unmap())
		}
	}
	return out
}

// subjectsOf finds the pods that take part on one side, by name.
func subjectsOf(in Input) map[string]subjectSide {
	owner := owners(in.Cluster.Pods)
	out := map[string]subjectSide{}
	for _, pod := range in.Cluster.Pods {
		s := subjectSide{pod: pod}
		for _, a := range addresses(pod) {
			if f := familyOf(a); owner[a] == pod && !s.addrs[f].IsValid() {
				s.addrs[f] = a
			}
		}
		if s.addrs[0].IsValid() || s.addrs[1].IsValid() {
			out[pod.Namespace+"/"+pod.Name] = s
		}
	}
	return out
}

// subjects are the pods that take part on all sides, sorted by name, and the names of those on one side only.
func subjects(sides []Input) (all []*subject, only [][]string) {
	bySide := make([]map[string]subjectSide, len(sides))
	for i, in := range sides {
		bySide[i] = subjectsOf(in)
	}
	only = make([][]string, len(sides))
	for i := range bySide {
		for name, found := range bySide[i] {
			s := &subject{namespace: found.pod.Namespace, name: found.pod.Name}
			for _, other := range bySide {
				if o, ok := other[name]; ok {
					s.sides = append(s.sides, o)
				}
			}
			switch {
			case len(s.sides) < len(sides):
				only[i] = append(only[i], name)
			case i == 0:
				s.describe(sides[0])
				all = append(all, s)
			}
		}
		slices.Sort(only[i])
	}
	slices.SortFunc(all, func(a, b *subject) int {
		if c := strings.Compare(a.namespace, b.namespace); c != 0 {
			return c
		}
		return strings.Compare(a.name, b.name)
	})
	return all, only
}

// describe takes what the first side says of the pod.
func (s *subject) describe(in Input) {
	pod := s.sides[0].pod
	workload := in.Workload
	if workload == nil {
		workload = WorkloadOf
	}
	s.workload, s.node, s.labels = workload(pod), pod.Spec.NodeName, fmt.Sprintf("%q", pod.Labels)
}
