package spoof

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/portcullis-netpol/portcullis/testcases/lab"
)

const nodeName = "node-1"

// pods are those of the laboratory and their addresses; shop/c is on another node.
var pods = map[string][]netip.Addr{
	"shop/a": addrs("10.244.1.10", "fd00:10:244:1::10"),
	"shop/b": addrs("10.244.1.11", "fd00:10:244:1::11"),
	"shop/d": addrs("10.244.1.12", "fd00:10:244:1::12"),
	"shop/c": addrs("10.244.2.10", "fd00:10:244:2::10"),
}

func everyTopology(t *testing.T, f func(t *testing.T, l *lab.Lab)) {
	for _, topology := range []lab.Topology{lab.Routed, lab.Bridged} {
		t.Run(topology.String(), func(t *testing.T) {
			lab.Require(t, lab.NFTables, lab.BridgeNetfilter)
			l, err := lab.New(lab.Config{Topology: topology})
			require.NoError(t, err)
			t.Cleanup(func() { require.NoError(t, l.Close()) })
			for name, list := range pods {
				require.NoError(t, l.AddPod(map[bool]string{true: "node-2", false: nodeName}[name == "shop/c"], name, list))
			}
			f(t, l)
		})
	}
}

// bindings finds the veths of the node's pods.
func bindings(t *testing.T, l *lab.Lab) (out []Binding) {
	t.Helper()
	for name, list := range pods {
		if name != "shop/c" {
			out = append(out, Binding{device(t, l, name), list})
		}
	}
	return out
}

// device returns the name of the node's end of a pod's veth.
func device(t testing.TB, l *lab.Lab, pod string) (name string) {
	t.Helper()
	var index int
	in(t, l.NetNS(pod), func() error {
		link, err := netlink.LinkByName("eth0")
		if err == nil {
			index = link.Attrs().ParentIndex
		}
		return err
	})
	in(t, l.NetNS(nodeName), func() error {
		link, err := netlink.LinkByIndex(index)
		if err == nil {
			name = link.Attrs().Name
		}
		return err
	})
	return name
}

// forgetNeighbors makes everybody ask for link-layer addresses anew.
func forgetNeighbors(t *testing.T, l *lab.Lab, endpoints ...string) {
	t.Helper()
	for _, e := range endpoints {
		in(t, l.NetNS(e), func() error {
			list, err := netlink.NeighList(0, netlink.FAMILY_ALL)
			for _, n := range list {
				if n.State&(unix.NUD_NOARP|unix.NUD_PERMANENT) == 0 {
					if e := netlink.NeighDel(&n); !errors.Is(e, unix.ENOENT) {
						err = errors.Join(err, e)
					}
				}
			}
			return err
		})
	}
}

// TestOwnTrafficPasses sends everything that the laboratory speaks, from pods that
// are bound and know no neighbours.
func TestOwnTrafficPasses(t *testing.T) {
	everyTopology(t, func(t *testing.T, l *lab.Lab) {
		require.NoError(t, open(t, l.NetNS(nodeName)).Set(t.Context(), bindings(t, l)))
		everybody := []string{"shop/a", "shop/b", "shop/c", "shop/d", nodeName, lab.Outside}
		forgetNeighbors(t, l, everybody...)
		var probes []lab.Probe
		for _, to := range everybody {
			require.NoError(t, l.Serve(to, "tcp", 80))
			require.NoError(t, l.Serve(to, "udp", 53))
			require.NoError(t, l.Serve(to, "sctp", 36412))
			list := pods[to]
			switch to {
			case nodeName:
				list = l.NodeAddrs(to)
			case lab.Outside:
				list = l.OutsideAddrs()
			}
			for _, from := range everybody {
				for _, a := range list {
					probes = append(probes, lab.Probe{From: from, To: a, Protocol: "tcp", Port: 80}, lab.Probe{From: from, To: a, Protocol: "udp", Port: 53},
						lab.Probe{From: from, To: a, Protocol: "sctp", Port: 36412}, lab.Probe{From: from, To: a, Protocol: "icmp"})
				}
			}
		}
		for i, r := range l.Probe(t.Context(), probes, lab.Timing{Allow: 10 * time.Second}) {
			require.True(t, r.OK, "%v: %v", probes[i], r.Err)
		}
	})
}

