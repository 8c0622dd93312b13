package lab

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// SCTPMode is how the laboratory speaks SCTP.
type SCTPMode string

const (
	// SCTPAuto is [SCTPSockets] where the kernel has SCTP at the moment, and
	// [SCTPPackets] elsewhere.
	SCTPAuto SCTPMode = ""
	// SCTPSockets makes one-to-one sockets of the kernel's. Where the kernel
	// can load its SCTP module, asking for the first one does it.
	SCTPSockets SCTPMode = "sockets"
	// SCTPPackets makes the first packets of an association by hand, on any
	// kernel. One with SCTP of its own is kept silent.
	SCTPPackets SCTPMode = "packets"
)

// sctpVariable says which mode SCTPAuto is.
const sctpVariable = "PORTCULLIS_SCTP"

// resolve turns SCTPAuto into one of the others, and says why if the mode cannot be.
func (m SCTPMode) resolve() (SCTPMode, error) {
	if m == SCTPAuto {
		m = SCTPMode(os.Getenv(sctpVariable))
	}
	switch m {
	case SCTPAuto:
		if kernelHasSCTP() {
			return SCTPSockets, nil
		}
		return SCTPPackets, nil
	case SCTPPackets:
		return m, nil
	case SCTPSockets:
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_SCTP)
		if err != nil {
			return m, fmt.Errorf("this kernel has no SCTP sockets: %w", err)
		}
		return m, unix.Close(fd)
	}
	return m, fmt.Errorf("SCTP by %q: want %q or %q", string(m), SCTPSockets, SCTPPackets)
}

// openSCTPSocket connects from one address: a socket bound to all of them would
// offer them to its peer, which would try each.
func openSCTPSocket(ns *namespace, p Probe) (*flow, error) {
	if !p.Src.IsValid() {
		var err error
		if p.Src, err = ns.sourceFor(p.To); err != nil {
			return nil, err
		}
	}
	f, err := openFlow(ns, p, unix.SOCK_STREAM, unix.IPPROTO_SCTP, true)
	if err != nil {
		return nil, err
	}
	f.stream = true
	return f, nil
}

// sourceFor asks the routes of a namespace for the source address of a destination.
func (n *namespace) sourceFor(to netip.Addr) (netip.Addr, error) {
	fd, err := n.socket(domainOf(to), unix.SOCK_DGRAM, unix.IPPROTO_UDP)
	if err != nil {
		return netip.Addr{}, err
	}
	defer unix.Close(fd)
	if err := unix.Connect(fd, sockaddr(to, 9)); err != nil { // any port: nothing is sent
		return netip.Addr{}, fmt.Errorf("connect: %w", err)
	}
	own, err := unix.Getsockname(fd)
	if err != nil {
		return netip.Addr{}, err
	}
	return addrPort(own).Addr(), nil
}

// addrPort is the opposite of sockaddr.
func addrPort(a unix.Sockaddr) netip.AddrPort {
	switch a := a.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port))
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(a.Addr), uint16(a.Port))
	}
	return netip.AddrPort{}
}

// sctpListeners serve one port on every address of one family, each by a socket of
// its own: one for all would offer all of them to its clients, and answer from
// another one than was asked.
type sctpListeners struct {
	endpoint string
	port     uint16
	at       map[netip.Addr]*sctpListener
}

// listenAll serves on the addresses that the namespace has.
func (n *namespace) listenAll(endpoint string, any netip.Addr, port uint16) (*sctpListeners, error) {
	family := netlink.FAMILY_V4
	if any.Is6() {
		family = netlink.FAMILY_V6
	}
	list, err := n.links.AddrList(nil, family)
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	s := &sctpListeners{endpoint: endpoint, port: port, at: map[netip.Addr]*sctpListener{}}
	for _, entry := range list {
		a, _ := netip.AddrFromSlice(entry.IP)
		if err := s.listen(n, a.Unmap()); err != nil {
			return nil, errors.Join(err, s.Close())
		}
	}
	return s, nil
}

// listen serves on one more address; nobody connects to link-local ones.
func (s *sctpListeners) listen(n *namespace, a netip.Addr) error {
	if s.at[a] != nil || a.IsLinkLocalUnicast() && a.Is6() {
		return nil
	}
	l, err := n.listenSCTP(a, s.port)
	if err != nil {
		return fmt.Errorf("serve sctp/%d on %v: %w", s.port, a, err)
	}
	s.at[a] = l
	go l.run(s.endpoint)
	return nil
}

func (s *sctpListeners) Close() error {
	var errs []error
	for _, l := range s.at {
		errs = append(errs, l.Close())
	}
	return errors.Join(errs...)
}

// serveNewAddr makes the SCTP servers of a namespace serve on an address that it
// has got after them.
func (n *namespace) serveNewAddr(a netip.Addr) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	for key, server := range n.servers {
		if s, ok := server.(*sctpListeners); ok && key.ipv6 == a.Is6() {
			if err := s.listen(n, a); err != nil {
				return err
			}
		}
	}
	return nil
}

// sctpListener accepts associations. Package net knows nothing of SCTP.
type sctpListener struct{ *os.File }

func (n *namespace) listenSCTP(a netip.Addr, port uint16) (*sctpListener, error) {
	fd, err := n.socket(domainOf(a), unix.SOCK_STREAM, unix.IPPROTO_SCTP)
	if err != nil {
		return nil, err
	}
	if err = unix.Bind(fd, sockaddr(a, port)); err != nil {
		err = fmt.Errorf("bind: %w", err)
	} else if err = unix.Listen(fd, 4096); err != nil {
		err = fmt.Errorf("listen: %w", err)
	}
	if err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	return &sctpListener{os.NewFile(uintptr(fd), "listener")}, nil
}

// run serves until the listener is closed.
func (l *sctpListener) run(endpoint string) {
	for {
		conn, client, err := l.accept()
		if errors.Is(err, os.ErrClosed) {
			return
		}
		if err != nil {
			time.Sleep(time.Millisecond) // out of descriptors, most likely
			continue
		}
		go answerSCTP(conn, endpoint, client)
	}
}

func (l *sctpListener) accept() (*os.File, netip.AddrPort, error) {
	raw, err := l.SyscallConn()
	if err != nil {
		return nil, netip.AddrPort{}, err
	}
	var fd int
	var client unix.Sockaddr
	var result error
	err = raw.Read(func(listener uintptr) bool {
		fd, client, result = unix.Accept4(int(listener), unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
		return !errors.Is(result, unix.EAGAIN)
	})
	if err := errors.Join(err, result); err != nil {
		return nil, netip.AddrPort{}, err
	}
	return os.NewFile(uintptr(fd), "association"), addrPort(client), nil
}

// answerSCTP does what answerTCP does. SCTP has no half-closed associations: to
// end the stream is to ask for the end of both.
func answerSCTP(conn *os.File, endpoint string, client netip.AddrPort) {
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := io.WriteString(conn, answer(endpoint, client)); err != nil {
		return
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return
	}
	if raw.Control(func(fd uintptr) { err = unix.Shutdown(int(fd), unix.SHUT_WR) }) == nil && err == nil {
		_, _ = io.Copy(io.Discard, conn)
	}
}
