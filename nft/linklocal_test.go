package nft

import (
	"errors"
	"net"
	"net/netip"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/portcullis-netpol/portcullis/policy/ir"
)

// link is the device by which an endpoint reaches its neighbours.
type link struct {
	endpoint string
	index    int
	peer     int        // of a pod: the index of the node's end
	local    netip.Addr // link-local, without zone
}

// on returns an address as somebody at this link writes it. The zone is a number,
// because package net remembers names, which mean something else in every namespace.
func (l link) on(a netip.Addr) netip.Addr {
	if a.IsLinkLocalUnicast() || a.IsLinkLocalMulticast() {
		return a.WithZone(strconv.Itoa(l.index))
	}
	return a
}

// podLink returns the link of a pod.
func (s *site) podLink(pod string) link {
	s.t.Helper()
	return s.linkOf(pod, func() (netlink.Link, error) { return netlink.LinkByName("eth0") })
}

// nodeLink returns the device of node-1 that a pod's link leads to: the other end,
// or the bridge that this one is a port of.
func (s *site) nodeLink(pod link) link {
	s.t.Helper()
	return s.linkOf("node-1", func() (netlink.Link, error) {
		end, err := netlink.LinkByIndex(pod.peer)
		if err != nil || end.Attrs().MasterIndex == 0 {
			return end, err
		}
		return netlink.LinkByIndex(end.Attrs().MasterIndex)
	})
}

func (s *site) linkOf(endpoint string, find func() (netlink.Link, error)) link {
	s.t.Helper()
	l := link{endpoint: endpoint}
	require.NoError(s.t, s.In(endpoint, func() error {
		device, err := find()
		if err != nil {
			return err
		}
		l.index, l.peer = device.Attrs().Index, device.Attrs().ParentIndex
		list, err := netlink.AddrList(device, netlink.FAMILY_V6)
		for _, a := range list {
			if a.IP.IsLinkLocalUnicast() {
				l.local = netip.AddrFrom16([16]byte(a.IP.To16()))
			}
		}
		return err
	}))
	require.True(s.t, l.local.IsValid(), "%s has no link-local address", endpoint)
	return l
}

// listen opens a socket of a network that package net knows.
func (s *site) listen(endpoint, network, address string) net.PacketConn {
	s.t.Helper()
	var c net.PacketConn
	require.NoError(s.t, s.In(endpoint, func() (err error) {
		c, err = net.ListenPacket(network, address)
		return err
	}))
	require.NoError(s.t, c.SetDeadline(time.Now().Add(20*time.Second)))
	s.t.Cleanup(func() { _ = c.Close() })
	return c
}

func (s *site) udp(at link, a netip.Addr) net.PacketConn {
	s.t.Helper()
	return s.listen(at.endpoint, "udp6", netip.AddrPortFrom(at.on(a), 0).String())
}

// sendTo sends from a link to an address and to the port of another socket.
func (s *site) sendTo(from net.PacketConn, l link, a netip.Addr, to net.PacketConn, text string) {
	s.t.Helper()
	port := netip.MustParseAddrPort(to.LocalAddr().String()).Port()
	_, err := from.WriteTo([]byte(text), net.UDPAddrFromAddrPort(netip.AddrPortFrom(l.on(a), port)))
	require.NoError(s.t, err)
}

func (s *site) receive(at net.PacketConn, want string) {
	s.t.Helper()
	b := make([]byte, 64)
	n, _, err := at.ReadFrom(b)
	require.NoError(s.t, err)
	require.Equal(s.t, want, string(b[:n]))
}

// lookUp waits until neighbour discovery has found the MAC address of a neighbour
// that was sent something. From then on packets leave in the order they are sent in.
func (s *site) lookUp(at link, a netip.Addr) {
	s.t.Helper()
	const found = netlink.NUD_REACHABLE | netlink.NUD_STALE | netlink.NUD_DELAY | netlink.NUD_PROBE
	require.Eventually(s.t, func() bool {
		ok := false
		err := s.In(at.endpoint, func() error {
			list, err := netlink.NeighList(at.index, netlink.FAMILY_V6)
			for _, n := range list {
				ok = ok || n.IP.Equal(a.AsSlice()) && n.State&found != 0
			}
			return err
		})
		return err == nil && ok
	}, 10*time.Second, time.Millisecond, "%s does not find %s", at.endpoint, a)
}

