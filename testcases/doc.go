// Package testcases is the library of cases that say what a NetworkPolicy means,
// and the tests that run every case at four heights, all of which must agree:
//
//	evaluate    package evaluate, the naive reading of the specification
//	compiled    package policy, the compiled form of each node
//	simulated   package nft, each node's table walked packet by packet; the table
//	            is built at once, and also changed step by step in a kernel that
//	            exists in memory only
//	packets     package nft in the kernel of each node of a laboratory (package
//	            lab), with connections between real pods, routed and bridged
//
// A case is a directory of cases/ that a person can read: Kubernetes objects and
// the flows that they allow and deny. What a case expects is written by hand, never
// computed. README.md says how to write one.
//
// Random clusters do the same with policies that nobody would write: there the
// naive reading is the expectation.
package testcases
