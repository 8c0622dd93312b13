package soak

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// intruder tries all the time to open a TCP connection that nothing allows. While
// there are no rules it succeeds. What it has opened must not outlive the repair.
type intruder struct {
	opened, ended atomic.Int64
	halt          chan struct{}
	all           sync.WaitGroup
	listener      net.Listener
}

// intrude starts an intruder from one endpoint to another's address.
func (s *site) intrude(from, to string, addr netip.AddrPort) *intruder {
	s.t.Helper()
	n := &intruder{halt: make(chan struct{})}
	require.NoError(s.t, s.In(to, func() (err error) {
		n.listener, err = net.ListenTCP("tcp", net.TCPAddrFromAddrPort(addr))
		return err
	}))
	n.all.Go(n.echo)
	n.all.Go(func() {
		for {
			select {
			case <-n.halt:
				return
			default:
				n.try(s, from, addr)
			}
		}
	})
	s.t.Cleanup(n.stop)
	return n
}

func (n *intruder) echo() {
	for {
		conn, err := n.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err == nil {
			n.all.Go(func() {
				_, _ = io.Copy(conn, conn)
				_ = conn.Close()
			})
		}
	}
}

// try opens a connection, at once or not at all, and uses it for as long as it works.
func (n *intruder) try(s *site, from string, addr netip.AddrPort) {
	var conn net.Conn
	if s.In(from, func() (err error) {
		conn, err = net.DialTimeout("tcp", addr.String(), 5*time.Millisecond)
		return err
	}) != nil {
		return
	}
	n.opened.Add(1)
	defer n.ended.Add(1)
	done := make(chan struct{})
	defer close(done)
	n.all.Go(func() {
		select {
		case <-n.halt:
		case <-done:
		}
		_ = conn.Close()
	})
	buf := make([]byte, 4)
	for {
		if _, err := conn.Write([]byte("here")); err != nil {
			return
		}
		if _, err := io.ReadFull(conn, buf); err != nil {
			return
		}
		time.Sleep(pause)
	}
}

// gone waits until the intruder has no connection.
func (n *intruder) gone(t *testing.T, what string) {
	t.Helper()
	eventually(t, "the connections are ended that were opened when there were no rules: "+what, func() bool {
		ended := n.ended.Load()
		return n.opened.Load() == ended
	})
}

func (n *intruder) stop() {
	select {
	case <-n.halt:
		return
	default:
	}
	close(n.halt)
	_ = n.listener.Close()
	n.all.Wait()
}
