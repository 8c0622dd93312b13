package nft

import (
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/portcullis-netpol/portcullis/policy/ir"
	"github.com/portcullis-netpol/portcullis/testcases/lab"
)

// site is a laboratory with the pods shop/api and shop/new on node-1, shop/far on
// node-2, and an enforcer on node-1.
type site struct {
	*lab.Lab
	t *testing.T
	*Enforcer
	state ir.State
	addrs map[string][]netip.Addr
}

// onSites runs f on routed and on bridged pods. At first shop/api is an endpoint,
// isolated for ingress with nothing denied, and shop/new is none.
func onSites(t *testing.T, f func(s *site)) {
	for _, topology := range []lab.Topology{lab.Routed, lab.Bridged} {
		t.Run(topology.String(), func(t *testing.T) {
			lab.Require(t, lab.NFTables, lab.BridgeNetfilter)
			l, err := lab.New(lab.Config{Topology: topology})
			require.NoError(t, err)
			t.Cleanup(func() { require.NoError(t, l.Close()) })
			s := &site{Lab: l, t: t, addrs: map[string][]netip.Addr{
				"shop/api":  addrs("10.244.1.2", "fd00:10:244:1::2"),
				"shop/new":  addrs("10.244.1.3", "fd00:10:244:1::3"),
				"shop/far":  addrs("10.244.2.2", "fd00:10:244:2::2"),
				"node-1":    l.NodeAddrs("node-1"),
				lab.Outside: l.OutsideAddrs(),
			}}
			for _, name := range []string{"shop/api", "shop/new"} {
				require.NoError(t, l.AddPod("node-1", name, s.addrs[name]))
			}
			require.NoError(t, l.AddPod("node-2", "shop/far", s.addrs["shop/far"]))
			if topology == lab.Bridged {
				for _, c := range l.PodCIDRs("node-1") {
					s.addrs["gateway"] = append(s.addrs["gateway"], c.Addr().Next())
				}
			}
			cfg := Config{PodCIDRs: l.PodCIDRs("node-1"), PodToNode: true, Midstream: true, Bridged: topology == lab.Bridged, LogGroup: siteLogGroup}
			s.Enforcer = NewEnforcer(cfg, openTestKernel(t, l.NetNS("node-1")))
			s.state.Groups = []ir.Group{np(ir.Ingress, "gi-all", nil, rule(ir.AnyProtocol, 0, 0, "*"))}
			for _, a := range s.addrs["shop/api"] {
				s.state.Endpoints = append(s.state.Endpoints, ir.Endpoint{Addr: a, Pod: "shop/api", Ingress: "gi-all"})
			}
			require.NoError(t, s.Takeover(t.Context(), s.state))
			f(s)
		})
	}
}

// become applies what leads to another state.
func (s *site) become(change func(*ir.State)) {
	s.t.Helper()
	next := s.state
	next.Endpoints = append([]ir.Endpoint(nil), next.Endpoints...)
	next.Groups = append([]ir.Group(nil), next.Groups...)
	change(&next)
	next = sorted(next)
	require.NoError(s.t, s.Apply(s.t.Context(), between(s.state, next)))
	s.state = next
}

// forget empties the connection tracking of node-1.
func (s *site) forget() {
	s.t.Helper()
	require.NoError(s.t, s.In("node-1", func() error { return netlink.ConntrackTableFlush(netlink.ConntrackTable) }))
}

// probe expects the same of every protocol and family between two endpoints.
func (s *site) probe(pass bool, from, to string) (out []lab.Probe) {
	for _, a := range s.addrs[to] {
		for _, p := range []lab.Probe{{Protocol: "tcp", Port: 80}, {Protocol: "udp", Port: 53}, {Protocol: "icmp"}} {
			p.From, p.To, p.Deny = from, a, !pass
			out = append(out, p)
		}
	}
	return out
}

func (s *site) require(why string, lists ...[]lab.Probe) {
	s.t.Helper()
	var all []lab.Probe
	for _, l := range lists {
		all = append(all, l...)
	}
	for i, r := range s.Probe(s.t.Context(), all, lab.Timing{}) {
		assert.Equal(s.t, !all[i].Deny, r.OK, "%s: %v: %v", why, all[i], r.Err)
		assert.False(s.t, r.Refused, "%s: %v: the quarantine is silent", why, all[i])
	}
}