// forgetNeighbours empties a neighbour cache of IPv6.
func (s *site) forgetNeighbours(at link) {
	s.t.Helper()
	require.NoError(s.t, s.In(at.endpoint, func() error {
		list, err := netlink.NeighList(at.index, netlink.FAMILY_V6)
		errs := []error{err}
		for _, n := range list {
			if err := netlink.NeighDel(&n); !errors.Is(err, unix.ENOENT) {
				errs = append(errs, err)
			}
		}
		return errors.Join(errs...)
	}))
}

// TestLinkLocal has packets that no policy is asked about, in a state without any.
func TestLinkLocal(t *testing.T) {
	local, other, pod := addr("fe80::1:2"), addr("febf:ffff::1"), addr("fd00:10:244:1::2")
	group := netip.IPv6LinkLocalAllNodes()
	for name, tc := range map[string]struct {
		p    Packet
		want Outcome
	}{
		"between two":             {Packet{Src: local, Dst: other, Protocol: 17}, Drop},
		"to a pod":                {Packet{Src: local, Dst: pod, Protocol: 6}, Drop},
		"from a pod":              {Packet{Src: pod, Dst: local, Protocol: 6}, Drop},
		"the last of them":        {Packet{Src: pod, Dst: other, Protocol: 6}, Drop},
		"to a group":              {Packet{Src: local, Dst: group, Protocol: 17}, Drop},
		"echo":                    {Packet{Src: local, Dst: other, Protocol: 58, ICMPType: 128}, Drop},
		"invalid":                 {Packet{Src: local, Dst: other, Protocol: 6, CTState: CTInvalid}, Drop},
		"known":                   {Packet{Src: local, Dst: other, Protocol: 17, CTState: CTEstablished}, Accept},
		"solicits":                {Packet{Src: local, Dst: group, Protocol: 58, ICMPType: 135}, Accept},
		"advertises":              {Packet{Src: local, Dst: pod, Protocol: 58, ICMPType: 136}, Accept},
		"is advertised to":        {Packet{Src: pod, Dst: local, Protocol: 58, ICMPType: 136}, Accept},
		"a router says":           {Packet{Src: local, Dst: group, Protocol: 58, ICMPType: 134}, Accept},
		"asks who listens":        {Packet{Src: local, Dst: group, Protocol: 58, ICMPType: 130}, Accept},
		"does not listen":         {Packet{Src: local, Dst: group, Protocol: 58, ICMPType: 132}, Accept},
		"listens":                 {Packet{Src: local, Dst: group, Protocol: 58, ICMPType: 143}, Accept},
		"before it has addresses": {Packet{Src: netip.IPv6Unspecified(), Dst: group, Protocol: 58, ICMPType: 143}, Accept},
		"neither":                 {Packet{Src: local, Dst: group, Protocol: 58, ICMPType: 142}, Drop},
		"another block":           {Packet{Src: addr("fec0::1"), Dst: addr("fe7f::1"), Protocol: 17}, Accept},
		"another family":          {Packet{Src: addr("169.254.1.1"), Dst: addr("254.128.0.1"), Protocol: 17}, Accept},
		"to the node":             {Packet{Hook: HookInput, Src: local, Dst: other, Protocol: 6}, Accept},
		"of the node":             {Packet{Hook: HookOutput, Src: local, Dst: other, Protocol: 6}, Accept},
	} {
		t.Run(name, func(t *testing.T) {
			for _, cfg := range []Config{{}, {PodToNode: true}, {PodToNode: true, Deny: DenyReject, Midstream: true, PodCIDRs: []netip.Prefix{block("10.244.1.0/24")}}} {
				table, err := Build(cfg, "portcullis-a", ir.State{})
				require.NoError(t, err)
				require.Equal(t, tc.want, table.Verdict(tc.p), "%+v", cfg)
			}
		})
	}
}

