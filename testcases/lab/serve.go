package lab

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const serverBuffer = 8 << 20

// serverKey names a server of an endpoint. With SCTPPackets all SCTP ports of a
// family share a raw socket, which has port 0.
type serverKey struct {
	protocol string
	port     uint16
	ipv6     bool
}

// Serve starts a server on every address of an endpoint. TCP accepts, answers
// one line and closes, and so does SCTP by sockets; UDP echoes; SCTP by packets
// answers INIT with INIT ACK. ICMP echo is always answered, by the kernel. The protocol is "tcp", "udp" or "sctp". The
// server runs until the endpoint is removed; serving a port twice is an error.
func (l *Lab) Serve(endpoint, protocol string, port uint16) error {
	ns, err := l.endpoint(endpoint)
	if err != nil {
		return err
	}
	if port == 0 {
		return fmt.Errorf("serve %s on %s: port 0", protocol, endpoint)
	}
	ns.mu.Lock()
	defer ns.mu.Unlock()
	if ns.servers == nil {
		return fmt.Errorf("serve %s/%d on %s: %w", protocol, port, endpoint, os.ErrClosed)
	}
	for _, any := range l.ofFamilies(netip.IPv4Unspecified(), netip.IPv6Unspecified()) {
		if err := ns.serve(endpoint, protocol, any, port); err != nil {
			return fmt.Errorf("serve %s/%d on %s: %w", protocol, port, endpoint, err)
		}
	}
	return nil
}

// serve starts one server of one family; any is its unspecified address.
func (n *namespace) serve(endpoint, protocol string, any netip.Addr, port uint16) error {
	key := serverKey{protocol, port, any.Is6()}
	if protocol == sctp && n.sctp == SCTPPackets {
		return n.serveSCTP(any, port)
	}
	if n.servers[key] != nil {
		return os.ErrExist
	}
	var server io.Closer
	switch protocol {
	case tcp:
		listener, err := n.listenTCP(any, port)
		if err != nil {
			return err
		}
		go serveTCP(listener, endpoint)
		server = listener
	case udp:
		conn, err := n.listenPacket(any, port, unix.SOCK_DGRAM, unix.IPPROTO_UDP)
		if err != nil {
			return err
		}
		go serveUDP(conn.(*net.UDPConn), endpoint)
		server = conn
	case sctp:
		listeners, err := n.listenAll(endpoint, any, port)
		if err != nil {
			return err
		}
		server = listeners
	default:
		return fmt.Errorf("protocol %q: want tcp, udp or sctp", protocol)
	}
	n.servers[key] = server
	return nil
}

func (n *namespace) listenTCP(any netip.Addr, port uint16) (net.Listener, error) {
	fd, err := n.socket(domainOf(any), unix.SOCK_STREAM, unix.IPPROTO_TCP)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "listener")
	defer f.Close() // FileListener works on a duplicate
	// The remains of earlier connections must not keep the port busy.
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		return nil, err
	}
	if err := unix.Bind(fd, sockaddr(any, port)); err != nil {
		return nil, fmt.Errorf("bind: %w", err)
	}
	if err := unix.Listen(fd, 4096); err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	return net.FileListener(f)
}

func serveTCP(listener net.Listener, endpoint string) {
	for {
		conn, err := listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			time.Sleep(time.Millisecond) // out of descriptors, most likely
			continue
		}
		go answerTCP(conn.(*net.TCPConn), endpoint)
	}
}

// answerTCP writes the line, ends the stream and waits for the client to do so.
func answerTCP(conn *net.TCPConn, endpoint string) {
	defer conn.Close()
	client := conn.RemoteAddr().(*net.TCPAddr).AddrPort()
	_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := io.WriteString(conn, answer(endpoint, client)); err != nil {
		return
	}
	if conn.CloseWrite() == nil {
		_, _ = io.Copy(io.Discard, conn)
	}
}

