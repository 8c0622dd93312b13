package nft

import (
	"fmt"

	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Registers. The kernel has 16 of four bytes, or 4 of sixteen under older names,
// and reports a register by the older name where there is one. The second field
// of a concatenation follows the first, padded to four bytes.
const (
	reg1    = unix.NFT_REG_1
	reg2    = unix.NFT_REG_2        // 16 bytes behind reg1
	reg4th1 = unix.NFT_REG32_00 + 1 // 4 bytes behind reg1
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
		// icmpv6 type 133-137
		return append(append(metaIs(expr.MetaKeyNFPROTO, unix.NFPROTO_IPV6), metaIs(expr.MetaKeyL4PROTO, byte(protoICMPv6))...),
			&expr.Payload{DestRegister: reg1, Base: expr.PayloadBaseTransportHeader, Offset: 0, Len: 1},
			&expr.Cmp{Op: expr.CmpOpGte, Register: reg1, Data: []byte{m.First}},
			&expr.Cmp{Op: expr.CmpOpLte, Register: reg1, Data: []byte{m.Last}},
		), nil
	case Protocol:
		// meta l4proto tcp
		return metaIs(expr.MetaKeyL4PROTO, byte(m)), nil
	case In:
		// ip saddr @set
		load, err := m.Field.exprs()
		return append(load, &expr.Lookup{SourceRegister: reg1, SetName: m.Set}), err
	}
	return nil, fmt.Errorf("%q cannot be written", fmt.Sprint(m))
}

func actionExprs(a Action) ([]expr.Any, error) {
	switch a := a.(type) {
	case Verdict:
		// accept; drop; jump u_…; goto deny
		v, err := a.expr()
		return []expr.Any{v}, err
	case Vmap:
		// ip saddr vmap @map: a lookup whose result goes to the verdict register
		load, err := a.Field.exprs()
		return append(load, &expr.Lookup{SourceRegister: reg1, DestRegister: unix.NFT_REG_VERDICT, IsDestRegSet: true, SetName: a.Map}), err
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
		return []expr.Any{&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg1}, port(reg4th1)}, nil
	case FieldPort: // th dport
		return []expr.Any{port(reg1)}, nil
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
