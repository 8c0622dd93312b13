// Package nft enforces an ir.State with one nftables table.
//
// # The table
//
// Family inet, named portcullis-a, or portcullis-b when that one is being replaced
// (or a further letter, if replacing was interrupted and both exist). Everything that varies with pods is an element of a set or map;
// chains and sets vary with policies; no rule is ever written because of a pod.
//
//	set self4/6              address . address of every pod of this node (a pod reaches itself)
//	map eg4/6, in4/6         address of every pod of this node -> jump g_…, or accept
//	                         if it is not isolated: the dispatch maps
//	set isoeg4/6, isoin4/6   the addresses that jump, but for those whose group is on trial;
//	                         what gets past the map is denied
//	set cut4/6               source . protocol . port . destination . port, for a time:
//	                         what Enforcer.Forbid forbids
//	set deniedeg4/6, deniedin4/6   address -> counter: what policies denied to a pod. The
//	                         packets add the elements, which stay for a day
//
//	chain egress   hook forward, priority 10      chain ingress   hook forward, priority 11
//	  ct state established,related accept           (the same)
//	  meta nfproto ipv6 goto egress6                meta nfproto ipv6 goto ingress6
//	  (midstream)
//	  ip saddr vmap @eg4                            ip daddr vmap @in4
//	  ip saddr 10.244.1.0/24 goto quarantine-egress ip daddr … goto quarantine-ingress
//	                                                (for each block of Config.PodCIDRs)
//	  ip saddr @isoeg4 goto deny-egress             ip daddr @isoin4 goto deny-ingress
//
//	chain egress6, ingress6, host6: what is behind that line, for ip6, and in front of it
//	  icmpv6 type 133-137 accept                    (neighbour discovery)
//	  (link-local, in egress6)
//
//	link-local
//	  ip6 saddr fe00::/8 jump near
//	  ip6 daddr fe00::/8 jump near
//	midstream, with Config.Midstream
//	  tcp flags & (fin | syn | rst | ack) != syn ct state new jump midstream
//
//	chain host     hook input, priority 10: chain egress once more, for packets to
//	               the pod's own node; only with Config.PodToNode. It has no
//	               link-local, of midstream what is about the source, and
//	               with Config.PodCIDRs, in front: iif lo accept
//
//	chain near
//	  ip6 saddr fe80::/10 goto link-local
//	  ip6 daddr fe80::/10 counter drop
//
//	chain link-local
//	  icmpv6 type 130-132 accept                    (who listens to which group;
//	  icmpv6 type 143 accept                        on its way to chain ingress)
//	  counter drop
//
//	chain midstream
//	  ip saddr @isoeg4 goto tcp-reset               (also @isoin4; also daddr; and ip6)
//
//	chain tcp-reset  answer with a TCP reset, and drop
//
//	chain g_<group>_<namespace>/<policy>            one for each ir.Group
//	  ip saddr . meta l4proto . th dport @g_<group>_peers4 accept
//	                                                (a wide group only; and ip6; daddr for egress)
//	  meta l4proto . th dport vmap @g_<group>_ports   single ports
//	  meta l4proto tcp th dport vmap @g_<group>_tcp   ranges, a map for each protocol
//	  meta l4proto udp jump u_<set>_in                whole protocols
//	  jump u_<set>_in                                 peers that may use any port
//	  goto deny-ingress                               (audit-ingress: a group on trial)
//
//	chain u_<set>_in, u_<set>_eg                    for each ir.PeerSet and direction in use
//	  ip saddr @u_<set>_4 accept                      addresses of pods, a hash
//	  ip saddr @u_<set>_c4 accept                     blocks, an interval set
//	  (and for ip6; daddr in u_…_eg)
//
//	chain deny-egress, deny-ingress
//	  ip saddr . ip daddr @self4 accept             (a pod reaches itself; and ip6)
//	  update @deniedin4 { ip daddr timeout 1d counter }      (and ip6; saddr for egress)
//	  limit rate 100/second burst 100 packets log prefix "portcullis policy ingress"
//	    group 4040 snaplen 128                      (with Config.LogGroup)
//	  drop                                          (or an answer and then drop)
//
//	chain audit-egress, audit-ingress               the same with a counter, and: accept
//	chain deny-cut                                  the same with a counter
//	chain quarantine-egress, quarantine-ingress     counter, log, drop; with Config.PodCIDRs
//
// And while anything is forbidden, these three more:
//
//	chain cut      hook forward, priority 12
//	  ct state established,related accept
//	  icmpv6 type 133-137 accept
//	  ip saddr . meta l4proto . th sport . ip daddr . th dport @cut4 goto deny-cut
//	                                                (and ip6)
//
//	chain from-host  hook output, priority 10: the same, but for icmpv6, for packets
//	               of the node's own processes; only with Config.PodToNode
//
//	chain before-nat  hook prerouting, priority -150; only with Config.Midstream
//	                 and Config.Bridged
//	  ct state established,related accept
//	  tcp flags & (fin | syn | rst | ack) != syn ip saddr . … @cut4 goto tcp-reset
//	                                                (as in cut; and ip6)
//
// A packet is looked up by address, by protocol and port, and by peer, however
// many policies there are; the quarantine costs it nothing, because the map that leads
// to the policies is also the list of the pods that are out of quarantine. Chains
// accept, or return; the peers of a port include those of any port, so one look at the
// peers decides. Both ends of a connection must allow it, because accept ends a packet's
// way through its base chain only.
//
// Packets are matched by address and not by interface: on the forward hook the
// destination is the one after DNAT, the source the one before SNAT, and on a
// bridge the interface says nothing. The priorities are behind those of
// kube-proxy (0 and below), but for chain before-nat, which is behind connection
// tracking and in front of DNAT.
//
// # In front of the policies
//
// What connection tracking knows is accepted; a flow is judged by its first packet.
// Two things are judged before any policy is asked:
//
//   - IPv6 link-local addresses. Every pod has one, no pod's status names it, and no
//     policy can speak of it. A router forwards none of them, but a bridge with
//     br_netfilter brings them to the forward hook, and there pods would get past
//     every policy. Which pod sent such a packet cannot be told: an isolated pod could
//     be neither protected from it nor held back. So whatever has a link-local source
//     or destination is dropped, be there policies or not, multicast included (mDNS,
//     DHCPv6). Neighbour discovery passes, and so does multicast listener
//     discovery, which bridges follow. Of nearly every other packet one byte of each
//     address tells that it is none of these. That holds for every bridge of the node whose
//     packets come to the forward hook, not only for that of the pods.
//     Between a pod and its own node such packets go through other hooks and pass, in
//     quarantine and with an isolated pod too: a pod may have its gateway there.
//   - TCP packets that belong to no known connection and open none. Whoever cuts a
//     connection deletes it from connection tracking, which then takes the next
//     packet, of either end, for the first of a new one: that of the server would
//     open the way back. Isolated pods get a reset instead, at either end, as each
//     of them sends. Invalid packets, such as those outside of the window, are not
//     reset. A bridge sends the reset with the address of the pod that it stands
//     for, also where the other end knows the pod by the address of a Service. The
//     client of a Service therefore takes a call of Forbid, with what it sends to the
//     Service: chain before-nat resets that as it arrives, before DNAT, and there
//     invalid packets too. It has no say in anything else, be it an established
//     connection, the packet that opens one, or another protocol.
//
// And one thing is judged behind them: what is forbidden for a time, since other
// protocols have no such flags.
//
// Packets of the node's own processes are looked at for one thing only. When a flow of
// a pod to its own node is cut and the node's end is the first to send, that is a new
// flow of the node to the pod, whose answers would pass. So what Forbid has forbidden
// is denied here as well; a process that sends UDP is told so (EPERM). Of
// TCP too this takes a call of Forbid: nothing resets what the node sends midstream.
//
// # While something is forbidden
//
// Hardly ever is anything forbidden, and to look for it would cost every packet of every
// flow: a base chain each for what is forwarded, for what the node sends and for what
// arrives, and new ones a look into a set. So these chains come with the first call of
// Forbid, in front of its first element, and go with a call of Lapse when the last
// timeout has passed and the kernel's sets are empty. A takeover gives the new table both
// before it is in force. They stand apart from the chains of policies, so that these are
// not touched, and behind them, so that what they deny they only deny as well.
//
// Connection tracking is asked at two of these hooks itself. A packet that came there
// before the chain, and found its flow forgotten after Forbid had returned, would pass by
// it. Therefore the call that puts the chains there waits for such packets.
//
// # Quarantine
//
// An address of the node's pods that is no endpoint neither sends nor receives, but for
// what the node itself asks of it. All endpoints are in the dispatch maps, those that no
// policy selects as well, so what the map does not know and a block of Config.PodCIDRs
// holds is dropped behind it: by the source in chain egress and host, by the
// destination in chain ingress, where every forwarded packet gets to that may be sent.
// A pod leaves quarantine when everything else about it is in force, in a batch of its
// own, and enters it before anything about it goes. So the first packet of a pod meets
// the pod's policies or nothing, at whatever time it is sent. The quarantine is silent;
// only a TCP packet that opens no connection may be reset in front of it, if the other
// end is isolated.
//
// # Counted and logged
//
// What a packet is denied for is said by the chain that it ends in. There it is counted,
// what policies deny for each pod and direction, and some packets of each reason and
// direction are logged to Config.LogGroup, behind which package nflog listens
// (ParseLogPrefix). A packet that is allowed meets nothing of this, and no element or rule
// is made because of a pod: the packets that are denied make the elements. What was
// counted is no part of what is compared, and a new table counts from 0
// (Enforcer.Counters). TCP packets that chain midstream or before-nat resets are neither
// counted nor logged.
//
// A group on trial (ir.Group.Audit) accepts in the end what it would deny. Its pods are
// not isolated: they are in none of the sets that say so.
//
// # Many policies
//
// The kernel finds a set by walking a list, so that a table with many thousands
// of sets loads and changes slowly, though packets do not feel it. 10,000 policies for
// one pod, each with a port and peers of its own, took minutes to load when every one
// of them had sets. So a group with peers for many single ports (ir.Group.Wide) has
// those peers of it that are pods only in one set by family, together with protocol
// and port (fold.go). And where all pods of such a group get a policy more or less, its
// set takes a few elements instead of the group being made anew (grow.go); then its
// objects keep the names that they had, and the comment names the first policies that
// they were made for. What is left are the peers with blocks: these have sets of their
// own in wide groups too.
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
//     period of RCU tells (Kernel.Grace). No change waits for that: Tidy does it
//     later, or an Apply that needs the name or the address once more;
//   - a pod of one of the blocks enters the dispatch maps last and leaves them first,
//     because without them nothing else about it counts; packets that were judged for
//     their sender before it came, or that passed the maps before it went, are waited
//     for if they could get more than either state gives them;
//   - a pod of no block enters the dispatch map before the isolated set, and leaves
//     them the other way round; one that stays has its element of the map replaced;
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
// State, and so does Takeover before it puts a table in force. What Forbid has put
// there comes and goes and is not compared; a takeover carries it over. The chains that
// look for it are compared: all of them have to be there, or none.
//
// Kernel.Watch tells when somebody else has changed a table of ours. Every
// notification of the kernel names the socket that the change came from, which is
// how one's own changes are known. The answer to a call is Repair.
package nft
