package spoof

import (
	"encoding/binary"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"
)

// frame puts a payload behind an Ethernet header, with VLAN tags if wanted.
func frame(etherType uint16, payload []byte, tags ...uint16) []byte {
	out := make([]byte, 12, 14+len(payload))
	copy(out[6:], []byte{0x02, 0xee, 0, 0, 0, 1})
	for _, tag := range tags {
		out = append(binary.BigEndian.AppendUint16(out, tag), 0, 1)
	}
	return append(binary.BigEndian.AppendUint16(out, etherType), payload...)
}

func ipv4(src string) []byte {
	udp := []byte{0x80, 0, 0, 53, 0, 8, 0, 0}
	out := []byte{0x45, 0, 0, byte(20 + len(udp)), 0, 1, 0, 0, 64, unix.IPPROTO_UDP, 0, 0}
	out = slices.Concat(out, netip.MustParseAddr(src).AsSlice(), []byte{192, 0, 2, 1}, udp)
	binary.BigEndian.PutUint16(out[10:], ^sum16(out[:20]))
	return out
}

// sum16 adds 16-bit words with end-around carry.
func sum16(b []byte) uint16 {
	var sum uint32
	for i := 0; i+1 < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return uint16(sum)
}

// ipv6 makes a packet; headers are extension headers without their first byte, each
// of the type given before it.
func ipv6(src string, protocol byte, payload []byte, headers ...extension) []byte {
	next := protocol
	for _, h := range slices.Backward(headers) {
		payload = slices.Concat([]byte{next}, h.body, payload)
		next = h.kind
	}
	out := []byte{0x60, 0, 0, 0, byte(len(payload) >> 8), byte(len(payload)), next, 255}
	return slices.Concat(out, netip.MustParseAddr(src).AsSlice(), netip.MustParseAddr("2001:db8::1").AsSlice(), payload)
}

// extension is an IPv6 extension header of 8 bytes, the first left out.
type extension struct {
	kind byte
	body []byte
}

var (
	hopByHop = extension{0, []byte{0, 5, 2, 0, 0, 1, 0}} // router alert and padding
	// firstFragment belongs to a packet of which more is to come.
	firstFragment = extension{44, []byte{0, 0, 1, 0, 0, 0, 7}}
	nextFragment  = extension{44, []byte{0, 1, 0, 0, 0, 0, 7}}
)

func udp6(src string) []byte {
	return ipv6(src, unix.IPPROTO_UDP, []byte{0x80, 0, 0, 53, 0, 8, 0, 0})
}

// icmp6 makes a message of neighbour discovery; target may be empty.
func icmp6(src string, kind byte, target string, headers ...extension) []byte {
	body := []byte{kind, 0, 0, 0, 0, 0, 0, 0}
	if target != "" {
		body = append(body, netip.MustParseAddr(target).AsSlice()...)
	}
	return ipv6(src, unix.IPPROTO_ICMPV6, body, headers...)
}

// summed returns a message of icmp6 with its checksum.
func summed(packet []byte) []byte {
	pseudo := append([]byte{0, 0, 0, unix.IPPROTO_ICMPV6, 0, byte(len(packet) - 40)}, packet[8:]...)
	binary.BigEndian.PutUint16(packet[42:], ^sum16(pseudo))
	return packet
}

// arp makes a request or reply; sender is an IPv4 address.
func arp(operation byte, sender string) []byte {
	out := []byte{0, 1, 8, 0, 6, 4, 0, operation, 0x02, 0xee, 0, 0, 0, 1}
	return slices.Concat(out, netip.MustParseAddr(sender).AsSlice(), make([]byte, 6), []byte{10, 0, 0, 9})
}

// altered returns b with one byte changed.
func altered(b []byte, offset int, value byte) []byte {
	out := slices.Clone(b)
	out[offset] = value
	return out
}
