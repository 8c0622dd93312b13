package conntrack

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Flow is one entry of the connection tracking table. Two Flows are equal if
// they are of the same entry.
type Flow struct {
	// Protocol is the IANA number: TCP, UDP or SCTP.
	Protocol uint8
	// Client is who sent the first packet, with the address that it has itself
	// (before SNAT). Server is who answers, with the address that it has itself
	// (after DNAT).
	Client, Server netip.Addr
	// ClientPort and ServerPort are theirs, in the same sense. Both are 0 where
	// the kernel does not know the ports of the protocol (SCTP, before 4.19
	// without its module): then the entry stands for all that the two exchange.
	ClientPort, ServerPort uint16
	// Expected is set if a helper (of FTP, say) let the flow in because another
	// one announced it. Ports say nothing of whether that one is allowed.
	Expected bool
	// PickedUp is set if connection tracking saw a TCP connection first when it was
	// open already. It takes the sender of that packet for the client, which may be
	// wrong.
	PickedUp bool

	// called is the address that the client sends to, answered the one that the
	// server sends to: those that NAT makes differ from Server and Client.
	called, answered netip.AddrPort
	id               uint32
	zone             zone
}

// Original returns source and destination of the client's packets as they are
// before any NAT: the destination may be a Service's.
func (f Flow) Original() (src, dst netip.AddrPort) {
	return netip.AddrPortFrom(f.Client, f.ClientPort), f.called
}

// Translated reports whether the client sends to another address or port than the
// server's own, such as a Service's.
func (f Flow) Translated() bool {
	return f.called.IsValid() && f.called != netip.AddrPortFrom(f.Server, f.ServerPort)
}

// Through returns f with another original destination. It is for those who make a
// Flow instead of reading it from the kernel.
func (f Flow) Through(called netip.AddrPort) Flow {
	f.called = called
	return f
}

// Reply returns source and destination of the server's packets as they are
// before NAT is undone: where the client's address is masqueraded, the
// destination is what it is masqueraded as.
func (f Flow) Reply() (src, dst netip.AddrPort) {
	return netip.AddrPortFrom(f.Server, f.ServerPort), f.answered
}

// zone is the zone of an entry: 0 is the usual one. It can be that of one
// direction only.
type zone struct {
	id  uint16
	dir uint8
}

const (
	zoneBoth uint8 = iota
	zoneOriginal
	zoneReply
)

// tuple is one direction of an entry.
type tuple struct {
	src, dst netip.Addr
	protocol uint8
	ports    [2]uint16
	zone     uint16
	hasZone  bool
}

// parseFlow reads an entry, whatever its protocol. ok is false if it is none.
func parseFlow(body []byte) (f Flow, ok bool) {
	if len(body) < familyHeader {
		return f, false
	}
	var orig, reply tuple
	for kind, v := range attributes(body[familyHeader:]) {
		switch {
		case kind == attrTupleOrig:
			orig = parseTuple(v)
		case kind == attrTupleReply:
			reply = parseTuple(v)
		case kind == attrStatus && len(v) == 4:
			f.Expected = binary.BigEndian.Uint32(v)&statusExpected != 0
		case kind == attrProtoInfo:
			f.PickedUp = pickedUp(v)
		case kind == attrID && len(v) == 4:
			f.id = binary.BigEndian.Uint32(v)
		case kind == attrZone && len(v) == 2:
			f.zone = zone{binary.BigEndian.Uint16(v), zoneBoth}
		}
	}
	for _, a := range []netip.Addr{orig.src, orig.dst, reply.src, reply.dst} {
		if !a.IsValid() {
			return f, false
		}
	}
	switch {
	case orig.hasZone:
		f.zone = zone{orig.zone, zoneOriginal}
	case reply.hasZone:
		f.zone = zone{reply.zone, zoneReply}
	}
	f.Protocol = orig.protocol
	f.Client, f.ClientPort, f.called = orig.src, orig.ports[0], netip.AddrPortFrom(orig.dst, orig.ports[1])
	f.Server, f.ServerPort, f.answered = reply.src, reply.ports[0], netip.AddrPortFrom(reply.dst, reply.ports[1])
	return f, true
}

// pickedUp reads what is known of the protocol. Of a connection without a beginning,
// and of no other, the kernel does not expect to know its window.
func pickedUp(b []byte) bool {
	for kind, v := range attributes(b) {
		if kind != attrProtoInfoTCP {
			continue
		}
		for kind, v := range attributes(v) {
			if kind == attrTCPFlagsOrig && len(v) == 2 { // flags, and a mask for writing
				return v[0]&tcpFlagBeLiberal != 0
			}
		}
	}
	return false
}

func parseTuple(b []byte) (t tuple) {
	for kind, v := range attributes(b) {
		switch {
		case kind == attrTupleIP:
			for kind, v := range attributes(v) {
				// The kernel sends the two of one family.
				switch kind {
				case attrIPv4Src, attrIPv6Src:
					t.src, _ = netip.AddrFromSlice(v)
				case attrIPv4Dst, attrIPv6Dst:
					t.dst, _ = netip.AddrFromSlice(v)
				}
			}
		case kind == attrTupleProto:
			for kind, v := range attributes(v) {
				switch {
				case kind == attrProtoNum && len(v) == 1:
					t.protocol = v[0]
				case kind == attrProtoSrcPort && len(v) == 2:
					t.ports[0] = binary.BigEndian.Uint16(v)
				case kind == attrProtoDstPort && len(v) == 2:
					t.ports[1] = binary.BigEndian.Uint16(v)
				}
			}
		case kind == attrTupleZone && len(v) == 2:
			t.zone, t.hasZone = binary.BigEndian.Uint16(v), true
		}
	}
	return t
}

// judged reports whether flows of the protocol are told of. Others have no
// ports, and what is let through of them is over with the answer.
func judged(protocol uint8) bool {
	return protocol == unix.IPPROTO_TCP || protocol == unix.IPPROTO_UDP || protocol == unix.IPPROTO_SCTP
}

func familyOf(a netip.Addr) uint8 {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// addr writes one address of a tuple.
func (w *writer) addr(a netip.Addr, kind4, kind6 uint16) {
	if a.Is4() {
		w.bytes(kind4, a.AsSlice())
		return
	}
	w.bytes(kind6, a.AsSlice())
}

// original writes the tuple that, with the zone, names the entry.
func (w *writer) original(f Flow) {
	w.nest(attrTupleOrig, func() {
		w.nest(attrTupleIP, func() {
			w.addr(f.Client, attrIPv4Src, attrIPv6Src)
			w.addr(f.called.Addr(), attrIPv4Dst, attrIPv6Dst)
		})
		w.nest(attrTupleProto, func() {
			w.bytes(attrProtoNum, []byte{f.Protocol})
			w.uint16(attrProtoSrcPort, f.ClientPort)
			w.uint16(attrProtoDstPort, f.called.Port())
		})
		if f.zone.dir == zoneOriginal {
			w.uint16(attrTupleZone, f.zone.id)
		}
	})
	if f.zone.dir == zoneBoth && f.zone.id != 0 {
		w.uint16(attrZone, f.zone.id)
	}
}
