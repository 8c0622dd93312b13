package nflog

import (
	"encoding/binary"
	"net/netip"
	"testing"
	"time"

	"github.com/mdlayher/netlink"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

var (
	a4, b4 = netip.MustParseAddr("10.244.1.2"), netip.MustParseAddr("192.0.2.7")
	a6, b6 = netip.MustParseAddr("fd00:10:244:1::2"), netip.MustParseAddr("2001:db8::7")
)

// ipv4 makes a header with so many words of options.
func ipv4(protocol uint8, words int, fragment uint16, rest ...byte) []byte {
	b := make([]byte, 20+4*words)
	b[0], b[9] = byte(0x45+words), protocol
	binary.BigEndian.PutUint16(b[6:], fragment)
	copy(b[12:], a4.AsSlice())
	copy(b[16:], b4.AsSlice())
	return append(b, rest...)
}

func ipv6(next uint8, rest ...byte) []byte {
	b := make([]byte, 40)
	b[0], b[6] = 0x60, next
	copy(b[8:], a6.AsSlice())
	copy(b[24:], b6.AsSlice())
	return append(b, rest...)
}

// ports are the first bytes of a header with the ports 4000 and 80.
var ports = []byte{0x0f, 0xa0, 0, 80, 1, 2, 3, 4}

func join(parts ...[]byte) (out []byte) {
	for _, p := range parts {
		out = append(out, p...)
	}
	return out
}

func TestParse(t *testing.T) {
	// hop-by-hop of 16 bytes, routing of 8, destination of 8, and authentication of 12
	hop := append([]byte{unix.IPPROTO_ROUTING, 1}, make([]byte, 14)...)
	routing := append([]byte{unix.IPPROTO_DSTOPTS, 0}, make([]byte, 6)...)
	options := append([]byte{unix.IPPROTO_AH, 0}, make([]byte, 6)...)
	auth := append([]byte{unix.IPPROTO_TCP, 1}, make([]byte, 10)...)
	fragment := func(offset uint16) []byte {
		return append(binary.BigEndian.AppendUint16([]byte{unix.IPPROTO_UDP, 0}, offset), 0, 0, 0, 1)
	}
	of4 := func(protocol uint8) Packet { return Packet{Src: a4, Dst: b4, Protocol: protocol} }
	of6 := func(protocol uint8) Packet { return Packet{Src: a6, Dst: b6, Protocol: protocol} }
	with := func(p Packet) Packet { p.SrcPort, p.DstPort = 4000, 80; return p }
	for name, tc := range map[string]struct {
		b    []byte
		want Packet
	}{
		"nothing":                     {nil, Packet{}},
		"one byte":                    {[]byte{0x45}, Packet{}},
		"another version":             {append([]byte{0x55}, make([]byte, 60)...), Packet{}},
		"no whole header":             {ipv4(6, 0, 0)[:19], Packet{}},
		"TCP":                         {ipv4(6, 0, 0, ports...), with(of4(6))},
		"UDP":                         {ipv4(17, 0, 0, ports...), with(of4(17))},
		"SCTP behind options":         {ipv4(132, 10, 0, ports...), with(of4(132))},
		"ICMP":                        {ipv4(1, 0, 0, ports...), of4(1)},
		"a first fragment":            {ipv4(17, 0, 0x2000, ports...), with(of4(17))},
		"a later fragment":            {ipv4(17, 0, 0x2001, ports...), of4(17)},
		"the ports alone":             {ipv4(17, 0, 0, ports[:4]...), with(of4(17))},
		"half of the ports":           {ipv4(17, 0, 0, ports[:3]...), of4(17)},
		"options that are not there":  {ipv4(17, 10, 0)[:40], of4(17)},
		"a header of less than five":  {append([]byte{0x41}, ipv4(17, 0, 0, ports...)[1:]...), of4(17)},
		"no whole header, IPv6":       {ipv6(6)[:39], Packet{}},
		"TCP, IPv6":                   {ipv6(6, ports...), with(of6(6))},
		"ICMPv6":                      {ipv6(58, ports...), of6(58)},
		"no next header":              {ipv6(59, ports...), of6(59)},
		"extension headers":           {ipv6(0, join(hop, routing, options, auth, ports)...), with(of6(6))},
		"the ports alone, IPv6":       {ipv6(0, join(hop, routing, options, auth, ports[:4])...), with(of6(6))},
		"an extension that is cut":    {ipv6(0, hop[:12]...), of6(unix.IPPROTO_ROUTING)},
		"extensions that are cut off": {ipv6(0, join(hop, routing, options, auth)...), of6(6)},
		"one of three bytes":          {ipv6(0, hop[:3]...), of6(0)},
		"a first fragment, IPv6":      {ipv6(44, join(fragment(1), ports)...), with(of6(17))},
		"a later fragment, IPv6":      {ipv6(44, join(fragment(8), ports)...), of6(17)},
	} {
		t.Run(name, func(t *testing.T) {
			var p Packet
			p.parse(tc.b)
			require.Equal(t, tc.want, p)
		})
	}
}

// logged makes what nflog says about a packet.
func logged(t testing.TB, attrs ...netlink.Attribute) []byte {
	t.Helper()
	b, err := netlink.MarshalAttributes(attrs)
	require.NoError(t, err)
	return append([]byte{unix.AF_INET, 0, 0, 1}, b...)
}

func TestParsePacket(t *testing.T) {
	now := time.Unix(1_700_000_000, 5)
	stamp := func(sec, usec uint64) netlink.Attribute {
		return netlink.Attribute{Type: attrTime, Data: binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, sec), usec)}
	}
	prefix := netlink.Attribute{Type: attrPrefix, Data: []byte("portcullis cut\x00")}
	payload := netlink.Attribute{Type: attrPayload, Data: ipv4(17, 0, 0, ports...)}
	number := netlink.Attribute{Type: attrNumber, Data: []byte{0, 0, 1, 2}}

	p, n := parsePacket(logged(t, stamp(1_600_000_000, 250_000), prefix, payload, number), now)
	require.Equal(t, Packet{Time: time.Unix(1_600_000_000, 250_000_000), Prefix: "portcullis cut", Src: a4, Dst: b4, Protocol: 17, SrcPort: 4000, DstPort: 80}, p)
	require.Equal(t, uint32(0x102), *n)

	for _, odd := range []netlink.Attribute{stamp(0, 0), stamp(1<<63, 0), stamp(1, 1<<63), {Type: attrTime, Data: []byte{1}}, {Type: attrNumber, Data: []byte{1}}, {Type: attrPayload}, {Type: attrPrefix}} {
		p, n := parsePacket(logged(t, odd), now)
		require.Equal(t, Packet{Time: now}, p)
		require.Nil(t, n)
	}
	for _, odd := range [][]byte{nil, {1, 2, 3}, {1, 2, 3, 4, 5}, {1, 2, 3, 4, 1, 0, 1, 0}} {
		p, n := parsePacket(odd, now)
		require.Equal(t, Packet{Time: now}, p)
		require.Nil(t, n)
	}
}