// TestLinkLocalPackets has two pods on one bridge, and one of them may not hear or
// not speak. Addresses that no policy knows are no way around that.
func TestLinkLocalPackets(t *testing.T) {
	onSites(t, func(s *site) {
		if len(s.addrs["gateway"]) == 0 {
			return // a router forwards nothing of the kind
		}
		s.release()
		for _, pod := range []string{"shop/api", "shop/new", "node-1"} {
			require.NoError(s.t, s.Serve(pod, "tcp", 80))
			require.NoError(s.t, s.Serve(pod, "udp", 53))
		}
		for _, d := range directions {
			s.isolate(d)
			from, to := "shop/new", "shop/api"
			if d == ir.Egress {
				from, to = to, from
			}
			sender, receiver := s.podLink(from), s.podLink(to)
			global, itsGlobal := s.addrs[from][1], s.addrs[to][1]
			for name, path := range map[string][2]netip.Addr{
				"both":        {sender.local, receiver.local},
				"source":      {sender.local, itsGlobal},
				"destination": {global, receiver.local},
				"to everyone": {sender.local, netip.IPv6LinkLocalAllNodes()},
			} {
				s.t.Run(d.String()+", "+name, func(t *testing.T) {
					s := *s
					s.t = t
					s.requireNoWay(sender, receiver, path)
				})
			}
			for _, l := range []link{sender, receiver, s.nodeLink(sender)} {
				s.forgetNeighbours(l)
			}
			s.require("neighbours are found again",
				s.probe(true, to, from), s.probe(false, from, to), s.probe(true, "node-1", to), s.probe(true, "node-1", from))
		}
	})
}

// requireNoWay sends from one address to another, in vain. The receiver may ask the
// sender by the addresses that policies know, which is how it hears an answer.
func (s *site) requireNoWay(sender, receiver link, path [2]netip.Addr) {
	s.t.Helper()
	global, itsGlobal := s.addrs[sender.endpoint][1], s.addrs[receiver.endpoint][1]
	from, to := s.udp(sender, path[0]), s.listen(receiver.endpoint, "udp6", "[::]:0")
	s.sendTo(from, sender, path[1], to, "wakes neighbour discovery")
	if !path[1].IsMulticast() {
		s.lookUp(sender, path[1])
	}
	s.sendTo(from, sender, path[1], to, "past every policy")
	other := s.udp(sender, global)
	s.sendTo(to, receiver, global, other, "question")
	s.receive(other, "question")
	s.sendTo(other, sender, itsGlobal, to, "answer")
	s.receive(to, "answer")
}

// TestLinkLocalGroups: which groups a pod listens to is told from link-local
// addresses, and bridges and routers have to know it. Nothing else goes that way.
func TestLinkLocalGroups(t *testing.T) {
	onSites(t, func(s *site) {
		if len(s.addrs["gateway"]) == 0 {
			return
		}
		s.release()
		sender := s.podLink("shop/new")
		from := s.listen("shop/new", "ip6:58", sender.on(sender.local).String())
		to := s.listen("shop/api", "ip6:58", "::")
		everybody := &net.IPAddr{IP: net.IPv6linklocalallnodes, Zone: strconv.Itoa(sender.index)}
		for _, kind := range []byte{138, 200, 129, 130, 131, 132, 142, 144, 143} {
			_, err := from.WriteTo([]byte{kind, 0, 0, 0, 'm', 'i', 'n', 'e'}, everybody)
			require.NoError(s.t, err)
		}
		var got []byte
		b := make([]byte, 1500)
		for len(got) == 0 || got[len(got)-1] != 143 {
			n, _, err := to.ReadFrom(b)
			require.NoError(s.t, err)
			if n == 8 && string(b[4:n]) == "mine" {
				got = append(got, b[0])
			}
		}
		require.Equal(s.t, []byte{130, 131, 132, 143}, got)
	})
}

// TestLinkLocalNode: a pod and its own node talk by link-local addresses as they
// like, which is how a routed pod finds its gateway.
func TestLinkLocalNode(t *testing.T) {
	onSites(t, func(s *site) {
		s.isolate(ir.Ingress)
		pod := s.podLink("shop/api")
		node := s.nodeLink(pod)
		for i, ends := range [][2]link{{pod, node}, {node, pod}} {
			from, to := s.udp(ends[0], ends[0].local), s.udp(ends[1], ends[1].local)
			s.sendTo(from, ends[0], ends[1].local, to, ends[0].endpoint)
			s.receive(to, ends[0].endpoint)
			s.sendTo(to, ends[1], ends[0].local, from, "answer")
			s.receive(from, "answer")
			if i == 0 {
				s.forgetNeighbours(pod)
				s.forgetNeighbours(node)
			}
		}
	})
}
