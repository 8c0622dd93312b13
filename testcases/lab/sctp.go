package lab

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"
)

// SCTPPackets: SCTP packets are made by hand (RFC 9260), so that they can be had
// where the kernel has no SCTP sockets. The first packet of an association is what
// a policy decides on, so INIT and INIT ACK are enough.

const (
	sctpHeaderLen = 12
	sctpInitLen   = 20

	sctpInit    = 1
	sctpInitAck = 2
	sctpAbort   = 6
)

// sctpPacket is a common header with one chunk.
type sctpPacket struct {
	srcPort, dstPort uint16
	tag              uint32 // verification tag
	kind             byte   // chunk type
	initTag          uint32 // of INIT and INIT ACK
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func (p sctpPacket) marshal() []byte {
	b := make([]byte, sctpHeaderLen, sctpHeaderLen+sctpInitLen+8)
	binary.BigEndian.PutUint16(b[0:], p.srcPort)
	binary.BigEndian.PutUint16(b[2:], p.dstPort)
	binary.BigEndian.PutUint32(b[4:], p.tag)
	switch p.kind {
	case sctpInit, sctpInitAck:
		cookie := []byte(nil)
		if p.kind == sctpInitAck {
			cookie = []byte{0, 7, 0, 8, 'c', 'o', 'o', 'k'} // the State Cookie it must have
		}
		b = append(b, p.kind, 0, 0, byte(sctpInitLen+len(cookie)))
		b = binary.BigEndian.AppendUint32(b, p.initTag)
		b = binary.BigEndian.AppendUint32(b, 65536) // advertised receiver window
		b = append(b, 0, 1, 0, 1)                   // streams out, in
		b = binary.BigEndian.AppendUint32(b, 1)     // initial TSN
		b = append(b, cookie...)
	default:
		b = append(b, p.kind, 0, 0, 4)
	}
	binary.LittleEndian.PutUint32(b[8:], crc32.Checksum(b, castagnoli))
	return b
}

// parseSCTP reads the header and first chunk. It is false for what is too short
// or has a wrong checksum.
func parseSCTP(b []byte) (p sctpPacket, ok bool) {
	if len(b) < sctpHeaderLen+4 {
		return p, false
	}
	sum := binary.LittleEndian.Uint32(b[8:])
	plain := append([]byte(nil), b...)
	clear(plain[8:12])
	if crc32.Checksum(plain, castagnoli) != sum {
		return p, false
	}
	p = sctpPacket{
		srcPort: binary.BigEndian.Uint16(b[0:]),
		dstPort: binary.BigEndian.Uint16(b[2:]),
		tag:     binary.BigEndian.Uint32(b[4:]),
		kind:    b[sctpHeaderLen],
	}
	if p.kind == sctpInit || p.kind == sctpInitAck {
		if len(b) < sctpHeaderLen+sctpInitLen {
			return p, false
		}
		p.initTag = binary.BigEndian.Uint32(b[sctpHeaderLen+4:])
	}
	return p, true
}

// withoutIPv4Header cuts off the header that raw IPv4 sockets, unlike IPv6 ones,
// deliver, and returns the packet's destination with it.
func withoutIPv4Header(b []byte) (payload []byte, dst netip.Addr, ok bool) {
	if len(b) < 20 || int(b[0]&0xf)*4 > len(b) {
		return nil, dst, false
	}
	return b[int(b[0]&0xf)*4:], netip.AddrFrom4([4]byte(b[16:20])), true
}

func openSCTP(ns *namespace, p Probe) (*flow, error) {
	if ns.sctp == SCTPSockets {
		return openSCTPSocket(ns, p)
	}
	f, err := openFlow(ns, p, unix.SOCK_RAW, unix.IPPROTO_SCTP, false)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(markSCTP(f.File), f.onlyPort(p.To.Is4())); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// onlyPort filters out what is meant for other probes of the endpoint: a raw
// socket would get a copy of every SCTP packet that its peer sends there.
func (f *flow) onlyPort(ipv4 bool) error {
	const (
		loadHeaderLen = unix.BPF_LDX | unix.BPF_B | unix.BPF_MSH // x = length of the IPv4 header at [k]
		loadIndexed   = unix.BPF_LD | unix.BPF_H | unix.BPF_IND  // a = [x+k]
		loadAbsolute  = unix.BPF_LD | unix.BPF_H | unix.BPF_ABS  // a = [k]
		jumpEqual     = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
		ret           = unix.BPF_RET | unix.BPF_K
	)
	program := []unix.SockFilter{{Code: loadAbsolute, K: 2}}
	if ipv4 {
		program = []unix.SockFilter{{Code: loadHeaderLen, K: 0}, {Code: loadIndexed, K: 2}}
	}
	program = append(program,
		unix.SockFilter{Code: jumpEqual, K: uint32(f.port), Jf: 1},
		unix.SockFilter{Code: ret, K: 1 << 16},
		unix.SockFilter{Code: ret, K: 0})
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var result error
	err = raw.Control(func(fd uintptr) {
		result = unix.SetsockoptSockFprog(int(fd), unix.SOL_SOCKET, unix.SO_ATTACH_FILTER,
			&unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]})
	})
	if err := errors.Join(err, result); err != nil {
		return fmt.Errorf("attach filter: %w", err)
	}
	return nil
}

// runSCTP sends INIT until INIT ACK (or ABORT) with its tag comes back, and then
// ends the association, so that conntrack need not keep it. With sockets it does
// what TCP does.
func runSCTP(f *flow, p Probe) (Result, error) {
	if f.stream {
		return runTCP(f, p)
	}
	var random [4]byte
	_, _ = rand.Read(random[:]) // never fails
	tag := binary.BigEndian.Uint32(random[:]) | 1
	init := sctpPacket{srcPort: f.port, dstPort: p.Port, kind: sctpInit, initTag: tag}
	var got sctpPacket
	err := f.askUntil(init.marshal(), func(b []byte) bool {
		if p.To.Is4() {
			var ok bool
			if b, _, ok = withoutIPv4Header(b); !ok {
				return false
			}
		}
		var ok bool
		got, ok = parseSCTP(b)
		return ok && got.tag == tag && got.srcPort == p.Port && got.dstPort == f.port &&
			(got.kind == sctpInitAck || got.kind == sctpAbort)
	})
	if err != nil {
		return Result{}, err
	}
	if got.kind == sctpAbort {
		return Result{}, fmt.Errorf("SCTP ABORT: %w", syscall.Errno(unix.ECONNREFUSED))
	}
	end := sctpPacket{srcPort: f.port, dstPort: p.Port, tag: got.initTag, kind: sctpAbort}
	_, err = f.Write(end.marshal())
	return Result{}, err
}
