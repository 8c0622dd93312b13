package lab

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Probe is one attempt to reach something, as a new flow.
type Probe struct {
	From     string     // endpoint: "namespace/pod", a node's name, Outside
	Src      netip.Addr // source address, one of the endpoint's; invalid: the kernel chooses
	To       netip.Addr
	Protocol string // "tcp", "udp", "sctp", "icmp"
	Port     uint16 // destination port; not for icmp
	// Deny says that the caller expects no answer: wait only for Timing.Deny.
	// It changes nothing else, and an answer within that time is reported.
	Deny bool
}

// String writes the probe for a person: "shop/web -> 10.244.1.2 tcp/80".
func (p Probe) String() string {
	var b strings.Builder
	b.WriteString(p.From)
	if p.Src.IsValid() {
		fmt.Fprintf(&b, " (%v)", p.Src)
	}
	fmt.Fprintf(&b, " -> %v %s", p.To, p.Protocol)
	if p.Protocol != icmp {
		fmt.Fprintf(&b, "/%d", p.Port)
	}
	return b.String()
}

// Timing bounds the wait for an answer. A probe ends at once when an answer or
// a refusal arrives. Config.Slowdown multiplies both.
type Timing struct {
	Allow time.Duration // probes that should be answered; 0 means 3 s
	Deny  time.Duration // probes with Deny set; 0 means 300 ms
}

// Result is what became of a Probe.
type Result struct {
	OK      bool           // the full exchange took place
	Refused bool           // a TCP RST, an SCTP ABORT or an ICMP error came back
	RTT     time.Duration  // from the first packet to the end of the exchange, or to the refusal
	Server  string         // endpoint that answered, as it names itself; for tcp, udp, and sctp by sockets
	Seen    netip.AddrPort // the client as the server saw it; for the same
	Err     error          // why not OK: a timeout wraps os.ErrDeadlineExceeded, a refusal a syscall.Errno
}

const (
	tcp  = "tcp"
	udp  = "udp"
	sctp = "sctp"
	icmp = "icmp"
)

// resendAfter is the time between two packets of a probe whose transport does
// not repeat by itself.
const resendAfter = 50 * time.Millisecond

// Probe runs all probes concurrently and returns one result for each, in order.
// Probes that could not even start (unknown endpoint, no such source address)
// have Err set and Refused not. When ctx ends, waiting ends.
func (l *Lab) Probe(ctx context.Context, probes []Probe, t Timing) []Result {
	if t.Allow == 0 {
		t.Allow = 3 * time.Second
	}
	if t.Deny == 0 {
		t.Deny = 300 * time.Millisecond
	}
	results := make([]Result, len(probes))
	var all sync.WaitGroup
	for i, p := range probes {
		wait := t.Allow
		if p.Deny {
			wait = t.Deny
		}
		wait *= time.Duration(l.cfg.Slowdown)
		l.probing <- struct{}{}
		all.Go(func() {
			defer func() { <-l.probing }()
			results[i] = l.probe(ctx, p, wait)
		})
	}
	all.Wait()
	return results
}

