// Package lab is a network laboratory: a small Kubernetes-like network of real
// Linux network namespaces inside one process, for tests that need real
// packets and for the demonstration.
//
//	               outside (192.168.78.10, fd00:78::10, AddOutside …)
//	                  │ default route of the fabric
//	            ┌─────┴─────┐
//	            │  fabric   │ br0 192.168.77.1, fd00:77::1
//	            └──┬─────┬──┘
//	192.168.77.11  │     │  192.168.77.12
//	fd00:77::11  node-1 node-2  fd00:77::12
//	             │  │     │  │
//	            pod pod  pod pod     10.244.<n>.0/24, fd00:10:244:<n>::/64
//
// A node is a namespace that routes; its ruleset is where an enforcer works
// (see [Lab.NetNS]). Pods hang off a node in one of two ways. [Routed]: a veth
// whose node end owns the link-local gateway and a host route per pod address,
// as Calico, kindnet and the ptp plugin do it. [Bridged]: a bridge cni0 with
// hairpin ports and br_netfilter, as flannel and kubenet do it.
//
// All namespaces are anonymous. They are held open by file descriptors of this
// process and by nothing else, so they vanish with it, however it ends, and
// nothing outside of them is ever changed. Links, addresses and rules are made
// by netlink calls in process; no other program is run.
//
// Sockets are made on a thread that has entered the namespace for just that
// moment, and are then served by the Go runtime's poller like any other. That
// makes hundreds of concurrent probes cheap. Every [Probe] is a new flow from
// a source port (or echo identifier, or SCTP tag) that its namespace has not
// used before, so that no old conntrack entry can answer for the policy under
// test.
//
// SCTP is spoken by sockets where the kernel has them, and elsewhere with packets
// made by hand (see [SCTPMode]).
//
// Creating namespaces needs CAP_SYS_ADMIN and CAP_NET_ADMIN, be it only in a
// user namespace of our own: [Enter] and [Main] get there from an ordinary user.
package lab
