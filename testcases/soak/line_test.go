package soak

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// conns is a flow that consists of two connected sockets.
type conns struct {
	ends [2]net.Conn
	sent uint32
	// heard has the numbers of the messages that an end got.
	heard [2]chan uint32
	// broken is closed when an end's socket has failed.
	broken [2]chan struct{}
}

func newConns(client, server net.Conn) *conns {
	c := &conns{ends: [2]net.Conn{client, server}}
	for e := range c.ends {
		c.heard[e], c.broken[e] = make(chan uint32, 1000), make(chan struct{})
		go c.listen(end(e))
	}
	return c
}

func (c *conns) listen(e end) {
	defer close(c.broken[e])
	var buf [4]byte
	for {
		if _, err := readFull(c.ends[e], buf[:]); err != nil {
			return
		}
		c.heard[e] <- binary.BigEndian.Uint32(buf[:])
	}
}

// readFull reads a message. A datagram socket tells of ICMP errors once, which a flow
// of datagrams survives.
func readFull(c net.Conn, buf []byte) (int, error) {
	for n := 0; ; {
		k, err := c.Read(buf[n:])
		if _, datagrams := c.(*net.UDPConn); datagrams && errors.Is(err, unix.ECONNREFUSED) {
			continue
		}
		if n += k; err != nil || n == len(buf) {
			return n, err
		}
	}
}

// say implements line.
func (c *conns) say(from end, wait time.Duration) (bool, error) {
	c.sent++
	// Of a connection that is stuck, the socket's buffer gets full.
	if err := c.ends[from].SetWriteDeadline(time.Now().Add(wait)); err != nil {
		return false, err
	}
	_, err := c.ends[from].Write(binary.BigEndian.AppendUint32(nil, c.sent))
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return false, nil
	}
	if err != nil && !errors.Is(err, unix.ECONNREFUSED) && !errors.Is(err, unix.EPERM) {
		return false, err
	}
	late := time.After(wait)
	for {
		select {
		case n := <-c.heard[from.other()]:
			if n == c.sent {
				return true, nil
			}
			if n > c.sent-100 && n < c.sent { // an earlier one, late
				continue
			}
		case <-c.broken[from]:
			return false, fmt.Errorf("the %s's connection is over", from)
		case <-late:
			return false, nil
		}
	}
}

func (c *conns) close() { _ = errors.Join(c.ends[0].Close(), c.ends[1].Close()) }

func network(protocol string, a netip.Addr) string {
	if a.Is4() {
		return protocol + "4"
	}
	return protocol + "6"
}

// dialTCP opens a connection. The server closes the port behind it.
func (s *site) dialTCP(from string, p place) (line, error) {
	var listener net.Listener
	err := s.In(p.server, func() (err error) {
		listener, err = net.Listen(network("tcp", p.to), fmt.Sprintf(":%d", p.port))
		return err
	})
	if err != nil {
		return nil, err
	}
	defer listener.Close()
	var client net.Conn
	err = s.In(from, func() (err error) {
		client, err = net.DialTimeout("tcp", netip.AddrPortFrom(p.to, p.port).String(), patience)
		return err
	})
	if err != nil {
		return nil, err
	}
	server, err := listener.Accept()
	if err != nil {
		return nil, err
	}
	return newConns(client, server), nil
}

// answering is a UDP socket that talks to the one who sent last.
type answering struct {
	*net.UDPConn
	mu sync.Mutex
	to netip.AddrPort
}

func (a *answering) Read(b []byte) (int, error) {
	n, from, err := a.ReadFromUDPAddrPort(b)
	if err == nil {
		a.mu.Lock()
		a.to = from
		a.mu.Unlock()
	}
	return n, err
}

func (a *answering) Write(b []byte) (int, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.WriteToUDPAddrPort(b, a.to)
}

