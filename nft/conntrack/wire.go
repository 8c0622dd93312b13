package conntrack

import (
	"encoding/binary"
	"errors"
	"iter"

	"golang.org/x/sys/unix"
)

// The numbers of linux/netfilter/nfnetlink_conntrack.h that are spoken here.
const (
	msgGet      = 1
	msgDelete   = 2
	msgGetStats = 5

	attrTupleOrig  = 1
	attrTupleReply = 2
	attrStatus     = 3
	attrProtoInfo  = 4
	attrID         = 12
	attrZone       = 18
	attrFilter     = 25 // since 5.8

	attrTupleIP    = 1
	attrTupleProto = 2
	attrTupleZone  = 3

	attrIPv4Src = 1
	attrIPv4Dst = 2
	attrIPv6Src = 3
	attrIPv6Dst = 4

	attrProtoNum     = 1
	attrProtoSrcPort = 2
	attrProtoDstPort = 3

	attrProtoInfoTCP = 1
	attrTCPFlagsOrig = 4
	tcpFlagBeLiberal = 1 << 3 // IP_CT_TCP_FLAG_BE_LIBERAL

	attrFilterOrigFlags  = 1
	attrFilterReplyFlags = 2
	filterSource         = 1 << 0 // the kernel's CTA_FILTER_F_CTA_IP_SRC

	attrStatsEntries = 1

	statusExpected = 1 << 0 // IPS_EXPECTED

	attrTypeMask = 0x3fff // without the flags NLA_F_NESTED and NLA_F_NET_BYTEORDER
)

const (
	netlinkHeader = 16 // struct nlmsghdr
	familyHeader  = 4  // struct nfgenmsg
	attrHeader    = 4  // struct nlattr
)

var errMalformed = errors.New("malformed netlink message")

// message is one netlink message of the kernel's.
type message struct {
	kind  uint16
	flags uint16
	seq   uint32
	body  []byte
}

// nextMessage takes the first message off a datagram.
func nextMessage(b []byte) (m message, rest []byte, err error) {
	if len(b) < netlinkHeader {
		return m, nil, errMalformed
	}
	size := int(binary.NativeEndian.Uint32(b))
	if size < netlinkHeader || size > len(b) {
		return m, nil, errMalformed
	}
	m.kind = binary.NativeEndian.Uint16(b[4:])
	m.flags = binary.NativeEndian.Uint16(b[6:])
	m.seq = binary.NativeEndian.Uint32(b[8:])
	m.body = b[netlinkHeader:size]
	return m, b[min(aligned(size), len(b)):], nil
}

func aligned(n int) int { return (n + 3) &^ 3 }

// attributes lists the attributes of b until one is malformed.
func attributes(b []byte) iter.Seq2[uint16, []byte] {
	return func(yield func(uint16, []byte) bool) {
		for len(b) >= attrHeader {
			size := int(binary.NativeEndian.Uint16(b))
			if size < attrHeader || size > len(b) {
				return
			}
			kind := binary.NativeEndian.Uint16(b[2:]) & attrTypeMask
			if !yield(kind, b[attrHeader:size]) {
				return
			}
			b = b[min(aligned(size), len(b)):]
		}
	}
}

// writer builds one request.
type writer struct{ b []byte }

// begin starts a request of the conntrack subsystem.
func (w *writer) begin(kind, flags uint16, seq uint32, family uint8) {
	w.b = append(w.b[:0], 0, 0, 0, 0)
	w.b = binary.NativeEndian.AppendUint16(w.b, unix.NFNL_SUBSYS_CTNETLINK<<8|kind)
	w.b = binary.NativeEndian.AppendUint16(w.b, unix.NLM_F_REQUEST|flags)
	w.b = binary.NativeEndian.AppendUint32(w.b, seq)
	w.b = append(w.b, 0, 0, 0, 0) // the sender's port: the kernel knows it
	w.b = append(w.b, family, unix.NFNETLINK_V0, 0, 0)
}

// end returns the request, which is overwritten by the next one.
func (w *writer) end() []byte {
	binary.NativeEndian.PutUint32(w.b, uint32(len(w.b)))
	return w.b
}

// bytes writes an attribute.
func (w *writer) bytes(kind uint16, v []byte) {
	at := w.open(kind)
	w.b = append(w.b, v...)
	w.close(at)
}

func (w *writer) uint16(kind uint16, v uint16) {
	w.bytes(kind, binary.BigEndian.AppendUint16(nil, v))
}

func (w *writer) uint32(kind uint16, v uint32) {
	w.bytes(kind, binary.BigEndian.AppendUint32(nil, v))
}

// nest writes an attribute of attributes.
func (w *writer) nest(kind uint16, content func()) {
	at := w.open(kind | unix.NLA_F_NESTED)
	content()
	w.close(at)
}

func (w *writer) open(kind uint16) (at int) {
	at = len(w.b)
	w.b = append(w.b, 0, 0)
	w.b = binary.NativeEndian.AppendUint16(w.b, kind)
	return at
}

func (w *writer) close(at int) {
	binary.NativeEndian.PutUint16(w.b[at:], uint16(len(w.b)-at))
	for len(w.b)%4 != 0 {
		w.b = append(w.b, 0)
	}
}

// native32 writes one of the few numbers that are not in network byte order.
func (w *writer) native32(kind uint16, v uint32) {
	w.bytes(kind, binary.NativeEndian.AppendUint32(nil, v))
}
