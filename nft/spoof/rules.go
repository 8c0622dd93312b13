package spoof

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// reg1 is the register that all rules use.
const reg1 = unix.NFT_REG_1

// ICMPv6 types. The rest of neighbour discovery (RFC 4861) is not told apart.
const (
	mldReport             = 131 // RFC 2710
	routerSolicitation    = 133
	routerAdvertisement   = 134
	neighborSolicitation  = 135
	neighborAdvertisement = 136
	redirect              = 137
	mldv2Report           = 143 // RFC 3810
)

var linkLocal = netip.MustParsePrefix("fe80::/10")

// rule is one rule. nft cannot name the fields of a frame whose link layer is not
// compared as well, which would cost, so that a comment says what is meant.
type rule struct {
	comment string
	exprs   []expr.Any
}

// rules returns the rules of a device's chain; those that the packets of a busy pod
// match come first.
func (b Binding) rules() []rule {
	var out []rule
	add := func(comment string, parts ...[]expr.Any) {
		out = append(out, rule{comment, slices.Concat(parts...)})
	}
	accept, drop := verdict(expr.VerdictAccept), verdict(expr.VerdictDrop)
	ip, ip6, arp := etherType(unix.ETH_P_IP), etherType(unix.ETH_P_IPV6), etherType(unix.ETH_P_ARP)
	icmp6, from0 := l4proto(expr.CmpOpEq), saddr6(netip.IPv6Unspecified())
	// ether type ip ip saddr 10.244.1.7 accept
	for _, a := range b.of(true) {
		add("from "+a.String(), ip, network(12, a.AsSlice()), accept)
	}
	// ether type ip6 meta l4proto != icmpv6 ip6 saddr fd00::7 accept
	for _, s := range b.sources6() {
		add("from "+s.comment, ip6, l4proto(expr.CmpOpNeq), s.exprs, accept)
	}
	// ether type ip6 icmpv6 type { nd-router-advert, nd-redirect } drop
	add("a pod is no router", ip6, icmp6, icmpType(routerAdvertisement, routerAdvertisement), drop)
	add("a pod is no router", ip6, icmp6, icmpType(redirect, redirect), drop)
	// ether type ip6 icmpv6 type nd-neighbor-advert @th,64,128 != fd00::7 … drop
	add("advertisement of another", ip6, icmp6, icmpType(neighborAdvertisement, neighborAdvertisement), b.foreignTarget(), drop)
	// ether type ip6 ip6 saddr :: icmpv6 type nd-neighbor-solicit @th,64,128 != fd00::7 … drop
	add("claim of another", ip6, icmp6, from0, icmpType(neighborSolicitation, neighborSolicitation), b.foreignTarget(), drop)
	// ether type ip6 ip6 saddr :: icmpv6 type { 131-133, 135, 143 } accept
	for _, types := range [][2]byte{{mldReport, routerSolicitation}, {neighborSolicitation, neighborSolicitation}, {mldv2Report, mldv2Report}} {
		add("from ::, before there is an address", ip6, icmp6, from0, icmpType(types[0], types[1]), accept)
	}
	// ether type ip6 meta l4proto icmpv6 ip6 saddr fd00::7 accept
	for _, s := range b.sources6() {
		add("from "+s.comment, ip6, icmp6, s.exprs, accept)
	}
	// ether type arp arp htype 1 arp ptype ip arp hlen 6 arp plen 4 arp saddr ip 10.244.1.7 accept
	for _, a := range append(b.of(true), netip.IPv4Unspecified()) {
		add("ARP from "+a.String(), arp, network(0, []byte{0, 1, 8, 0, 6, 4}), network(14, a.AsSlice()), accept)
	}
	// drop
	add("everything else", drop)
	return out
}

// addrs finds the addresses in the rules that let packets from them pass.
func (c *chain) addrs() (out []netip.Addr) {
	for _, rule := range c.rules {
		for i := range len(rule) - 1 {
			value, ok := rule[i+1].(*expr.Cmp)
			if !ok || !reflect.DeepEqual(rule[len(rule)-1:], verdict(expr.VerdictAccept)) {
				continue
			}
			a, _ := netip.AddrFromSlice(value.Data)
			if a.IsValid() && !a.IsUnspecified() && (reflect.DeepEqual(rule[i:i+2], network(12, value.Data)) || reflect.DeepEqual(rule[i:i+2], network(8, value.Data))) {
				out = append(out, a)
			}
		}
	}
	return out
}

