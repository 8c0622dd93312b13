// Package datapath measures what rules cost packets: real ones, that go from one pod
// to another of the same node, in network namespaces of their own.
//
// # What is measured
//
// New flows: a packet socket in the client's namespace sends UDP packets, each from
// a source port that the others have not, so that connection tracking knows none of
// them and every one is judged by the policies. The kernel takes such a packet all
// the way, through the client's link, the node's hooks and the server's link, before
// the call that sends returns. Hence the processor time of the sending thread is what
// the packet costs, and what else the machine does hardly disturbs it. The server's
// end drops the packets as they arrive and counts them; a sample whose packets did
// not all arrive (or did not all stay away) is not taken.
//
// TCP connections that are opened and closed at once, by sockets. The server's
// kernel answers in the same way, so that this too is one thread's time.
//
// Packets of a known flow: the packet socket again, after sockets of the same ports
// have exchanged a word. And one TCP stream, by the processor
// time of both ends.
//
// # What is compared
//
// Rules of several kinds, for one pod that a number of policies select, each with a
// port and peers of its own: none at all; what it takes to track connections; a chain
// for each policy (classic); the table of package nft with one isolated direction;
// and the same with everything that an agent turns on, and both ends isolated. Each
// has a node of its own, and all nodes stay up side by side. Rounds go around them,
// every time in another order, and ratios are taken within a round. Now and then all
// nodes are made anew: where the rules of a node happen to lie in memory makes up to
// four per cent.
//
// One table tells what is left of the full model's cost without some of its parts, and
// one how long it takes to load many policies, and one more.
package datapath
