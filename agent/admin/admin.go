package admin

import (
	"net/netip"
	"strings"
	"time"
)

// DefaultSocket is where an agent listens if its manifest says so, and where commands
// look for it.
const DefaultSocket = "/run/portcullis/admin.sock"

// Reason says why a packet was logged.
type Reason string

// The reasons.
const (
	// ReasonPolicy is a packet that no policy allows, of a pod that some isolate.
	ReasonPolicy Reason = "policy"
	// ReasonAudit is one that would be denied if policies in audit mode were
	// enforced. It passed.
	ReasonAudit Reason = "audit"
	// ReasonQuarantine is one from or to an address of the node's pods that no pod
	// is known to have yet.
	ReasonQuarantine Reason = "quarantine"
	// ReasonCut is one of a connection that was cut a moment ago.
	ReasonCut Reason = "cut"
)

// Denial is a packet that was denied, or would have been.
type Denial struct {
	Time   time.Time `json:"time"`
	Node   string    `json:"node"`
	Reason Reason    `json:"reason"`
	// Direction is "egress" or "ingress": which end of the flow was judged. For
	// ReasonCut it is empty.
	Direction   string `json:"direction,omitempty"`
	Source      End    `json:"source"`
	Destination End    `json:"destination"`
	// Protocol is "tcp", "udp", "sctp", "icmp", "icmpv6", or an IANA number.
	Protocol string `json:"protocol"`
	// SourcePort and Port are 0 for protocols without ports.
	SourcePort uint16 `json:"sourcePort,omitempty"`
	Port       uint16 `json:"port,omitempty"`
	// Policies are the "namespace/name" of those that isolate the pod in this
	// direction, sorted; with ReasonAudit, those that would.
	Policies []string `json:"policies,omitempty"`
	// Closest is the rule of these policies that comes closest to allowing the packet.
	Closest *Closest `json:"closest,omitempty"`
}

// End is one end of a packet's way.
type End struct {
	Addr netip.Addr `json:"addr"`
	// Pod is "namespace/name", "" if the address is that of no pod.
	Pod    string            `json:"pod,omitempty"`
	Labels map[string]string `json:"labels,omitempty"`
}

// Workload names the pods that an end stands for in a row of Audit: all whose names differ
// only in what their controller has made up, as far as it says so by labels. It is
// "namespace/name", or the address if the end is no pod.
func (e End) Workload() string {
	if e.Pod == "" {
		return e.Addr.String()
	}
	if hash := e.Labels["pod-template-hash"]; hash != "" { // a Deployment's
		if i := strings.LastIndex(e.Pod, "-"+hash+"-"); i > 0 {
			return e.Pod[:i]
		}
	}
	namespace, name, _ := strings.Cut(e.Pod, "/")
	if job := e.Labels["batch.kubernetes.io/job-name"]; job != "" && strings.HasPrefix(name, job+"-") {
		return namespace + "/" + job
	}
	if e.Labels["controller-revision-hash"] != "" { // a StatefulSet's or a DaemonSet's
		if i := strings.LastIndex(e.Pod, "-"); i > len(namespace)+1 {
			return e.Pod[:i]
		}
	}
	return e.Pod
}

// Closest is a rule that almost allows a packet.
type Closest struct {
	Policy string `json:"policy"` // "namespace/name"
	Rule   string `json:"rule"`   // "spec.ingress[0]"
	// Missing says in a few words what does not match, as "port tcp/80: it allows tcp/5432".
	Missing string `json:"missing"`
}

// State is what an agent is and what it has in force.
type State struct {
	Node    string    `json:"node"`
	Version string    `json:"version"`
	Started time.Time `json:"started"`
	Ready   bool      `json:"ready"`
	// Obstacles are the reasons why it is not ready, sorted.
	Obstacles []string `json:"obstacles,omitempty"`
	// Revision is what the manifest directory says in force, "" with an API server.
	Revision string `json:"revision,omitempty"`
	// Table is the name of the table in force, "" if there is none.
	Table string `json:"table,omitempty"`
	// Rules, Sets (with maps) and Elements count what is in Table.
	Rules    int `json:"rules"`
	Sets     int `json:"sets"`
	Elements int `json:"elements"`
	// Pods are those of this node that policies may select; Quarantined are the
	// "namespace/name" of those without an address in force, sorted.
	Pods        int            `json:"pods"`
	Quarantined []string       `json:"quarantined,omitempty"`
	Policies    []PolicyStatus `json:"policies"`
}

// PolicyStatus is what has become of a NetworkPolicy on a node.
type PolicyStatus struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	// Generation is metadata.generation as last heard of, InForce that of the kernel's
	// rules: less than Generation while a change is on its way; 0 if none is.
	// Objects from files have no generation: then both are 0.
	Generation int64 `json:"generation"`
	InForce    int64 `json:"inForce"`
	// Since is when the kernel came to hold the policy as it is in force, zero if it does
	// not. A restart of the agent begins anew.
	Since time.Time `json:"since,omitzero"`
	// Mode is "enforce" or "audit".
	Mode string `json:"mode"`
	// Pods counts those of this node that the policy selects.
	Pods     int       `json:"pods"`
	Problems []Problem `json:"problems,omitempty"`
}

// Problem is a part of a policy that cannot be enforced as written.
type Problem struct {
	Field  string `json:"field"`
	Reason string `json:"reason"`
}

// Audit sums up what policies in audit mode would have denied on a node.
type Audit struct {
	Node string `json:"node"`
	// Since is when counting began.
	Since time.Time `json:"since"`
	// Packets counts all of them, Logged those that Rows are made of: the kernel
	// passes on only so many in a second.
	Packets uint64 `json:"packets"`
	Logged  uint64 `json:"logged"`
	// Forgotten counts those of Logged whose rows had to make room for others: the
	// rows that were seen last are kept.
	Forgotten uint64     `json:"forgotten,omitempty"`
	Rows      []AuditRow `json:"rows"` // those seen most often first
}

// AuditRow is a kind of flow that would have been denied.
type AuditRow struct {
	Direction string `json:"direction"`
	// Source and Destination are as in Denial. A row is about all pods of a Workload;
	// this is the one that was seen last.
	Source      End      `json:"source"`
	Destination End      `json:"destination"`
	Protocol    string   `json:"protocol"`
	Port        uint16   `json:"port,omitempty"`
	Policies    []string `json:"policies"`
	Closest     *Closest `json:"closest,omitempty"`
	// Count is how many of Logged it was.
	Count uint64    `json:"count"`
	First time.Time `json:"first"`
	Last  time.Time `json:"last"`
}
