package testcases

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/portcullis-netpol/portcullis/nft"
	"github.com/portcullis-netpol/portcullis/policy/manifest"
	"github.com/portcullis-netpol/portcullis/testcases/lab"
)

// churnPolicies select shop/server. Each allows shop/client to UDP port 7001 and
// nothing to 7002, each in another way, so that every change from one to another
// changes everything in the table but those two verdicts.
var churnPolicies = []string{
	`{podSelector: {}, ingress: [{from: [{podSelector: {}}], ports: [{protocol: UDP, port: 7001}]}]}`,
	`{podSelector: {matchLabels: {app: server}}, ingress: [{from: [{ipBlock: {cidr: 10.244.0.0/16}}, {ipBlock: {cidr: "fd00:10:244::/48"}}], ports: [{protocol: UDP, port: 6000, endPort: 7001}]}]}`,
	`{podSelector: {}, ingress: [{ports: [{protocol: UDP, port: 7001}]}], egress: [{ports: [{protocol: UDP, port: 7001}]}]}`,
	`{podSelector: {}, policyTypes: [Egress, Ingress], egress: [{to: [{podSelector: {matchLabels: {app: server}}}], ports: [{protocol: UDP, port: churn}]}], ingress: [{from: [{namespaceSelector: {}}], ports: [{protocol: UDP, port: churn}]}]}`,
	`{podSelector: {}, ingress: [{from: [{podSelector: {matchLabels: {app: client}}}, {podSelector: {matchLabels: {app: other}}}], ports: [{protocol: UDP, port: 7001}, {protocol: UDP, port: 7003, endPort: 7009}]}]}`,
}

const churnPods = `
{apiVersion: v1, kind: Namespace, metadata: {name: shop}}
---
{apiVersion: v1, kind: Pod, metadata: {name: client, namespace: shop, labels: {app: client}}, spec: {nodeName: node-1, containers: [{name: c}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: server, namespace: shop, labels: {app: server}}, spec: {nodeName: node-1, containers: [{name: c, ports: [{name: churn, protocol: UDP, containerPort: 7001}]}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: other, namespace: shop, labels: {app: other}}, spec: {nodeName: node-2, containers: [{name: c}]}}
`

// churnOther gives a peer a label that some policies look for, or takes it away.
const churnOther = `
{apiVersion: v1, kind: Pod, metadata: {name: other, namespace: shop, labels: {app: other-%d}}, spec: {containers: [{name: c}]}}
`

// churnRounds is how often each transition is made, restarts between them.
const churnRounds = 6

// TestChurn floods a port that every state allows and one that none allows while
// the rules change under the packets: policies replaced, pods relabelled, and the
// table taken over as by a restarted agent. Not one packet may meet a verdict that
// neither the old nor the new state has. The flood is UDP that nobody answers, so
// to connection tracking every packet is a new one.
func TestChurn(t *testing.T) {
	for _, topo := range topologies {
		for i, family := range []string{"IPv4", "IPv6"} {
			t.Run(topo.String()+"/"+family, func(t *testing.T) {
				lab.Require(t, needs...)
				s := newSite(t, topo, tableConfig)
				c := &cluster{}
				start := churnStep(t, churnPods, "churn", 0)
				events, err := c.apply(start)
				require.NoError(t, err)
				s.populate(c)
				s.change(events...)
				server := s.pods["shop/server"].addrs()[i]
				allowed, denied := newFlood(s, server, 7001, true), newFlood(s, server, 7002, false)
				s.churn(c)
				assert.NoError(t, allowed.stop(func(sent, received int64) error {
					if sent == 0 || sent != received {
						return fmt.Errorf("%d of %d packets that every state allows were dropped", sent-received, sent)
					}
					return nil
				}))
				assert.NoError(t, denied.stop(func(sent, received int64) error {
					if sent == 0 || received != 0 {
						return fmt.Errorf("%d of %d packets that no state allows have passed", received, sent)
					}
					return nil
				}))
				t.Logf("%d packets allowed, %d denied", allowed.sent.Load(), denied.sent.Load())
			})
		}
	}
}

// change gives events to node-1 as one change.
func (s *site) change(events ...event) {
	s.t.Helper()
	require.NoError(s.t, s.followers["node-1"].follow(s.t.Context(), events))
}

