package conntrack

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// receiveBuffer is what one datagram is read into. The kernel fills
	// datagrams of a dump up to the size that it is read with, to 32 KiB at most.
	receiveBuffer = 64 << 10
	// replyDeadline is far beyond what the kernel takes for one datagram.
	replyDeadline = time.Minute
)

// errIncomplete says that the kernel does not vouch for an answer: replies were
// lost, or the table was rebuilt under a dump.
var errIncomplete = errors.New("the answer is incomplete")

// socket is a netlink socket that asks the conntrack subsystem, one request at
// a time. The kernel writes the next part of a dump only when the last one has
// been read, so the receive buffer that Linux grants by default is enough.
type socket struct {
	file *os.File
	raw  syscall.RawConn
	seq  uint32
	buf  []byte
	writer
}

// dial opens a socket in a network namespace; 0 means the one of the process.
func dial(netns int) (*socket, error) {
	fd := -1
	open := func() (err error) {
		fd, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
		return err
	}
	var err error
	if netns == 0 {
		err = open()
	} else {
		err = within(netns, open)
	}
	if err != nil {
		return nil, fmt.Errorf("open netlink socket: %w", err)
	}
	// Not blocking, and so served by the runtime's poller: that gives deadlines.
	s := &socket{file: os.NewFile(uintptr(fd), "conntrack"), buf: make([]byte, receiveBuffer)}
	if s.raw, err = s.file.SyscallConn(); err != nil {
		return nil, errors.Join(fmt.Errorf("netlink socket: %w", err), s.file.Close())
	}
	return s, nil
}

// within runs f on a thread in another network namespace. A socket stays in the
// namespace that it was made in.
func within(netns int, f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlock: the thread ends with the goroutine
		if err := unix.Setns(netns, unix.CLONE_NEWNET); err != nil {
			done <- fmt.Errorf("enter network namespace: %w", err)
			return
		}
		done <- f()
	}()
	return <-done
}

// ask sends one request and hands every message of the answer to handle. The
// error is the kernel's (a syscall.Errno), errIncomplete, ctx's, or the socket's.
// After any but the kernel's, more of the answer may be on its way: clean is
// false then, and the socket is of no use any more.
func (s *socket) ask(ctx context.Context, kind, flags uint16, family uint8, attrs func(*writer), handle func([]byte)) (clean bool, err error) {
	if err := ctx.Err(); err != nil {
		return true, err
	}
	s.seq++
	s.begin(kind, flags, s.seq, family)
	if attrs != nil {
		attrs(&s.writer)
	}
	stop := context.AfterFunc(ctx, func() { _ = s.file.SetReadDeadline(time.Unix(1, 0)) })
	done, err := s.exchange(ctx, handle)
	// If stop is too late, that deadline may be set at any time from now on.
	return stop() && done, err
}

func (s *socket) exchange(ctx context.Context, handle func([]byte)) (done bool, err error) {
	if err := s.send(s.end()); err != nil {
		return false, fmt.Errorf("send: %w", err)
	}
	a := answer{seq: s.seq, handle: handle}
	for !a.done {
		b, err := s.receive(ctx)
		if err != nil {
			return false, err
		}
		if err := a.take(b); err != nil {
			return false, err
		}
	}
	return true, a.err
}

func (s *socket) send(b []byte) error {
	var errno error
	err := s.raw.Write(func(fd uintptr) bool {
		errno = unix.Sendto(int(fd), b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
		return !again(errno)
	})
	return errors.Join(err, errno)
}

// receive returns the next datagram of the kernel's.
func (s *socket) receive(ctx context.Context) ([]byte, error) {
	if err := s.file.SetReadDeadline(time.Now().Add(replyDeadline)); err != nil {
		return nil, fmt.Errorf("deadline: %w", err)
	}
	if err := ctx.Err(); err != nil { // perhaps the deadline was ctx's
		return nil, err
	}
	for {
		var n, flags int
		var from unix.Sockaddr
		var errno error
		err := s.raw.Read(func(fd uintptr) bool {
			n, _, flags, from, errno = unix.Recvmsg(int(fd), s.buf, nil, 0)
			return !again(errno)
		})
		switch err := errors.Join(err, errno); {
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case errors.Is(err, unix.ENOBUFS):
			return nil, fmt.Errorf("%w: receive: %w", errIncomplete, err)
		case err != nil:
			return nil, fmt.Errorf("receive: %w", err)
		case flags&unix.MSG_TRUNC != 0:
			return nil, fmt.Errorf("%w: a datagram of more than %d bytes", errIncomplete, len(s.buf))
		}
		if k, ok := from.(*unix.SockaddrNetlink); ok && k.Pid == 0 {
			return s.buf[:n], nil
		}
	}
}

// again reports whether a call is to be repeated when the socket is ready.
func again(err error) bool { return err == unix.EAGAIN || err == unix.EINTR }

// answer is what has come of an answer so far.
type answer struct {
	seq    uint32
	handle func([]byte)
	// done is set when nothing more will come, and err is the outcome then.
	done        bool
	err         error
	interrupted bool
}

// take takes in one datagram. The error says that it makes no sense.
func (a *answer) take(b []byte) error {
	for len(b) > 0 && !a.done {
		m, rest, err := nextMessage(b)
		if err != nil {
			return err
		}
		b = rest
		if m.seq != a.seq {
			continue
		}
		a.interrupted = a.interrupted || m.flags&unix.NLM_F_DUMP_INTR != 0
		switch m.kind {
		case unix.NLMSG_NOOP:
		case unix.NLMSG_OVERRUN:
			return errIncomplete
		case unix.NLMSG_ERROR, unix.NLMSG_DONE:
			// Both begin with 0 or the negated number of an error.
			if len(m.body) < 4 {
				return errMalformed
			}
			if n := int32(binary.NativeEndian.Uint32(m.body)); n < 0 {
				a.err = syscall.Errno(-n)
			} else if a.interrupted {
				a.err = errIncomplete
			}
			a.done = true
		default:
			a.handle(m.body)
		}
	}
	return nil
}