// TestQuarantinePackets sends to, from and around a pod that nobody has released.
func TestQuarantinePackets(t *testing.T) {
	onSites(t, func(s *site) {
		for _, e := range []string{"shop/api", "shop/new", "shop/far", "node-1", lab.Outside} {
			require.NoError(t, s.Serve(e, "tcp", 80))
			require.NoError(t, s.Serve(e, "udp", 53))
		}
		// It goes on for everybody else, and for the node: from the addresses it
		// has among those of pods too, to pods, to itself and to the world.
		others := [][]lab.Probe{
			s.probe(true, "shop/api", "shop/far"), s.probe(true, "shop/far", "shop/api"),
			s.probe(true, "shop/api", lab.Outside), s.probe(true, "shop/api", "node-1"),
			s.probe(true, "node-1", "shop/new"), s.probe(true, "node-1", "shop/api"), s.probe(true, "node-1", "node-1"),
			s.probe(true, "node-1", "gateway"), s.probe(true, "shop/api", "gateway"), s.probe(true, "shop/far", "gateway"),
		}
		for i, a := range s.addrs["gateway"] {
			for _, to := range []string{"shop/new", "shop/api", "shop/far", "gateway"} {
				others = append(others, []lab.Probe{{From: "node-1", Src: a, To: s.addrs[to][i], Protocol: "tcp", Port: 80}})
			}
		}
		held := func(pass bool) (out [][]lab.Probe) {
			for _, e := range []string{"shop/api", "shop/far", lab.Outside} {
				out = append(out, s.probe(pass, "shop/new", e), s.probe(pass, e, "shop/new"))
			}
			return append(out, s.probe(pass, "shop/new", "node-1"), s.probe(pass, "shop/new", "gateway"))
		}
		s.require("held", append(held(false), others...)...)
		s.release()
		s.require("released", append(held(true), others...)...)
		s.become(func(to *ir.State) { to.Endpoints = to.Endpoints[:0:0] })
		s.forget()
		s.require("gone", held(false)...)
	})
}

// isolate denies shop/api everything in one direction and nothing in the other.
func (s *site) isolate(d ir.Direction) {
	s.t.Helper()
	s.become(func(to *ir.State) {
		g := np(d, "g-none-"+short(d), []string{"shop/none"})
		to.Groups = []ir.Group{g}
		for i := range to.Endpoints {
			e := &to.Endpoints[i]
			e.Ingress, e.Egress = "", ""
			switch {
			case e.Pod != "shop/api":
			case d == ir.Egress:
				e.Egress = g.ID
			default:
				e.Ingress = g.ID
			}
		}
	})
}

// connection opens a TCP connection and returns both ends.
func (s *site) connection(from, to string, family int) (client, server net.Conn) {
	s.t.Helper()
	var listener net.Listener
	require.NoError(s.t, s.In(to, func() (err error) {
		listener, err = net.Listen("tcp", netip.AddrPortFrom(s.addrs[to][family], 0).String())
		return err
	}))
	defer listener.Close()
	require.NoError(s.t, s.In(from, func() (err error) {
		client, err = net.DialTimeout("tcp", listener.Addr().String(), 10*time.Second)
		return err
	}))
	server, err := listener.Accept()
	require.NoError(s.t, err)
	for _, c := range []net.Conn{client, server} {
		require.NoError(s.t, c.SetDeadline(time.Now().Add(20*time.Second)))
		s.t.Cleanup(func() { _ = c.Close() })
	}
	say(s.t, client, server, "hello")
	say(s.t, server, client, "yes")
	return client, server
}

func say(t *testing.T, from, to net.Conn, text string) {
	t.Helper()
	_, err := from.Write([]byte(text))
	require.NoError(t, err)
	b := make([]byte, 64)
	n, err := to.Read(b)
	require.NoError(t, err)
	require.Equal(t, text, string(b[:n]))
}

// requireReset sends and is told that there is no connection any more. It may be told
// before, by an acknowledgement that the kernel was late to send.
func requireReset(t *testing.T, c net.Conn, why string) {
	t.Helper()
	_, err := c.Write([]byte("still there?"))
	if err == nil {
		_, err = c.Read(make([]byte, 64))
	}
	require.ErrorIs(t, err, unix.ECONNRESET, why)
}

// open isolates nobody any more.
func (s *site) open() {
	s.t.Helper()
	s.become(func(to *ir.State) {
		to.Groups = nil
		for i := range to.Endpoints {
			to.Endpoints[i].Ingress, to.Endpoints[i].Egress = "", ""
		}
	})
}

// release makes shop/new an endpoint that no policy selects.
func (s *site) release() {
	s.t.Helper()
	s.become(func(to *ir.State) {
		for _, a := range s.addrs["shop/new"] {
			to.Endpoints = append(to.Endpoints, ir.Endpoint{Addr: a, Pod: "shop/new"})
		}
	})
}

// TestMidstreamPackets has connections that connection tracking has forgotten,
// and that policies do not allow any more. Whoever sends next is told so, and then
// the other end. Without the guard, the server's packet would open the way back.
func TestMidstreamPackets(t *testing.T) {
	onSites(t, func(s *site) {
		s.release()
		for _, d := range directions {
			s.open()
			from, to := "shop/far", "shop/api"
			if d == ir.Egress {
				from, to = to, from
			}
			var pairs [][2]net.Conn
			for family := range 2 {
				for range 2 {
					client, server := s.connection(from, to, family)
					pairs = append(pairs, [2]net.Conn{client, server})
				}
			}
			bystander, its := s.connection("shop/far", "shop/new", 0)
			s.isolate(d)
			s.forget()
			for i, p := range pairs {
				requireReset(t, p[i%2], fmt.Sprintf("%s, connection %d, who sends first", d, i))
				requireReset(t, p[1-i%2], fmt.Sprintf("%s, connection %d, the other", d, i))
			}
			say(t, its, bystander, "nobody is isolated here")
			say(t, bystander, its, "and nobody minds")
		}
	})
}

