package watch

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Watcher waits for others to change tables. It knows its owner's sockets by their
// netlink port ids: the kernel writes into every notification from which socket the
// change came. It is safe for concurrent use.
type Watcher struct {
	family byte
	ours   func(table string) bool

	mu  sync.Mutex
	ids []uint32 // the last maxSenders, the newest being the last
	// watching are the sockets whose filters have to know the ids.
	watching map[*netlink.Conn]bool
}

// New returns a Watcher for the tables of a family (unix.NFPROTO_*) whose names are
// ours.
func New(family byte, ours func(table string) bool) *Watcher {
	return &Watcher{family: family, ours: ours}
}

// maxSenders bounds the ids that are kept. An old socket's notifications may
// still be on their way when a new one is in use, but its id may also go to
// another program some day.
const maxSenders = 4

// Ignore makes c known as a socket of the owner's, whose changes are no news.
func (w *Watcher) Ignore(c *netlink.Conn) error {
	id, err := portID(c)
	if err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ids = append(slices.DeleteFunc(w.ids, func(x uint32) bool { return x == id }), id)
	w.ids = w.ids[max(0, len(w.ids)-maxSenders):]
	for listener := range w.watching {
		err = errors.Join(err, ignore(listener, w.ids))
	}
	return err
}

// listen makes a listener deaf to the owner's sockets, until the returned function is
// called.
func (w *Watcher) listen(listener *netlink.Conn) (stop func(), err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.watching == nil {
		w.watching = map[*netlink.Conn]bool{}
	}
	w.watching[listener] = true
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.watching, listener)
	}, ignore(listener, w.ids)
}

func (w *Watcher) knows(id uint32) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Contains(w.ids, id)
}

// portID returns the netlink port id of a socket.
func portID(c *netlink.Conn) (id uint32, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, fmt.Errorf("netlink socket: %w", err)
	}
	errControl := raw.Control(func(fd uintptr) {
		var name unix.Sockaddr
		if name, err = unix.Getsockname(int(fd)); err == nil {
			id = name.(*unix.SockaddrNetlink).Pid
		}
	})
	if err := errors.Join(errControl, err); err != nil {
		return 0, fmt.Errorf("port id of a netlink socket: %w", err)
	}
	return id, nil
}

// portIDOffset is where a netlink message has the port id of its sender.
const portIDOffset = 12

// ignore lets the kernel drop notifications about changes of these senders in
// front of the socket's buffer, which a large batch of our own would overrun. All
// of a piece comes from one sender, since a piece is of one transaction. What was
// queued before is not affected.
func ignore(c *netlink.Conn, ids []uint32) error {
	program := []unix.SockFilter{{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: portIDOffset}}
	for _, id := range ids {
		// The filter takes numbers in network byte order, the message has its own.
		k := binary.BigEndian.Uint32(binary.NativeEndian.AppendUint32(nil, id))
		program = append(program,
			unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: 1, K: k},
			unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: 0})
	}
	program = append(program, unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: 1 << 30})
	raw, err := c.SyscallConn()
	if err != nil {
		return fmt.Errorf("netlink socket: %w", err)
	}
	errControl := raw.Control(func(fd uintptr) {
		err = unix.SetsockoptSockFprog(int(fd), unix.SOL_SOCKET, unix.SO_ATTACH_FILTER,
			&unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]})
	})
	if err := errors.Join(errControl, err); err != nil {
		return fmt.Errorf("filter of a netlink socket: %w", err)
	}
	return nil
}

// Watch calls changed, never twice at a time, when somebody else has changed one of
// the tables, or may have done so unnoticed, until ctx ends; then it returns nil. It
// calls ready once, if it is not nil, when from then on nothing is missed. The network
// namespace is given by a file descriptor, 0 being that of the process; buffer is the
// size in bytes of what notifications can wait in.
func (w *Watcher) Watch(ctx context.Context, netns, buffer int, ready, changed func()) error {
	c, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{NetNS: netns})
	if err != nil {
		return fmt.Errorf("watch: netlink socket: %w", err)
	}
	defer c.Close()
	if err := c.SetReadBuffer(buffer); err != nil {
		return fmt.Errorf("watch: read buffer: %w", err)
	}
	forget, err := w.listen(c)
	if err != nil {
		return fmt.Errorf("watch: %w", err)
	}
	defer forget()
	if err := c.JoinGroup(unix.NFNLGRP_NFTABLES); err != nil {
		return fmt.Errorf("watch: join the group of nf_tables: %w", err)
	}
	// A deadline in the past wakes the read up.
	stop := context.AfterFunc(ctx, func() { _ = c.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	if ready != nil {
		ready()
	}
	for piece := make([]byte, largest); ; {
		n, err := Receive(c, piece)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, unix.ENOBUFS): // notifications were lost
			changed()
		case err != nil:
			return fmt.Errorf("watch: %w", err)
		case w.disturbed(piece[:n]):
			changed()
		}
	}
}

// largest is how long a piece of notifications can be: the kernel gathers them up to a
// page, and a longer one it would cut off, which disturbed takes for news.
const largest = 64 << 10

// Receive reads one piece of what the kernel says into a buffer, and returns how long it
// is. Unlike the connection's own method it leaves the messages as they are, and a loss
// (unix.ENOBUFS) is an error.
func Receive(c *netlink.Conn, piece []byte) (n int, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	var errRead error
	err = raw.Read(func(fd uintptr) bool {
		n, _, errRead = unix.Recvfrom(int(fd), piece, 0)
		return errRead != unix.EAGAIN && errRead != unix.EINTR
	})
	if err == nil {
		err = errRead
	}
	return max(n, 0), os.NewSyscallError("recvfrom", err)
}

// disturbed reports whether one of the notifications says that somebody else
// changed a table of ours.
func (w *Watcher) disturbed(piece []byte) bool {
	const headerLen = unix.SizeofNlMsghdr
	native := binary.NativeEndian
	for len(piece) >= headerLen {
		size := int(native.Uint32(piece))
		if size < headerLen || size > len(piece) {
			return true // cut off: who knows what it was
		}
		kind, sender, body := native.Uint16(piece[4:]), native.Uint32(piece[portIDOffset:]), piece[headerLen:size]
		piece = piece[min(len(piece), (size+3)&^3):]
		if kind>>8 != unix.NFNL_SUBSYS_NFTABLES || kind&0xff == unix.NFT_MSG_NEWGEN || len(body) < 4 || body[0] != w.family {
			continue
		}
		if w.ours(tableOf(body[4:])) && !w.knows(sender) {
			return true
		}
	}
	return false
}

// tableOf returns the name of the table: attribute 1 of all messages, whatever object
// they are about, but for that of a new generation.
func tableOf(attrs []byte) string {
	for len(attrs) >= unix.SizeofNlAttr {
		size, kind := int(binary.NativeEndian.Uint16(attrs)), binary.NativeEndian.Uint16(attrs[2:])
		if size < unix.SizeofNlAttr || size > len(attrs) {
			break
		}
		if kind == unix.NFTA_TABLE_NAME {
			return string(bytes.TrimSuffix(attrs[unix.SizeofNlAttr:size], []byte{0}))
		}
		attrs = attrs[min(len(attrs), (size+3)&^3):]
	}
	return ""
}
