package agent

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	apiruntime "k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	"github.com/portcullis-netpol/portcullis/agent/cni"
	"github.com/portcullis-netpol/portcullis/nft"
	"github.com/portcullis-netpol/portcullis/nft/conntrack"
	"github.com/portcullis-netpol/portcullis/testcases/lab"
)

const labPort = 8080

// labTest is a laboratory with the pods shop/web and shop/ghost on node-1 and shop/far on
// node-2, which all serve, and whose node tracks connections.
type labTest struct {
	*lab.Lab
	t *testing.T
}

func newLab(t *testing.T, topo lab.Topology) *labTest {
	t.Helper()
	lab.Require(t, lab.NFTables, lab.BridgeNetfilter)
	l, err := lab.New(lab.Config{Topology: topo})
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, l.Close()) })
	n := &labTest{l, t}
	for i, name := range []string{"web", "ghost", "far"} {
		node := "node-1"
		if name == "far" {
			node = "node-2"
		}
		require.NoError(t, l.AddPod(node, "shop/"+name, n.addrs(node, 7+i)))
		for _, protocol := range []string{"tcp", "udp"} {
			require.NoError(t, l.Serve("shop/"+name, protocol, labPort))
		}
	}
	require.NoError(t, l.SetService(lab.Service{Name: "shop", ClusterIPs: []netip.Addr{netip.MustParseAddr("10.96.0.1")},
		Ports: []lab.ServicePort{{Protocol: "tcp", Port: 80, TargetPort: labPort}}, Backends: n.web()[:1]}))
	return n
}

// addrs returns the nth address of each of a node's blocks.
func (n *labTest) addrs(node string, nth int) (out []netip.Addr) {
	for _, p := range n.PodCIDRs(node) {
		a := p.Addr()
		for range nth {
			a = a.Next()
		}
		out = append(out, a)
	}
	return out
}

func (n *labTest) web() []netip.Addr   { return n.addrs("node-1", 7) }
func (n *labTest) ghost() []netip.Addr { return n.addrs("node-1", 8) }

// sees opens connections from an endpoint to addresses, and wants all of them to be
// answered, or none.
func (n *labTest) sees(from string, to []netip.Addr, want bool) {
	n.t.Helper()
	var probes []lab.Probe
	for _, a := range to {
		for _, protocol := range []string{"tcp", "udp"} {
			probes = append(probes, lab.Probe{From: from, To: a, Protocol: protocol, Port: labPort, Deny: !want})
		}
	}
	for i, r := range n.Probe(n.t.Context(), probes, lab.Timing{}) {
		require.Equal(n.t, want, r.OK, "%s: %v", probes[i], r.Err)
	}
}

// config is an agent on node-1.
func (n *labTest) config(client *fake.Clientset) Config {
	n.t.Helper()
	ns := n.NetNS("node-1")
	k, err := nft.OpenKernel(nft.Config{NetNS: ns})
	require.NoError(n.t, err)
	n.t.Cleanup(func() { _ = k.Close() })
	flows, err := conntrack.Open(ns)
	require.NoError(n.t, err)
	n.t.Cleanup(func() { _ = flows.Close() })
	return Config{Source: Kubernetes(client), Kernel: k, Connections: flows, NetNS: ns, PodToNode: true, Quarantine: true}
}

// shopPodAt is a pod with all of the addresses.
func shopPodAt(name, node string, addrs []netip.Addr) *corev1.Pod {
	p := shopPod(name, node, addrs[0].String())
	p.Status.PodIPs = nil
	for _, a := range addrs {
		p.Status.PodIPs = append(p.Status.PodIPs, corev1.PodIP{IP: a.String()})
	}
	return p
}

// echo is an open flow of UDP to each address.
type echo struct {
	t     *testing.T
	conns []net.Conn
}

func (n *labTest) echo(from string, to []netip.Addr) *echo {
	n.t.Helper()
	e := &echo{t: n.t}
	for _, a := range to {
		require.NoError(n.t, n.In(from, func() error {
			c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(a, labPort)))
			if err == nil {
				e.conns = append(e.conns, c)
			}
			return err
		}))
	}
	n.t.Cleanup(func() {
		for _, c := range e.conns {
			_ = c.Close()
		}
	})
	e.passes()
	return e
}

// passes wants an answer on every flow.
func (e *echo) passes() {
	e.t.Helper()
	for _, c := range e.conns {
		require.NoError(e.t, c.SetDeadline(time.Now().Add(patience)))
		_, err := c.Write([]byte("still there?"))
		require.NoError(e.t, err)
		_, err = c.Read(make([]byte, 100))
		require.NoError(e.t, err, c.RemoteAddr())
	}
}

