package soak

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const (
	// burst packets are sent at a time, and then nothing for pause, which leaves
	// the processors to the agents.
	burst = 8
	pause = 500 * time.Microsecond
	// window bounds the packets that nobody has counted yet, far below what a
	// socket's buffer holds: none is lost because the server is slow.
	window = 64
	// lost is when a packet that was not counted never will be.
	lost = 5 * time.Second
)

// flood sends UDP packets to a server that counts them and never answers, so that to
// connection tracking every packet is a new one. Either all of them are to arrive, or
// none.
type flood struct {
	name           string
	arrives        bool
	sent, received atomic.Int64
	halt           chan struct{}
	failed         chan error
	server, client net.Conn
}

// flood starts a flood from one endpoint to another's address.
func (s *site) flood(from, to string, addr netip.AddrPort, arrives bool) *flood {
	s.t.Helper()
	f := &flood{name: fmt.Sprintf("%s -> %s %s", from, to, addr), arrives: arrives, halt: make(chan struct{}), failed: make(chan error, 1)}
	require.NoError(s.t, s.In(to, func() error {
		server, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(addr))
		f.server = server
		return err
	}))
	require.NoError(s.t, s.In(from, func() (err error) {
		f.client, err = net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(addr))
		return err
	}))
	go f.count()
	go f.send()
	s.t.Cleanup(func() { _ = errors.Join(f.client.Close(), f.server.Close()) })
	return f
}

func (f *flood) count() {
	buf := make([]byte, 16)
	for {
		if _, err := f.server.Read(buf); err != nil {
			return // closed
		}
		f.received.Add(1)
	}
}

// send sends until it is told to stop. Where packets arrive it waits for them.
func (f *flood) send() {
	for {
		for range burst {
			// A node without a route, or without room, says so: then nothing was sent.
			if _, err := f.client.Write([]byte("flood")); err == nil {
				f.sent.Add(1)
			}
		}
		for late := time.Now().Add(lost); f.arrives && f.missing() > window; time.Sleep(pause) {
			if time.Now().After(late) {
				f.failed <- fmt.Errorf("%s: %d of %d packets that are always allowed were dropped", f.name, f.missing(), f.sent.Load())
				return
			}
		}
		select {
		case <-f.halt:
			f.failed <- nil
			return
		case <-time.After(pause):
		}
	}
}

func (f *flood) missing() int64 { return f.sent.Load() - f.received.Load() }

// stop ends the flood and says how many packets met a wrong verdict.
func (f *flood) stop() (wrong int64, err error) {
	close(f.halt)
	err = <-f.failed
	for late := time.Now().Add(lost); f.arrives && f.missing() > 0 && time.Now().Before(late); {
		time.Sleep(pause)
	}
	switch {
	case f.sent.Load() == 0:
		return 0, fmt.Errorf("%s: nothing could be sent", f.name)
	case f.arrives && f.missing() != 0:
		return f.missing(), errors.Join(err, fmt.Errorf("%s: %d of %d packets that are always allowed were dropped", f.name, f.missing(), f.sent.Load()))
	case !f.arrives && f.received.Load() != 0:
		return f.received.Load(), fmt.Errorf("%s: %d of %d packets that are never allowed have passed", f.name, f.received.Load(), f.sent.Load())
	}
	return 0, err
}

// floods are several, half of them allowed and half not.
type floods []*flood

// stop ends all and returns what they counted: how many packets were allowed, how
// many not, and how many of either met the wrong verdict.
func (all floods) stop(t *testing.T) (allowed, denied, dropped, passed int64) {
	t.Helper()
	for _, f := range all {
		wrong, err := f.stop()
		if err != nil {
			t.Error(err)
		}
		if f.arrives {
			allowed, dropped = allowed+f.sent.Load(), dropped+wrong
		} else {
			denied, passed = denied+f.sent.Load(), passed+wrong
		}
	}
	return allowed, denied, dropped, passed
}

// talk is a TCP connection that is used all the time.
type talk struct {
	exchanges atomic.Int64
	halt      chan struct{}
	ended     chan error
}

// talk opens a TCP connection and keeps asking, until stop.
func (s *site) talk(from, to string, addr netip.AddrPort) *talk {
	s.t.Helper()
	k := &talk{halt: make(chan struct{}), ended: make(chan error, 1)}
	var listener net.Listener
	require.NoError(s.t, s.In(to, func() (err error) {
		listener, err = net.ListenTCP("tcp", net.TCPAddrFromAddrPort(addr))
		return err
	}))
	s.t.Cleanup(func() { _ = listener.Close() })
	go func() {
		conn, err := listener.Accept()
		if err == nil {
			_, _ = io.Copy(conn, conn)
			_ = conn.Close()
		}
	}()
	var client net.Conn
	require.NoError(s.t, s.In(from, func() (err error) {
		client, err = net.DialTCP("tcp", nil, net.TCPAddrFromAddrPort(addr))
		return err
	}))
	go func() {
		defer client.Close()
		k.ended <- k.use(client)
	}()
	return k
}

func (k *talk) use(client net.Conn) error {
	buf := make([]byte, 4)
	for {
		if err := client.SetDeadline(time.Now().Add(patience)); err != nil {
			return err
		}
		if _, err := client.Write([]byte("talk")); err != nil {
			return err
		}
		if _, err := io.ReadFull(client, buf); err != nil {
			return err
		}
		k.exchanges.Add(1)
		select {
		case <-k.halt:
			return nil
		case <-time.After(time.Millisecond):
		}
	}
}

// stop ends the connection and says whether it was always there.
func (k *talk) stop() error {
	close(k.halt)
	if err := <-k.ended; err != nil && !errors.Is(err, os.ErrClosed) {
		return fmt.Errorf("a TCP connection that is always allowed ended after %d exchanges: %w", k.exchanges.Load(), err)
	}
	return nil
}
