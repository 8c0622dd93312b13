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
//	people ──admin socket, metrics──visits──► what all of these know
//	denied packets ──nflog──────────visits──► names ──► log, admin socket
//
// It owns time, goroutines and I/O, and holds no policy semantics: those are in
// package policy. How the kernel is changed without a wrong verdict in between is
// in package nft.
//
// # What holds at every moment
//
//   - No pod is let go before the source has delivered every object that it starts
//     with, and, with an API server, the node's own Node object: an agent under a
//     mistyped node name would otherwise find no pods of its own and open the node.
//
//   - Until then nothing is written where a table of ours is in force. Where there is
//     none and Config.Quarantine is set, a table without pods holds back every address
//     of the pod CIDRs, as soon as the source is at work and these are known. It counts
//     for nothing else: the agent is not ready, no ADD is answered, and connections are
//     not taken to be known by it, neither by this agent nor by the next one. If it
//     cannot be written the rest goes its way.
//
//   - The first write behind that is a takeover: the rules that an earlier process, or
//     this one, left stay in force until the new ones are.
//
//   - A write of unknown outcome is followed by a repair, which looks at what the
//     kernel holds, again and again until one succeeds. Until then the agent
//     reports itself unhealthy.
//
//   - The end of the agent, be it by a signal, an error or a panic, leaves the
//     rules in force. Only `portcullis cleanup` removes them.
//
//   - With Config.Quarantine, an address of the pod CIDRs reaches nothing but its own
//     node until its pod is known and everything about it is in force. No block is among
//     them on the CNI plugin's word alone that a pod of another node has an address in,
//     as far as the source has said: a network that nodes share is never cut.
//
//   - What others do to our table is undone: the kernel tells of it, and every few
//     minutes the whole table is read because it might not have.
//
//   - Behind each write that closes something, the connections of the addresses that
//     it concerns are judged as new ones would be, and those that fail are ended; once
//     more a moment later, for packets that were on their way. Where writes follow each
//     other closely, that is done for several of them together, ten times a second.
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
// The quarantine's blocks are those of Config.PodCIDRs, or of the own Node. For a family
// of which neither names one, the CNI plugin's word is taken: the subnet of a pod's
// address, if its gateway is the node. A Node that names blocks later replaces it, and
// the first pod of another node in such a block ends it for good. What was taken is kept
// in a file beside the socket, because the plugin says it once, and is looked at like
// what is new.
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
// # What people see
//
// With Config.LogGroup the rules copy denied packets, a bounded number in a second, to an
// nflog group, and so do those of policies in audit mode. The agent gives them the names
// of pods and of the policies that are about them, and the rule that comes closest to
// allowing the packet, as package evaluate finds it; the names are those of the moment in
// which it looks, some milliseconds later. A line is logged for each kind of flow, twice a
// minute at most. All of this, the status of policies, and the objects as the loop has
// them are there to be asked for at Config.AdminSocket (package admin).
//
// None of it can delay a policy for long, or end the agent: the loop is visited for the
// time of some lookups, a bounded number of times in a second for denied packets, and
// what is more than that is lost and counted. To tell which rule is closest, and to write
// JSON, is not done in its goroutine. Pods of one namespace are copied in one visit, some
// microseconds each.
//
// The kernel's counters are read when somebody asks for them, once in a second at most. They
// begin at 0 in each table and for each address, and the agent adds up what they have
// gained from one reading to the next. What they counted between the last reading and a
// takeover, or the end of a pod, is in no metric.
//
// Policies are kept as the source delivered them, for that: 1.7 KB each, of a simple one.
//
// # Sources
//
// Kubernetes lists and watches Namespaces, NetworkPolicies, the own Node, and those Pods
// that can have addresses of their own. An object goes to the loop when it has been
// read, also while a list of 100,000 is under way, and nothing is kept of it but its
// version: the index is the only copy, but for policies and the node's own pods. Lists
// stream where the API server can do that. With a client of package lean, pods are not
// even decoded beyond what policies can ask for.
//
// Namespaces are read whole: of their 0.7 KB, what is not metadata is a twentieth. The
// API server has no way to be asked for part of a pod's spec and status.
//
// Manifests reads a directory of YAML and follows its changes. Replace files by
// rename, or the whole directory by a symbolic link (as a mounted ConfigMap does):
// a file that is written in place can be read half written, and half a list of
// policies is a valid list. A file that cannot be read or decoded keeps the objects
// that it had when it last could. Each time the kernel holds what the directory
// says, the agent logs "in force" with the directory's Revision.
package agent
