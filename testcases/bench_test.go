package testcases

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/portcullis-netpol/portcullis/nft"
	"github.com/portcullis-netpol/portcullis/policy"
	"github.com/portcullis-netpol/portcullis/policy/ir"
	"github.com/portcullis-netpol/portcullis/policy/manifest"
	"github.com/portcullis-netpol/portcullis/testcases/lab"
)

// BenchmarkNewPacket sends UDP packets that nobody answers, so that every one of
// them is a new one to the rules, to a pod that many policies select, each with a
// port and peers of its own. The kernel does all its work inside the call that
// sends. The port is allowed by the last policy, or by none.
func BenchmarkNewPacket(b *testing.B) {
	for _, n := range []int{0, 1, 10, 100, 1000} {
		for _, port := range []uint16{7001, 7002} {
			name := map[uint16]string{7001: "allowed", 7002: "denied"}[port]
			b.Run(fmt.Sprintf("policies=%d/%s", n, name), func(b *testing.B) {
				client := newCrowd(b, n, port)
				for b.Loop() {
					if _, err := client.Write([]byte("new")); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

// newCrowd makes a laboratory in which n policies select shop/server, and returns
// a connection from shop/client to its port.
func newCrowd(b *testing.B, n int, port uint16) net.Conn {
	l, err := lab.New(lab.Config{Topology: lab.Routed})
	require.NoError(b, err)
	b.Cleanup(func() { require.NoError(b, l.Close()) })
	c := &cluster{}
	objects, err := manifest.Decode("crowd", []byte(churnPods+crowdPolicies(n)))
	require.NoError(b, err)
	_, err = c.apply(step{Applies: objects})
	require.NoError(b, err)
	var server netip.Addr
	for _, p := range c.pods() {
		require.NoError(b, l.AddPod(p.Node, p.Name, p.addrs()))
		if p.Name == "shop/server" {
			server = p.V4
		}
	}
	if n > 0 {
		enforceCrowd(b, l, c)
	}
	var client net.Conn
	to := net.UDPAddrFromAddrPort(netip.AddrPortFrom(server, port))
	require.NoError(b, l.In("shop/server", func() error {
		listener, err := net.ListenUDP("udp", to) // without it, the server would answer with errors
		if err == nil {
			b.Cleanup(func() { _ = listener.Close() })
		}
		return err
	}))
	require.NoError(b, l.In("shop/client", func() (err error) {
		client, err = net.DialUDP("udp", nil, to)
		return err
	}))
	b.Cleanup(func() { _ = client.Close() })
	return client
}

func enforceCrowd(b *testing.B, l *lab.Lab, c *cluster) {
	cfg := tableConfig
	cfg.NetNS = l.NetNS("node-1")
	k, err := nft.OpenKernel(cfg)
	require.NoError(b, err)
	b.Cleanup(func() { _ = k.Close() })
	x := policy.NewIndex("node-1")
	feed(x, c.everything())
	x.Flush()
	state := x.State()
	require.Equal(b, ir.Accept, state.Verdict(ir.Ingress, ir.Packet{Src: c.pods()[0].V4, Dst: c.pods()[1].V4, Protocol: ir.UDP, DstPort: 7001}))
	require.NoError(b, nft.NewEnforcer(cfg, k).Takeover(b.Context(), state))
}

// crowdPolicies returns n policies: the last allows the client, each of the others
// a block and a selector of its own, on a port of its own.
func crowdPolicies(n int) string {
	var out strings.Builder
	for i := range n {
		port, peers := 10000+i, fmt.Sprintf("{ipBlock: {cidr: 198.%d.%d.0/30}}, {podSelector: {matchLabels: {peer: p%d}}}", 18+i/256, i%256, i)
		if i == n-1 {
			port, peers = 7001, "{podSelector: {matchLabels: {app: client}}}"
		}
		fmt.Fprintf(&out, "---\n{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: p%d, namespace: shop}, spec: {podSelector: {matchLabels: {app: server}}, ingress: [{from: [%s], ports: [{protocol: UDP, port: %d}]}]}}\n", i, peers, port)
	}
	return out.String()
}
