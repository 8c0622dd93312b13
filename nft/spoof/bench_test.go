package spoof

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/portcullis-netpol/portcullis/testcases/lab"
)

// BenchmarkSet looks at a node of many pods, without and with one that changes, and
// changes one without a look at the others.
func BenchmarkSet(b *testing.B) {
	for _, n := range []int{10, 250} {
		var devices []string
		var list []Binding
		for i := range n {
			devices = append(devices, fmt.Sprint("dev", i))
			list = append(list, Binding{devices[i], addrs(fmt.Sprint("10.244.1.", i), fmt.Sprintf("fd00::%x", i+1))})
		}
		netns := newNetNS(b, devices...)
		g := open(b, netns)
		b.Run(fmt.Sprintf("devices=%d/all", n), func(b *testing.B) {
			for b.Loop() {
				require.NoError(b, g.Cleanup(b.Context()))
				require.NoError(b, g.Set(b.Context(), list))
			}
		})
		b.Run(fmt.Sprintf("devices=%d/nothing", n), func(b *testing.B) {
			for b.Loop() {
				require.NoError(b, g.Set(b.Context(), list))
			}
		})
		b.Run(fmt.Sprintf("devices=%d/one", n), func(b *testing.B) {
			for i := 0; b.Loop(); i++ {
				list[0].Addrs = addrs(own4, own6, own4b)[i%2:]
				require.NoError(b, g.Set(b.Context(), list))
			}
		})
		known := indexes(b, netns)
		b.Run(fmt.Sprintf("devices=%d/one, without a look", n), func(b *testing.B) {
			for i := 0; b.Loop(); i++ {
				list[0].Addrs = addrs(own4, own6, own4b)[i%2:]
				require.NoError(b, g.Update(b.Context(), list, known))
			}
		})
	}
}

// BenchmarkPacket sends small packets of one established flow from pod to pod, in turns
// with and without a guard. The kernel does all of a packet's way inside the call that
// sends it, so the time of the sending thread is what counts.
func BenchmarkPacket(b *testing.B) {
	const packets = 10_000 // at a time
	for _, topology := range []lab.Topology{lab.Routed, lab.Bridged} {
		for family, name := range []string{"IPv4", "IPv6"} {
			b.Run(topology.String()+"/"+name, func(b *testing.B) {
				send, g, bound := benchmarkFlow(b, topology, family)
				var with, without, ratio []float64
				for i := 0; b.Loop(); i++ {
					var took [2]float64
					for j := range took {
						on := (i + j) % 2 // in either order
						require.NoError(b, g.Set(b.Context(), [][]Binding{nil, bound}[on]))
						send(packets / 10)
						took[on] = send(packets)
					}
					without, with, ratio = append(without, took[0]), append(with, took[1]), append(ratio, took[0]/took[1])
				}
				b.ReportMetric(median(without), "ns/packet-without")
				b.ReportMetric(median(with), "ns/packet-with")
				b.ReportMetric(median(ratio), "ratio")
			})
		}
	}
}

func median(list []float64) float64 {
	slices.Sort(list)
	return list[len(list)/2]
}