// TestForeignSource sends from a pod with the address of another one of its node, of
// one of another node and of none, to each pod.
func TestForeignSource(t *testing.T) {
	everyTopology(t, func(t *testing.T, l *lab.Lab) {
		g := open(t, l.NetNS(nodeName))
		for _, guarded := range []bool{false, true} {
			if guarded {
				require.NoError(t, g.Set(t.Context(), bindings(t, l)))
			}
			for _, to := range []string{"shop/b", "shop/c"} {
				for _, sources := range [][]netip.Addr{pods["shop/d"], addrs("10.244.2.99", "fd00:10:244:2::99"), addrs("192.0.2.1", "2001:db8::1")} {
					for family, source := range sources {
						got := first(t, l, "shop/a", to, pods[to][family], source, pods["shop/a"][family])
						require.Equal(t, guarded, got == pods["shop/a"][family], "%v as %v to %s, guarded %v", "shop/a", source, to, guarded)
					}
				}
			}
		}
	})
}

// first sends a packet from a foreign address and then one from the own, and returns
// the source of the one that arrives first.
func first(t *testing.T, l *lab.Lab, from, to string, addr, foreign, own netip.Addr) netip.Addr {
	t.Helper()
	var conn net.PacketConn
	in(t, l.NetNS(to), func() (err error) {
		conn, err = net.ListenPacket("udp", netip.AddrPortFrom(addr, 0).String())
		return err
	})
	defer conn.Close()
	port := conn.LocalAddr().(*net.UDPAddr).AddrPort().Port()
	in(t, l.NetNS(from), func() error {
		return errors.Join(new(wire).send(), sendFrom(foreign, netip.AddrPortFrom(addr, port)), sendFrom(own, netip.AddrPortFrom(addr, port)))
	})
	require.NoError(t, conn.SetReadDeadline(time.Now().Add(10*time.Second)))
	_, sender, err := conn.ReadFrom(make([]byte, 16))
	require.NoError(t, err)
	return sender.(*net.UDPAddr).AddrPort().Addr().Unmap()
}

// sendFrom sends a datagram from an address that need not be an own one.
func sendFrom(source netip.Addr, to netip.AddrPort) error {
	domain, level, option := unix.AF_INET, unix.SOL_IP, unix.IP_TRANSPARENT
	if source.Is6() {
		domain, level, option = unix.AF_INET6, unix.SOL_IPV6, unix.IPV6_TRANSPARENT
	}
	fd, err := unix.Socket(domain, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return errors.Join(unix.SetsockoptInt(fd, level, option, 1), unix.Bind(fd, sockaddr(netip.AddrPortFrom(source, 0))), unix.Sendto(fd, []byte("x"), 0, sockaddr(to)))
}

func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Addr: a.Addr().As4(), Port: int(a.Port())}
	}
	return &unix.SockaddrInet6{Addr: a.Addr().As16(), Port: int(a.Port())}
}

