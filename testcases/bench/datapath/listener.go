package datapath

import (
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// listener is a TCP socket of the server whose queue takes connections without
// anybody having to run for it: the kernel answers inside the call of the client.
// So all of a connection is done on the client's thread.
type listener struct{ fd int }

// backlog bounds the connections that wait to be accepted.
const backlog = 1024

// listen opens a listener on the port that the last policy allows.
func listen(s *site) (*listener, error) {
	l := &listener{fd: -1}
	err := s.In(server, func() error { return l.open(s.of(serverAddrs), allowedPort) })
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

func (l *listener) open(a netip.Addr, port uint16) (err error) {
	if l.fd, err = unix.Socket(domain(a), unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0); err != nil {
		return fmt.Errorf("open listener: %w", err)
	}
	if err := unix.Bind(l.fd, socketAddr(a, port)); err != nil {
		return fmt.Errorf("bind listener: %w", err)
	}
	if err := unix.Listen(l.fd, backlog); err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	return nil
}

// clear accepts and closes what waits.
func (l *listener) clear() error {
	for {
		fd, _, err := unix.Accept4(l.fd, unix.SOCK_CLOEXEC)
		if errors.Is(err, unix.EAGAIN) {
			return nil
		}
		if errors.Is(err, unix.ECONNABORTED) || errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return fmt.Errorf("accept: %w", err)
		}
		_ = unix.Close(fd)
	}
}

// Close closes the socket.
func (l *listener) Close() error {
	if l.fd < 0 {
		return nil
	}
	return unix.Close(l.fd)
}

// connect opens and closes n connections, in the client's namespace.
func connect(n int, a netip.Addr, port uint16) error {
	to, family := socketAddr(a, port), domain(a)
	for range n {
		fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("open socket: %w", err)
		}
		// Closing then resets, and the port is free at once.
		err = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
		if err == nil {
			err = unix.Connect(fd, to)
		}
		if e := unix.Close(fd); err == nil {
			err = e
		}
		if err != nil {
			return fmt.Errorf("connect: %w", err)
		}
	}
	return nil
}

func domain(a netip.Addr) int {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

func socketAddr(a netip.Addr, port uint16) unix.Sockaddr {
	if a.Is4() {
		return &unix.SockaddrInet4{Addr: a.As4(), Port: int(port)}
	}
	return &unix.SockaddrInet6{Addr: a.As16(), Port: int(port)}
}