func (s *site) dialUDP(from string, p place) (line, error) {
	server := &answering{}
	err := s.In(p.server, func() error {
		conn, err := net.ListenPacket(network("udp", p.to), fmt.Sprintf(":%d", p.port))
		if err == nil {
			server.UDPConn = conn.(*net.UDPConn)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	var client net.Conn
	err = s.In(from, func() (err error) {
		client, err = net.Dial("udp", netip.AddrPortFrom(p.to, p.port).String())
		return err
	})
	if err != nil {
		return nil, err
	}
	return newConns(client, server), nil
}

// association is an SCTP association of packets made by hand (RFC 9260), as much of
// one as connection tracking looks at.
type association struct {
	ends  [2]*net.IPConn
	to    [2]netip.Addr // whom each end sends to; the server learns it
	ports [2]uint16
	tags  [2]uint32
	heard [2]chan chunk
	sent  uint32
}

type chunk struct {
	kind, tag, number uint32
	from              netip.Addr
}

const (
	sctpData       = 0
	sctpInit       = 1
	sctpInitAck    = 2
	sctpCookieEcho = 10
	sctpCookieAck  = 11
)

func (s *site) dialSCTP(from string, source netip.Addr, p place) (line, error) {
	a := &association{ports: [2]uint16{p.port + 30000, p.port}, tags: [2]uint32{0xc0000000 + uint32(p.port), 0x50000000 + uint32(p.port)}}
	a.to[client] = p.to
	for e, endpoint := range []string{from, p.server} {
		err := s.In(endpoint, func() error {
			bound := &net.IPAddr{}
			if end(e) == client {
				bound.IP = source.AsSlice()
			}
			conn, err := net.ListenIP(network("ip", p.to)+":132", bound)
			a.ends[e] = conn
			return err
		})
		if err != nil {
			return nil, err
		}
		a.heard[e] = make(chan chunk, 1000)
		if err := markOwn(a.ends[e]); err != nil {
			return nil, err
		}
		go a.listen(end(e))
	}
	for _, step := range []struct {
		from end
		kind uint32
	}{{client, sctpInit}, {server, sctpInitAck}, {client, sctpCookieEcho}, {server, sctpCookieAck}} {
		if !a.send(step.from, step.kind, 0, 5*time.Second) {
			return nil, fmt.Errorf("SCTP chunk %d of the %s is lost", step.kind, step.from)
		}
	}
	return a, nil
}

// sctpMark is the mark by which the laboratory knows SCTP packets that no kernel has
// made: it drops the others.
const sctpMark = 0x5c7b0000

// markOwn marks what a socket sends.
func markOwn(conn *net.IPConn) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var result error
	err = raw.Control(func(fd uintptr) { result = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK, sctpMark) })
	return errors.Join(err, result)
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// send sends a chunk until it arrives or its time is over.
func (a *association) send(from end, kind, number uint32, wait time.Duration) bool {
	tag := a.tags[from.other()]
	if kind == sctpInit {
		tag = 0
	}
	b := binary.BigEndian.AppendUint16(nil, a.ports[from])
	b = binary.BigEndian.AppendUint16(b, a.ports[from.other()])
	b = binary.BigEndian.AppendUint32(b, tag)
	b = append(b, 0, 0, 0, 0)
	switch kind {
	case sctpInit, sctpInitAck:
		b = append(b, byte(kind), 0, 0, 20)
		b = binary.BigEndian.AppendUint32(b, a.tags[from])
		b = append(b, 0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1)
	case sctpData:
		b = append(b, byte(kind), 3, 0, 20)
		b = binary.BigEndian.AppendUint32(b, number)
		b = append(b, 0, 0, 0, 0, 0, 0, 0, 0, 's', 'o', 'a', 'k')
	default:
		b = append(b, byte(kind), 0, 0, 4)
	}
	binary.LittleEndian.PutUint32(b[8:], crc32.Checksum(b, castagnoli))
	_, err := a.ends[from].WriteTo(b, &net.IPAddr{IP: a.to[from].AsSlice()})
	if err != nil && !errors.Is(err, unix.EPERM) {
		return false
	}
	late := time.After(wait)
	for {
		select {
		case c := <-a.heard[from.other()]:
			if c.kind != kind || c.number != number {
				continue
			}
			if from == client {
				a.to[server] = c.from
			}
			return true
		case <-late:
			return false
		}
	}
}

// listen takes in what is meant for one end of this association.
func (a *association) listen(e end) {
	buf := make([]byte, 2048)
	for {
		n, from, err := a.ends[e].ReadFromIP(buf)
		if errors.Is(err, net.ErrClosed) || errors.Is(err, os.ErrClosed) {
			return
		}
		b := buf[:max(n, 0)]
		if err != nil || n < 16 || binary.BigEndian.Uint16(b) != a.ports[e.other()] || binary.BigEndian.Uint16(b[2:]) != a.ports[e] {
			continue
		}
		c := chunk{kind: uint32(b[12]), tag: binary.BigEndian.Uint32(b[4:])}
		c.from, _ = netip.AddrFromSlice(from.IP)
		c.from = c.from.Unmap()
		if c.kind == sctpData && n >= 20 {
			c.number = binary.BigEndian.Uint32(b[16:])
		}
		a.heard[e] <- c
	}
}

// say implements line.
func (a *association) say(from end, wait time.Duration) (bool, error) {
	a.sent++
	return a.send(from, sctpData, a.sent, wait), nil
}

func (a *association) close() { _ = errors.Join(a.ends[0].Close(), a.ends[1].Close()) }