// TestMidstreamPacketsToTheNode are those of a pod to its own node, which may
// always open connections to its pods.
func TestMidstreamPacketsToTheNode(t *testing.T) {
	onSites(t, func(s *site) {
		for family := range 2 {
			s.open()
			pod, _ := s.connection("shop/api", "node-1", family)
			node, probed := s.connection("node-1", "shop/api", family)
			s.isolate(ir.Ingress)
			s.forget()
			say(t, probed, node, "I may send")
			s.isolate(ir.Egress)
			s.forget()
			requireReset(t, pod, "may not send any more")
		}
	})
}

// TestForbiddenPackets: a UDP server goes on answering a flow that connection
// tracking has forgotten, which makes it a new flow of its own.
func TestForbiddenPackets(t *testing.T) {
	onSites(t, func(s *site) {
		for i, a := range s.addrs["shop/api"] {
			s.open()
			var server, other, client net.PacketConn
			listen := func(endpoint string, a netip.Addr) (c net.PacketConn) {
				require.NoError(t, s.In(endpoint, func() (err error) {
					c, err = net.ListenPacket("udp", netip.AddrPortFrom(a, 0).String())
					return err
				}))
				require.NoError(t, c.SetDeadline(time.Now().Add(20*time.Second)))
				t.Cleanup(func() { _ = c.Close() })
				return c
			}
			server, other, client = listen("shop/api", a), listen("shop/api", a), listen("shop/far", s.addrs["shop/far"][i])
			send := func(from, to net.PacketConn, text string) {
				t.Helper()
				_, err := from.WriteTo([]byte(text), to.LocalAddr())
				require.NoError(t, err)
			}
			receive := func(at net.PacketConn, want string) {
				t.Helper()
				b := make([]byte, 64)
				n, _, err := at.ReadFrom(b)
				require.NoError(t, err)
				require.Equal(t, want, string(b[:n]))
			}
			send(client, server, "question")
			receive(server, "question")
			send(server, client, "answer")
			receive(client, "answer")
			s.isolate(ir.Ingress)
			s.forget()
			src, dst := netip.MustParseAddrPort(server.LocalAddr().String()), netip.MustParseAddrPort(client.LocalAddr().String())
			require.NoError(t, s.Forbid(t.Context(), []Tuple{{src.Addr(), dst.Addr(), 17, src.Port(), dst.Port()}}, time.Hour))
			send(server, client, "further answer") // must not arrive
			send(other, client, "something else")  // which the pod may send
			receive(client, "something else")
			send(client, server, "further question")
			send(client, other, "answer to something else")
			receive(other, "answer to something else")
			send(other, server, "nothing has come in between")
			receive(server, "nothing has come in between")
		}
	})
}

// TestForbiddenPacketsToThePod has a pod's flows to its own node, which nobody knows
// any more and the pod may not open again. Nor does the node's end open them by
// sending first, while the node sends what else it likes.
func TestForbiddenPacketsToThePod(t *testing.T) {
	onSites(t, func(s *site) {
		for i, a := range s.addrs["shop/api"] {
			s.open()
			pod := s.listen("shop/api", "udp", netip.AddrPortFrom(a, 0).String())
			at := netip.AddrPortFrom(s.addrs["node-1"][i], 0).String()
			server, other := s.listen("node-1", "udp", at), s.listen("node-1", "udp", at)
			send := func(from, to net.PacketConn, text string) {
				s.t.Helper()
				_, err := from.WriteTo([]byte(text), to.LocalAddr())
				require.NoError(s.t, err)
			}
			client, its := s.connection("shop/api", "node-1", i)
			send(pod, server, "question")
			s.receive(server, "question")
			send(server, pod, "answer")
			s.receive(pod, "answer")
			s.isolate(ir.Egress)
			s.forget()
			src, dst := netip.MustParseAddrPort(server.LocalAddr().String()), netip.MustParseAddrPort(pod.LocalAddr().String())
			itsEnd, podEnd := netip.MustParseAddrPort(its.LocalAddr().String()), netip.MustParseAddrPort(client.LocalAddr().String())
			require.NoError(s.t, s.Forbid(s.t.Context(), []Tuple{
				{src.Addr(), dst.Addr(), 17, src.Port(), dst.Port()},
				{itsEnd.Addr(), podEnd.Addr(), 6, itsEnd.Port(), podEnd.Port()},
			}, time.Hour))

			_, err := server.WriteTo([]byte("further answer"), pod.LocalAddr())
			assert.ErrorIs(s.t, err, unix.EPERM, "the kernel tells who sends it")
			send(pod, server, "further question")
			send(other, pod, "the node may ask")
			s.receive(pod, "the node may ask")
			send(pod, other, "and is answered")
			s.receive(other, "and is answered")
			send(other, server, "nothing has come in between")
			s.receive(server, "nothing has come in between")

			_, err = its.Write([]byte("dropped")) // as a lost packet is
			require.NoError(s.t, err)
			requireReset(s.t, client, "the pod's end, which heard nothing")
		}
	})
}
