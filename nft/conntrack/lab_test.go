package conntrack

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/portcullis-netpol/portcullis/testcases/lab"
)

var (
	clientAddrs = []netip.Addr{netip.MustParseAddr("10.244.1.2"), netip.MustParseAddr("fd00:10:244:1::2")}
	serverAddrs = []netip.Addr{netip.MustParseAddr("10.244.1.3"), netip.MustParseAddr("fd00:10:244:1::3")}
	clusterIPs  = []netip.Addr{netip.MustParseAddr("10.96.0.10"), netip.MustParseAddr("fd00:10:96::10")}
)

// newService builds a node with a client and a server that is also behind a
// Service. The NAT of the Service is what switches connection tracking on.
func newService(t *testing.T) *lab.Lab {
	t.Helper()
	l := newPods(t)
	s := lab.Service{Name: "server", ClusterIPs: clusterIPs, Backends: serverAddrs}
	for protocol, port := range map[string]uint16{"tcp": 8080, "udp": 5353, "sctp": 1132} {
		require.NoError(t, l.Serve("shop/server", protocol, port))
		s.Ports = append(s.Ports, lab.ServicePort{Protocol: protocol, Port: 80, TargetPort: port, NodePort: 30080})
	}
	require.NoError(t, l.SetService(s))
	return l
}

// newPods builds a node with a client and a server.
func newPods(t *testing.T) *lab.Lab {
	t.Helper()
	lab.Require(t, lab.NFTables)
	l, err := lab.New(lab.Config{Nodes: []string{"node-1"}})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, l.Close()) })
	require.NoError(t, l.AddPod("node-1", "shop/client", clientAddrs))
	require.NoError(t, l.AddPod("node-1", "shop/server", serverAddrs))
	return l
}

// TestPickedUp opens a connection before the node tracks any, and one afterwards.
func TestPickedUp(t *testing.T) {
	for i := range serverAddrs {
		l := newPods(t)
		c := openConn(t, l.NetNS("node-1"))
		at := netip.AddrPortFrom(serverAddrs[i], 9000)
		var listener net.Listener
		require.NoError(t, l.In("shop/server", func() (err error) {
			listener, err = net.Listen("tcp", at.String())
			return err
		}))
		defer listener.Close()
		early, _ := open(t, l, listener)
		require.Empty(t, collect(t, c.All), "nothing is tracked")

		require.NoError(t, l.SetService(lab.Service{Name: "server", ClusterIPs: clusterIPs, Backends: serverAddrs,
			Ports: []lab.ServicePort{{Protocol: "tcp", Port: 80, TargetPort: 9000}}}))
		exchange(t, early, "still there")
		flows := collect(t, c.All)
		require.Len(t, flows, 1)
		require.True(t, flows[0].PickedUp)

		_, port := open(t, l, listener)
		for _, f := range collect(t, c.All) {
			require.Equal(t, f.ClientPort != port, f.PickedUp, "%+v", f)
		}
	}
}

// open connects the client to a listener of the server's, which answers everything
// with the same. It returns the client's end, and its port.
func open(t *testing.T, l *lab.Lab, at net.Listener) (client net.Conn, port uint16) {
	t.Helper()
	require.NoError(t, l.In("shop/client", func() (err error) {
		client, err = net.DialTimeout("tcp", at.Addr().String(), 10*time.Second)
		return err
	}))
	t.Cleanup(func() { _ = client.Close() })
	server, err := at.Accept()
	require.NoError(t, err)
	go func() {
		_, _ = io.Copy(server, server)
		_ = server.Close()
	}()
	exchange(t, client, "hello")
	return client, client.LocalAddr().(*net.TCPAddr).AddrPort().Port()
}

// exchange sends a word and waits for it to come back.
func exchange(t *testing.T, client net.Conn, word string) {
	t.Helper()
	require.NoError(t, client.SetDeadline(time.Now().Add(10*time.Second)))
	_, err := client.Write([]byte(word))
	require.NoError(t, err)
	_, err = io.ReadFull(client, make([]byte, len(word)))
	require.NoError(t, err)
}