// TestNeighborsAreNotDeceived lets a pod on a bridge announce that it has the addresses
// of another one, to a third.
func TestNeighborsAreNotDeceived(t *testing.T) {
	everyTopology(t, func(t *testing.T, l *lab.Lab) {
		if l.Config().Topology != lab.Bridged {
			return // nobody but the node would hear it, and it has routes
		}
		evil := net.HardwareAddr{0x02, 0xee, 0, 0, 0, 1}
		d := pods["shop/d"]
		claims := [][]byte{
			frame(arpType, arp(2, d[0].String())),
			frame(ip6, claim(d[1], evil)),
		}
		for _, c := range claims {
			copy(c, []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff})
		}
		g := open(t, l.NetNS(nodeName))
		require.NoError(t, l.Serve("shop/d", "udp", 53))
		// Otherwise what was learned in the last second is kept.
		in(t, l.NetNS("shop/b"), func() error { return os.WriteFile("/proc/sys/net/ipv4/neigh/eth0/locktime", []byte("0"), 0) })
		for _, guarded := range []bool{true, false} { // without a guard the damage stays
			if guarded {
				require.NoError(t, g.Set(t.Context(), bindings(t, l)))
			} else {
				require.NoError(t, g.Cleanup(t.Context()))
			}
			for family, a := range d {
				r := l.Probe(t.Context(), []lab.Probe{{From: "shop/b", To: a, Protocol: "udp", Port: 53}}, lab.Timing{})
				require.True(t, r[0].OK, "shop/b knows shop/d: %v", r[0].Err)
				broadcast(t, l, "shop/a", claims[family])
				// What the pod sends next arrives later.
				first(t, l, "shop/a", "shop/b", pods["shop/b"][family], pods["shop/a"][family], pods["shop/a"][family])
				require.Equal(t, !guarded, slices.Equal(neighbor(t, l, "shop/b", a), evil), "%v, guarded %v", a, guarded)
			}
		}
	})
}

// claim is an advertisement to all nodes that an address is at a MAC address.
func claim(a netip.Addr, mac net.HardwareAddr) []byte {
	packet := icmp6(a.String(), neighborAdvertisement, a.String())
	packet[44] = 0x20 // override
	packet = append(packet, append([]byte{2, 1}, mac...)...)
	packet[5] += 8
	all := netip.MustParseAddr("ff02::1").As16()
	copy(packet[24:], all[:])
	return summed(packet)
}

func broadcast(t *testing.T, l *lab.Lab, pod string, frame []byte) {
	t.Helper()
	in(t, l.NetNS(pod), func() error {
		link, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		return (&wire{socket: fd, index: link.Attrs().Index}).send(frame)
	})
}

// neighbor returns the MAC address under which an endpoint knows an address.
func neighbor(t *testing.T, l *lab.Lab, endpoint string, a netip.Addr) (mac net.HardwareAddr) {
	t.Helper()
	in(t, l.NetNS(endpoint), func() error {
		list, err := netlink.NeighList(0, netlink.FAMILY_ALL)
		for _, n := range list {
			if n.IP.Equal(a.AsSlice()) {
				mac = n.HardwareAddr
			}
		}
		return err
	})
	return mac
}

// TestAddressIsConfigured lets the kernel of a pod make a link-local address and check
// it and another for duplicates.
func TestAddressIsConfigured(t *testing.T) {
	netns := newNetNS(t)
	end := newNetNS(t)
	g := open(t, netns)
	bound := Binding{"dev0", addrs(own6)}
	early := g.Set(t.Context(), []Binding{bound}) == nil // before there is a device, if possible
	addDevice(t, netns, "dev0", 0)
	if !early {
		set(t, g, bound)
	}
	in(t, netns, func() error {
		peer, err := netlink.LinkByName("peer0")
		if err != nil {
			return err
		}
		return netlink.LinkSetNsFd(peer, end)
	})
	in(t, end, func() error {
		peer, err := netlink.LinkByName("peer0")
		if err != nil {
			return err
		}
		addr, err := netlink.ParseAddr(own6 + "/64")
		if err != nil {
			return err
		}
		return errors.Join(os.WriteFile("/proc/sys/net/ipv6/conf/peer0/disable_ipv6", []byte("0"), 0), netlink.LinkSetUp(peer), netlink.AddrAdd(peer, addr))
	})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for ready := 0; ready < 2; {
		require.NoError(t, ctx.Err(), "addresses stay tentative")
		ready = 0
		in(t, end, func() error {
			peer, err := netlink.LinkByName("peer0")
			if err != nil {
				return err
			}
			list, err := netlink.AddrList(peer, netlink.FAMILY_V6)
			for _, a := range list {
				if a.Flags&unix.IFA_F_DADFAILED != 0 {
					return fmt.Errorf("%v is a duplicate", a.IP)
				}
				if a.Flags&unix.IFA_F_TENTATIVE == 0 {
					ready++
				}
			}
			return err
		})
	}
}
