package nflog

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Messages of nflog and what they carry, as the kernel numbers it (nfnetlink_log.h);
// package unix lacks it.
const (
	msgPacket = 0
	msgConfig = 1

	attrTime    = 3
	attrPayload = 9
	attrPrefix  = 10
	attrNumber  = 12

	attrCommand       = 1
	attrMode          = 2
	attrPieceBytes    = 3
	attrDelay         = 4
	attrPieceMessages = 5
	attrFlags         = 6

	commandBind = 1
	copyPacket  = 2
	flagNumbers = 1
)

// Packet is a packet that was logged. What its first bytes do not show is zero.
type Packet struct {
	// Time is when the packet was received or, if the kernel does not say, when this
	// process learned of it.
	Time time.Time
	// Prefix is the rule's.
	Prefix   string
	Src, Dst netip.Addr
	// Protocol is the IANA number of what is behind the IPv6 extension headers.
	Protocol uint8
	// SrcPort and DstPort are those of TCP, UDP, SCTP, DCCP and UDP-Lite. A fragment
	// that is not the first has none.
	SrcPort, DstPort uint16
	// Lost is how many packets were lost in front of this one.
	Lost uint64
}

// sequence counts packets by the numbers that the kernel gives them.
type sequence struct {
	next  uint32
	begun bool
}

// lost returns how many packets are missing in front of the one with the number n; nil
// is a packet without one.
func (s *sequence) lost(n *uint32) uint64 {
	if n == nil {
		return 0
	}
	gap := *n - s.next
	if !s.begun || gap > 1<<31 {
		gap = 0
	}
	s.next, s.begun = *n+1, true
	return uint64(gap)
}

// parsePacket reads what nflog says about a packet: a netfilter header and attributes.
func parsePacket(message []byte, now time.Time) (p Packet, number *uint32) {
	p.Time = now
	if len(message) < 4 {
		return p, nil
	}
	attrs, err := netlink.NewAttributeDecoder(message[4:])
	if err != nil {
		return p, nil
	}
	for attrs.Next() {
		data := attrs.Bytes()
		switch attrs.Type() {
		case attrPrefix:
			p.Prefix = string(bytes.TrimRight(data, "\x00"))
		case attrTime:
			if len(data) == 16 {
				sec, usec := binary.BigEndian.Uint64(data), binary.BigEndian.Uint64(data[8:])
				if sec > 0 && sec < 1<<40 && usec < 1e6 {
					p.Time = time.Unix(int64(sec), int64(usec)*1000)
				}
			}
		case attrNumber:
			if len(data) == 4 {
				n := binary.BigEndian.Uint32(data)
				number = &n
			}
		case attrPayload:
			p.parse(data)
		}
	}
	return p, number
}

// parse reads the headers of a packet, as far as they are there.
func (p *Packet) parse(b []byte) {
	if len(b) == 0 {
		return
	}
	switch b[0] >> 4 {
	case 4:
		p.parse4(b)
	case 6:
		p.parse6(b)
	}
}

func (p *Packet) parse4(b []byte) {
	const least = 20
	if len(b) < least {
		return
	}
	p.Src, p.Dst = netip.AddrFrom4([4]byte(b[12:])), netip.AddrFrom4([4]byte(b[16:]))
	p.Protocol = b[9]
	header := 4 * int(b[0]&0xf)
	fragment := binary.BigEndian.Uint16(b[6:]) & 0x1fff
	if header >= least && header <= len(b) && fragment == 0 {
		p.ports(b[header:])
	}
}

func (p *Packet) parse6(b []byte) {
	const least = 40
	if len(b) < least {
		return
	}
	p.Src, p.Dst = netip.AddrFrom16([16]byte(b[8:])), netip.AddrFrom16([16]byte(b[24:]))
	p.Protocol = b[6]
	for b = b[least:]; len(b) >= 8; {
		size, last := 0, false
		switch p.Protocol {
		case unix.IPPROTO_HOPOPTS, unix.IPPROTO_ROUTING, unix.IPPROTO_DSTOPTS, unix.IPPROTO_MH:
			size = 8 * (int(b[1]) + 1)
		case unix.IPPROTO_FRAGMENT:
			size, last = 8, binary.BigEndian.Uint16(b[2:])&^7 != 0
		case unix.IPPROTO_AH:
			size = 4 * (int(b[1]) + 2)
		default:
			p.ports(b)
			return
		}
		p.Protocol = b[0]
		if last || size > len(b) {
			return
		}
		b = b[size:]
	}
	p.ports(b)
}

// ports reads the ports of a header of layer 4.
func (p *Packet) ports(b []byte) {
	switch p.Protocol {
	case unix.IPPROTO_TCP, unix.IPPROTO_UDP, unix.IPPROTO_SCTP, unix.IPPROTO_DCCP, unix.IPPROTO_UDPLITE:
		if len(b) >= 4 {
			p.SrcPort, p.DstPort = binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:])
		}
	}
}
