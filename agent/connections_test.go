package agent

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/portcullis-netpol/portcullis/nft"
	"github.com/portcullis-netpol/portcullis/nft/conntrack"
	"github.com/portcullis-netpol/portcullis/policy"
	"github.com/portcullis-netpol/portcullis/policy/ir"
)

// fakeFlows is a connection tracking table.
type fakeFlows struct {
	list  []conntrack.Flow
	asked []string
	fails error
}

func (f *fakeFlows) FlowsOf(_ context.Context, addrs []netip.Addr, each func(conntrack.Flow)) error {
	f.asked = append(f.asked, fmt.Sprint(slices.SortedFunc(slices.Values(addrs), netip.Addr.Compare)))
	return f.walk(func(x conntrack.Flow) {
		if slices.Contains(addrs, x.Client) || slices.Contains(addrs, x.Server) {
			each(x)
		}
	})
}

func (f *fakeFlows) All(_ context.Context, each func(conntrack.Flow)) error {
	f.asked = append(f.asked, "all")
	return f.walk(each)
}

func (f *fakeFlows) walk(each func(conntrack.Flow)) error {
	for _, x := range f.list {
		each(x)
	}
	return f.fails
}

func (f *fakeFlows) Delete(_ context.Context, x conntrack.Flow) error {
	f.list = slices.DeleteFunc(f.list, func(y conntrack.Flow) bool { return x == y })
	return nil
}

const (
	nodeAddr    = "192.0.2.1"
	outsideAddr = "198.51.100.1"
)

func flowOf(protocol uint8, client, server string, port uint16) conntrack.Flow {
	return conntrack.Flow{Protocol: protocol, Client: netip.MustParseAddr(client), Server: netip.MustParseAddr(server), ClientPort: 40000, ServerPort: port}
}

// connectionsTest is the connections of a node on which db, and nobody else, may
// reach web.
type connectionsTest struct {
	*connections
	index     *policy.Index
	table     *fakeFlows
	clock     *clocktesting.FakeClock
	forbidden []nft.Tuple
}

func newConnectionsTest(annotation string) *connectionsTest {
	x := policy.NewIndex("node-1")
	x.SetPod(shopPod("web", "node-1", webAddr))
	x.SetPod(shopPod("db", "node-2", dbAddr))
	p := allowFrom("db")
	if annotation != "" {
		p.Annotations = map[string]string{policy.AnnotationExistingConnections: annotation}
	}
	x.SetNetworkPolicy(p)
	x.Flush()
	fake := clocktesting.NewFakeClock(time.Unix(1e9, 0))
	_, logger := newLogbook()
	c := &connectionsTest{index: x, table: &fakeFlows{}, clock: fake}
	c.connections = &connections{
		flows: c.table, index: x, podToNode: true, log: logger, clock: fake,
		forbid: func(_ context.Context, list []nft.Tuple, d time.Duration) error {
			c.forbidden = append(c.forbidden, list...)
			return nil
		},
		nodeAddrs: func() ([]netip.Addr, error) { return []netip.Addr{netip.MustParseAddr(nodeAddr)}, nil },
	}
	return c
}

// TestConnectionsAreCut ends what is denied, and nothing else.
func TestConnectionsAreCut(t *testing.T) {
	allowed := []conntrack.Flow{
		flowOf(6, dbAddr, webAddr, 80),
		flowOf(6, nodeAddr, webAddr, 80),
		flowOf(6, webAddr, outsideAddr, 443),
		flowOf(6, webAddr, webAddr, 80),
		flowOf(6, outsideAddr, "10.244.9.9", 80),
	}
	expected := flowOf(6, outsideAddr, webAddr, 20)
	expected.Expected = true
	allowed = append(allowed, expected)
	denied := []conntrack.Flow{flowOf(6, outsideAddr, webAddr, 80), flowOf(17, outsideAddr, webAddr, 53), flowOf(132, outsideAddr, webAddr, 9)}

	c := newConnectionsTest("")
	c.table.list = slices.Concat(allowed, denied)
	c.changed(ir.Change{PeerSets: []ir.PeerSetChange{{Leave: []netip.Addr{netip.MustParseAddr(outsideAddr)}}}})
	c.look(t.Context())
	require.Equal(t, allowed, c.table.list)
	require.Equal(t, []string{"[" + outsideAddr + "]"}, c.table.asked)
	// The servers' way back is barred, but for TCP, where the guard of connections
	// from nowhere does more.
	require.Len(t, c.forbidden, 2)
	for _, b := range c.forbidden {
		require.Equal(t, netip.MustParseAddr(webAddr), b.Src)
		require.NotEqual(t, uint8(6), b.Protocol)
		require.Contains(t, []uint16{53, 9}, b.SrcPort)
	}

	// A packet was on its way: the second look finds its flow.
	c.table.list = slices.Concat(allowed, denied[:1])
	require.True(t, c.clock.HasWaiters())
	c.clock.Step(lookAgain)
	<-c.again()
	c.lookAgain(t.Context())
	require.Equal(t, allowed, c.table.list)
	require.Nil(t, c.again())
	c.look(t.Context()) // nothing has changed
	require.Len(t, c.table.asked, 2)
}

