package nflog

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/portcullis-netpol/portcullis/nft"
	"github.com/portcullis-netpol/portcullis/policy/ir"
	"github.com/portcullis-netpol/portcullis/testcases/lab"
)

func TestMain(m *testing.M) { lab.Main(m, lab.NFTables, lab.BridgeNetfilter) }

const group = 4040

func newLab(t *testing.T, topology lab.Topology) *lab.Lab {
	t.Helper()
	lab.Require(t, lab.NFTables, lab.BridgeNetfilter)
	l, err := lab.New(lab.Config{Topology: topology})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, l.Close()) })
	return l
}

func addrs(list ...string) (out []netip.Addr) {
	for _, s := range list {
		out = append(out, netip.MustParseAddr(s))
	}
	return out
}

// told is what a packet says of a probe.
type told struct {
	prefix   string
	src, dst netip.Addr
	protocol uint8
	port     uint16
}

// TestDeniedPackets has packets of all protocols that a table of ours denies, in either
// direction and to quarantine, on routed and on bridged pods.
func TestDeniedPackets(t *testing.T) {
	for _, topology := range []lab.Topology{lab.Routed, lab.Bridged} {
		t.Run(topology.String(), func(t *testing.T) {
			l := newLab(t, topology)
			pods := map[string][]netip.Addr{
				"shop/in":  addrs("10.244.1.2", "fd00:10:244:1::2"),
				"shop/eg":  addrs("10.244.1.3", "fd00:10:244:1::3"),
				"shop/new": addrs("10.244.1.4", "fd00:10:244:1::4"),
				"shop/any": addrs("10.244.1.5", "fd00:10:244:1::5"),
			}
			state := ir.State{Groups: []ir.Group{
				{ID: "ge-none", Direction: ir.Egress, Steps: []ir.Step{{Tier: ir.TierNetworkPolicy}}},
				{ID: "gi-none", Direction: ir.Ingress, Steps: []ir.Step{{Tier: ir.TierNetworkPolicy}}},
			}}
			for family := range 2 {
				state.Endpoints = append(state.Endpoints,
					ir.Endpoint{Addr: pods["shop/in"][family], Ingress: "gi-none"},
					ir.Endpoint{Addr: pods["shop/eg"][family], Egress: "ge-none"},
					ir.Endpoint{Addr: pods["shop/any"][family]})
			}
			for name, at := range pods {
				require.NoError(t, l.AddPod("node-1", name, at))
			}
			cfg := nft.Config{NetNS: l.NetNS("node-1"), LogGroup: group, PodCIDRs: l.PodCIDRs("node-1"), PodToNode: true}
			k, err := nft.OpenKernel(cfg)
			require.NoError(t, err)
			defer k.Close()
			require.NoError(t, nft.NewEnforcer(cfg, k).Takeover(t.Context(), state))
			c, err := Open(cfg.NetNS, group)
			require.NoError(t, err)
			defer c.Close()

			missing := map[told]lab.Probe{}
			expect := func(prefix, from, to string, dst []netip.Addr) {
				for family, a := range dst {
					for name, number := range map[string]uint8{"tcp": 6, "udp": 17, "sctp": 132, "icmp": []uint8{1, 58}[family]} {
						missing[told{prefix, pods[from][family], a, number, map[bool]uint16{false: 7}[name == "icmp"]}] =
							lab.Probe{From: from, To: a, Protocol: name, Port: 7, Deny: true}
					}
				}
			}
			expect("portcullis policy ingress", "shop/any", "shop/in", pods["shop/in"])
			expect("portcullis policy egress", "shop/eg", "shop/any", pods["shop/any"])
			expect("portcullis policy egress", "shop/eg", "node-1", l.NodeAddrs("node-1"))
			expect("portcullis quarantine ingress", "shop/any", "shop/new", pods["shop/new"])
			expect("portcullis quarantine egress", "shop/new", "shop/any", pods["shop/any"])
			// A probe that is late to begin may send nothing.
			for range 10 {
				probeMissing(t, l, c, missing)
			}
			require.Empty(t, missing)
		})
	}
}

// probeMissing sends the probes that are missing, and strikes out those of whom it
// receives a packet.
func probeMissing(t *testing.T, l *lab.Lab, c *Conn, missing map[told]lab.Probe) {
	t.Helper()
	begun, probes := time.Now(), slices.Collect(maps.Values(missing))
	for i, r := range l.Probe(t.Context(), probes, lab.Timing{}) {
		require.False(t, r.OK, "%v", probes[i])
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	for len(missing) > 0 {
		p, err := c.Receive(ctx)
		if errors.Is(err, context.DeadlineExceeded) {
			return
		}
		require.NoError(t, err)
		delete(missing, told{p.Prefix, p.Src, p.Dst, p.Protocol, p.DstPort})
		require.Zero(t, p.Lost)
		require.WithinRange(t, p.Time, begun.Add(-time.Minute), time.Now().Add(time.Second))
		if p.Protocol != 1 && p.Protocol != 58 {
			require.NotZero(t, p.SrcPort)
		}
	}
}

// newNetNS returns a network namespace, with a table that logs what is sent over its
// loopback interface.
func newNetNS(t *testing.T) (send func(port uint16), netns int) {
	t.Helper()
	l := newLab(t, lab.Routed)
	netns = l.NetNS("node-2")
	k, err := nft.OpenKernel(nft.Config{NetNS: netns})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, k.Close()) })
	require.NoError(t, k.Send(t.Context(), nft.Batch{Table: "portcullis-log", Ops: []nft.Op{
		nft.AddTable{}, nft.AddChain{Chain: &nft.Chain{Name: "all", Hook: nft.HookOutput}},
		nft.AddRule{Chain: "all", Rule: nft.Rule{
			Match:  []nft.Match{nft.Protocol(unix.IPPROTO_UDP)}, // and not what the kernel answers
			Action: nft.Log{Prefix: "all", Group: group, Snaplen: 64},
		}},
	}}))
	var socket net.PacketConn
	require.NoError(t, l.In("node-2", func() (err error) {
		socket, err = net.ListenPacket("udp4", "127.0.0.1:0")
		return err
	}))
	t.Cleanup(func() { _ = socket.Close() })
	return func(port uint16) {
		t.Helper()
		_, err := socket.WriteTo(make([]byte, 200), net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port)))
		require.NoError(t, err)
	}, netns
}

