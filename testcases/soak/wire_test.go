package soak

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// packet is a UDP packet or a TCP SYN made by hand. Its mark is the UDP packet's
// content or the SYN's sequence number: it tells whoever finds it what it is.
type packet struct {
	src, dst     netip.Addr
	protocol     int // unix.IPPROTO_*
	sport, dport uint16
	mark         uint32
}

func (p packet) String() string {
	return fmt.Sprintf("%s %s:%d -> %s:%d", map[int]string{unix.IPPROTO_TCP: "tcp", unix.IPPROTO_UDP: "udp"}[p.protocol], p.src, p.sport, p.dst, p.dport)
}

// bytes returns the packet without its IP header. In IPv6 the kernel fills in the
// checksum.
func (p packet) bytes() []byte {
	b := binary.BigEndian.AppendUint16(nil, p.sport)
	b = binary.BigEndian.AppendUint16(b, p.dport)
	if p.protocol == unix.IPPROTO_UDP {
		b = append(b, 0, 12, 0, 0) // length; IPv4 does without a checksum
		return binary.BigEndian.AppendUint32(b, p.mark)
	}
	b = binary.BigEndian.AppendUint32(b, p.mark)
	b = append(b, 0, 0, 0, 0, 5<<4, tcpSYN, 0xff, 0xff, 0, 0, 0, 0)
	if p.src.Is4() {
		pseudo := append(append(p.src.AsSlice(), p.dst.AsSlice()...), 0, unix.IPPROTO_TCP, 0, byte(len(b)))
		binary.BigEndian.PutUint16(b[16:], checksum(append(pseudo, b...)))
	}
	return b
}

const (
	tcpSYN      = 0x02
	tcpSYNorACK = 0x12
)

func checksum(b []byte) uint16 {
	var sum uint32
	for i := 0; i < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}

// parse is the inverse of bytes, for a packet that came from src. It is false for
// others.
func parse(src netip.Addr, protocol int, b []byte) (p packet, ok bool) {
	if len(b) < 12 {
		return p, false
	}
	p = packet{src: src, protocol: protocol, sport: binary.BigEndian.Uint16(b), dport: binary.BigEndian.Uint16(b[2:])}
	if protocol == unix.IPPROTO_UDP {
		p.mark = binary.BigEndian.Uint32(b[8:])
		return p, len(b) == 12
	}
	p.mark = binary.BigEndian.Uint32(b[4:])
	return p, len(b) >= 20 && b[13]&tcpSYNorACK == tcpSYN
}

// kinds are the packets that there are, by family and protocol.
var kinds = []struct {
	network  string
	domain   int
	protocol int
	checksum int // where it is
}{
	{"ip4:17", unix.AF_INET, unix.IPPROTO_UDP, 6},
	{"ip4:6", unix.AF_INET, unix.IPPROTO_TCP, 16},
	{"ip6:17", unix.AF_INET6, unix.IPPROTO_UDP, 6},
	{"ip6:6", unix.AF_INET6, unix.IPPROTO_TCP, 16},
}

// post sends and receives packets at an endpoint, past its sockets.
type post struct {
	sockets []*net.IPConn // as in kinds
}

// post opens a post. Everything that arrives is given to received, by several
// goroutines.
func (s *site) post(endpoint string, received func(packet)) *post {
	s.t.Helper()
	p := &post{}
	for _, k := range kinds {
		var conn *net.IPConn
		require.NoError(s.t, s.In(endpoint, func() (err error) {
			conn, err = net.ListenIP(k.network, nil)
			return err
		}))
		require.NoError(s.t, prepare(conn, k.domain, k.checksum))
		p.sockets = append(p.sockets, conn)
		go func() {
			buf := make([]byte, 2048)
			for {
				n, from, err := conn.ReadFromIP(buf)
				if errors.Is(err, net.ErrClosed) {
					return
				}
				if err != nil {
					continue
				}
				src, _ := netip.AddrFromSlice(from.IP)
				if p, ok := parse(src.Unmap(), k.protocol, buf[:n]); ok {
					received(p)
				}
			}
		}()
	}
	return p
}

func prepare(conn *net.IPConn, domain, checksum int) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var result error
	err = raw.Control(func(fd uintptr) {
		if domain == unix.AF_INET6 {
			result = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_CHECKSUM, checksum)
		}
		const room = 8 << 20
		if unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, room) != nil {
			_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, room)
		}
	})
	return errors.Join(err, result)
}

// send sends a packet. The source address is one of the endpoint's.
func (p *post) send(x packet) error {
	i := 0
	if x.protocol == unix.IPPROTO_TCP {
		i = 1
	}
	if x.src.Is6() {
		i += 2
	}
	conn := p.sockets[i]
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	b := x.bytes()
	var result error
	err = raw.Write(func(fd uintptr) bool {
		result = unix.Sendmsg(int(fd), b, sourceOf(x.src), sockaddr(x.dst), 0)
		return !errors.Is(result, unix.EAGAIN)
	})
	return errors.Join(err, result)
}

// sourceOf is the control message that says where a packet comes from.
func sourceOf(a netip.Addr) []byte {
	if a.Is4() {
		return unix.PktInfo4(&unix.Inet4Pktinfo{Spec_dst: a.As4()})
	}
	return unix.PktInfo6(&unix.Inet6Pktinfo{Addr: a.As16()})
}

func sockaddr(a netip.Addr) unix.Sockaddr {
	if a.Is4() {
		return &unix.SockaddrInet4{Addr: a.As4()}
	}
	return &unix.SockaddrInet6{Addr: a.As16()}
}

func (p *post) close() {
	for _, c := range p.sockets {
		_ = c.Close()
	}
}
