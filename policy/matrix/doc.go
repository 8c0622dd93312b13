// Package matrix says who reaches whom in a cluster, all at once: for every ordered pair of pods, and for addresses
// outside and nodes, the protocols and ports that pass, and which policies and rules decide.
//
// Every verdict comes from package evaluate, asked flow by flow. What is done here is to ask no question twice:
//
//	pods ──► classes   pods that no policy of this cluster can tell apart: same namespace, same labels as far as a
//	   │               selector asks for them, same named ports, addresses in the same ipBlocks
//	   │
//	   │     probe     one class and another, one direction: the policies that isolate the pod (evaluate says which)
//	   │               name ports; between two ports that are named nothing can change, so one flow of each stretch is
//	   │               asked, and only one of the peers that these policies cannot tell apart
//	   ▼
//	ends ──► views     rows and columns: groups of pods, workloads or namespaces, then the world outside and the nodes
//
// What repeats is stored once: a [Decision] is what one direction says of a flow, a [Profile] is what it says of all
// traffic from one member to another, a [Variant] is what a cell shows. A cell of a single pair of classes has one
// [Part]. A cell that stands for pairs which differ has several, and its [Reach] tells what passes between every pair
// and what between some.
//
// [Compare] takes two states of a cluster and works on classes of both at once, so that it compares pair by pair:
// a flow that opens is not made up for by another that closes.
//
// Policies in audit mode close nothing. What they would deny is open here, and its [Decision] says so.
//
// # What the ends mean
//
// Outside is any address that is no pod's and no node's and in no pod CIDR. The ipBlocks of the policies that matter
// split it into parts, one address of each is asked, and the part carries its blocks. Where the cell is about pods that no
// policy tells apart, a part covers an address if its block is the longest of all parts' that contains it; other cells
// have the parts of each of their pods.
//
// The own node is the node that a pod runs on; the other nodes are all others. Nodes whose address is unknown are left
// out. Pods in the host's network are their node, and pods that have ended or that own no address are nobody.
//
// Names and labels are passed on as they are. Whoever prints them must escape them.
package matrix
