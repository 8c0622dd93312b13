package nft

import (
	"fmt"
	"net"
	"net/netip"
	"reflect"
	"strings"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// decodeRule is the inverse of Rule.exprs. What is not of our making becomes
// Unknown.
func decodeRule(exprs []expr.Any) Rule {
	var r Rule
	for len(exprs) > 0 {
		if a, ok := decodeAction(exprs); ok {
			r.Action = a
			return r
		}
		m, n := decodeMatch(exprs)
		if n == 0 {
			r.Match = append(r.Match, unknown(exprs))
			return r
		}
		r.Match = append(r.Match, m)
		exprs = exprs[n:]
	}
	return r
}

func unknown(exprs []expr.Any) Unknown {
	var words []string
	for _, e := range exprs {
		if f, ok := e.(*foreignExpr); ok {
			words = append(words, fmt.Sprintf("%s{%x}", f.Name, f.Data))
		} else {
			words = append(words, fmt.Sprintf("%T%+v", e, reflect.Indirect(reflect.ValueOf(e))))
		}
	}
	return Unknown(strings.Join(words, " "))
}

// fields are all fields, those that are loaded by more expressions first.
var fields = []Field{FieldTuple4, FieldTuple6, FieldSaddrPort4, FieldDaddrPort4, FieldSaddrPort6, FieldDaddrPort6, FieldPair4, FieldPair6, FieldSaddr4, FieldDaddr4, FieldSaddr6, FieldDaddr6, FieldProtoPort, FieldPort}

// decodeLookup reads the load of a field and the lookup behind it, n expressions.
func decodeLookup(exprs []expr.Any) (f Field, l *expr.Lookup, n int) {
	for _, f := range fields {
		load, err := f.exprs()
		if err != nil || len(exprs) <= len(load) || !reflect.DeepEqual(exprs[:len(load)], load) {
			continue
		}
		if l, ok := exprs[len(load)].(*expr.Lookup); ok {
			return f, l, len(load) + 1
		}
	}
	return 0, nil, 0
}

// decodeMatch reads one condition from the start of exprs and returns how many
// expressions it took, 0 if there is none.
func decodeMatch(exprs []expr.Any) (Match, int) {
	if f, l, n := decodeLookup(exprs); n > 0 && *l == (expr.Lookup{SourceRegister: reg1, SetName: l.SetName}) {
		return In{f, l.SetName}, n
	}
	if c, ok := exprs[0].(*expr.Counter); ok {
		return Counter{c.Packets}, 1
	}
	candidates := []Match{CTEstablished, CTRelated, CTEstablished | CTRelated, CTNew, Loopback{}}
	candidates = append(candidates, blockCandidates(exprs)...)
	if l, ok := exprs[0].(*expr.Limit); ok {
		candidates = append(candidates, Limit{uint32(l.Rate), l.Burst})
	}
	if len(exprs) >= 5 {
		mask, ok1 := exprs[3].(*expr.Bitwise)
		not, ok2 := exprs[4].(*expr.Cmp)
		if ok1 && ok2 && len(mask.Mask) == 1 && len(not.Data) == 1 {
			candidates = append(candidates, TCPFlags{mask.Mask[0], not.Data[0]})
		}
	}
	if len(exprs) >= 6 {
		if only, ok := exprs[5].(*expr.Cmp); ok && len(only.Data) == 1 {
			candidates = append(candidates, ICMPv6Type{only.Data[0], only.Data[0]})
		}
	}
	if len(exprs) >= 7 {
		first, ok1 := exprs[5].(*expr.Cmp)
		last, ok2 := exprs[6].(*expr.Cmp)
		if ok1 && ok2 && len(first.Data) == 1 && len(last.Data) == 1 {
			candidates = append(candidates, ICMPv6Type{first.Data[0], last.Data[0]})
		}
	}
	if len(exprs) >= 2 {
		if c, ok := exprs[1].(*expr.Cmp); ok && len(c.Data) == 1 {
			candidates = append(candidates, Protocol(c.Data[0]), Family(c.Data[0]))
		}
	}
	for _, m := range candidates {
		e, err := matchExprs(m)
		if err == nil && len(exprs) >= len(e) && reflect.DeepEqual(exprs[:len(e)], e) {
			return m, len(e)
		}
	}
	return nil, 0
}

// blockCandidates returns what exprs may begin with if they are a Within: two that
// tell the family, one that loads, one that cuts unless the block ends with a byte,
// and one that compares.
func blockCandidates(exprs []expr.Any) (out []Match) {
	for at := 3; at <= 4 && at < len(exprs); at++ {
		first, ok := exprs[at].(*expr.Cmp)
		if !ok {
			continue
		}
		bits := 8 * len(first.Data)
		if cut, ok := exprs[3].(*expr.Bitwise); ok {
			bits, _ = net.IPMask(cut.Mask).Size()
		}
		for _, f := range families {
			whole := make([]byte, f.addr.size())
			copy(whole, first.Data)
			a, _ := netip.AddrFromSlice(whole)
			for _, field := range []Field{f.saddr, f.daddr} {
				out = append(out, Within{field, netip.PrefixFrom(a, bits)})
			}
		}
	}
	return out
}

// decodeAction reads an action if nothing but one is left.
func decodeAction(exprs []expr.Any) (Action, bool) {
	if f, l, n := decodeLookup(exprs); n == len(exprs) && n > 0 &&
		*l == (expr.Lookup{SourceRegister: reg1, SetName: l.SetName, IsDestRegSet: true, DestRegister: unix.NFT_REG_VERDICT}) {
		return Vmap{f, l.SetName}, true
	}
	for _, f := range fields {
		load, err := f.exprs()
		if err != nil || len(exprs) != len(load)+1 {
			continue
		}
		if d, ok := exprs[len(load)].(*expr.Dynset); ok {
			t := Tally{f, d.SetName}
			if e, err := actionExprs(t); err == nil && reflect.DeepEqual(exprs, e) {
				return t, true
			}
		}
	}
	if len(exprs) != 1 {
		return nil, false
	}
	if l, ok := exprs[0].(*expr.Log); ok {
		a := Log{string(l.Data), l.Group, l.Snaplen}
		e, err := actionExprs(a)
		return a, err == nil && reflect.DeepEqual(exprs, e)
	}
	if v, ok := exprs[0].(*expr.Verdict); ok {
		d := decodeVerdict(v)
		return d, d.Kind != VerdictNone
	}
	for _, r := range []RejectWith{RejectTCPReset, RejectProhibited} {
		if e, err := actionExprs(r); err == nil && reflect.DeepEqual(exprs, e) {
			return r, true
		}
	}
	return nil, false
}

// decodeVerdict returns VerdictNone for a verdict that we never write.
func decodeVerdict(v *expr.Verdict) Verdict {
	for kind, k := range verdictKinds {
		if k == v.Kind {
			return Verdict{kind, v.Chain}
		}
	}
	return Verdict{}
}
