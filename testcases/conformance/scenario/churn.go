package scenario

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
)

const (
	churnAllowed = 7001 // in every state
	churnDenied  = 7002 // in none
	churnMark    = 7100 // and what follows: in the state of that number
	churnRounds  = 8
)

// churnSpecs select the server. Each allows both clients to churnAllowed and to its
// own mark, in another way; those that isolate the clients, too, let them go to all
// marks, so that one policy does not close the mark of the other.
var churnSpecs = []string{
	`{podSelector: {}, policyTypes: [Ingress], ingress: [{from: [{podSelector: {}}], ports: [{port: 7001}, {port: 7100}]}]}`,
	`{podSelector: {matchLabels: {app: server}}, policyTypes: [Ingress], ingress: [{from: [{ipBlock: {cidr: 10.244.0.0/16}}, {ipBlock: {cidr: "fd00:10:244::/48"}}], ports: [{port: 6990, endPort: 7001}, {port: 7101}]}]}`,
	`{podSelector: {}, policyTypes: [Ingress, Egress], ingress: [{ports: [{port: 7001}, {port: 7102}]}], egress: [{ports: [{port: 7001}, {port: 7100, endPort: 7110}]}]}`,
	`{podSelector: {}, policyTypes: [Egress, Ingress], egress: [{to: [{podSelector: {matchLabels: {app: server}}}], ports: [{port: steady}, {port: 7100, endPort: 7110}]}], ingress: [{from: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: churn}}}], ports: [{port: steady}, {port: 7103}]}]}`,
	`{podSelector: {matchLabels: {app: server}}, ingress: [{from: [{podSelector: {matchLabels: {app: near}}}, {podSelector: {matchLabels: {app: far}}}], ports: [{port: 7001}, {port: 7104, endPort: 7110}]}]}`,
}

// churn replaces, makes and deletes policies while new connections are opened all the
// time: on a port that every state allows, none may be lost, not even for as long as
// it takes the kernel to try again; on one that no state allows, none may arrive.
func churn(s *stage) {
	const ns = "churn"
	s.step("start pods and the first policy")
	s.pods(
		pod{as: "server", namespace: ns, node: "node-1", labels: app("server"), named: []corev1.ContainerPort{{Name: "steady", ContainerPort: churnAllowed}},
			ports: []uint16{churnMark, churnMark + 1, churnMark + 2, churnMark + 3, churnMark + 4}},
		pod{as: "near", namespace: ns, node: "node-1", labels: app("near")},
		pod{as: "far", namespace: ns, node: "node-2", labels: app("far")},
	)
	allowed, denied := s.listen("server", churnAllowed), s.listen("server", churnDenied)
	s.expect("near>server:7002", "far>server:7002") // it would be heard
	s.policy(ns, "churn", churnSpecs[0])
	s.expect("near>server:7001", "far>server:7001", "near>server:7100", "far>server:7100", "!near>server:7101", "!near>server:7002", "!far>server:7002")
	denied.accepted.Store(0)

	s.step("change policies under way")
	ctx, stop := context.WithCancel(s.ctx)
	defer stop()
	var streams []*stream
	for _, from := range []string{"near", "far"} {
		streams = append(streams, s.stream(ctx, from, churnAllowed, true), s.stream(ctx, from, churnDenied, false))
	}
	changes := s.changePolicies(ns)
	stop()
	var open, shut stream
	for _, st := range streams {
		st.running.Wait()
		sum := &shut
		if st.open {
			sum = &open
		}
		sum.tried.Add(st.tried.Load())
		sum.wrong.Add(st.wrong.Load())
		s.must(st.err)
	}
	s.doing = fmt.Sprintf("%d changes; port %d: %d connections, %d lost; port %d: %d attempts, %d passed",
		changes, churnAllowed, open.tried.Load(), open.wrong.Load(), churnDenied, shut.tried.Load(), denied.accepted.Load())
	if open.tried.Load() < 100 || shut.tried.Load() < 100 || allowed.accepted.Load() < open.tried.Load() {
		s.must(fmt.Errorf("too few: the server has %d", allowed.accepted.Load()))
	}
	if open.wrong.Load() > 0 || shut.wrong.Load() > 0 || denied.accepted.Load() > 0 {
		s.must(&WrongFlows{s.doing, []Wrong{
			{Flow{"near, far", "server", churnAllowed, true}, "", "", fmt.Sprint(open.wrong.Load(), " lost")},
			{Flow{"near, far", "server", churnDenied, false}, "", "", fmt.Sprint(denied.accepted.Load(), " passed")},
		}})
	}
}

// changePolicies makes every transition between two states, in place and by a second
// policy, and sees each of them take effect.
func (s *stage) changePolicies(ns string) (changes int) {
	marks := func(i int) []Flow {
		return []Flow{{"near", "server", uint16(churnMark + i), true}, {"far", "server", uint16(churnMark + i), true}}
	}
	for range churnRounds {
		for i := range churnSpecs {
			extra := (i + 2) % len(churnSpecs)
			s.policy(ns, "churn", churnSpecs[i])
			s.settle(marks(i), 1)
			s.policy(ns, "extra", churnSpecs[extra])
			s.settle(marks(extra), 1)
			s.deletePolicy(ns, "extra")
			changes += 3
		}
		last := len(churnSpecs) - 1
		closed := marks((last + 2) % len(churnSpecs))
		for i := range closed {
			closed[i].Open = false
		}
		s.settle(closed, 1)
	}
	return changes
}

// server counts the connections that arrive at a port.
type server struct{ accepted atomic.Int64 }

// listen serves a port of a pod for as long as the case plays.
func (s *stage) listen(as string, port uint16) *server {
	v := &server{}
	var l net.Listener
	s.must(s.Cluster.In(s.target(as).endpoint, func() (err error) {
		l, err = net.Listen("tcp", ":"+strconv.Itoa(int(port)))
		return err
	}))
	s.closers = append(s.closers, l)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return // closed
			}
			v.accepted.Add(1)
			go func() {
				_, _ = io.Copy(io.Discard, c) // until the client ends it
				_ = c.Close()
			}()
		}
	}()
	return v
}

// stream opens connection after connection.
type stream struct {
	open         bool // they should be possible
	tried, wrong atomic.Int64
	running      sync.WaitGroup
	err          error
}

// stream starts one, in both families at once, that runs until ctx ends.
func (s *stage) stream(ctx context.Context, from string, port uint16, open bool) *stream {
	st := &stream{open: open}
	var once sync.Once
	for _, addr := range s.target("server").addrs {
		workers := 1
		if !open {
			workers = 4 // which spend their time waiting
		}
		for range workers {
			st.running.Go(func() {
				if err := s.flood(ctx, st, s.target(from).endpoint, netip.AddrPortFrom(addr, port)); err != nil {
					once.Do(func() { st.err = err })
				}
			})
		}
	}
	return st
}

func (s *stage) flood(ctx context.Context, st *stream, from string, to netip.AddrPort) error {
	wait := 5 * time.Second
	if !st.open {
		wait = 50 * time.Millisecond // the server counts, also what is late
	}
	for ctx.Err() == nil {
		a, err := dial(s.Cluster, from, to, wait)
		if err != nil {
			return err
		}
		st.tried.Add(1)
		if a.open != st.open || st.open && a.resent > 0 {
			st.wrong.Add(1)
		}
		select {
		case <-ctx.Done():
		case <-time.After(time.Millisecond): // leaves the processors to the rest
		}
	}
	return nil
}