func receive(t *testing.T, c *Conn) Packet {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	p, err := c.Receive(ctx)
	require.NoError(t, err)
	return p
}

// TestLost overruns a buffer that is small: what does not fit is counted.
func TestLost(t *testing.T) {
	send, netns := newNetNS(t)
	c, err := open(netns, group, 4096)
	require.NoError(t, err)
	defer c.Close()
	send(9)
	require.Equal(t, uint16(9), receive(t, c).DstPort)
	const flood = 3000
	for range flood {
		send(10)
	}
	sent, received, lost := uint64(flood), uint64(0), uint64(0)
	for marker := uint16(20); ; marker++ {
		send(marker) // may be lost too, until there is room
		sent++
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		for {
			p, err := c.Receive(ctx)
			if err != nil {
				require.ErrorIs(t, err, context.DeadlineExceeded)
				break
			}
			received++
			lost += p.Lost
			if p.DstPort == marker {
				cancel()
				t.Logf("%d received, %d lost", received, lost)
				require.NotZero(t, lost)
				require.Equal(t, sent, received+lost)
				return
			}
		}
		cancel()
		require.Less(t, marker, uint16(30))
	}
}

// TestEndOfReceive ends a Receive by its context, which leaves the Conn as it is, and by
// Close, which does not.
func TestEndOfReceive(t *testing.T) {
	send, netns := newNetNS(t)
	c, err := Open(netns, group)
	require.NoError(t, err)
	for i := range 20 {
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() {
			_, err := c.Receive(ctx)
			ended <- err
		}()
		if i%2 == 0 {
			runtime.Gosched()
		}
		cancel()
		require.ErrorIs(t, <-ended, context.Canceled)
	}
	send(99)
	require.Equal(t, uint16(99), receive(t, c).DstPort)
	ended := make(chan error)
	begin := make(chan struct{})
	go func() {
		close(begin)
		for {
			if _, err := c.Receive(context.Background()); err != nil {
				ended <- err
				return
			}
		}
	}()
	<-begin
	require.NoError(t, c.Close())
	require.ErrorIs(t, <-ended, os.ErrClosed)
	require.NoError(t, c.Close(), "again")
	_, err = c.Receive(t.Context())
	require.ErrorIs(t, err, os.ErrClosed)
}

func TestOneListener(t *testing.T) {
	send, netns := newNetNS(t)
	first, err := Open(netns, group)
	require.NoError(t, err)
	_, err = Open(netns, group)
	require.ErrorIs(t, err, ErrTaken)
	require.ErrorIs(t, err, unix.EBUSY)
	other, err := Open(netns, group+1)
	require.NoError(t, err, "another group")
	require.NoError(t, other.Close())
	send(9)
	require.Equal(t, uint16(9), receive(t, first).DstPort)
	require.NoError(t, first.Close())
	second, err := Open(netns, group)
	require.NoError(t, err)
	send(10)
	p := receive(t, second)
	require.Equal(t, "all", p.Prefix)
	require.Equal(t, uint16(10), p.DstPort)
	require.NoError(t, second.Close())
}

// TestNoPermission opens on a thread that has given its capabilities away.
func TestNoPermission(t *testing.T) {
	lab.Require(t, lab.NFTables)
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlock: the thread ends with the goroutine
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var none [2]unix.CapUserData
		if err := unix.Capset(&header, &none[0]); err != nil {
			done <- err
			return
		}
		c, err := Open(0, group)
		if err == nil {
			_ = c.Close()
		}
		done <- err
	}()
	err := <-done
	require.ErrorIs(t, err, ErrPermission)
	require.ErrorIs(t, err, os.ErrPermission)
}

func TestWhatIsMissing(t *testing.T) {
	require.NoError(t, whatIsMissing(nil))
	require.NoError(t, whatIsMissing(fmt.Errorf("x: %w", errNotSupported)))
	require.ErrorIs(t, whatIsMissing(unix.EPERM), ErrPermission)
	require.ErrorIs(t, whatIsMissing(unix.EINVAL), ErrUnsupported)
	require.ErrorIs(t, whatIsMissing(unix.EIO), unix.EIO)
}
