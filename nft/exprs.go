package nft

import (
	"fmt"
	"net"
	"slices"

	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Registers. The kernel has 16 of four bytes, or 4 of sixteen under older names,
// and reports a register by the older name where there is one. The second field
// of a concatenation follows the first, padded to four bytes.
const (
	reg1     = unix.NFT_REG_1
	reg2     = unix.NFT_REG_2         // 16 bytes behind reg1
	reg4th1  = unix.NFT_REG32_00 + 1  // 4 bytes behind reg1
	reg4th2  = unix.NFT_REG32_00 + 2  // 8 bytes
	reg4th3  = unix.NFT_REG32_00 + 3  // 12 bytes
	reg4th5  = unix.NFT_REG32_00 + 5  // 20 bytes
	reg4th6  = unix.NFT_REG32_00 + 6  // 24 bytes
	reg4th10 = unix.NFT_REG32_00 + 10 // 40 bytes
)

// exprs returns a rule as the kernel's expressions.
func (r Rule) exprs() ([]expr.Any, error) {
	var out []expr.Any
	for _, m := range r.Match {
		e, err := matchExprs(m)
		if err != nil {
			return nil, err
		}
		out = append(out, e...)
	}
	if r.Action == nil {
		return out, nil
	}
	e, err := actionExprs(r.Action)
	return append(out, e...), err
}

func matchExprs(m Match) ([]expr.Any, error) {
	switch m := m.(type) {
	case CTState:
		// ct state established,related
		return []expr.Any{
			&expr.Ct{Register: reg1, Key: expr.CtKeySTATE},
			&expr.Bitwise{SourceRegister: reg1, DestRegister: reg1, Len: 4, Mask: binaryutil.NativeEndian.PutUint32(uint32(m)), Xor: make([]byte, 4)},
			&expr.Cmp{Op: expr.CmpOpNeq, Register: reg1, Data: make([]byte, 4)},
		}, nil
	case ICMPv6Type:
		return m.exprs(), nil
	case Family:
		// meta nfproto ipv6
		return metaIs(expr.MetaKeyNFPROTO, byte(m)), nil
	case Protocol:
		// meta l4proto tcp
		return metaIs(expr.MetaKeyL4PROTO, byte(m)), nil
	case TCPFlags:
		// tcp flags & (fin | syn | rst | ack) != syn
		return append(metaIs(expr.MetaKeyL4PROTO, byte(protoTCP)),
			&expr.Payload{DestRegister: reg1, Base: expr.PayloadBaseTransportHeader, Offset: 13, Len: 1},
			&expr.Bitwise{SourceRegister: reg1, DestRegister: reg1, Len: 1, Mask: []byte{m.Mask}, Xor: []byte{0}},
			&expr.Cmp{Op: expr.CmpOpNeq, Register: reg1, Data: []byte{m.Not}},
		), nil
	case Loopback:
		// iif lo, which is number 1 in every network namespace
		return []expr.Any{
			&expr.Meta{Key: expr.MetaKeyIIF, Register: reg1},
			&expr.Cmp{Op: expr.CmpOpEq, Register: reg1, Data: binaryutil.NativeEndian.PutUint32(1)},
		}, nil
	case Counter:
		// counter
		return []expr.Any{&expr.Counter{}}, nil
	case Limit:
		// limit rate 100/second burst 100 packets
		return []expr.Any{&expr.Limit{Type: expr.LimitTypePkts, Rate: uint64(m.Rate), Unit: expr.LimitTimeSecond, Burst: m.Burst}}, nil
	case Within:
		return m.exprs()
	case In:
		// ip saddr @set
		load, err := m.Field.exprs()
		return append(load, &expr.Lookup{SourceRegister: reg1, SetName: m.Set}), err
	}
	return nil, fmt.Errorf("%q cannot be written", fmt.Sprint(m))
}

// exprs returns: icmpv6 type 133-137, or, for one type: icmpv6 type 143.
func (t ICMPv6Type) exprs() []expr.Any {
	out := append(append(metaIs(expr.MetaKeyNFPROTO, unix.NFPROTO_IPV6), metaIs(expr.MetaKeyL4PROTO, byte(protoICMPv6))...),
		&expr.Payload{DestRegister: reg1, Base: expr.PayloadBaseTransportHeader, Offset: 0, Len: 1})
	if t.First == t.Last {
		return append(out, &expr.Cmp{Op: expr.CmpOpEq, Register: reg1, Data: []byte{t.First}})
	}
	return append(out,
		&expr.Cmp{Op: expr.CmpOpGte, Register: reg1, Data: []byte{t.First}},
		&expr.Cmp{Op: expr.CmpOpLte, Register: reg1, Data: []byte{t.Last}})
}

// exprs returns: ip saddr 10.0.0.0/8. A block that ends between two bytes is
// compared as such, any other one as so many bytes: the way of nft, which it lists
// again as a block.
func (w Within) exprs() ([]expr.Any, error) {
	load, err := w.Field.exprs()
	if err != nil {
		return nil, err
	}
	field, ok := load[len(load)-1].(*expr.Payload)
	if !ok || int(field.Len) != w.Block.Addr().BitLen()/8 || w.Block.Bits() <= 0 || w.Block != w.Block.Masked() {
		return nil, fmt.Errorf("%s in %s cannot be written", w.Field, w.Block)
	}
	part, addr, bits := *field, w.Block.Addr().AsSlice(), w.Block.Bits()
	out := append(slices.Clone(load[:len(load)-1]), &part)
	if bits%8 == 0 {
		part.Len = uint32(bits / 8)
		addr = addr[:part.Len]
	} else {
		out = append(out, &expr.Bitwise{SourceRegister: reg1, DestRegister: reg1, Len: part.Len, Mask: net.CIDRMask(bits, 8*len(addr)), Xor: make([]byte, len(addr))})
	}
	return append(out, &expr.Cmp{Op: expr.CmpOpEq, Register: reg1, Data: addr}), nil
}

func actionExprs(a Action) ([]expr.Any, error) {
	switch a := a.(type) {
	case Verdict:
		// accept; drop; jump u_…; goto deny-egress
		v, err := a.expr()
		return []expr.Any{v}, err
	case Vmap:
		// ip saddr vmap @map: a lookup whose result goes to the verdict register
		load, err := a.Field.exprs()
		return append(load, &expr.Lookup{SourceRegister: reg1, DestRegister: unix.NFT_REG_VERDICT, IsDestRegSet: true, SetName: a.Map}), err
	case Log:
		// log prefix "portcullis …" group 1 snaplen 128
		return []expr.Any{&expr.Log{
			Key:  1<<unix.NFTA_LOG_GROUP | 1<<unix.NFTA_LOG_PREFIX | 1<<unix.NFTA_LOG_SNAPLEN,
			Data: []byte(a.Prefix), Group: a.Group, Snaplen: a.Snaplen,
		}}, nil
	case Tally:
		// update @set { ip saddr timeout 1d counter }
		load, err := a.Field.exprs()
		return append(load, &expr.Dynset{
			SrcRegKey: reg1, SetName: a.Set, Operation: unix.NFT_DYNSET_OP_UPDATE, Timeout: tallyTimeout, Exprs: []expr.Any{&expr.Counter{}},
		}), err
	case RejectWith:
		if a == RejectTCPReset {
			// reject with tcp reset
			return []expr.Any{&expr.Reject{Type: unix.NFT_REJECT_TCP_RST}}, nil
		}
		// reject with icmpx admin-prohibited
		return []expr.Any{&expr.Reject{Type: unix.NFT_REJECT_ICMPX_UNREACH, Code: unix.NFT_REJECT_ICMPX_ADMIN_PROHIBITED}}, nil
	}
	return nil, fmt.Errorf("%q cannot be written", fmt.Sprint(a))
}

// exprs loads the field into the registers from reg1 on, behind what it takes to
// be sure that the packet has it.
func (f Field) exprs() ([]expr.Any, error) {
	network := func(reg, offset, length uint32) expr.Any {
		return &expr.Payload{DestRegister: reg, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: length}
	}
	port := func(reg uint32) expr.Any {
		return &expr.Payload{DestRegister: reg, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2}
	}
	sourcePort := func(reg uint32) expr.Any {
		return &expr.Payload{DestRegister: reg, Base: expr.PayloadBaseTransportHeader, Offset: 0, Len: 2}
	}
	protocol := func(reg uint32) expr.Any { return &expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg} }
	v4, v6 := metaIs(expr.MetaKeyNFPROTO, unix.NFPROTO_IPV4), metaIs(expr.MetaKeyNFPROTO, unix.NFPROTO_IPV6)
	switch f {
	case FieldSaddr4: // ip saddr
		return append(v4, network(reg1, 12, 4)), nil
	case FieldDaddr4: // ip daddr
		return append(v4, network(reg1, 16, 4)), nil
	case FieldSaddr6: // ip6 saddr
		return append(v6, network(reg1, 8, 16)), nil
	case FieldDaddr6: // ip6 daddr
		return append(v6, network(reg1, 24, 16)), nil
	case FieldPair4: // ip saddr . ip daddr
		return append(v4, network(reg1, 12, 4), network(reg4th1, 16, 4)), nil
	case FieldPair6: // ip6 saddr . ip6 daddr
		return append(v6, network(reg1, 8, 16), network(reg2, 24, 16)), nil
	case FieldProtoPort: // meta l4proto . th dport
		return []expr.Any{protocol(reg1), port(reg4th1)}, nil
	case FieldPort: // th dport
		return []expr.Any{port(reg1)}, nil
	case FieldTuple4: // ip saddr . meta l4proto . th sport . ip daddr . th dport
		return append(v4, network(reg1, 12, 4), protocol(reg4th1), sourcePort(reg4th2), network(reg4th3, 16, 4), port(reg2)), nil
	case FieldTuple6: // ip6 saddr . meta l4proto . th sport . ip6 daddr . th dport
		return append(v6, network(reg1, 8, 16), protocol(reg2), sourcePort(reg4th5), network(reg4th6, 24, 16), port(reg4th10)), nil
	case FieldSaddrPort4: // ip saddr . meta l4proto . th dport
		return append(v4, network(reg1, 12, 4), protocol(reg4th1), port(reg4th2)), nil
	case FieldDaddrPort4: // ip daddr . meta l4proto . th dport
		return append(v4, network(reg1, 16, 4), protocol(reg4th1), port(reg4th2)), nil
	case FieldSaddrPort6: // ip6 saddr . meta l4proto . th dport
		return append(v6, network(reg1, 8, 16), protocol(reg2), port(reg4th5)), nil
	case FieldDaddrPort6: // ip6 daddr . meta l4proto . th dport
		return append(v6, network(reg1, 24, 16), protocol(reg2), port(reg4th5)), nil
	}
	return nil, fmt.Errorf("field %d cannot be loaded", f)
}

func metaIs(key expr.MetaKey, value byte) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: key, Register: reg1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg1, Data: []byte{value}},
	}
}

var verdictKinds = map[VerdictKind]expr.VerdictKind{
	VerdictAccept: expr.VerdictAccept,
	VerdictDrop:   expr.VerdictDrop,
	VerdictReturn: expr.VerdictReturn,
	VerdictJump:   expr.VerdictJump,
	VerdictGoto:   expr.VerdictGoto,
}

func (v Verdict) expr() (*expr.Verdict, error) {
	kind, ok := verdictKinds[v.Kind]
	if !ok {
		return nil, fmt.Errorf("verdict %q cannot be written", v)
	}
	return &expr.Verdict{Kind: kind, Chain: v.Chain}, nil
}