// churn makes every transition between two policies, in place and by a second
// policy, relabels a peer and takes the table over.
func (s *site) churn(c *cluster) {
	s.t.Helper()
	f := s.followers["node-1"]
	become := func(st step) {
		s.t.Helper()
		events, err := c.apply(st)
		require.NoError(s.t, err)
		s.change(events...)
	}
	for range churnRounds {
		for i := range churnPolicies {
			become(churnStep(s.t, "", "churn", i))
			become(churnStep(s.t, "", "extra", (i+2)%len(churnPolicies)))
			become(churnStep(s.t, fmt.Sprintf(churnOther, i%2), "extra", (i+2)%len(churnPolicies)))
			become(step{Deletes: []objectRef{{Kind: "NetworkPolicy", Namespace: "shop", Name: "extra"}}, Applies: &manifest.Objects{}})
		}
		cfg := s.cfg
		cfg.NetNS = s.NetNS("node-1")
		f.enforcer = nft.NewEnforcer(cfg, f.kernel)
		require.NoError(s.t, f.enforcer.Takeover(s.t.Context(), f.index.State()))
	}
	require.Zero(s.t, f.repaired, "changes that could not be made in parts")
}

// churnStep applies objects and the i-th policy under a name.
func churnStep(t *testing.T, objects, name string, i int) step {
	t.Helper()
	policy := fmt.Sprintf("{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: %s, namespace: shop}, spec: %s}", name, churnPolicies[i])
	o, err := manifest.Decode("churn", []byte(objects+"\n---\n"+policy))
	require.NoError(t, err)
	return step{Applies: o}
}

// flood sends UDP packets from shop/client to a server that counts them.
type flood struct {
	sent, received atomic.Int64
	halt           chan struct{}
	failed         chan error
	server         net.PacketConn
	client         net.Conn
}

const (
	// burst packets are sent at a time, and then nothing for pause, which leaves
	// the processors to what changes the rules.
	burst = 16
	pause = 200 * time.Microsecond
	// window bounds the packets that nobody has counted yet, far below what a
	// socket's buffer holds: none is lost because the server is slow.
	window = 64
)

func newFlood(s *site, server netip.Addr, port uint16, arrives bool) *flood {
	f := &flood{halt: make(chan struct{}), failed: make(chan error, 1)}
	to := netip.AddrPortFrom(server, port)
	require.NoError(s.t, s.In("shop/server", func() (err error) {
		f.server, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(to))
		return err
	}))
	require.NoError(s.t, s.In("shop/client", func() (err error) {
		f.client, err = net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(to))
		return err
	}))
	go f.count()
	go f.send(arrives)
	return f
}

func (f *flood) count() {
	buf := make([]byte, 16)
	for {
		if _, _, err := f.server.ReadFrom(buf); err != nil {
			return // closed by stop, or too late
		}
		f.received.Add(1)
	}
}

// send sends until it is told to stop. Where packets arrive it waits for them;
// one that has not come after a second never will.
func (f *flood) send(arrives bool) {
	for {
		for range burst {
			if _, err := f.client.Write([]byte("churn")); err != nil {
				f.failed <- err
				return
			}
			f.sent.Add(1)
		}
		for late := time.Now().Add(time.Second); arrives && f.sent.Load()-f.received.Load() > window; {
			if time.Now().After(late) {
				f.failed <- fmt.Errorf("%d packets that every state allows were dropped", f.sent.Load()-f.received.Load())
				return
			}
			time.Sleep(pause)
		}
		select {
		case <-f.halt:
			f.failed <- nil
			return
		case <-time.After(pause):
		}
	}
}

// stop ends the flood and asks want until it is content; what was sent has to
// arrive first. A packet that must not arrive had all the time of the churn.
func (f *flood) stop(want func(sent, received int64) error) error {
	close(f.halt)
	err := <-f.failed
	if err == nil {
		deadline := time.Now().Add(2 * time.Second)
		for err = want(f.sent.Load(), f.received.Load()); err != nil && time.Now().Before(deadline); {
			time.Sleep(10 * time.Millisecond)
			err = want(f.sent.Load(), f.received.Load())
		}
	}
	for _, c := range []interface{ Close() error }{f.client, f.server} {
		if e := c.Close(); e != nil && !errors.Is(e, os.ErrClosed) {
			err = errors.Join(err, e)
		}
	}
	return err
}