func (l *Lab) probe(ctx context.Context, p Probe, wait time.Duration) Result {
	ns, err := l.endpoint(p.From)
	if err != nil {
		return Result{Err: err}
	}
	if err := ctx.Err(); err != nil {
		return Result{Err: err}
	}
	exchange := exchanges[p.Protocol]
	if exchange.open == nil {
		return Result{Err: fmt.Errorf("protocol %q: want tcp, udp, sctp or icmp", p.Protocol)}
	}
	if err := l.checkTarget(p); err != nil {
		return Result{Err: err}
	}
	f, err := exchange.open(ns, p)
	if err != nil {
		return refusal(err, connectRefusals, 0)
	}
	defer f.Close()
	if err := f.SetDeadline(time.Now().Add(wait)); err != nil {
		return Result{Err: err}
	}
	stop := context.AfterFunc(ctx, func() { _ = f.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	f.begin, f.end = time.Now(), time.Now().Add(wait)
	r, err := exchange.run(f, p)
	if err != nil {
		return refusal(err, asyncRefusals, time.Since(f.begin))
	}
	r.OK, r.RTT = true, time.Since(f.begin)
	return r
}

func (l *Lab) checkTarget(p Probe) error {
	if !p.To.IsValid() || p.To.Is4In6() || !l.hasFamily(p.To) {
		return fmt.Errorf("probe %v: no such family in this laboratory", p)
	}
	if p.Src.IsValid() && p.Src.Is4() != p.To.Is4() {
		return fmt.Errorf("probe %v: source and destination of two families", p)
	}
	return nil
}

// exchanges tells how each protocol is probed: open makes the connected socket
// and may already send; run ends without error when the answer is complete.
var exchanges = map[string]struct {
	open func(*namespace, Probe) (*flow, error)
	run  func(*flow, Probe) (Result, error)
}{
	tcp:  {openTCP, runTCP},
	udp:  {openUDP, runUDP},
	icmp: {openICMP, runICMP},
	sctp: {openSCTP, runSCTP},
}

// flow is a connected client socket with a source port of its own.
type flow struct {
	*os.File
	port       uint16
	stream     bool // an SCTP socket
	begin, end time.Time
}

// openFlow makes a socket, binds it to a fresh source port (if ports is true)
// and connects it.
func openFlow(ns *namespace, p Probe, typ, protocol int, ports bool) (*flow, error) {
	fd, err := ns.socket(domainOf(p.To), typ, protocol)
	if err != nil {
		return nil, err
	}
	f := &flow{}
	if f.port, err = bindFresh(ns, fd, p, ports); err == nil {
		port := p.Port
		if !ports {
			port = 0
		}
		err = unix.Connect(fd, sockaddr(p.To, port))
		if errors.Is(err, unix.EINPROGRESS) {
			err = nil
		}
		if err != nil {
			err = fmt.Errorf("connect: %w", err)
		}
	}
	if err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	f.File = os.NewFile(uintptr(fd), p.Protocol)
	return f, nil
}

// bindFresh binds to the next source port, passing over those that somebody
// listens on. Without ports only a given source address is bound.
func bindFresh(ns *namespace, fd int, p Probe, ports bool) (uint16, error) {
	src := p.Src
	if !src.IsValid() {
		src = unspecified(p.To)
	}
	for range 100 {
		port := ns.nextPort()
		bound := port
		if !ports {
			if !p.Src.IsValid() {
				return port, nil
			}
			bound = 0
		}
		err := unix.Bind(fd, sockaddr(src, bound))
		if !errors.Is(err, unix.EADDRINUSE) {
			if err != nil {
				err = fmt.Errorf("bind %v: %w", src, err)
			}
			return port, err
		}
	}
	return 0, fmt.Errorf("bind %v: no free source port", src)
}

// Errors that mean that something out there said no. A connect that fails at
// once is a refusal only with the first: others come from the own routing table.
var (
	connectRefusals = []syscall.Errno{unix.ECONNREFUSED}
	asyncRefusals   = []syscall.Errno{
		unix.ECONNREFUSED, unix.ECONNRESET, unix.ECONNABORTED, unix.EHOSTUNREACH, unix.ENETUNREACH,
		unix.EACCES, unix.EPROTO, unix.ENOPROTOOPT, unix.ENONET, unix.EHOSTDOWN,
	}
)

func refusal(err error, refusals []syscall.Errno, after time.Duration) Result {
	r := Result{Err: err}
	for _, errno := range refusals {
		if errors.Is(err, errno) {
			r.Refused, r.RTT = true, after
		}
	}
	return r
}

// askUntil sends the request again and again until accept finds an answer to it
// among what arrives.
func (f *flow) askUntil(request []byte, accept func([]byte) bool) error {
	buf := make([]byte, 2048)
	for {
		// A drop in an output hook is reported as EPERM: no answer yet, either.
		if _, err := f.Write(request); err != nil && !errors.Is(err, unix.EPERM) {
			return err
		}
		round := time.Now().Add(resendAfter)
		last := round.After(f.end)
		if last {
			round = f.end
		}
		if err := f.SetReadDeadline(round); err != nil {
			return err
		}
		for {
			n, err := f.Read(buf)
			if err == nil && accept(buf[:n]) {
				return nil
			}
			if errors.Is(err, os.ErrDeadlineExceeded) && !last {
				break
			}
			if err != nil {
				return err
			}
		}
	}
}

func openTCP(ns *namespace, p Probe) (*flow, error) {
	return openFlow(ns, p, unix.SOCK_STREAM, unix.IPPROTO_TCP, true)
}

// runTCP waits for the handshake, reads the server's line and its end of stream,
// so that both sides close in order.
func runTCP(f *flow, _ Probe) (Result, error) {
	if err := f.connected(); err != nil {
		return Result{}, fmt.Errorf("connect: %w", err)
	}
	var line bytes.Buffer
	if _, err := line.ReadFrom(f); err != nil {
		return Result{}, fmt.Errorf("connected, but no answer: %w", err)
	}
	return parseAnswer(line.Bytes())
}

// connected waits until a nonblocking connect has ended.
func (f *flow) connected() error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var result error
	err = raw.Write(func(fd uintptr) bool {
		errno, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ERROR)
		if err != nil {
			result = err
			return true
		}
		if errno != 0 {
			result = syscall.Errno(errno)
			return true
		}
		_, err = unix.Getpeername(int(fd))
		return err == nil
	})
	return errors.Join(err, result)
}

