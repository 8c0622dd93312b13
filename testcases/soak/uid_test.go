package soak

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/portcullis-netpol/portcullis/agent"
	"github.com/portcullis-netpol/portcullis/agent/cni"
	"github.com/portcullis-netpol/portcullis/testcases/lab"
)

// TestSameName starts pods whose name is that of a pod before them, as a StatefulSet
// does, with the same addresses and with others. The agent still knows the old object,
// to which no policy applied, when the plugin asks. The new pod must not run with what
// the old one was allowed.
func TestSameName(t *testing.T) {
	for _, c := range []struct {
		name string
		same bool // addresses
	}{{"other addresses", false}, {"same addresses", true}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			lab.Require(t, needs...)
			n := &chained{newNursery(t, lab.Routed), t.TempDir()}
			for _, node := range n.Nodes() {
				n.site.start(node, func(c *agent.Config) { c.Socket = n.socket(node) })
			}
			former, next := n.namesakes(c.same)
			n.live(former)
			n.api.makePod(t, former.object())
			require.NoError(t, n.ask(former.node, n.request(cni.Add, former)))
			n.api.setPod(t, former.object(former.addrs...))
			former.announce()
			stop := n.flood(former)
			n.through(former)
			stop()
			former.post.close()
			require.NoError(t, n.RemovePod("shop/"+former.name))
			if c.same { // an address is free again only when the old sandbox is gone
				require.NoError(t, n.ask(former.node, n.request(cni.Del, former)))
			}

			n.live(next)
			stop = n.flood(next)
			ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
			defer cancel()
			require.Error(t, cni.Client(n.socket(next.node)).Do(ctx, n.request(cni.Add, next)), "the agent answers for a pod that it does not know")
			n.wait(next)
			n.noLeak("while the agent knew the former pod only")
			if !c.same {
				require.NoError(t, n.ask(former.node, n.request(cni.Del, former)))
			}
			n.wait(next)
			n.api.deletePod(t, former.object())
			n.wait(next)
			n.noLeak("while the agent knew no pod of the name")
			next.announce()
			n.api.makePod(t, next.object())
			require.NoError(t, n.ask(next.node, n.request(cni.Add, next)))
			n.through(next)
			n.wait(next)
			stop()
			next.post.close()
			n.noLeak("in all")
			n.result("another pod of the same name, "+c.name, "%d packets, %d leaked", n.sent.Load(), n.leaked.Load())
		})
	}
}

// namesakes makes a pair of pods with one name: one that may do anything, and a
// guarded one. They have no source port in common.
func (n *nursery) namesakes(sameAddresses bool) (former, next *birth) {
	former = &birth{id: 1, name: "web-0", uid: "first", node: "node-1", addrs: n.addresses("node-1", 20), sport: 20000}
	next = &birth{id: 2, name: "web-0", uid: "second", node: "node-1", guarded: true, addrs: n.addresses("node-1", 21), sport: 21000}
	if sameAddresses {
		next.addrs = former.addrs
	}
	n.births.Store(former.id, former)
	n.births.Store(next.id, next)
	return former, next
}