// TestLooksArePaced: what changes soon after a look waits for the second one, but for
// pods that are gone; and what is not in force yet is not looked at.
func TestLooksArePaced(t *testing.T) {
	c := newConnectionsTest("")
	leaves := func(addr string) {
		c.changed(ir.Change{PeerSets: []ir.PeerSetChange{{Leave: []netip.Addr{netip.MustParseAddr(addr)}}}})
	}
	tick := func() {
		c.clock.Step(lookAgain)
		<-c.again()
		c.lookAgain(t.Context())
	}
	leaves("10.0.0.1")
	c.look(t.Context())
	leaves("10.0.0.2")
	c.look(t.Context())
	leaves("10.0.0.3")
	c.look(t.Context())
	require.Equal(t, []string{"[10.0.0.1]"}, c.table.asked)
	leaves("10.0.0.4") // the write that is to follow has not succeeded
	tick()
	require.Equal(t, []string{"[10.0.0.1]", "[10.0.0.1 10.0.0.2 10.0.0.3]"}, c.table.asked)
	tick()
	require.Equal(t, "[10.0.0.2 10.0.0.3]", c.table.asked[2])
	require.Nil(t, c.again())
	c.look(t.Context())
	require.Equal(t, "[10.0.0.4]", c.table.asked[3])
	gone := ir.Endpoint{Addr: netip.MustParseAddr("10.0.0.5"), Pod: "shop/gone"}
	c.changed(ir.Change{Endpoints: []ir.EndpointChange{{Old: &gone}}})
	c.look(t.Context())
	require.Equal(t, "[10.0.0.5]", c.table.asked[4])
	c.clock.Step(lookAgainSoon)
	<-c.again()
	c.lookAgain(t.Context())
	require.Equal(t, "[10.0.0.4 10.0.0.5]", c.table.asked[5])
}

// TestServiceClientsAreTold: TCP clients of a Service are barred as they send, so that
// they can be told by the address that they know.
func TestServiceClientsAreTold(t *testing.T) {
	service := netip.MustParseAddrPort("10.96.0.10:8000")
	client, server := netip.MustParseAddr(outsideAddr), netip.MustParseAddr(webAddr)
	for name, tc := range map[string]struct {
		flow conntrack.Flow
		want []nft.Tuple
	}{
		"through a Service":             {flowOf(6, outsideAddr, webAddr, 80).Through(service), []nft.Tuple{{Src: client, Dst: service.Addr(), Protocol: 6, SrcPort: 40000, DstPort: 8000}}},
		"to another port of its own":    {flowOf(6, outsideAddr, webAddr, 80).Through(netip.AddrPortFrom(server, 8000)), []nft.Tuple{{Src: client, Dst: server, Protocol: 6, SrcPort: 40000, DstPort: 8000}}},
		"straight":                      {flowOf(6, outsideAddr, webAddr, 80).Through(netip.AddrPortFrom(server, 80)), nil},
		"allowed, through a Service":    {flowOf(6, dbAddr, webAddr, 80).Through(service), nil},
		"UDP, which nobody is told":     {flowOf(17, outsideAddr, webAddr, 80).Through(service), []nft.Tuple{{Src: server, Protocol: 17, SrcPort: 80}}},
		"of a pod that is not any more": {flowOf(6, outsideAddr, "10.244.1.8", 80).Through(service), nil},
	} {
		t.Run(name, func(t *testing.T) {
			c := newConnectionsTest("")
			c.table.list = []conntrack.Flow{tc.flow}
			c.changed(ir.Change{
				PeerSets:  []ir.PeerSetChange{{Leave: []netip.Addr{client, netip.MustParseAddr(dbAddr)}}},
				Endpoints: []ir.EndpointChange{{Old: &ir.Endpoint{Addr: netip.MustParseAddr("10.244.1.8"), Pod: "shop/x"}}},
			})
			c.look(t.Context())
			require.Equal(t, tc.want, c.forbidden)
		})
	}
}

