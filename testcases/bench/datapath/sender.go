package datapath

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// batch is how many packets one call sends.
	batch = 64
	// payload is the length of what a packet carries, by which it is known at its
	// destination.
	payload = 18
	udpSize = 8 + payload
	// firstPort and lastPort bound the source ports.
	firstPort, lastPort = 1024, 65535
)

// message is struct mmsghdr.
type message struct {
	header unix.Msghdr
	sent   uint32
}

// sender sends UDP packets from a pod's link, ready made, so that the pod itself
// has next to no work with them: no socket, no route, no queueing discipline.
type sender struct {
	fd       int
	frames   [batch][]byte
	vectors  [batch]unix.Iovec
	messages [batch]message
	udp      int // where the UDP header begins
	port     uint16
}

// target is where packets go, and from where.
type target struct {
	link     int // index of the link that sends
	from, to net.HardwareAddr
	src, dst netip.Addr
}

// newSender opens the socket, in the network namespace that the thread is in.
func newSender(t target) (*sender, error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open packet socket: %w", err)
	}
	s := &sender{fd: fd, port: firstPort}
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Ifindex: t.link}); err != nil {
		_ = s.Close()
		return nil, fmt.Errorf("bind packet socket: %w", err)
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_QDISC_BYPASS, 1); err != nil {
		_ = s.Close()
		return nil, fmt.Errorf("bypass queueing: %w", err)
	}
	for i := range s.frames {
		s.frames[i], s.udp = frame(t)
		s.vectors[i].Base = &s.frames[i][0]
		s.vectors[i].SetLen(len(s.frames[i]))
		s.messages[i].header.Iov = &s.vectors[i]
		s.messages[i].header.SetIovlen(1)
	}
	return s, nil
}

// Close closes the socket.
func (s *sender) Close() error { return unix.Close(s.fd) }

// frame returns a packet without ports, and where these belong. It has no UDP
// checksum, which nobody on the way minds.
func frame(t target) (data []byte, udp int) {
	data = append(data, t.to...)
	data = append(data, t.from...)
	if t.dst.Is4() {
		data = binary.BigEndian.AppendUint16(data, unix.ETH_P_IP)
		at := len(data)
		data = append(data, 0x45, 0, 0, 20+udpSize, 0, 0, 0x40, 0, 64, unix.IPPROTO_UDP, 0, 0)
		data = append(append(data, t.src.AsSlice()...), t.dst.AsSlice()...)
		binary.BigEndian.PutUint16(data[at+10:], checksum(data[at:]))
	} else {
		data = binary.BigEndian.AppendUint16(data, unix.ETH_P_IPV6)
		data = append(data, 0x60, 0, 0, 0, 0, udpSize, unix.IPPROTO_UDP, 64)
		data = append(append(data, t.src.AsSlice()...), t.dst.AsSlice()...)
	}
	udp = len(data)
	data = append(data, 0, 0, 0, 0, 0, udpSize, 0, 0)
	return append(data, make([]byte, payload)...), udp
}

// checksum is that of an IPv4 header whose checksum is zero.
func checksum(header []byte) uint16 {
	var sum uint32
	for i := 0; i < len(header); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(header[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// renew sends n packets to a port, each from a source port that none of the last
// sixty thousand had.
func (s *sender) renew(n int, port uint16) error {
	return s.send(n, port, s.next)
}

func (s *sender) next() uint16 {
	if s.port == lastPort {
		s.port = firstPort - 1
	}
	s.port++
	return s.port
}

// repeat sends n packets of one flow.
func (s *sender) repeat(n int, from, port uint16) error {
	return s.send(n, port, func() uint16 { return from })
}

func (s *sender) send(n int, port uint16, from func() uint16) error {
	for n > 0 {
		now := min(n, batch)
		for _, f := range s.frames[:now] {
			binary.BigEndian.PutUint16(f[s.udp:], from())
			binary.BigEndian.PutUint16(f[s.udp+2:], port)
		}
		// A raw call: the scheduler of Go is not told, and does not give the
		// thread's place to another one meanwhile.
		sent, _, errno := unix.RawSyscall6(unix.SYS_SENDMMSG, uintptr(s.fd), uintptr(unsafe.Pointer(&s.messages[0])), uintptr(now), 0, 0, 0)
		if errno != 0 {
			return fmt.Errorf("send packets: %w", errno)
		}
		if int(sent) != now {
			return fmt.Errorf("send packets: %d of %d", sent, now)
		}
		n -= now
	}
	return nil
}
