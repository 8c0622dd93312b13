package soak

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/portcullis-netpol/portcullis/agent"
	"github.com/portcullis-netpol/portcullis/agent/cni"
	"github.com/portcullis-netpol/portcullis/nft/conntrack"
	"github.com/portcullis-netpol/portcullis/testcases/lab"
)

// successor makes a pair of pods: one that may do anything, and a guarded one that
// gets its addresses, and its source ports too.
func (n *nursery) successor(id uint32) (former, next *birth) {
	for i, b := range []**birth{&former, &next} {
		*b = &birth{id: 2*id + uint32(i), name: fmt.Sprintf("p%d", 2*id+uint32(i)), node: "node-1", guarded: i == 1, addrs: n.addresses("node-1", 20), sport: 20000}
		n.births.Store((*b).id, *b)
	}
	return former, next
}

// TestInheritedFlows gives the addresses of a pod with open flows to a pod that may not
// have them. When that pod's policies are in force none of the flows is left.
func TestInheritedFlows(t *testing.T) {
	lab.Require(t, needs...)
	n := newNursery(t, lab.Routed)
	n.startAll()
	var early, late int64
	pairs := max(1, *starts/16)
	for id := range uint32(pairs) {
		former, next := n.successor(id + 1)
		n.live(former)
		n.api.makePod(t, former.object(former.addrs...))
		former.announce()
		stop := n.flood(former)
		n.through(former)
		stop()
		n.api.deletePod(t, former.object())
		eventually(t, "the addresses are taken back", func() bool { return n.released(former.node, former.addrs, false) })
		former.post.close()
		require.NoError(t, n.RemovePod("shop/"+former.name))

		n.live(next)
		next.announce() // open ports are no concern here
		stop = n.flood(next)
		n.wait(next)
		n.api.makePod(t, next.object(next.addrs...))
		n.through(next)
		n.wait(next)
		before := n.leaked.Load()
		n.wait(next)
		n.wait(next)
		early, late = early+before, late+n.leaked.Load()-before
		n.leaked.Store(0)
		stop()
		n.api.deletePod(t, next.object())
		next.post.close()
		require.NoError(t, n.RemovePod("shop/"+next.name))
	}
	require.Zero(t, late, "packets of a former pod's flows passed when the new pod's policies were in force: %q", n.leaks())
	n.result("address of a pod with open flows given to another", "%d pods, %d packets on flows of a former pod with the same address before the policies were in force, %d after", pairs, early, late)
}

// TestDelEndsFlows takes a pod's addresses back by the CNI plugin, behind which they are
// free for other pods: when the plugin returns, no flow of theirs is known any more.
func TestDelEndsFlows(t *testing.T) {
	lab.Require(t, needs...)
	n := &chained{newNursery(t, lab.Routed), t.TempDir()}
	for _, node := range n.Nodes() {
		n.site.start(node, func(c *agent.Config) { c.Socket = n.socket(node) })
	}
	c, err := conntrack.Open(n.NetNS("node-1"))
	require.NoError(t, err)
	defer c.Close()
	flows := func(b *birth) (list []conntrack.Flow) {
		require.NoError(t, c.FlowsOf(t.Context(), b.addrs, func(f conntrack.Flow) { list = append(list, f) }))
		return list
	}
	for id := range uint32(max(1, *starts/100)) {
		b, _ := n.successor(id + 1)
		n.live(b)
		n.api.makePod(t, b.object())
		require.NoError(t, n.ask(b.node, n.request(cni.Add, b)))
		n.api.setPod(t, b.object(b.addrs...))
		b.announce()
		stop := n.flood(b)
		n.through(b)
		stop()
		require.NotEmpty(t, flows(b))
		require.NoError(t, n.ask(b.node, n.request(cni.Del, b)))
		require.Empty(t, flows(b))
		n.api.deletePod(t, b.object())
		b.post.close()
		require.NoError(t, n.RemovePod("shop/"+b.name))
	}
}

// TestAddressOfTerminatingPod starts a pod with the address of one whose object the API
// server still has, while the new pod's object has not arrived and the plugin does not
// wait for ever. The new pod must not run with the rights of the old one.
func TestAddressOfTerminatingPod(t *testing.T) {
	lab.Require(t, needs...)
	n := &chained{newNursery(t, lab.Routed), t.TempDir()}
	for _, node := range n.Nodes() {
		n.site.start(node, func(c *agent.Config) { c.Socket = n.socket(node) })
	}
	former, next := n.successor(1)
	n.live(former)
	n.api.makePod(t, former.object())
	require.NoError(t, n.ask(former.node, n.request(cni.Add, former)))
	n.api.setPod(t, former.object(former.addrs...))
	require.NoError(t, n.ask(former.node, n.request(cni.Del, former)))
	former.post.close()
	require.NoError(t, n.RemovePod("shop/"+former.name))

	next.sport += 1000
	n.live(next)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	require.Error(t, cni.Client(n.socket(next.node)).Do(ctx, n.request(cni.Add, next)))
	stop := n.flood(next)
	n.wait(next)
	n.wait(next)
	n.noLeak("before the agent knows of the pod")
	next.announce()
	n.api.makePod(t, next.object())
	n.through(next)
	n.api.deletePod(t, former.object())
	n.wait(next)
	stop()
	n.noLeak("in all")
	n.result("address of a terminating pod given to another", "%d packets, %d leaked", n.sent.Load(), n.leaked.Load())
}