// summary is a Flow without what differs from run to run.
func summary(f Flow) string {
	_, called := f.Original()
	_, answered := f.Reply()
	nat := ""
	if f.Translated() {
		nat += fmt.Sprint(" called ", called)
	}
	if answered.Addr() != f.Client {
		nat += fmt.Sprint(" answers ", answered.Addr())
	}
	return fmt.Sprintf("%d %v > %v%s", f.Protocol, f.Client, netip.AddrPortFrom(f.Server, f.ServerPort), nat)
}

func summaries(flows []Flow) []string {
	var out []string
	for _, f := range flows {
		out = append(out, summary(f))
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// TestRealFlows reads what real packets leave behind: straight and through a
// Service, from a pod, from outside by way of a node port, and from the server
// to itself.
func TestRealFlows(t *testing.T) {
	l := newService(t)
	c := openConn(t, l.NetNS("node-1"))
	nodeAddrs, outsideAddrs := l.NodeAddrs("node-1"), l.OutsideAddrs()
	var probes []lab.Probe
	want := map[netip.Addr][]string{}
	for i, server := range serverAddrs {
		probes = append(probes, lab.Probe{From: "shop/client", To: server, Protocol: "icmp"})
		for _, p := range []struct {
			protocol string
			number   int
			port     uint16
		}{{"tcp", tcp, 8080}, {"udp", udp, 5353}, {"sctp", sctp, 1132}} {
			probes = append(probes,
				lab.Probe{From: "shop/client", To: server, Protocol: p.protocol, Port: p.port},
				lab.Probe{From: "shop/client", To: clusterIPs[i], Protocol: p.protocol, Port: 80},
				lab.Probe{From: "shop/server", To: clusterIPs[i], Protocol: p.protocol, Port: 80},
				lab.Probe{From: lab.Outside, To: nodeAddrs[i], Protocol: p.protocol, Port: 30080})
			at, service, node := netip.AddrPortFrom(server, p.port), netip.AddrPortFrom(clusterIPs[i], 80), netip.AddrPortFrom(nodeAddrs[i], 30080)
			direct := fmt.Sprintf("%d %v > %v", p.number, clientAddrs[i], at)
			through := fmt.Sprintf("%s called %v", direct, service)
			// Masqueraded as the address by which the node reaches the pod.
			hairpin := fmt.Sprintf("%d %v > %v called %v answers %v", p.number, server, at, service, nodeAddrs[i])
			outside := fmt.Sprintf("%d %v > %v called %v answers %v", p.number, outsideAddrs[i], at, node, nodeAddrs[i])
			want[clientAddrs[i]] = append(want[clientAddrs[i]], direct, through)
			want[server] = append(want[server], direct, through, hairpin, outside)
			want[outsideAddrs[i]] = append(want[outsideAddrs[i]], outside)
		}
	}
	for i, r := range l.Probe(t.Context(), probes, lab.Timing{}) {
		require.True(t, r.OK, "%v: %v", probes[i], r.Err)
	}
	for range 2 { // before and after the filter has been tried
		for addr, flows := range want {
			require.Equal(t, sorted(flows), summaries(collect(t, func(ctx context.Context, fn func(Flow)) error { return c.Flows(ctx, addr, fn) })), addr)
		}
		for _, a := range slices.Concat(clusterIPs, nodeAddrs) {
			require.Empty(t, flowsOf(t, c, a.String()), "a Service and a node are no end of a flow")
		}
	}
	cutThrough(t, c)
}

// cutThrough deletes the flows of the client through the Service, and no others.
func cutThrough(t *testing.T, c *Conn) {
	t.Helper()
	var rest []Flow
	for _, f := range collect(t, c.All) {
		if _, called := f.Original(); slices.Contains(clientAddrs, f.Client) && slices.Contains(clusterIPs, called.Addr()) {
			require.NoError(t, c.Delete(t.Context(), f))
			continue
		}
		rest = append(rest, f)
	}
	require.ElementsMatch(t, rest, collect(t, c.All))
}
