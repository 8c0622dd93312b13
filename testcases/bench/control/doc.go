// Package control measures the way from an event of the API to the rules in the
// kernel, with the real policy.Index, the real nft.Enforcer, the real agent and a
// real kernel, in network namespaces that vanish with the process.
//
// The cluster is synthetic and always the same: see cluster. Each size of it has a
// process of its own, a child of this one (see Child), so that no size disturbs the
// memory of another. There are three sorts of children:
//
//	engine   Index and Enforcer alone, fed directly: what an event costs and is
//	         made of, how long a start takes and what of it, what is allocated
//	ranges   the same events in two clusters in turn, of which one has ranges of ports
//	         and blocks in all policies and the other has none
//	agent    agent.Run with a real client, against an API server in the parent that
//	         serves what there is in protobuf: memory of the whole process, churn with
//	         probes, bytes and objects that one node's watches take
//
// Where a cluster of N pods is said to have M local ones, these are on the measured
// node and come in addition. Every pod has an address of each family.
//
// A whole run measures Index and Enforcer with each of 0, 1,000, 10,000 and 100,000 pods,
// 10, 1,000 and 10,000 policies, and 110 and 250 local pods: each pair of events for 0.6
// seconds and one start, but at the size that has goals for four seconds and three
// starts. Agents are measured at four of these sizes. Notes below the tables tell how many
// samples there are.
//
// In the tables, a netlink message is one nft.Op. Bytes are reckoned from names, keys
// and the size of an expression; they are right for elements, and about right for
// rules and headers of sets.
package control
