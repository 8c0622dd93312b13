package nflog

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/portcullis-netpol/portcullis/nft/watch"
)

// Why Open fails.
var (
	// ErrTaken says that somebody else listens to the group.
	ErrTaken = fmt.Errorf("somebody else listens to the nflog group: %w", unix.EBUSY)
	// ErrPermission says that CAP_NET_ADMIN over the network namespace is missing.
	ErrPermission = fmt.Errorf("nflog takes CAP_NET_ADMIN: %w", os.ErrPermission)
	// ErrUnsupported says that the kernel has no nflog (nfnetlink_log).
	ErrUnsupported = fmt.Errorf("the kernel has no nflog: %w", errors.ErrUnsupported)
)

const (
	// wantBuffer is asked for: room for some thousand packets. Without CAP_NET_ADMIN in
	// the first user namespace the kernel grants net.core.rmem_max.
	wantBuffer = 1 << 20
	// pieceBytes is how many bytes of messages the kernel gathers, pieceMessages how
	// many messages, and pieceDelay for how long, in hundredths of a second.
	pieceBytes    = 16 << 10
	pieceMessages = 32
	pieceDelay    = 1
	// copyBytes is how much of a packet is asked for; rules may say less.
	copyBytes = 128

	// answerDeadline is far beyond what the kernel takes to answer.
	answerDeadline = time.Minute
)

// Conn listens to one group. But for Close it is not safe for concurrent use.
type Conn struct {
	conn   *netlink.Conn
	group  uint16
	closed atomic.Bool
	piece  []byte
	// waiting are packets that were received and not asked for yet.
	waiting []Packet
	count   sequence
}

// Open listens to a group, in the network namespace of a file descriptor, 0 being that of
// the process. The error may wrap ErrTaken, ErrPermission or ErrUnsupported.
func Open(netns int, group uint16) (*Conn, error) { return open(netns, group, wantBuffer) }

func open(netns int, group uint16, buffer int) (*Conn, error) {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{NetNS: netns})
	if err != nil {
		return nil, fmt.Errorf("nflog group %d: netlink socket: %w", group, err)
	}
	c := &Conn{conn: conn, group: group, piece: make([]byte, 64<<10)}
	if err := c.bind(buffer); err != nil {
		return nil, errors.Join(fmt.Errorf("nflog group %d: %w", group, err), conn.Close())
	}
	return c, nil
}

// bind tells the kernel what to send.
func (c *Conn) bind(buffer int) error {
	if err := c.conn.SetReadBuffer(buffer); err != nil {
		return fmt.Errorf("read buffer: %w", err)
	}
	if err := c.conn.SetDeadline(time.Now().Add(answerDeadline)); err != nil {
		return err
	}
	// The kernel says EPERM both to those who may not listen and to those who come too
	// late. What no program may send tells the one from the other: whoever may listen
	// is told so in other words.
	if err := whatIsMissing(c.ask(msgPacket, nil)); err != nil {
		return err
	}
	config, err := netlink.MarshalAttributes([]netlink.Attribute{
		{Type: attrCommand, Data: []byte{commandBind}},
		{Type: attrMode, Data: append(binary.BigEndian.AppendUint32(nil, copyBytes), copyPacket, 0)},
		{Type: attrPieceBytes, Data: binary.BigEndian.AppendUint32(nil, pieceBytes)},
		{Type: attrDelay, Data: binary.BigEndian.AppendUint32(nil, pieceDelay)},
		{Type: attrPieceMessages, Data: binary.BigEndian.AppendUint32(nil, pieceMessages)},
		{Type: attrFlags, Data: binary.BigEndian.AppendUint16(nil, flagNumbers)},
	})
	if err != nil {
		return err
	}
	if err := c.ask(msgConfig, config); errors.Is(err, unix.EPERM) || errors.Is(err, unix.EBUSY) {
		return ErrTaken
	} else if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	return c.conn.SetDeadline(time.Time{})
}