// TestServiceOfTheNodeItself: a pod that reaches its own node through a Service is told,
// and the node's end must not take the connection up again.
func TestServiceOfTheNodeItself(t *testing.T) {
	c := newConnectionsTest("")
	p := allowFrom("db")
	p.Spec.PolicyTypes = append(p.Spec.PolicyTypes, "Egress")
	c.index.SetNetworkPolicy(p)
	c.index.Flush()
	pod, node, service := netip.MustParseAddr(webAddr), netip.MustParseAddr(nodeAddr), netip.MustParseAddrPort("10.96.0.1:443")
	c.table.list = []conntrack.Flow{flowOf(6, webAddr, nodeAddr, 6443).Through(service)}
	c.everything(false)
	c.look(t.Context())
	require.Equal(t, []nft.Tuple{
		{Src: node, Protocol: 6, SrcPort: 6443},
		{Src: pod, Dst: service.Addr(), Protocol: 6, SrcPort: 40000, DstPort: 443},
	}, c.forbidden)
}

// TestPickedUpConnections: where there were no rules for a while, a connection that was
// picked up in the middle has to be allowed whoever began it.
func TestPickedUpConnections(t *testing.T) {
	for _, nothing := range []bool{true, false} {
		c := newConnectionsTest("")
		answer := flowOf(6, webAddr, outsideAddr, 40001) // or was outside the client, and web's port 40000?
		seen := answer
		seen.PickedUp = true
		seen.ServerPort++
		allowed := flowOf(6, "10.244.9.8", "10.244.9.9", 80)
		allowed.PickedUp = true
		c.table.list = []conntrack.Flow{answer, seen, allowed}
		c.everything(nothing)
		c.look(t.Context())
		if nothing {
			require.Equal(t, []conntrack.Flow{answer, allowed}, c.table.list)
		} else {
			require.Equal(t, []conntrack.Flow{answer, seen, allowed}, c.table.list)
		}
	}
}

// TestConnectionsKept obeys the flag and the annotation, which takes precedence.
func TestConnectionsKept(t *testing.T) {
	for _, test := range []struct {
		annotation string
		keep, ends bool
	}{{"", false, true}, {"", true, false}, {"keep", false, false}, {"cut", true, true}, {"nonsense", true, false}} {
		c := newConnectionsTest(test.annotation)
		c.keep = test.keep
		c.table.list = []conntrack.Flow{flowOf(6, outsideAddr, webAddr, 80)}
		c.everything(false)
		c.look(t.Context())
		require.Equal(t, test.ends, len(c.table.list) == 0, test)
	}
}

// TestGoneAddressLosesAll ends all connections of an address that a pod has left,
// also those that a policy would allow, and those of its node.
func TestGoneAddressLosesAll(t *testing.T) {
	c := newConnectionsTest("keep")
	c.keep = true
	others := flowOf(6, webAddr, outsideAddr, 443)
	c.table.list = []conntrack.Flow{flowOf(6, nodeAddr, "10.244.1.8", 80), others, flowOf(6, "10.244.1.8", outsideAddr, 443), flowOf(17, outsideAddr, "10.244.1.8", 53)}
	c.changed(ir.Change{Endpoints: []ir.EndpointChange{{Old: &ir.Endpoint{Addr: netip.MustParseAddr("10.244.1.8"), Pod: "shop/x"}}}})
	c.look(t.Context())
	require.Equal(t, []conntrack.Flow{others}, c.table.list)
	require.Empty(t, c.forbidden, "the next pod with that address is another")
}

// TestConnectionsTryAgain does not forget what could not be looked at.
func TestConnectionsTryAgain(t *testing.T) {
	c := newConnectionsTest("")
	c.table.fails = errors.New("not today")
	c.everything(false)
	c.look(t.Context())
	c.table.fails = nil
	c.table.list = []conntrack.Flow{flowOf(6, outsideAddr, webAddr, 80)}
	c.clock.Step(tryAgain)
	<-c.again()
	c.lookAgain(t.Context())
	require.Empty(t, c.table.list)
}

// TestPodToNodeAllowed leaves connections from pods to their node alone where those
// are not judged.
func TestPodToNodeAllowed(t *testing.T) {
	for _, judged := range []bool{true, false} {
		c := newConnectionsTest("")
		c.podToNode = judged
		p := allowFrom("db")
		p.Spec.PolicyTypes = append(p.Spec.PolicyTypes, "Egress")
		c.index.SetNetworkPolicy(p)
		c.index.Flush()
		c.table.list = []conntrack.Flow{flowOf(6, webAddr, nodeAddr, 53)}
		c.everything(false)
		c.look(t.Context())
		require.Equal(t, judged, len(c.table.list) == 0)
		require.Equal(t, judged, len(c.forbidden) == 1, "the node is not to take it up again")
	}
}