// sources6 are the conditions, not yet whole rules, of which one holds for a source
// of the pod's own.
func (b Binding) sources6() []rule {
	var out []rule
	for _, a := range b.of(false) {
		out = append(out, rule{a.String(), saddr6(a)})
	}
	// ip6 saddr fe80::/10
	local := append([]expr.Any{load(expr.PayloadBaseNetworkHeader, 8, 16)}, within(linkLocal, expr.CmpOpEq)...)
	return append(out, rule{linkLocal.String(), local})
}

// foreignTarget holds if the target of a neighbour solicitation or advertisement
// is none of the pod's addresses and not link-local.
func (b Binding) foreignTarget() []expr.Any {
	out := []expr.Any{load(expr.PayloadBaseTransportHeader, 8, 16)}
	for _, a := range b.of(false) {
		out = append(out, compare(expr.CmpOpNeq, a.AsSlice()))
	}
	return append(out, within(linkLocal, expr.CmpOpNeq)...)
}

// etherType looks at the frame as it was on the wire. The kernel takes a VLAN tag
// off before the ingress hook, and meta protocol tells what was behind it, but a
// load from the link-layer header puts it back.
func etherType(t uint16) []expr.Any {
	return []expr.Any{load(expr.PayloadBaseLLHeader, 12, 2), compare(expr.CmpOpEq, binary.BigEndian.AppendUint16(nil, t))}
}

// network compares a field of the network header (or of ARP).
func network(offset uint32, value []byte) []expr.Any {
	return []expr.Any{load(expr.PayloadBaseNetworkHeader, offset, len(value)), compare(expr.CmpOpEq, value)}
}

func saddr6(a netip.Addr) []expr.Any { return network(8, a.AsSlice()) }

// l4proto compares the protocol behind the extension headers with ICMPv6. It
// matches neither way if there is none to be found.
func l4proto(op expr.CmpOp) []expr.Any {
	return []expr.Any{&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg1}, compare(op, []byte{unix.IPPROTO_ICMPV6})}
}

func icmpType(first, last byte) []expr.Any {
	out := []expr.Any{load(expr.PayloadBaseTransportHeader, 0, 1)}
	if first == last {
		return append(out, compare(expr.CmpOpEq, []byte{first}))
	}
	return append(out, compare(expr.CmpOpGte, []byte{first}), compare(expr.CmpOpLte, []byte{last}))
}

// within compares an IPv6 address that is in the register with a prefix, and
// leaves the prefix there.
func within(p netip.Prefix, op expr.CmpOp) []expr.Any {
	mask := make([]byte, 16)
	for i := range p.Bits() {
		mask[i/8] |= 0x80 >> (i % 8)
	}
	return []expr.Any{
		&expr.Bitwise{SourceRegister: reg1, DestRegister: reg1, Len: 16, Mask: mask, Xor: make([]byte, 16)},
		compare(op, p.Masked().Addr().AsSlice()),
	}
}

func load(base expr.PayloadBase, offset uint32, length int) expr.Any {
	return &expr.Payload{DestRegister: reg1, Base: base, Offset: offset, Len: uint32(length)}
}

func compare(op expr.CmpOp, value []byte) expr.Any {
	return &expr.Cmp{Op: op, Register: reg1, Data: value}
}

func verdict(kind expr.VerdictKind) []expr.Any { return []expr.Any{&expr.Verdict{Kind: kind}} }

// chainName returns the name of a device's chain. The prefix keeps it from being a
// word of nft's grammar. What nft cannot read in a name is written in hexadecimal,
// behind a slash, which no device has in its name.
func chainName(device string) string {
	plain := !strings.ContainsFunc(device, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '_' && r != '-' && r != '.'
	})
	if plain {
		return "dev_" + device
	}
	return fmt.Sprintf("dev/%x", device)
}