// errNotSupported is what the kernel says to those who send it a packet (ENOTSUPP, which
// is not known outside of it).
const errNotSupported = unix.Errno(524)

// whatIsMissing tells from the answer to a message that no program may send what it
// takes to listen; nil is nothing.
func whatIsMissing(answer error) error {
	switch {
	case errors.Is(answer, unix.EPERM):
		return ErrPermission
	case errors.Is(answer, unix.EINVAL): // nobody is there who would know the message
		return ErrUnsupported
	case answer == nil || errors.Is(answer, errNotSupported) || errors.Is(answer, unix.EOPNOTSUPP):
		return nil
	}
	return fmt.Errorf("is there an nflog: %w", answer)
}

// ask sends a message and returns the kernel's answer. Packets that come in front of it
// are kept.
func (c *Conn) ask(kind uint8, attrs []byte) error {
	const header = unix.NFNL_SUBSYS_ULOG << 8
	req, err := c.conn.Send(netlink.Message{
		Header: netlink.Header{Type: netlink.HeaderType(header | uint16(kind)), Flags: netlink.Request | netlink.Acknowledge},
		Data:   append([]byte{unix.AF_UNSPEC, unix.NFNETLINK_V0, byte(c.group >> 8), byte(c.group)}, attrs...),
	})
	if err != nil {
		return err
	}
	for {
		n, err := watch.Receive(c.conn, c.piece)
		if err != nil && !errors.Is(err, unix.ENOBUFS) {
			return err
		}
		messages, err := syscall.ParseNetlinkMessage(c.piece[:n])
		if err != nil {
			return err
		}
		for _, m := range messages {
			if m.Header.Type == unix.NLMSG_ERROR && m.Header.Seq == req.Header.Sequence && len(m.Data) >= 4 {
				if errno := int32(binary.NativeEndian.Uint32(m.Data)); errno != 0 {
					return unix.Errno(-errno)
				}
				return nil
			}
			c.take(m)
		}
	}
}

// take keeps a message if it is a packet.
func (c *Conn) take(m syscall.NetlinkMessage) {
	if m.Header.Type != unix.NFNL_SUBSYS_ULOG<<8|msgPacket {
		return
	}
	p, sequence := parsePacket(m.Data, time.Now())
	p.Lost = c.count.lost(sequence)
	c.waiting = append(c.waiting, p)
}

// Receive returns the next packet, in the order in which they were logged. It returns
// the error of ctx when ctx ends, and os.ErrClosed when the Conn is closed; after any
// other error the Conn is of no use any more.
func (c *Conn) Receive(ctx context.Context) (Packet, error) {
	// A deadline in the past wakes the read up.
	stop := context.AfterFunc(ctx, func() { _ = c.conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	for len(c.waiting) == 0 {
		if err := ctx.Err(); err != nil {
			return Packet{}, err
		}
		n, err := watch.Receive(c.conn, c.piece)
		switch {
		case c.closed.Load():
			return Packet{}, fmt.Errorf("nflog group %d: %w", c.group, os.ErrClosed)
		case errors.Is(err, os.ErrDeadlineExceeded):
			// That of this call, or of an earlier one that was late to set it. Whoever
			// sets it after this has a context that has ended by then.
			_ = c.conn.SetReadDeadline(time.Time{})
			continue
		case errors.Is(err, unix.ENOBUFS): // the next packet's number tells how many
			continue
		case err != nil:
			return Packet{}, fmt.Errorf("nflog group %d: %w", c.group, err)
		}
		messages, err := syscall.ParseNetlinkMessage(c.piece[:n])
		if err != nil {
			return Packet{}, fmt.Errorf("nflog group %d: %w", c.group, err)
		}
		for _, m := range messages {
			c.take(m)
		}
	}
	p := c.waiting[0]
	c.waiting = c.waiting[1:]
	return p, nil
}

// Close ends listening, and a Receive that waits.
func (c *Conn) Close() error {
	if c.closed.Swap(true) {
		return nil
	}
	return c.conn.Close()
}
