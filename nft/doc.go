// Package nft enforces an ir.State with one nftables table.
//
// # The table
//
// Family inet, named portcullis-a, or portcullis-b when that one is being replaced
// (or a further letter, if replacing was interrupted and both exist). Everything that varies with pods is an element of a set or map;
// chains and sets vary with policies; no rule is ever written because of a pod.
//
//	set self4/6              address . address of every pod of this node (a pod reaches itself)
//	map eg4/6, in4/6         address of an isolated pod -> jump g_…
//	set isoeg4/6, isoin4/6   the same addresses; what gets past the map is denied
//
//	chain egress   hook forward, priority 10      chain ingress   hook forward, priority 11
//	  ct state established,related accept           (the same)
//	  icmpv6 type 133-137 accept                    (neighbour discovery)
//	  ip saddr . ip daddr @self4 accept             (the same)
//	  ip saddr vmap @eg4                            ip daddr vmap @in4
//	  ip saddr @isoeg4 goto deny                    ip daddr @isoin4 goto deny
//	  (and for ip6)                                 (and for ip6)
//
//	chain host     hook input, priority 10: chain egress once more, for packets to
//	               the pod's own node; only with Config.PodToNode
//
//	chain g_<group>_<namespace>/<policy>            one for each ir.Group
//	  meta l4proto . th dport vmap @g_<group>_ports   single ports
//	  meta l4proto tcp th dport vmap @g_<group>_tcp   ranges, a map for each protocol
//	  meta l4proto udp jump u_<set>_in                whole protocols
//	  jump u_<set>_in                                 peers that may use any port
//	  goto deny
//
//	chain u_<set>_in, u_<set>_eg                    for each ir.PeerSet and direction in use
//	  ip saddr @u_<set>_4 accept                      addresses of pods, a hash
//	  ip saddr @u_<set>_c4 accept                     blocks, an interval set
//	  (and for ip6; daddr in u_…_eg)
//
//	chain deny     drop, or an answer and then drop
//
// A packet is looked up by address, by protocol and port, and by peer, however
// many policies there are. Chains accept, or return; the peers of a port include
// those of any port, so one look at the peers decides. Both ends of a connection
// must allow it, because accept ends a packet's way through its base chain only.
//
// Packets are matched by address and never by interface: on the forward hook the
// destination is the one after DNAT, the source the one before SNAT, and on a
// bridge the interface says nothing. The priorities are behind those of
// kube-proxy (0 and below).
//
// The kernel finds a set by walking a list, so that a table with many thousands
// of peer sets loads and changes slowly, though packets do not feel it.
//
// # Without a wrong verdict
//
// A batch is atomic for each object, not for each packet. A packet notices the
// new generation the next time that it enters a chain or looks into a set, and
// between two batches it may stand anywhere. Therefore
//
//   - what is new is complete before anything in force leads to it, in a batch of
//     its own: a chain that is made in the batch that points at it is still empty
//     for a packet that came before (Apply, create);
//   - what is old is deleted when no packet can be in it any more, which a grace
//     period of RCU tells (Kernel.Grace);
//   - a pod enters the dispatch map before the isolated set, and leaves them the
//     other way round;
//   - changes of peers and changes of a pod's group are ordered by what ties them
//     together (order.go); where no order will do, the table is built anew;
//   - a takeover builds the other table, and both enforce until the old one is
//     unhooked.
//
// The simulator (Table.Verdict) takes the same view, so tests send packets
// through every pair of states that Fake has been in.
//
// # What the kernel holds
//
// After any error it is unknown what the kernel holds: an acknowledgement may be
// lost although the batch is committed. Enforcer.Repair reads the table back and
// compares it, rule by rule and element by element, with what Build makes of the
// State, and so does Takeover before it puts a table in force.
package nft
