package nft

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"github.com/google/nftables/expr"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// TestDecodeRule turns every rule into expressions and back, and then changes
// every field of every expression: none may pass for the rule.
func TestDecodeRule(t *testing.T) {
	table, err := Build(everything, "portcullis-a", shop())
	require.NoError(t, err)
	for _, c := range table.Chains {
		for _, want := range c.Rules {
			want.Comment = ""
			exprs, err := want.exprs()
			require.NoError(t, err)
			require.Equal(t, want.String(), decodeRule(exprs).String())
			for i := range exprs {
				v := reflect.ValueOf(exprs[i]).Elem()
				for f := range v.NumField() {
					if name := v.Type().Field(f).Name; v.Type() == reflect.TypeFor[expr.Counter]() || name == "SetID" || name == "Chain" && v.Field(f).IsZero() {
						continue // the kernel never reports it, or it is a count
					}
					exprs, err := want.exprs()
					require.NoError(t, err)
					spoil(reflect.ValueOf(exprs[i]).Elem().Field(f))
					require.NotEqual(t, want.String(), decodeRule(exprs).String(), "%s of expression %d of %q", v.Type().Field(f).Name, i, want)
				}
			}
			require.NotEqual(t, want.String(), decodeRule(append([]expr.Any{&foreignExpr{Name: "quota"}}, exprs...)).String())
			require.NotEqual(t, want.String(), decodeRule(append(exprs, &foreignExpr{Name: "quota"})).String())
			require.NotEqual(t, want.String(), decodeRule(exprs[1:]).String())
		}
	}
}

// TestDecodeConditions has blocks that end at a byte and between two, and types.
func TestDecodeConditions(t *testing.T) {
	for _, want := range []string{
		"ip saddr 10.0.0.0/8 drop", "ip daddr 10.64.0.0/10 drop", "ip saddr 192.0.2.7/32 drop", "ip saddr 128.0.0.0/1 drop",
		"ip6 saddr fe80::/10 drop", "ip6 daddr fd00:1::/32 drop", "ip6 daddr fd00::7/128 drop",
		"icmpv6 type 143 drop", "icmpv6 type 130-132 drop",
	} {
		words := strings.Fields(want)
		r := Rule{Action: Verdict{Kind: VerdictDrop}}
		if b, err := netip.ParsePrefix(words[2]); err == nil {
			f := familyOf(b.Addr())
			r.Match = []Match{Within{map[string]Field{"saddr": f.saddr, "daddr": f.daddr}[words[1]], b}}
		} else {
			var first, last uint8
			if n, _ := fmt.Sscanf(words[2], "%d-%d", &first, &last); n == 1 {
				last = first
			}
			r.Match = []Match{ICMPv6Type{first, last}}
		}
		require.Equal(t, want, r.String())
		exprs, err := r.exprs()
		require.NoError(t, err)
		require.Equal(t, r, decodeRule(exprs))
	}
	for _, w := range []Within{{FieldSaddr4, block("fe80::/10")}, {FieldSaddr6, block("10.0.0.0/8")}, {FieldSaddr4, block("10.0.0.1/8")}, {FieldSaddr4, block("0.0.0.0/0")}, {FieldPort, block("10.0.0.0/8")}} {
		_, err := w.exprs()
		require.Error(t, err, "%+v", w)
	}
}

func spoil(v reflect.Value) {
	switch v.Kind() {
	case reflect.Bool:
		v.SetBool(!v.Bool())
	case reflect.String:
		v.SetString(v.String() + "x")
	case reflect.Slice:
		if v.Type().Elem().Kind() != reflect.Uint8 {
			v.SetZero()
			return
		}
		v.SetBytes(append([]byte{1}, v.Bytes()...))
	case reflect.Int64:
		v.SetInt(v.Int() + 1)
	default:
		v.SetUint(v.Uint() + 1)
	}
}

// message makes a netlink message.
func message(kind, flags uint16, sequence uint32, body ...byte) []byte {
	b := make([]byte, unix.SizeofNlMsghdr, unix.SizeofNlMsghdr+len(body))
	binary.NativeEndian.PutUint32(b, uint32(cap(b)))
	binary.NativeEndian.PutUint16(b[4:], kind)
	binary.NativeEndian.PutUint16(b[6:], flags)
	binary.NativeEndian.PutUint32(b[8:], sequence)
	return append(b, body...)
}

func TestParseDump(t *testing.T) {
	const kind = 77
	object := message(kind, 0, 5, 1, 0, 0, 0, 'x', 0, 0, 0)
	errno := int32(-int32(unix.EPERM))
	refused := binary.NativeEndian.AppendUint32(nil, uint32(errno))
	for name, tc := range map[string]struct {
		piece       []byte
		objects     int
		done, whole bool
		err         bool
	}{
		"objects":              {append(object, object...), 2, false, true, false},
		"the end":              {append(object, message(unix.NLMSG_DONE, 0, 5, 0, 0, 0, 0)...), 1, true, true, false},
		"interrupted":          {message(kind, unix.NLM_F_DUMP_INTR, 5, 1, 0, 0, 0), 1, false, false, false},
		"interrupted, the end": {message(unix.NLMSG_DONE, unix.NLM_F_DUMP_INTR, 5, 0, 0, 0, 0), 0, true, false, false},
		"of another dump":      {message(unix.NLMSG_DONE, unix.NLM_F_DUMP_INTR, 4, 0, 0, 0, 0), 0, false, true, false},
		"refused":              {message(unix.NLMSG_ERROR, 0, 5, refused...), 0, true, true, true},
		"failed at the end":    {message(unix.NLMSG_DONE, 0, 5, refused...), 0, true, true, true},
		"too short":            {message(kind, 0, 5, 1), 0, true, false, true},
		"cut off":              {object[:20], 0, true, false, true},
		"nothing":              {nil, 0, false, true, false},
	} {
		t.Run(name, func(t *testing.T) {
			n := 0
			done, whole, err := parseDump(tc.piece, 5, func([]byte) error { n++; return nil })
			require.Equal(t, tc.objects, n)
			require.Equal(t, tc.done, done)
			require.Equal(t, tc.whole, whole)
			require.Equal(t, tc.err, err != nil)
		})
	}
}

func TestJoinRanges(t *testing.T) {
	start, end := func(k string) rawElement { return rawElement{key: k} }, func(k string) rawElement { return rawElement{key: k, end: true} }
	require.Equal(t, []Element{{Key: "\x01", Last: "\x02"}, {Key: "\x03", Last: "\x08"}, {Key: "\xf0", Last: "\xff"}},
		joinRanges([]rawElement{start("\xf0"), end("\x09"), start("\x03"), end("\x03"), start("\x01"), end("\x00"), start("\x01")}, true))
	require.Equal(t, []Element{single("a"), single("b")}, joinRanges([]rawElement{start("b"), start("a"), start("b")}, false))
}

// FuzzAttributes feeds what the kernel would never send.
func FuzzAttributes(f *testing.F) {
	f.Add([]byte{8, 0, 1, 0, 'a', 'b', 'c', 0, 5, 0, 2, 0, 'x'})
	f.Add([]byte{4, 0, 1, 0, 3, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		decodeElement(b)
		decodeSet(b)
		ruleComment(b)
		_, _, _ = parseDump(b, 0, func([]byte) error { return nil })
		if exprs, err := decodeExprs(b); err == nil {
			decodeRule(exprs)
		}
	})
}
