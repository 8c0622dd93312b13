package soak

import (
	"context"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/portcullis-netpol/portcullis/agent"
	"github.com/portcullis-netpol/portcullis/agent/cni"
	"github.com/portcullis-netpol/portcullis/testcases/lab"
)

// TestCNIAdd starts pods as a container runtime does whose chain has our plugin: they
// run when the agent has answered, and then the very first packet of what is allowed
// passes, and none of what is not.
func TestCNIAdd(t *testing.T) {
	for i, topo := range topologies {
		t.Run(topo.String(), func(t *testing.T) {
			t.Parallel()
			lab.Require(t, needs...)
			n := &chained{newNursery(t, topo), t.TempDir()}
			for _, node := range n.Nodes() {
				n.site.start(node, func(c *agent.Config) { c.Socket = n.socket(node) })
			}
			begin, count := time.Now(), (*starts+1)/2
			n.run(count, uint64(2+i)<<8, n.startChained)
			n.result(fmt.Sprintf("starts with the CNI plugin, %s", topo), "%d pods in %s, the first packet of every allowed flow passed, %d of %d packets leaked",
				count, time.Since(begin).Round(time.Second), n.leaked.Load(), n.sent.Load())
		})
	}
}

// chained is a nursery whose agents have sockets for the plugin.
type chained struct {
	*nursery
	dir string
}

func (n *chained) socket(node string) string { return filepath.Join(n.dir, node, "cni.sock") }

// ask asks a node's agent as the plugin does.
func (n *chained) ask(node string, r cni.Request) error {
	ctx, cancel := context.WithTimeout(n.t.Context(), patience)
	defer cancel()
	return cni.Client(n.socket(node)).Do(ctx, r)
}

// request is what the plugin says of a pod.
func (n *chained) request(c cni.Command, b *birth) cni.Request {
	r := cni.Request{Command: c, Attachment: cni.Attachment{ContainerID: "sandbox-" + b.ownUID(), Interface: "eth0"}, Namespace: "shop", Name: b.name, UID: b.ownUID()}
	if c != cni.Del {
		r.Addrs, r.HostInterface = b.addrs, n.veth(b)
	}
	return r
}

// veth finds the node's end of a pod's interface.
func (n *chained) veth(b *birth) string {
	n.t.Helper()
	inside, err := netlink.NewHandleAt(netns.NsHandle(n.NetNS("shop/" + b.name)))
	require.NoError(n.t, err)
	defer inside.Close()
	eth0, err := inside.LinkByName("eth0")
	require.NoError(n.t, err)
	outside, err := netlink.NewHandleAt(netns.NsHandle(n.NetNS(b.node)))
	require.NoError(n.t, err)
	defer outside.Close()
	veth, err := outside.LinkByIndex(eth0.Attrs().ParentIndex)
	require.NoError(n.t, err)
	return veth.Attrs().Name
}

// startChained goes through the life of a pod. Its status gets addresses when it has
// long been running, or never.
func (n *chained) startChained(b *birth, random *rand.Rand) {
	late := random.IntN(2) == 0 // the agent hears of the pod while the plugin waits
	if !late {
		n.api.makePod(n.t, b.object())
	}
	n.live(b)
	added := make(chan error, 1)
	go func() { added <- n.ask(b.node, n.request(cni.Add, b)) }()
	if late {
		n.api.makePod(n.t, b.object())
	}
	require.NoError(n.t, <-added)
	b.announce()
	n.round(b)
	n.first(b)
	require.NoError(n.t, n.ask(b.node, n.request(cni.Check, b)))
	if random.IntN(2) == 0 {
		n.api.setPod(n.t, b.object(b.addrs...))
	}
	n.api.deletePod(n.t, b.object())
	require.NoError(n.t, n.ask(b.node, n.request(cni.Del, b)))
	eventually(n.t, "the addresses are taken back", func() bool { return n.released(b.node, b.addrs, false) })
	b.post.close()
	require.NoError(n.t, n.RemovePod("shop/"+b.name))
}

// first waits for the packets of the pod's only round that are allowed.
func (n *chained) first(b *birth) {
	n.t.Helper()
	ports := []uint16{openPort}
	if !b.guarded {
		ports = append(ports, closedPort)
	}
	for _, g := range n.targets {
		for _, protocol := range []int{unix.IPPROTO_UDP, unix.IPPROTO_TCP} {
			for _, port := range ports {
				for _, v4 := range []bool{true, false} {
					k := seenKey{b.id, false, g.endpoint, v4, protocol, port}
					eventually(n.t, fmt.Sprintf("the first packet passes: %+v", k), func() bool { _, ok := n.seen.Load(k); return ok })
				}
			}
		}
	}
}
