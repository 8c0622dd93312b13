package control

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/portcullis-netpol/portcullis/testcases/lab"
)

const (
	// burst packets are sent at a time, and then nothing for pause, which leaves the
	// processors to what is measured.
	burst = 4
	pause = time.Millisecond
	// overdue is when a packet that has not arrived never will.
	overdue = 3 * time.Second
)

// probing sends packets, of which all or none are to arrive, until it is stopped.
type probing struct {
	cancel context.CancelFunc
	all    sync.WaitGroup

	mu      sync.Mutex
	packets int64
	wrong   int64
	err     error
}

// startProbing floods a port that is always open and one that never is with UDP that
// nobody answers, so that every packet is a new one to connection tracking, and opens
// TCP connections from a pod that may and from one that may not.
func (s *scene) startProbing(ctx context.Context) (*probing, error) {
	p := &probing{}
	ctx, p.cancel = context.WithCancel(ctx)
	for _, port := range []uint16{openPort, closedPort} {
		f, err := s.flood("server", port)
		if err != nil {
			p.cancel()
			return nil, err
		}
		p.all.Go(func() {
			defer f.close()
			f.run(ctx)
			lost := f.lost(port == openPort)
			p.add(f.sent.Load(), lost, f.err)
		})
	}
	p.all.Go(func() {
		to := s.addr("server")
		for ctx.Err() == nil {
			list := []lab.Probe{
				{From: probes + "/client", To: to, Protocol: "tcp", Port: openPort},
				{From: probes + "/stranger", To: to, Protocol: "tcp", Port: openPort, Deny: true},
			}
			for i, r := range s.Probe(ctx, list, lab.Timing{}) {
				if ctx.Err() == nil {
					wrong := int64(0)
					if r.OK == list[i].Deny {
						wrong = 1
					}
					p.add(1, wrong, nil)
				}
			}
		}
	})
	return p, nil
}

func (p *probing) add(packets, wrong int64, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.packets += packets
	p.wrong += wrong
	p.err = errors.Join(p.err, err)
}

// stop ends the packets and enters in r what became of them, if it is not nil.
func (p *probing) stop(r *churnResult) error {
	p.cancel()
	p.all.Wait()
	if r != nil {
		r.Packets, r.Wrong = p.packets, p.wrong
	}
	return p.err
}

// flood sends UDP packets to a server that counts them.
type flood struct {
	server, client net.Conn
	sent, received atomic.Int64
	err            error
}

// flood opens the sockets of one from client to another pod.
func (s *scene) flood(to string, port uint16) (*flood, error) {
	f := &flood{}
	at := net.UDPAddrFromAddrPort(netip.AddrPortFrom(s.addr(to), port))
	err := s.In(probes+"/"+to, func() (err error) {
		f.server, err = net.ListenUDP("udp", at)
		return err
	})
	if err == nil {
		err = s.In(probes+"/client", func() (err error) {
			f.client, err = net.DialUDP("udp", nil, at)
			return err
		})
	}
	if err != nil {
		f.close()
		return nil, err
	}
	return f, nil
}

func (f *flood) close() {
	for _, c := range []net.Conn{f.client, f.server} {
		if c != nil {
			_ = c.Close()
		}
	}
}

// run sends until ctx ends.
func (f *flood) run(ctx context.Context) {
	go func() {
		buf := make([]byte, 16)
		for {
			if _, err := f.server.Read(buf); err != nil {
				return // closed
			}
			f.received.Add(1)
		}
	}()
	tick := time.NewTicker(pause)
	defer tick.Stop()
	for {
		for range burst {
			if _, err := f.client.Write([]byte("flood")); err != nil {
				f.err = fmt.Errorf("flood: %w", err)
				return
			}
			f.sent.Add(1)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// lost waits for what is under way and returns how many packets met the wrong verdict.
func (f *flood) lost(arrives bool) int64 {
	for late := time.Now().Add(overdue); arrives && f.received.Load() < f.sent.Load() && time.Now().Before(late); {
		time.Sleep(pause)
	}
	if arrives {
		return f.sent.Load() - f.received.Load()
	}
	return f.received.Load()
}
