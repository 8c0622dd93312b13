// Package agent keeps the kernel's rules of one node as the NetworkPolicies of
// the cluster want them, for as long as it runs.
//
//	Source ──events──► queue ──► loop: policy.Index ──► ir.Change ──► nft.Enforcer
//	(API server, or     (last state      │ (one goroutine owns all of these)
//	 a directory)        of a key wins)  ├─ quarantine   blocks whose unknown addresses are held back
//	portcullis-cni ──ask────────────────►├─ attachments  pods whose status has no address yet
//	kernel's notifications ──disturbed──►├─ connections  ends those that are no longer allowed
//	                                     ├─ senders      interface ↔ addresses, against spoofing
//	                                     └─ conditions   settings that let packets past the rules
//
// It owns time, goroutines and I/O, and holds no policy semantics: those are in
// package policy. How the kernel is changed without a wrong verdict in between is
// in package nft.
//
// # What holds at every moment
//
//   - Nothing is written before the source has delivered every object that it
//     starts with, and, with an API server, the node's own Node object: an agent
//     under a mistyped node name would otherwise find no pods of its own and open
//     the node.
//
//   - The first write is a takeover: the rules that an earlier process left stay in
//     force until the new ones are.
//
//   - A write of unknown outcome is followed by a repair, which looks at what the
//     kernel holds, again and again until one succeeds. Until then the agent
//     reports itself unhealthy.
//
//   - The end of the agent, be it by a signal, an error or a panic, leaves the
//     rules in force. Only `portcullis cleanup` removes them.
//
//   - With Config.Quarantine, an address of the pod CIDRs reaches nothing but its own
//     node until its pod is known and everything about it is in force.
//
//   - What others do to our table is undone: the kernel tells of it, and every few
//     minutes the whole table is read because it might not have.
//
//   - Behind each write that closes something, the connections of the addresses that
//     it concerns are judged as new ones would be, and those that fail are ended; once
//     more a moment later, for packets that were on their way.
//
// # A pod's first packet
//
// The kubelet tells the API server a pod's address long after the pod can send. Until
// then the quarantine holds it back, whoever the pod is. Where the CNI plugin
// (cmd/portcullis-cni) is installed, the container runtime waits for it: it hands the
// agent the pod's address, the loop gives that to the pod's object as long as its
// status has none, and the answer comes when the kernel holds what follows from it.
// Then the first packet of an allowed connection passes, too, as far as this node
// decides; other nodes learn the address from the API server.
//
// # Policies that cannot be enforced as written
//
// What package policy finds wrong with a policy is logged. Where the objects come from
// an API server, Events of type Warning and reason CannotEnforce say the same to its
// users: one about the policy and one about each pod of this node that it selects. The
// agents of nodes without such a pod are silent, and those of the others have one Event
// about the policy between them, as its name follows from its text. An Event that
// cannot be written is logged and otherwise of no consequence.
//
// # Sources
//
// Kubernetes lists and watches Pods, Namespaces, NetworkPolicies and the own Node
// and keeps of each only what policies can ask for.
//
// Manifests reads a directory of YAML and follows its changes. Replace files by
// rename, or the whole directory by a symbolic link (as a mounted ConfigMap does):
// a file that is written in place can be read half written, and half a list of
// policies is a valid list. A file that cannot be read or decoded keeps the objects
// that it had when it last could. Each time the kernel holds what the directory
// says, the agent logs "in force" with the directory's Revision.
package agent
