package nft

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/portcullis-netpol/portcullis/nft/watch"
)

// reader dumps nftables objects. It speaks netlink itself, because
// google/nftables v0.3.0 loses what verification needs: the mark of a dump that
// was interrupted, expressions that it does not know, and the key type of maps.
// It also reads in small pieces, and a dump of a set costs the square of the
// number of pieces.
type reader struct {
	conn *netlink.Conn
	buf  []byte
}

// dumpBuffer is twice what the kernel ever puts into one piece of a dump.
const dumpBuffer = 64 << 10

func newReader(netns int) (*reader, error) {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{NetNS: netns})
	if err != nil {
		return nil, fmt.Errorf("netlink socket: %w", err)
	}
	return &reader{conn, make([]byte, dumpBuffer)}, nil
}

// dump asks for objects of one kind, of family inet, and hands the attributes of each to
// fn: of all of them (netlink.Dump), or of the one that attrs name (netlink.Acknowledge).
// complete is false if the ruleset changed meanwhile.
func (r *reader) dump(ctx context.Context, kind int, how netlink.HeaderFlags, attrs []netlink.Attribute, fn func([]byte) error) (complete bool, err error) {
	if err := ctx.Err(); err != nil {
		return false, err
	}
	data, err := netlink.MarshalAttributes(attrs)
	if err != nil {
		return false, err
	}
	header := []byte{unix.NFPROTO_INET, unix.NFNETLINK_V0, 0, 0}
	if err := r.conn.SetDeadline(time.Now().Add(replyDeadline)); err != nil {
		return false, err
	}
	req, err := r.conn.Send(netlink.Message{
		Header: netlink.Header{Type: netlink.HeaderType(unix.NFNL_SUBSYS_NFTABLES<<8 | kind), Flags: netlink.Request | how},
		Data:   append(header, data...),
	})
	if err != nil {
		return false, err
	}
	complete = true
	for {
		piece, err := r.receive()
		if err != nil {
			return false, err
		}
		done, whole, err := parseDump(piece, req.Header.Sequence, fn)
		complete = complete && whole
		if done || err != nil {
			return complete, err
		}
	}
}

func (r *reader) receive() ([]byte, error) {
	n, err := watch.Receive(r.conn, r.buf)
	return r.buf[:n], err
}

// parseDump reads the netlink messages of one piece; whole is false if one of
// them is marked as interrupted.
func parseDump(piece []byte, sequence uint32, fn func([]byte) error) (done, whole bool, err error) {
	const headerLen = unix.SizeofNlMsghdr
	native := binary.NativeEndian
	whole = true
	for len(piece) >= headerLen {
		size := int(native.Uint32(piece))
		kind, flags, seq := native.Uint16(piece[4:]), native.Uint16(piece[6:]), native.Uint32(piece[8:])
		if size < headerLen || size > len(piece) {
			return true, false, errors.New("netlink message of impossible length")
		}
		body := piece[headerLen:size]
		piece = piece[min(len(piece), (size+3)&^3):]
		if seq != sequence {
			continue // of a dump that was given up
		}
		whole = whole && flags&unix.NLM_F_DUMP_INTR == 0
		switch kind {
		case unix.NLMSG_DONE, unix.NLMSG_ERROR:
			if len(body) >= 4 {
				if errno := int32(native.Uint32(body)); errno != 0 {
					return true, whole, unix.Errno(-errno)
				}
			}
			return true, whole, nil
		}
		if len(body) < 4 {
			return true, false, errors.New("netlink message without a netfilter header")
		}
		if err := fn(body[4:]); err != nil {
			return true, whole, err
		}
	}
	return false, whole, nil
}

// attributes goes through netlink attributes. What does not fit ends the walk.
func attributes(b []byte) iter.Seq2[uint16, []byte] {
	return func(yield func(uint16, []byte) bool) {
		for len(b) >= unix.SizeofNlAttr {
			size := int(binary.NativeEndian.Uint16(b))
			kind := binary.NativeEndian.Uint16(b[2:]) &^ (unix.NLA_F_NESTED | unix.NLA_F_NET_BYTEORDER)
			if size < unix.SizeofNlAttr || size > len(b) || !yield(kind, b[unix.SizeofNlAttr:size]) {
				return
			}
			b = b[min(len(b), (size+3)&^3):]
		}
	}
}

// attribute returns the first attribute of a kind, or nil.
func attribute(b []byte, kind uint16) []byte {
	for k, data := range attributes(b) {
		if k == kind {
			return data
		}
	}
	return nil
}

// text returns an attribute that is a string.
func text(b []byte, kind uint16) string {
	data := attribute(b, kind)
	if n := len(data); n > 0 && data[n-1] == 0 {
		data = data[:n-1]
	}
	return string(data)
}

// number returns an attribute that is a 32-bit number, 0 if there is none.
func number(b []byte, kind uint16) uint32 {
	if data := attribute(b, kind); len(data) == 4 {
		return binary.BigEndian.Uint32(data)
	}
	return 0
}

// number64 returns an attribute that is a 64-bit number, 0 if there is none.
func number64(b []byte, kind uint16) uint64 {
	if data := attribute(b, kind); len(data) == 8 {
		return binary.BigEndian.Uint64(data)
	}
	return 0
}

// name returns a string attribute for a request.
func name(kind uint16, s string) netlink.Attribute {
	return netlink.Attribute{Type: kind, Data: append([]byte(s), 0)}
}
