// Package policy compiles Kubernetes NetworkPolicies, pods and namespaces into
// the plain data that one node has to enforce (package ir), and keeps it right
// as the objects change.
//
// An [Index] takes objects one by one, in any order and any number of times, and
// Flush returns what that changes. What it holds is a function of the objects
// alone: another order, or a new Index, gives the same State with the same
// names. It has no clock, no goroutines and no I/O, and what is wrong with a
// policy is returned as data (Problem).
//
// # From objects to the compiled form
//
//	Pod ──── podFacts ──► pod: owns addresses ─┐ joins, leaves
//	Namespace ──────────► namespace            ├─► selection ─► term ─► peerSet
//	                                           │     └─► resolver ─► term ─┘ │
//	NetworkPolicy ──────► policySpec ──────────┘ local pods                  │
//	                          └─► recipe ─► splitPorts ─► group ─► rules ────┘
//
// A selection is a selector that some policy in force on this node uses for its
// peers, with the pods that it selects now. A term is all of a selection or,
// where an egress rule names a port, those that give the name one number (the
// resolver watches which numbers there are). A peer set is a union of terms and
// blocks. A recipe is all the policies that isolate a pod in one direction, and
// a group is what becomes of it. Each exists once, however many ask for it, and
// as long as one does.
//
// # What an event costs
//
// A pod event asks only the selectors that could match the pod's labels before
// or after (labelIndex), and touches only the peer sets that the pod's addresses
// enter or leave. A namespace that gets other labels costs its pods, and only if
// a selector in use tells the difference. A policy costs the local pods of its
// namespace; if it selects one of them, the groups of these are made anew, and
// selectors that nobody used before look through the namespaces that they can
// mean. A policy that selects no pod here costs nothing else.
//
// # Audit mode
//
// A policy whose annotation (or, where it says nothing, that of its namespace) says
// audit isolates nobody and allows nothing. What it would do is compiled all the same:
// a pod that no enforced policy isolates in a direction, and policies in audit mode
// would, has a group of these there with ir.Group.Audit set. Where one is enforced,
// those in audit mode are left out: policies only add to what is allowed, so they
// could deny nothing more. A mode that means nothing enforces.
//
// A change of a policy's mode costs what a change of the policy does, that of a
// namespace's mode the local pods of the namespace.
//
// # Questions between two events
//
// Verdict judges one flow by what the last Flush left, so that the flows which are
// in the kernel can be judged after a change without a State being made for it.
// ExistingConnections is what a policy's annotation wants for those that are no
// longer allowed. Pod, Namespace and their like give back what the Index knows as
// objects of the API, for those who explain what happens.
//
// # What is not obvious in NetworkPolicy
//
// An address that several pods list belongs to the one that was created last:
// the others have most likely ended. Pods in the host's network and pods that
// have ended have no address; pods without one are nothing.
//
// A namespaceSelector, even an empty one, selects no pod of a namespace whose
// object is not known. A podSelector alone needs no namespace object, nor does a
// rule without peers.
//
// A named port is one of the destination's. For ingress that is the pod that
// the policy selects, so pods that differ in it have different groups. For
// egress it is each peer: the peers of a rule are split by the number they give.
// What is no pod has no named ports, so a rule with a block or without peers
// allows named ports to pods only.
//
// What cannot be parsed matches nothing. If it is the policy's own podSelector,
// all pods of the namespace are isolated, since any of them may have been meant.
package policy
