// Package spoof keeps pods from sending with addresses that are not their own.
// Policies tell pods apart by address; without this a pod that may open raw
// sockets has the permissions of every other one.
//
// # The table
//
// Table netdev portcullis has one base chain for each node's end of a pod's veth,
// which sees what the pod sends before anything else of the node's network does:
//
//	chain dev_<device>   hook ingress device <device>, first of all
//	  ether type ip ip saddr <each IPv4 address> accept
//	  ether type ip6 meta l4proto != icmpv6 ip6 saddr <each IPv6 address, and fe80::/10> accept
//	  ether type ip6 icmpv6 type <router advertisement, redirect> drop
//	  ether type ip6 icmpv6 type <neighbour advertisement> <target> != <each, fe80::/10> drop
//	  ether type ip6 ip6 saddr :: icmpv6 type <neighbour solicitation> <target> != <each, fe80::/10> drop
//	  ether type ip6 ip6 saddr :: icmpv6 type <MLD, router and neighbour solicitation> accept
//	  ether type ip6 meta l4proto icmpv6 ip6 saddr <each, and fe80::/10> accept
//	  ether type arp <Ethernet and IPv4> <sender> <each IPv4 address, and 0.0.0.0> accept
//	  drop
//
// Packets of a pod match one of the first rules, whose literals are cheaper than
// any set. nft lists fields of the frame by offset; the comment of a rule says what
// they are.
//
// What is let through besides the pod's own addresses is what an interface sends
// before it has any: ARP probes (sender 0.0.0.0), duplicate address detection
// (from ::, but only for addresses that the pod may have), reports of multicast
// groups and router solicitations. IPv6 link-local addresses are let through
// because a pod makes them up itself and they lead no farther than its own link; on
// a bridge, though, that link has other pods on it, and a pod can take the
// link-local address of another. Nor are the MAC addresses of a pod bound.
//
// A pod is no router, so it sends no router advertisements and no redirects.
//
// The rest is dropped, and that includes every other ether type. Nothing in a pod
// network has a use for one, and some are ways around: a frame with a VLAN tag, of
// PPPoE or MPLS carries IP that br_netfilter does not show to the inet hooks, and
// a bridge protocol unit reaches the bridge itself.
//
// # Chains and devices
//
// A chain belongs to the name of a device. Since Linux 6.16 it outlives the device,
// can be made before it, and takes hold of a device of that name as soon as there
// is one; before, it goes with the device, and Set fails for a device that does not
// exist yet. Therefore a chain that nobody wants any more is deleted, whether its
// device is there or not: a later device of the same name may be another pod's.
//
// # What is looked at
//
// Reading the table takes longer the more devices there are. [Guard.Set] always reads
// it. [Guard.Update] writes what has changed since the last time and reads only when
// there is a reason: an error, somebody else's change, or the word of the caller. That a
// device has another one's name, be its chain gone or not, it knows by the interface
// index, which Linux does not use twice.
package spoof