func TestLostBySequence(t *testing.T) {
	var s sequence
	number := func(n uint32) *uint32 { return &n }
	require.Zero(t, s.lost(number(7)), "what was before is nobody's loss")
	require.Zero(t, s.lost(number(8)))
	require.Zero(t, s.lost(nil))
	require.Equal(t, uint64(3), s.lost(number(12)))
	require.Zero(t, s.lost(number(13)))
	require.Zero(t, s.lost(number(2)), "numbers begin anew")
	s.next = 1<<32 - 1
	require.Equal(t, uint64(2), s.lost(number(1)), "behind the last number is the first")
}

// FuzzPacket has what pods may send, and what the kernel would never make of it.
func FuzzPacket(f *testing.F) {
	f.Add(logged(f, netlink.Attribute{Type: attrPayload, Data: ipv6(0, append([]byte{44, 255}, ports...)...)}))
	f.Add(logged(f, netlink.Attribute{Type: attrPayload, Data: ipv4(132, 3, 0, ports...)}, netlink.Attribute{Type: attrNumber, Data: []byte{1, 2, 3, 4}}))
	f.Add(logged(f, netlink.Attribute{Type: attrPrefix, Data: []byte("x\x00y\x00")}, netlink.Attribute{Type: attrTime, Data: make([]byte, 16)}))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, _ := parsePacket(b, time.Unix(1, 0))
		if p.Src.IsValid() != p.Dst.IsValid() || !p.Src.IsValid() && p.DstPort != 0 || p.Time.IsZero() {
			t.Fatalf("%+v", p)
		}
		var direct Packet
		direct.parse(b)
		if (direct.SrcPort != 0 || direct.DstPort != 0) && len(b) < 24 {
			t.Fatalf("%+v from %d bytes", direct, len(b))
		}
	})
}
