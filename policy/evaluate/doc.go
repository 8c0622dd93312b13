// Package evaluate decides a single flow by reading the objects of a cluster the way the Kubernetes documentation
// words them: which pod is at either end, which policies isolate it, which rule lets the flow through.
//
// It is the reference that everything faster is compared with, and what explains a decision to people. So it is written
// to be read next to the specification: it keeps nothing between calls, compiles nothing, looks at every policy for
// every flow, and shares no code with the packages that compile policies for the kernel. A mistake would have to be made
// twice, in two different ways, to stay unseen.
//
// What it says is about the first packet of a connection. Replies, errors that belong to a connection and IPv6
// neighbour discovery always pass and are not asked about. The addresses of a flow are those behind destination NAT and
// before source NAT; a Service is never an end of a flow, one of its pods is.
//
// # Audit mode
//
// A policy can be tried before it is enforced: the annotation portcullis.dev/mode says audit, on the policy or, if that
// says nothing, on its namespace. Such a policy isolates nobody and allows nothing. Where no other policy isolates the
// pod, the decision names the policies that are tried (Audit) and says whether they would deny the flow (WouldDeny).
// Where one does, trying has no effect: policies only add to what is allowed, so another one could deny nothing more. An
// annotation that says anything else enforces.
//
// # What comes closest
//
// A decision that denies, or would, names the rule that almost allows the flow and says in a few words what of it does
// not match. Those words are for people and made of what strangers wrote: plain ASCII, bounded, and malformed parts are
// called malformed and not repeated. Whoever puts them on a page must escape them.
//
// # What is refused
//
// A part of a policy that cannot be understood matches nothing: a peer, or an entry of ports. If that leaves a list
// without a single entry that matches, the list still stands and the rule allows nothing. Where the policy's own
// podSelector cannot be understood, nobody can tell whom the author meant: every pod of the namespace is isolated and
// nothing is allowed. A policyTypes list without a single known value isolates in both directions.
package evaluate
