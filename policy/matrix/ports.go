package matrix

import (
	"cmp"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// Protocols are those that policies tell apart, in the order of all output. ICMP stands for every protocol without
// ports, as it does in package evaluate.
var protocols = [...]corev1.Protocol{corev1.ProtocolTCP, corev1.ProtocolUDP, corev1.ProtocolSCTP, "ICMP"}

const icmp = 3 // index in protocols

const lastPort = 65535

// Range is a range of ports, both ends included. Without ports (ICMP) it is 0 to 0.
type Range struct{ First, Last int32 }

// Ports is a set of traffic: ranges of each of protocols, sorted, neither touching nor overlapping. The zero value is
// the empty set. It is not changed once made.
type Ports struct{ ranges [len(protocols)][]Range }

// allPorts is every port of every protocol, and the protocols without ports.
func allPorts() Ports {
	var p Ports
	for i := range protocols {
		p.ranges[i] = []Range{{1, lastPort}}
	}
	p.ranges[icmp] = []Range{{0, 0}}
	return p
}

// PortsOf is the set of one port (0 for ICMP).
func PortsOf(protocol corev1.Protocol, port int32) Ports {
	var p Ports
	if i := slices.Index(protocols[:], protocol); i >= 0 {
		p.ranges[i] = []Range{{port, port}}
	}
	return p
}

// Empty tells whether nothing is in the set.
func (p Ports) Empty() bool {
	return !slices.ContainsFunc(p.ranges[:], func(r []Range) bool { return len(r) > 0 })
}

// All tells whether everything is in the set.
func (p Ports) All() bool { return p.Equal(allPorts()) }

// Equal tells whether two sets are the same.
func (p Ports) Equal(q Ports) bool {
	for i := range p.ranges {
		if !slices.Equal(p.ranges[i], q.ranges[i]) {
			return false
		}
	}
	return true
}

// Contains tells whether a port of a protocol is in the set; the port is ignored for a protocol without ports.
func (p Ports) Contains(protocol corev1.Protocol, port int32) bool {
	i := slices.Index(protocols[:], protocol)
	if i < 0 || i == icmp {
		return len(p.ranges[icmp]) > 0
	}
	return slices.ContainsFunc(p.ranges[i], func(r Range) bool { return r.First <= port && port <= r.Last })
}

// Union is what is in either set.
func (p Ports) Union(q Ports) Ports {
	var out Ports
	for i := range p.ranges {
		out.ranges[i] = merged(append(slices.Clone(p.ranges[i]), q.ranges[i]...))
	}
	return out
}

// Minus is what is in p and not in q.
func (p Ports) Minus(q Ports) Ports {
	var out Ports
	for i := range p.ranges {
		for _, r := range p.ranges[i] {
			out.ranges[i] = append(out.ranges[i], r.minus(q.ranges[i])...)
		}
	}
	return out
}

// Intersect is what is in both sets.
func (p Ports) Intersect(q Ports) Ports { return p.Minus(p.Minus(q)) }

// minus cuts sorted ranges out of one.
func (r Range) minus(cuts []Range) []Range {
	var out []Range
	for _, cut := range cuts {
		if cut.Last < r.First || cut.First > r.Last {
			continue
		}
		if r.First < cut.First {
			out = append(out, Range{r.First, cut.First - 1})
		}
		r.First = cut.Last + 1
	}
	if r.First <= r.Last {
		out = append(out, r)
	}
	return out
}

// merged sorts ranges and joins those that touch.
func merged(list []Range) []Range {
	slices.SortFunc(list, func(a, b Range) int { return cmp.Compare(a.First, b.First) })
	var out []Range
	for _, r := range list {
		if n := len(out); n > 0 && r.First <= out[n-1].Last+1 {
			out[n-1].Last = max(out[n-1].Last, r.Last)
			continue
		}
		out = append(out, r)
	}
	return out
}

// List names the ranges of the set: "tcp/80", "tcp/8000-8100", "udp/*", "icmp".
func (p Ports) List() []string {
	out := []string{}
	for i, protocol := range protocols {
		for _, r := range p.ranges[i] {
			out = append(out, r.name(protocol))
		}
	}
	return out
}

func (r Range) name(protocol corev1.Protocol) string {
	name := strings.ToLower(string(protocol))
	switch {
	case r.First == 0:
		return name
	case r == Range{1, lastPort}:
		return name + "/*"
	case r.First == r.Last:
		return name + "/" + strconv.Itoa(int(r.First))
	}
	return name + "/" + strconv.Itoa(int(r.First)) + "-" + strconv.Itoa(int(r.Last))
}

// String names the set for people: "all", "none", or its ranges with each protocol once: "tcp/80,443 udp/53".
func (p Ports) String() string {
	switch {
	case p.Empty():
		return "none"
	case p.All():
		return "all"
	}
	var out []string
	for i, protocol := range protocols {
		for j, r := range p.ranges[i] {
			name := r.name(protocol)
			if j > 0 {
				_, number, _ := strings.Cut(name, "/")
				out[len(out)-1] += "," + number
				continue
			}
			out = append(out, name)
		}
	}
	return strings.Join(out, " ")
}

// Ranges are the ranges of a protocol: 0 is TCP, 1 UDP, 2 SCTP, 3 ICMP.
func (p Ports) Ranges(protocol int) []Range { return p.ranges[protocol] }