func openUDP(ns *namespace, p Probe) (*flow, error) {
	return openFlow(ns, p, unix.SOCK_DGRAM, unix.IPPROTO_UDP, true)
}

// runUDP sends a token that no other probe knows until its echo comes back.
func runUDP(f *flow, _ Probe) (Result, error) {
	token := rand.Text()
	var r Result
	err := f.askUntil([]byte(token), func(b []byte) bool {
		answer, ok := bytes.CutPrefix(b, []byte(token+" "))
		if !ok {
			return false
		}
		var err error
		r, err = parseAnswer(answer)
		return err == nil
	})
	return r, err
}

// answer is what a server says: its endpoint and the client as it saw it.
func answer(endpoint string, client netip.AddrPort) string {
	return endpoint + " " + client.String() + "\n"
}

func parseAnswer(b []byte) (Result, error) {
	server, client, ok := strings.Cut(strings.TrimSuffix(string(b), "\n"), " ")
	seen, err := netip.ParseAddrPort(client)
	if !ok || err != nil {
		return Result{}, fmt.Errorf("connected, but the answer %q is not a laboratory server's", b)
	}
	return Result{Server: server, Seen: seen}, nil
}

// openICMP makes a "ping socket": the kernel fills in identifier and checksum
// and hands us only the replies with our identifier. The identifier is bound
// like a port.
func openICMP(ns *namespace, p Probe) (*flow, error) {
	p.Port = 0
	protocol := unix.IPPROTO_ICMP
	if p.To.Is6() {
		protocol = unix.IPPROTO_ICMPV6
	}
	return openFlow(ns, p, unix.SOCK_DGRAM, protocol, true)
}

func runICMP(f *flow, p Probe) (Result, error) {
	const echoHeader = 8
	request, reply := byte(8), byte(0)
	if p.To.Is6() {
		request, reply = 128, 129
	}
	token := rand.Text()
	packet := append([]byte{request, 0, 0, 0, 0, 0, 0, 1}, token...)
	return Result{}, f.askUntil(packet, func(b []byte) bool {
		return len(b) >= echoHeader && b[0] == reply && string(b[echoHeader:]) == token
	})
}
