package ir

import (
	"cmp"
	"net/netip"
	"slices"
)

// Direction says which end of a flow a pod is, seen from the policy that
// isolates it.
type Direction uint8

const (
	// Ingress judges packets that go to the pod; the peer is their source.
	Ingress Direction = iota
	// Egress judges packets that come from the pod; the peer is their destination.
	Egress
)

// String returns the direction in lower case, as it stands in names and messages.
func (d Direction) String() string {
	if d == Egress {
		return "egress"
	}
	return "ingress"
}

// Protocol is an IANA protocol number. The zero Protocol stands for every
// protocol and every port, ICMP included.
type Protocol uint8

// The layer 4 protocols that a NetworkPolicy port can name.
const (
	AnyProtocol Protocol = 0
	TCP         Protocol = 6
	UDP         Protocol = 17
	SCTP        Protocol = 132
)

// String returns the protocol as nft and the flow notation write it.
func (p Protocol) String() string {
	switch p {
	case AnyProtocol:
		return "any"
	case TCP:
		return "tcp"
	case UDP:
		return "udp"
	case SCTP:
		return "sctp"
	}
	return "unknown"
}

// Tier is a level of precedence. Tiers are judged in their numeric order.
// Today only TierNetworkPolicy is produced; ordered tiers (ClusterNetworkPolicy)
// become further Steps in front of it and behind it.
type Tier uint8

// TierNetworkPolicy is the tier of networking.k8s.io/v1 NetworkPolicy.
const TierNetworkPolicy Tier = 100

// Action is what becomes of a packet.
type Action uint8

const (
	// Deny ends the direction: the packet is dropped (or rejected).
	Deny Action = iota
	// Accept ends the direction: the packet may pass. The other end's
	// direction is still judged.
	Accept
	// Pass ends the step: the next step decides, and Accept is behind the last.
	Pass
)

// String returns the action in lower case.
func (a Action) String() string {
	switch a {
	case Accept:
		return "accept"
	case Pass:
		return "pass"
	}
	return "deny"
}

// PeerSetID names a PeerSet by its content: two sets have one ID if and only
// if they are made of the same selectors and blocks.
type PeerSetID string

// GroupID names a Group by its content.
type GroupID string

// PeerSet is a set of addresses at the far end of a flow. Blocks follow from
// the policies alone and never change under one ID; Addrs follow from the pods
// that the set's selectors match at the moment.
type PeerSet struct {
	ID PeerSetID
	// About says in words which selectors and blocks made the set; for
	// comments only, bounded, of printable ASCII.
	About string
	// Selects is set if pods can join and leave the set.
	Selects bool
	// Blocks are masked, disjoint, not adjacent-mergeable, sorted; both families.
	Blocks []netip.Prefix
	// Addrs are sorted and distinct. They may lie inside Blocks.
	Addrs []netip.Addr
}

// Peers says which far ends a rule matches.
type Peers struct {
	// Any matches every address; Set is empty then.
	Any bool
	Set PeerSetID
}

// Rule matches packets by protocol, destination port and peer.
type Rule struct {
	Action Action
	// Protocol AnyProtocol matches every packet, whatever its protocol; First
	// and Last are 0 then.
	Protocol Protocol
	// First and Last bound the destination port, both inclusive.
	First, Last uint16
	Peers       Peers
}

// Step is a list of rules of one tier.
//
// In a step of TierNetworkPolicy every Action is Accept and order carries no
// meaning: at most one rule has AnyProtocol, and it stands last; the others are
// sorted by protocol and port, their port intervals are disjoint, and the peers
// of each already include those of the AnyProtocol rule, so that the first rule
// whose protocol and port match decides alone.
//
// In a step of another tier the first matching rule decides.
type Step struct {
	Tier  Tier
	Rules []Rule
	// Miss is what happens to a packet that no rule matched: Deny for
	// TierNetworkPolicy, Pass for an ordered tier.
	Miss Action
}

// Group is what the pods that the same policies select have in common in one
// direction: the steps that judge their packets, in order. A Group never changes
// under one ID, and an Audit group has another ID than one that is enforced.
type Group struct {
	ID        GroupID
	Direction Direction
	// Wide is set if the rules for single ports name so many peer sets that whoever
	// enforces them should not keep each of these by itself. It follows from the
	// rules.
	Wide bool
	// Audit is set if the group's policies are tried only: what no step accepts passes,
	// and is logged.
	Audit bool
	// Policies are the "namespace/name" of the policies that made the group,
	// sorted; for names, comments and explanations only.
	Policies []string
	Steps    []Step
}