// benchmarkFlow makes an established flow between two pods of a node and returns what
// sends n of its packets and tells the time that each took in nanoseconds.
func benchmarkFlow(b *testing.B, topology lab.Topology, family int) (send func(n int) float64, g *Guard, bound []Binding) {
	l, err := lab.New(lab.Config{Topology: topology, Nodes: []string{nodeName}})
	require.NoError(b, err)
	b.Cleanup(func() { require.NoError(b, l.Close()) })
	for _, p := range []string{"shop/a", "shop/b"} {
		require.NoError(b, l.AddPod(nodeName, p, pods[p]))
		bound = append(bound, Binding{device(b, l, p), pods[p]})
	}
	nft(b, l.NetNS(nodeName), "table inet filter {\nchain forward {\ntype filter hook forward priority 0\nct state established,related accept\n}\n}", "-f", "-")
	source, target := pods["shop/a"][family], pods["shop/b"][family]
	packet := benchmarkPacket(source, target, establish(b, l, source, target))
	w := &wire{}
	in(b, l.NetNS("shop/a"), func() error {
		link, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		w.index = link.Attrs().Index
		list, err := netlink.NeighList(w.index, netlink.FAMILY_ALL)
		for _, n := range list { // the target, or the gateway
			if len(n.HardwareAddr) == 6 && (n.IP.To4() != nil) == target.Is4() && !n.IP.IsMulticast() {
				copy(packet, n.HardwareAddr)
			}
		}
		copy(packet[6:], link.Attrs().HardwareAddr)
		if err != nil {
			return err
		}
		if w.socket, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		return unix.SetsockoptInt(w.socket, unix.SOL_PACKET, unix.PACKET_QDISC_BYPASS, 1)
	})
	b.Cleanup(func() { _ = unix.Close(w.socket) })
	return func(n int) float64 {
		took, err := w.timed(packet, n)
		require.NoError(b, err)
		return float64(took) / float64(n)
	}, open(b, l.NetNS(nodeName)), bound
}

// establish exchanges a packet in each direction and returns the client's port. From
// then on nobody reads, and what the server cannot keep is dropped.
func establish(b *testing.B, l *lab.Lab, source, target netip.Addr) uint16 {
	listen := func(pod string, a netip.AddrPort) (conn *net.UDPConn) {
		in(b, l.NetNS(pod), func() (err error) {
			conn, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(a))
			return err
		})
		b.Cleanup(func() { _ = conn.Close() })
		require.NoError(b, conn.SetDeadline(time.Now().Add(10*time.Second)))
		return conn
	}
	client, server := listen("shop/a", netip.AddrPortFrom(source, 0)), listen("shop/b", netip.AddrPortFrom(target, 53))
	buf := make([]byte, 16)
	_, err := client.WriteToUDPAddrPort([]byte("x"), netip.AddrPortFrom(target, 53))
	require.NoError(b, err)
	_, back, err := server.ReadFromUDPAddrPort(buf)
	require.NoError(b, err)
	_, err = server.WriteToUDPAddrPort([]byte("x"), back)
	require.NoError(b, err)
	_, err = client.Read(buf)
	require.NoError(b, err)
	return back.Port()
}

// timed sends a frame n times and returns the time of the processor in nanoseconds.
func (w *wire) timed(frame []byte, n int) (took int64, err error) {
	err = onThread(func() error {
		if err := w.send(); err != nil { // stays on one processor
			return err
		}
		var start, end unix.Rusage
		if err := unix.Getrusage(unix.RUSAGE_THREAD, &start); err != nil {
			return err
		}
		for range n {
			if err := unix.Sendto(w.socket, frame, 0, &unix.SockaddrLinklayer{Ifindex: w.index}); err != nil {
				return err
			}
		}
		err := unix.Getrusage(unix.RUSAGE_THREAD, &end)
		took = end.Utime.Nano() + end.Stime.Nano() - start.Utime.Nano() - start.Stime.Nano()
		return err
	})
	return took, err
}

// benchmarkPacket is a datagram to port 53.
func benchmarkPacket(source, target netip.Addr, port uint16) []byte {
	var p []byte
	if source.Is4() {
		p = ipv4(source.String())
		copy(p[16:], target.AsSlice())
		p[10], p[11] = 0, 0
		binary.BigEndian.PutUint16(p[10:], ^sum16(p[:20]))
		binary.BigEndian.PutUint16(p[20:], port)
		return frame(ip4, p)
	}
	p = udp6(source.String())
	copy(p[24:], target.AsSlice())
	binary.BigEndian.PutUint16(p[40:], port)
	pseudo := append([]byte{0, 0, 0, unix.IPPROTO_UDP, 0, 8}, p[8:]...)
	binary.BigEndian.PutUint16(p[46:], ^sum16(pseudo))
	return frame(ip6, p)
}
