package nft

import (
	"cmp"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// Table is an nft table of family inet as plain data: what Build makes of an
// ir.State, and what Kernel.Read returns of what the kernel holds.
type Table struct {
	Name   string
	Sets   []*Set
	Maps   []*Set
	Chains []*Chain

	once  sync.Once
	index *index // of the simulator
}

// Set is a named set or verdict map.
type Set struct {
	Name string
	Type SetType
	// Map is set for a verdict map: every element has a Verdict.
	Map bool
	// Interval is set if elements are ranges.
	Interval bool
	// Expires is set if elements may have a Timeout. What such a set holds is
	// no part of what is built and compared.
	Expires bool
	// Counts is set, beside Expires, if the packets themselves add elements, each with
	// a Timeout and a count (Tally).
	Counts bool
	// Elements are sorted by key and do not overlap.
	Elements []Element
}

// SetType is the type of a set's keys.
type SetType uint8

// The key types that the table uses.
const (
	TypeAddr4     SetType = iota + 1 // ipv4_addr
	TypeAddr6                        // ipv6_addr
	TypePair4                        // ipv4_addr . ipv4_addr
	TypePair6                        // ipv6_addr . ipv6_addr
	TypeProtoPort                    // inet_proto . inet_service
	TypePort                         // inet_service
	TypeTuple4                       // ipv4_addr . inet_proto . inet_service . ipv4_addr . inet_service
	TypeTuple6                       // ipv6_addr . inet_proto . inet_service . ipv6_addr . inet_service
	TypeAddrPort4                    // ipv4_addr . inet_proto . inet_service
	TypeAddrPort6                    // ipv6_addr . inet_proto . inet_service
)

// Element is one element of a set.
type Element struct {
	// Key is the element as the kernel stores it: its fields in network byte
	// order, each padded with zeros to a multiple of four bytes but for a key
	// of one field.
	Key string
	// Last is the last key of the range, inclusive. In a set without
	// intervals it equals Key.
	Last string
	// Verdict is what a map's element leads to.
	Verdict Verdict
	// Timeout is how long the element stays from now on, in a set that
	// Expires; 0 is for ever. The kernel counts milliseconds.
	Timeout time.Duration
	// Packets is what the kernel has counted, in a set that Counts.
	Packets uint64
}

// Verdict is an nft verdict statement.
type Verdict struct {
	Kind VerdictKind
	// Chain is the target of VerdictJump and VerdictGoto.
	Chain string
}

// VerdictKind is the word of a Verdict.
type VerdictKind uint8

// The verdicts that the table uses. VerdictNone stands for no verdict, as in the
// elements of a set that is no map.
const (
	VerdictNone VerdictKind = iota
	VerdictAccept
	VerdictDrop
	VerdictReturn
	VerdictJump
	VerdictGoto
)

// Hook is where a base chain sees packets.
type Hook uint8

// The hooks that the table uses.
const (
	HookNone       Hook = iota // a chain that is only jumped to
	HookForward                // packets that the node forwards
	HookInput                  // packets to the node itself
	HookOutput                 // packets of the node's own processes
	HookPrerouting             // packets that arrive, before it is known where they go
)

// Chain is a list of rules.
type Chain struct {
	Name string
	// Hook and Priority make a base chain (type filter, policy accept);
	// Priority is 0 where Hook is HookNone.
	Hook     Hook
	Priority int32
	Rules    []Rule
}

// Rule is a list of conditions, all of which must hold, and what is done then: nothing
// if Action is nil.
type Rule struct {
	Match   []Match
	Action  Action
	Comment string
}

// Match is a condition of a rule: one of CTState, Family, ICMPv6Type, Protocol, TCPFlags,
// In, Within, Loopback, Counter, Limit and Unknown.
type Match interface{ match() }

// Action ends a rule: one of Verdict, Vmap, RejectWith, Log, Tally and Unknown. Behind a
// Log and a Tally the packet goes on to the next rule.
type Action interface{ action() }

// CTState matches packets whose conntrack state is one of the bits.
type CTState uint32

// The bits of CTState, as the kernel numbers them.
const (
	CTInvalid     CTState = 1
	CTEstablished CTState = 2
	CTRelated     CTState = 4
	CTNew         CTState = 8
)

// Family matches packets of an address family.
type Family uint8

// familyIPv6 is NFPROTO_IPV6.
const familyIPv6 Family = 10

// ICMPv6Type matches ICMPv6 packets whose type is in the range, ends inclusive.
type ICMPv6Type struct{ First, Last uint8 }

// Protocol matches the layer 4 protocol.
type Protocol uint8

// The protocols that are matched by name.
const (
	protoTCP    Protocol = 6
	protoUDP    Protocol = 17
	protoICMPv6 Protocol = 58
	protoSCTP   Protocol = 132
)

// In matches packets of whom the field is in the set. A field of one family
// matches only packets of that family.
type In struct {
	Field Field
	Set   string
}

// Within matches packets of whom the field, an address, is in the block.
type Within struct {
	Field Field
	Block netip.Prefix // masked
}

// TCPFlags matches TCP packets whose flags, as far as Mask goes, are not Not.
type TCPFlags struct{ Mask, Not uint8 }

// The bits of TCPFlags.
const (
	TCPFin uint8 = 1
	TCPSyn uint8 = 2
	TCPRst uint8 = 4
	TCPAck uint8 = 16
)

// Loopback matches packets that the node sent to itself.
type Loopback struct{}

// Counter matches every packet and counts those that get to it. Packets is what the
// kernel has counted and no part of what is built and compared.
type Counter struct{ Packets uint64 }

// Limit matches so many packets a second, and so many at once after a pause.
type Limit struct{ Rate, Burst uint32 }

// Log copies the first Snaplen bytes of the packet to an nflog group.
type Log struct {
	Prefix  string
	Group   uint16
	Snaplen uint32
}

// Tally counts the packet for what is in the field, in a set that Counts.
type Tally struct {
	Field Field
	Set   string
}

// Vmap looks the field up in a verdict map; the rule does not match if the map
// has no such key.
type Vmap struct {
	Field Field
	Map   string
}

// RejectWith answers the packet and drops it.
type RejectWith uint8

// What a RejectWith answers with.
const (
	RejectTCPReset   RejectWith = iota // TCP RST; only behind Protocol(6)
	RejectProhibited                   // ICMP or ICMPv6 "administratively prohibited"
)

// Unknown is something that was read from the kernel and that this package
// never writes, in words.
type Unknown string

// Field is what of a packet is looked up in a set.
type Field uint8

// The fields that the table looks up.
const (
	FieldSaddr4     Field = iota + 1 // ip saddr
	FieldDaddr4                      // ip daddr
	FieldSaddr6                      // ip6 saddr
	FieldDaddr6                      // ip6 daddr
	FieldPair4                       // ip saddr . ip daddr
	FieldPair6                       // ip6 saddr . ip6 daddr
	FieldProtoPort                   // meta l4proto . th dport
	FieldPort                        // th dport; only behind a Protocol
	FieldTuple4                      // ip saddr . meta l4proto . th sport . ip daddr . th dport
	FieldTuple6                      // ip6 saddr . meta l4proto . th sport . ip6 daddr . th dport
	FieldSaddrPort4                  // ip saddr . meta l4proto . th dport
	FieldDaddrPort4                  // ip daddr . meta l4proto . th dport
	FieldSaddrPort6                  // ip6 saddr . meta l4proto . th dport
	FieldDaddrPort6                  // ip6 daddr . meta l4proto . th dport
)

func (CTState) match()     {}
func (Family) match()      {}
func (ICMPv6Type) match()  {}
func (Protocol) match()    {}
func (In) match()          {}
func (Within) match()      {}
func (TCPFlags) match()    {}
func (Loopback) match()    {}
func (Counter) match()     {}
func (Limit) match()       {}
func (Unknown) match()     {}
func (Verdict) action()    {}
func (Vmap) action()       {}
func (RejectWith) action() {}
func (Log) action()        {}
func (Tally) action()      {}
func (Unknown) action()    {}

// sort brings sets, maps, chains and elements into the order of their names and
// keys. Rules keep theirs.
func (t *Table) sort() {
	byName := func(a, b *Set) int { return cmp.Compare(a.Name, b.Name) }
	slices.SortFunc(t.Sets, byName)
	slices.SortFunc(t.Maps, byName)
	slices.SortFunc(t.Chains, func(a, b *Chain) int { return cmp.Compare(a.Name, b.Name) })
	for _, s := range slices.Concat(t.Sets, t.Maps) {
		s.sort()
	}
}

func (s *Set) sort() {
	slices.SortFunc(s.Elements, func(a, b Element) int { return cmp.Compare(a.Key, b.Key) })
}

// base reports whether packets enter the table through c.
func (c *Chain) base() bool { return c.Hook != HookNone }
