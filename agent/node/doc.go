// Package node looks after what an agent needs of its node beside nftables.
//
// [Claim] keeps a second agent out of a network namespace.
//
// [Checker] finds the settings of a node under which packets of pods get past
// the hooks where policies are enforced, although every rule is in force:
//
//   - Pods on a bridge. Packets between two of them stay below IP and cross the
//     inet hooks only with br_netfilter and net.bridge.bridge-nf-call-iptables and
//     -ip6tables, which are settings of one network namespace, or with the bridge's
//     own options of these names.
//   - IPVS. It takes packets to a Service in the input hook and sends them on from
//     output, so they never cross forward, where policies look at them.
//
// Both can come to be at any time (a CNI plugin makes its bridge with the first
// pod, a tool that sets sysctls starts after the agent), so look again and again,
// and whenever a pod appears on a node that had none.
//
// What cannot be looked at is reported like what is wrong: an agent that does not
// know must not say that all is well.
package node
