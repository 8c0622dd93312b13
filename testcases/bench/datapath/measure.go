package datapath

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/portcullis-netpol/portcullis/testcases/bench/report"
)

// dose is how much work one sample is.
type dose struct {
	packets     int           // at most
	connections int           // at most, and less than backlog
	most        time.Duration // what ends a sample early
	stream      time.Duration // how long a TCP stream lasts
}

const (
	// warm is how many packets go before each sample and do not count, warmCalls
	// how many connections.
	warm      = 2 * batch
	warmCalls = 8
	// calls is how many connections are timed at once.
	calls = 5
)

// measurer takes samples.
type measurer struct {
	clock clock
	dose  dose
}

// errDisturbed is a sample during which something went elsewhere than it should.
var errDisturbed = errors.New("not all packets went their way")

// steady takes a sample again if packets were lost: the kernel leaves some of its
// work to a thread of its own when it is interrupted for too long.
func steady(take func() (float64, error)) (v float64, err error) {
	for range 5 {
		if v, err = take(); !errors.Is(err, errDisturbed) {
			return v, err
		}
	}
	return v, err
}

// perSecond returns how many thousand a second n at a time are. The median of the
// times is not moved by some that were disturbed.
func perSecond(n int, times []float64) float64 {
	return float64(n) / report.Quantile(times, 0.5) / 1000
}

// packets measures thousands of packets a second: those that send makes of a number
// of packets, all of which have to reach the server, or none of them.
func (m measurer) packets(s *site, pass bool, send func(n int) error) (float64, error) {
	return steady(func() (rate float64, err error) {
		err = pinned(func() error {
			rate, err = m.packetsOnce(s, pass, send)
			return err
		})
		return rate, err
	})
}

func (m measurer) packetsOnce(s *site, pass bool, send func(n int) error) (float64, error) {
	if err := send(warm); err != nil {
		return 0, err
	}
	before, err := s.arrived()
	if err != nil {
		return 0, err
	}
	times, err := m.clock.pieces(m.dose.packets/batch, m.dose.most, func() error { return send(batch) })
	if err != nil {
		return 0, err
	}
	after, err := s.arrived()
	if err != nil {
		return 0, err
	}
	sent, want := len(times)*batch, 0
	if pass {
		want = sent
	}
	if int(after-before) != want {
		return 0, fmt.Errorf("%d of %d packets arrived: %w", after-before, sent, errDisturbed)
	}
	return perSecond(batch, times), nil
}

// newFlows measures packets that are the first of their flow.
func (m measurer) newFlows(s *site, port uint16, pass bool) (float64, error) {
	if err := s.forget(); err != nil {
		return 0, err
	}
	return m.packets(s, pass, func(n int) error { return s.sender.renew(n, port) })
}

// knownFlow measures packets of a flow that was answered.
func (m measurer) knownFlow(s *site) (float64, error) {
	if err := s.talk(); err != nil {
		return 0, err
	}
	return m.packets(s, true, func(n int) error { return s.sender.repeat(n, talkPort, allowedPort) })
}

// connections measures thousands of TCP connections a second that are opened and
// closed at once.
func (m measurer) connections(s *site) (rate float64, err error) {
	if err := s.forget(); err != nil {
		return 0, err
	}
	var times []float64
	err = s.In(client, func() error {
		return pinned(func() error {
			to := s.of(serverAddrs)
			if err := connect(warmCalls, to, allowedPort); err != nil {
				return err
			}
			times, err = m.clock.pieces(m.dose.connections/calls, m.dose.most, func() error { return connect(calls, to, allowedPort) })
			return err
		})
	})
	if err = errors.Join(err, s.listener.clear()); err != nil {
		return 0, err
	}
	return perSecond(calls, times), nil
}

// stream measures the gigabits of one TCP connection, for a second of processor time
// of both of its ends.
func (m measurer) stream(s *site) (rate float64, err error) {
	from, to, err := s.connection()
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, to.Close()) }()
	var received int64
	took, err := m.clock.ofProcess().measure(func() (err error) {
		received, err = m.pump(from, to)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("stream: %w", err)
	}
	return float64(received) * 8 / took.Seconds() / 1e9, nil
}

// pump sends for as long as a stream lasts, closes the sending end, and returns how
// many bytes came.
func (m measurer) pump(from, to net.Conn) (received int64, err error) {
	failed := make(chan error, 1)
	go func() {
		buffer, start := make([]byte, 1<<18), time.Now()
		var err error
		for more := true; more && err == nil; more = time.Since(start) < m.dose.stream {
			_, err = from.Write(buffer)
		}
		failed <- errors.Join(err, from.Close())
	}()
	// Wrapped, because a connection would offer to splice into a sink.
	received, err = io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{to}, make([]byte, 1<<18))
	return received, errors.Join(err, <-failed)
}

// connection opens a TCP connection from the client to the server.
func (s *site) connection() (from, to net.Conn, err error) {
	err = s.In(client, func() (err error) {
		from, err = net.DialTCP("tcp", nil, &net.TCPAddr{IP: s.of(serverAddrs).AsSlice(), Port: allowedPort})
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	fd, _, err := unix.Accept4(s.listener.fd, unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("accept: %w", err), from.Close())
	}
	f := os.NewFile(uintptr(fd), "connection")
	defer func() { _ = f.Close() }()
	if to, err = net.FileConn(f); err != nil {
		return nil, nil, errors.Join(err, from.Close())
	}
	return from, to, nil
}

// talkPort is the client's end of the known flow, one that the sender does not
// otherwise use.
const talkPort = 1000

// talk lets the client say something to the server, and the server answer it.
func (s *site) talk() (err error) {
	if err := s.forget(); err != nil {
		return err
	}
	there := net.UDPAddr{IP: s.of(serverAddrs).AsSlice(), Port: allowedPort}
	var ends [2]*net.UDPConn
	defer func() {
		for _, c := range ends {
			if c != nil {
				err = errors.Join(err, c.Close())
			}
		}
	}()
	open := func(pod string, i int, dial func() (*net.UDPConn, error)) error {
		return s.In(pod, func() (err error) {
			if ends[i], err = dial(); err != nil {
				return err
			}
			return ends[i].SetDeadline(time.Now().Add(5 * time.Second))
		})
	}
	err = open(server, 0, func() (*net.UDPConn, error) { return net.ListenUDP("udp", &there) })
	if err == nil {
		err = open(client, 1, func() (*net.UDPConn, error) {
			return net.DialUDP("udp", &net.UDPAddr{IP: s.of(clientAddrs).AsSlice(), Port: talkPort}, &there)
		})
	}
	if err != nil {
		return fmt.Errorf("open sockets: %w", err)
	}
	word := []byte("hello")
	if _, err = ends[1].Write(word); err != nil {
		return fmt.Errorf("say hello: %w", err)
	}
	_, back, err := ends[0].ReadFrom(word)
	if err == nil {
		_, err = ends[0].WriteTo(word, back)
	}
	if err == nil {
		_, err = ends[1].Read(word)
	}
	if err != nil {
		return fmt.Errorf("wait for an answer: %w", err)
	}
	return nil
}