// listenPacket makes a datagram or raw socket that tells the destination
// address of what it receives: the answer must come from there.
func (n *namespace) listenPacket(any netip.Addr, port uint16, typ, protocol int) (net.PacketConn, error) {
	fd, err := n.socket(domainOf(any), typ, protocol)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "server")
	defer f.Close()
	level, option := unix.IPPROTO_IP, unix.IP_PKTINFO
	if any.Is6() {
		level, option = unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO
	}
	if err := unix.SetsockoptInt(fd, level, option, 1); err != nil {
		return nil, err
	}
	// Room for a burst of probes: what does not fit is lost, and a raw socket
	// that is full lets the kernel answer "protocol unreachable" (since 6.x).
	// Beyond net.core.rmem_max only CAP_NET_ADMIN outside of user namespaces gets.
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, serverBuffer) != nil {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, serverBuffer)
	}
	if typ == unix.SOCK_DGRAM {
		if err := unix.Bind(fd, sockaddr(any, port)); err != nil {
			return nil, fmt.Errorf("bind: %w", err)
		}
	}
	return net.FilePacketConn(f)
}

func serveUDP(conn *net.UDPConn, endpoint string) {
	buf, oob := make([]byte, 2048), make([]byte, 256)
	for {
		n, oobn, _, client, err := conn.ReadMsgUDPAddrPort(buf, oob)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // an ICMP error about an earlier answer
		}
		client = netip.AddrPortFrom(client.Addr().Unmap(), client.Port())
		reply := append(append(buf[:n:n], ' '), answer(endpoint, client)...)
		_, _, _ = conn.WriteMsgUDPAddrPort(reply, answerFrom(oob[:oobn]), client)
	}
}

// answerFrom turns the control message about a packet's destination address
// into the one that makes its answer come from that address. The interface is
// left to the routing table.
func answerFrom(oob []byte) []byte {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil
	}
	for _, m := range messages {
		switch {
		case m.Header.Level == unix.IPPROTO_IP && m.Header.Type == unix.IP_PKTINFO && len(m.Data) >= 12:
			// struct in_pktinfo: interface, local address, destination address.
			// Its local address is the source when sending.
			return unix.PktInfo4(&unix.Inet4Pktinfo{Spec_dst: [4]byte(m.Data[8:12])})
		case m.Header.Level == unix.IPPROTO_IPV6 && m.Header.Type == unix.IPV6_PKTINFO && len(m.Data) >= 16:
			return unix.PktInfo6(&unix.Inet6Pktinfo{Addr: [16]byte(m.Data[:16])})
		}
	}
	return nil
}

// sctpServer answers, with SCTPPackets, for all SCTP ports of one family of an endpoint.
type sctpServer struct {
	*net.IPConn
	mu    sync.Mutex
	ports map[uint16]bool
}

func (n *namespace) serveSCTP(any netip.Addr, port uint16) error {
	key := serverKey{protocol: sctp, ipv6: any.Is6()}
	if s, ok := n.servers[key].(*sctpServer); ok {
		return s.add(port)
	}
	conn, err := n.listenPacket(any, 0, unix.SOCK_RAW, unix.IPPROTO_SCTP)
	if err != nil {
		return err
	}
	s := &sctpServer{IPConn: conn.(*net.IPConn), ports: map[uint16]bool{port: true}}
	if err := markSCTP(s.IPConn); err != nil {
		return errors.Join(err, s.Close())
	}
	n.servers[key] = s
	go s.run(any.Is4())
	return nil
}

func (s *sctpServer) add(port uint16) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ports[port] {
		return os.ErrExist
	}
	s.ports[port] = true
	return nil
}

func (s *sctpServer) serves(port uint16) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ports[port]
}

func (s *sctpServer) run(ipv4 bool) {
	buf, oob := make([]byte, 2048), make([]byte, 256)
	for {
		n, oobn, _, client, err := s.ReadMsgIP(buf, oob)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue
		}
		packet := buf[:n]
		if ipv4 {
			var ok bool
			if packet, _, ok = withoutIPv4Header(packet); !ok {
				continue
			}
		}
		init, ok := parseSCTP(packet)
		if !ok || init.kind != sctpInit {
			continue
		}
		reply := sctpPacket{srcPort: init.dstPort, dstPort: init.srcPort, tag: init.initTag, kind: sctpAbort}
		if s.serves(init.dstPort) {
			// Any tag will do; one derived from the client's keeps no state.
			reply.kind, reply.initTag = sctpInitAck, init.initTag^0x5a5a5a5a|1
		}
		_, _, _ = s.WriteMsgIP(reply.marshal(), answerFrom(oob[:oobn]), client)
	}
}