// Endpoint is an address of a pod on this node.
type Endpoint struct {
	Addr netip.Addr
	// Pod is "namespace/name".
	Pod string
	// Ingress and Egress are the groups that judge the pod's packets, empty
	// where no policy is about the pod in that direction.
	Ingress, Egress GroupID
}

// Group returns the endpoint's group in direction d, or "".
func (e Endpoint) Group(d Direction) GroupID {
	if d == Egress {
		return e.Egress
	}
	return e.Ingress
}

// State is everything that one node has to enforce. Endpoints are sorted by
// address, Groups and PeerSets by ID; every ID that is named exists, and nothing
// is there that no endpoint leads to.
type State struct {
	Endpoints []Endpoint
	Groups    []Group
	PeerSets  []PeerSet
}

// PeerSetChange is a change of the addresses of one PeerSet that stays.
type PeerSetChange struct {
	ID PeerSetID
	// Join and Leave are sorted and disjoint. Every address of Join was not in
	// the set, every address of Leave was.
	Join, Leave []netip.Addr
}

// EndpointChange is a change of one address of this node. Old is nil where the
// address is new, New is nil where it is gone.
type EndpointChange struct {
	Old, New *Endpoint
}

// Change leads from one State to the next. All lists are sorted like those of
// State. A set or group that is both removed and added again between two flushes
// is in neither list (its content cannot have changed but for a set's addresses,
// which stand in PeerSets).
type Change struct {
	AddPeerSets []PeerSet
	// Members are sets that were there before, with the addresses that they had
	// then: those that a Wide group of AddGroups names and no Wide group named
	// before. They say nothing new.
	Members        []PeerSet
	PeerSets       []PeerSetChange
	RemovePeerSets []PeerSetID
	AddGroups      []Group
	RemoveGroups   []GroupID
	Endpoints      []EndpointChange
}

// Empty reports whether c changes nothing.
func (c Change) Empty() bool {
	return len(c.AddPeerSets) == 0 && len(c.PeerSets) == 0 && len(c.RemovePeerSets) == 0 &&
		len(c.AddGroups) == 0 && len(c.RemoveGroups) == 0 && len(c.Endpoints) == 0
}

// Initial returns the change that leads from the empty State to s.
func (s State) Initial() Change {
	c := Change{AddPeerSets: s.PeerSets, AddGroups: s.Groups}
	for i := range s.Endpoints {
		c.Endpoints = append(c.Endpoints, EndpointChange{New: &s.Endpoints[i]})
	}
	return c
}

// CompareEndpoints orders endpoints by address.
func CompareEndpoints(a, b Endpoint) int { return a.Addr.Compare(b.Addr) }

// CompareGroups orders groups by ID.
func CompareGroups(a, b Group) int { return cmp.Compare(a.ID, b.ID) }

// ComparePeerSets orders peer sets by ID.
func ComparePeerSets(a, b PeerSet) int { return cmp.Compare(a.ID, b.ID) }

// Endpoint returns the endpoint that has the address a.
func (s State) Endpoint(a netip.Addr) (Endpoint, bool) {
	i, ok := slices.BinarySearchFunc(s.Endpoints, a, func(e Endpoint, a netip.Addr) int { return e.Addr.Compare(a) })
	if !ok {
		return Endpoint{}, false
	}
	return s.Endpoints[i], true
}

// Group returns the group with the given ID.
func (s State) Group(id GroupID) (Group, bool) {
	i, ok := slices.BinarySearchFunc(s.Groups, id, func(g Group, id GroupID) int { return cmp.Compare(g.ID, id) })
	if !ok {
		return Group{}, false
	}
	return s.Groups[i], true
}

// PeerSet returns the peer set with the given ID.
func (s State) PeerSet(id PeerSetID) (PeerSet, bool) {
	i, ok := slices.BinarySearchFunc(s.PeerSets, id, func(p PeerSet, id PeerSetID) int { return cmp.Compare(p.ID, id) })
	if !ok {
		return PeerSet{}, false
	}
	return s.PeerSets[i], true
}
