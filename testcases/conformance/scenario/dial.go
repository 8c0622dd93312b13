package scenario

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/portcullis-netpol/portcullis/testcases/conformance/cluster"
)

// States of a TCP socket, as the kernel counts them.
const (
	tcpEstablished = 1
	tcpSynSent     = 2
)

// attempt is what became of one attempt to connect.
type attempt struct {
	open bool
	// resent is how often the kernel had to repeat a packet.
	resent uint32
	// err says why it is not open: os.ErrDeadlineExceeded, or what came back.
	err error
}

// refused says that the far end, or something that speaks for it, said no.
func (a attempt) refused() bool {
	return errors.Is(a.err, unix.ECONNREFUSED) || errors.Is(a.err, unix.ECONNRESET)
}

// dial tries to open a TCP connection from inside an endpoint, and ends it at
// once. Only the socket is made inside: the wait for the answer holds no thread,
// so that hundreds can go on at a time. The error says that it could not be tried.
func dial(c *cluster.Cluster, from string, to netip.AddrPort, wait time.Duration) (attempt, error) {
	domain := unix.AF_INET
	if to.Addr().Is6() {
		domain = unix.AF_INET6
	}
	fd := -1
	err := c.In(from, func() (err error) {
		fd, err = unix.Socket(domain, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		return err
	})
	if err != nil {
		return attempt{}, fmt.Errorf("socket in %s: %w", from, err)
	}
	socket := os.NewFile(uintptr(fd), "tcp")
	defer socket.Close()
	// A reset at the end: no port of the pod stays taken for a minute.
	if err := unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}); err != nil {
		return attempt{}, err
	}
	if err := socket.SetDeadline(time.Now().Add(wait)); err != nil {
		return attempt{}, err
	}
	if err := unix.Connect(fd, sockaddr(to)); err != nil && !errors.Is(err, unix.EINPROGRESS) {
		return attempt{err: err}, nil
	}
	return await(socket)
}

func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Addr: a.Addr().As4(), Port: int(a.Port())}
	}
	return &unix.SockaddrInet6{Addr: a.Addr().As16(), Port: int(a.Port())}
}

// await waits until a socket is connected, or is not going to be.
func await(socket *os.File) (attempt, error) {
	raw, err := socket.SyscallConn()
	if err != nil {
		return attempt{}, err
	}
	var a attempt
	var failed error
	err = raw.Write(func(fd uintptr) bool {
		var info *unix.TCPInfo
		if info, failed = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO); failed != nil {
			return true
		}
		a.resent = info.Total_retrans
		switch info.State {
		case tcpSynSent:
			return false
		case tcpEstablished:
			a.open = true
			return true
		}
		var errno int
		errno, failed = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ERROR)
		if a.err = unix.Errno(errno); errno == 0 {
			a.open = true // the far end has closed it already
		}
		return true
	})
	if errors.Is(err, os.ErrDeadlineExceeded) {
		a.err, err = err, nil
	}
	return a, errors.Join(err, failed)
}