// TestHeldBackBeforeSync sends packets of pods while the agent has not read all objects:
// new connections wait, those that exist and those of the node do not; and once it has,
// those pods are let go that it knows.
func TestHeldBackBeforeSync(t *testing.T) {
	for _, topo := range []lab.Topology{lab.Routed, lab.Bridged} {
		t.Run(topo.String(), func(t *testing.T) {
			t.Parallel()
			n := newLab(t, topo)
			open := n.echo("shop/far", n.web())
			client, speak := silent(testNode("node-1"), shopPodAt("web", "node-1", n.web()), shopPodAt("far", "node-2", n.addrs("node-2", 9)))
			cfg := n.config(client)
			cfg.PodCIDRs = n.PodCIDRs("node-1")
			n.sees("shop/far", n.web(), true)
			a := startAgent(t, cfg)
			a.log.wait(t, "held back until all objects have been read")
			look := n.config(client).Kernel
			require.True(t, early(t, look))
			open.passes()
			for _, to := range [][]netip.Addr{n.web(), n.ghost()} {
				n.sees("shop/far", to, false)
				n.sees("node-1", to, true)
			}
			n.sees("shop/web", n.addrs("node-2", 9), false)
			n.sees("shop/web", n.ghost(), false)

			speak()
			a.log.wait(t, "table in force")
			require.False(t, early(t, look))
			open.passes()
			n.sees("shop/far", n.web(), true)
			n.sees("shop/web", n.addrs("node-2", 9), true)
			n.sees("shop/far", n.ghost(), false)
			n.sees("node-1", n.ghost(), true)
		})
	}
}

// plugin returns the request of the CNI plugin about shop/web.
func (n *labTest) plugin() cni.Request {
	r := addRequest("web", "", "c1")
	r.Addrs, r.HostInterface = n.web(), ""
	gateways := n.addrs("node-1", 1)
	for i, p := range n.PodCIDRs("node-1") {
		r.Subnets = append(r.Subnets, cni.Subnet{Prefix: p, Gateway: gateways[i]})
	}
	return r
}

// countWatches counts the watches of a fake API server, which sends nothing to those that
// come later.
func countWatches(client *fake.Clientset) *atomic.Int32 {
	var n atomic.Int32
	client.PrependWatchReactor("*", func(action clienttesting.Action) (bool, watch.Interface, error) {
		w, err := client.Tracker().Watch(action.GetResource(), action.GetNamespace())
		n.Add(1)
		return true, w, err
	})
	return &n
}

// TestReportedSubnetHoldsBack has pods held back on a node whose Node names no blocks,
// by what the CNI plugin says, also as another agent, to which nobody says it again; and
// no longer when a pod of another node is in the same network.
func TestReportedSubnetHoldsBack(t *testing.T) {
	n := newLab(t, lab.Bridged)
	dir, err := os.MkdirTemp("", "cni")
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	client := fake.NewClientset(testNode("node-1"), shopPodAt("web", "node-1", n.web()))
	watched := countWatches(client)
	start := func() *agentTest {
		cfg, before := n.config(client), watched.Load()
		cfg.Socket = filepath.Join(dir, "run", "cni.sock")
		a := startAgent(t, cfg)
		a.log.wait(t, "table in force")
		eventually(t, "the agent watches", func() bool { return watched.Load() == before+4 })
		return a
	}
	a := start()
	n.sees("shop/far", n.ghost(), true)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	require.NoError(t, cni.Client(filepath.Join(dir, "run", "cni.sock")).Do(ctx, n.plugin()))
	held := func() {
		t.Helper()
		n.sees("shop/far", n.ghost(), false)
		n.sees("shop/ghost", n.addrs("node-2", 9), false)
		n.sees("node-1", n.ghost(), true)
		n.sees("shop/far", n.web(), true)
		n.sees("shop/web", n.addrs("node-2", 9), true)
	}
	held()
	a.stop(t)
	held()
	info, err := os.Stat(filepath.Join(dir, "run", "cni.sock"+reportSuffix))
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())

	a = start()
	held()
	_, err = client.CoreV1().Pods("shop").Create(t.Context(), shopPodAt("stranger", "node-2", n.addrs("node-1", 99)), metav1.CreateOptions{})
	require.NoError(t, err)
	a.log.wait(t, "table in force")
	n.sees("shop/far", n.ghost(), true)
	n.sees("shop/ghost", n.addrs("node-2", 9), true)
	require.Equal(t, 2, a.log.count("pod shop/stranger on node node-2 has an address in it"), a.log)
	eventually(t, "an Event", func() bool {
		list, err := client.CoreV1().Events("").List(t.Context(), metav1.ListOptions{})
		return err == nil && len(list.Items) > 0 && list.Items[0].Reason == sharedReason
	})

	// The next agent is told again, and does not believe it.
	a.stop(t)
	start()
	require.NoError(t, cni.Client(filepath.Join(dir, "run", "cni.sock")).Do(ctx, n.plugin()))
	n.sees("shop/far", n.ghost(), true)
}

// TestFlatNetworkIsNotHeldBack refuses a network that pods of other nodes are in already.
func TestFlatNetworkIsNotHeldBack(t *testing.T) {
	n := newLab(t, lab.Bridged)
	dir, err := os.MkdirTemp("", "cni")
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	objects := []apiruntime.Object{testNode("node-1"), shopPodAt("web", "node-1", n.web()), shopPodAt("stranger", "node-2", n.addrs("node-1", 99))}
	cfg := n.config(fake.NewClientset(objects...))
	cfg.Socket = filepath.Join(dir, "cni.sock")
	a := startAgent(t, cfg)
	a.log.wait(t, "table in force")
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	require.NoError(t, cni.Client(cfg.Socket).Do(ctx, n.plugin()))
	n.sees("shop/far", n.ghost(), true)
	n.sees("shop/ghost", n.addrs("node-2", 9), true)
	for _, p := range n.PodCIDRs("node-1") {
		require.Equal(t, 1, a.log.count(fmt.Sprintf("pod shop/stranger of another node is in %s", p)), a.log)
	}
}
