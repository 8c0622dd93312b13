package nft

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/portcullis-netpol/portcullis/policy/ir"
	"github.com/portcullis-netpol/portcullis/testcases/lab"
)

// TestBeforeNAT: of what arrives, only TCP that opens no connection is looked at, and
// of that only what is forbidden.
func TestBeforeNAT(t *testing.T) {
	client, service := addr("10.244.1.4"), addr("10.96.0.10")
	client6, service6 := addr("fd00:10:244:1::4"), addr("fd00:10:96::10")
	for _, cfg := range []Config{{}, {Bridged: true}, {Midstream: true}, {Midstream: true, Bridged: true}, {Midstream: true, Bridged: true, PodToNode: true, PodCIDRs: podBlocks, Deny: DenyReject}} {
		f := NewFake()
		e := NewEnforcer(cfg, f)
		require.NoError(t, e.Takeover(t.Context(), shop()))
		for _, cut := range []Tuple{{client, service, 6, 40000, 80}, {client6, service6, 6, 40000, 80}} {
			packet := func(change func(*Packet)) Packet {
				p := cut.packet()
				p.Hook, p.TCPFlags = HookPrerouting, TCPAck
				change(&p)
				return p
			}
			verdict := func(change func(*Packet)) Outcome { return f.Snapshot()[e.Table()].Verdict(packet(change)) }
			same := func(*Packet) {}
			require.Equal(t, Accept, verdict(same))
			onUDP := cut
			onUDP.Protocol = 17
			require.NoError(t, e.Forbid(t.Context(), []Tuple{cut, onUDP}, time.Minute))
			want := Accept
			if cfg.Midstream && cfg.Bridged {
				want = Reject
			}
			for _, change := range []func(*Packet){
				same,
				func(p *Packet) { p.CTState = CTInvalid },
				func(p *Packet) { p.TCPFlags = TCPFin | TCPAck },
				func(p *Packet) { p.TCPFlags = TCPSyn | TCPAck },
			} {
				require.Equal(t, want, verdict(change), "%+v", packet(change))
			}
			for _, change := range []func(*Packet){
				func(p *Packet) { p.TCPFlags = TCPSyn },
				func(p *Packet) { p.CTState = CTEstablished },
				func(p *Packet) { p.CTState = CTRelated },
				func(p *Packet) { p.Protocol = 17 },
				func(p *Packet) { p.SrcPort++ },
				func(p *Packet) { p.DstPort++ },
				func(p *Packet) { p.Src, p.Dst = p.Dst, p.Src },
				func(p *Packet) { p.Dst = p.Dst.Next() },
			} {
				require.Equal(t, Accept, verdict(change), "%+v", packet(change))
			}
			requireVerified(t, e, shop())
		}
	}
}

// The Service of TestCutClientsOfServices.
var (
	serviceAddrs = addrs("10.96.0.10", "fd00:10:96::10")
	servicePort  = uint16(80)
	targetPort   = uint16(8080)
)

// serve puts an endpoint behind the Service and returns where it listens.
func (s *site) serve(endpoint string, family int) (tcp net.Listener, udp net.PacketConn) {
	s.t.Helper()
	require.NoError(s.t, s.SetService(lab.Service{
		Name: "service", ClusterIPs: serviceAddrs[family : family+1], Backends: s.addrs[endpoint][family : family+1],
		Ports: []lab.ServicePort{{Protocol: "tcp", Port: servicePort, TargetPort: targetPort}, {Protocol: "udp", Port: servicePort, TargetPort: targetPort}},
	}))
	at := netip.AddrPortFrom(s.addrs[endpoint][family], targetPort).String()
	require.NoError(s.t, s.In(endpoint, func() (err error) {
		tcp, err = net.Listen("tcp", at)
		return err
	}))
	s.t.Cleanup(func() { _ = tcp.Close() })
	return tcp, s.listen(endpoint, "udp", at)
}

// call opens a connection to the Service from a port, 0 meaning any.
func (s *site) call(from string, family int, port uint16, timeout time.Duration) (client net.Conn, err error) {
	d := net.Dialer{Timeout: timeout, LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(s.addrs[from][family], port))}
	err = s.In(from, func() error {
		client, err = d.Dial("tcp", netip.AddrPortFrom(serviceAddrs[family], servicePort).String())
		return err
	})
	return client, err
}

// called is call and what the server sees of it.
func (s *site) called(from string, family int, port uint16, l net.Listener) (client, server *net.TCPConn) {
	s.t.Helper()
	c, err := s.call(from, family, port, 10*time.Second)
	require.NoError(s.t, err)
	its, err := l.Accept()
	require.NoError(s.t, err)
	for _, x := range []net.Conn{c, its} {
		require.NoError(s.t, x.SetDeadline(time.Now().Add(20*time.Second)))
		s.t.Cleanup(func() { _ = x.Close() })
	}
	say(s.t, c, its, "hello")
	say(s.t, its, c, "yes")
	return c.(*net.TCPConn), its.(*net.TCPConn)
}

// TestCutClientsOfServices has clients whose connections through a Service are cut.
// They are told so by the address that they know, whatever they send next and whoever
// sends first. The next connection from the same port is a new one.
func TestCutClientsOfServices(t *testing.T) {
	onSites(t, func(s *site) {
		s.release()
		for _, path := range []struct {
			from, to string
			d        ir.Direction
		}{{"shop/new", "shop/api", ir.Ingress}, {"shop/api", "shop/new", ir.Egress}, {"shop/api", "shop/far", ir.Egress}} {
			for family := range 2 {
				s.open()
				listener, _ := s.serve(path.to, family)
				var clients, servers []*net.TCPConn
				var cut []Tuple
				for range 3 {
					client, server := s.called(path.from, family, 0, listener)
					clients, servers = append(clients, client), append(servers, server)
					src, dst := client.LocalAddr().(*net.TCPAddr).AddrPort(), client.RemoteAddr().(*net.TCPAddr).AddrPort()
					cut = append(cut, Tuple{src.Addr(), dst.Addr(), 6, src.Port(), dst.Port()})
				}
				require.NoError(s.t, s.Forbid(s.t.Context(), cut, time.Hour))
				for i := range clients {
					say(s.t, clients[i], servers[i], "connection tracking knows it")
				}
				s.isolate(path.d)
				s.forget()

				requireReset(s.t, clients[0], "the client sends first")
				requireReset(s.t, servers[0], "the server is told as well")
				requireReset(s.t, servers[1], "the server sends first")
				requireReset(s.t, clients[1], "the client is told as well")
				if _, bridged := s.addrs["gateway"]; bridged {
					// In the forward hook invalid packets are not reset.
					require.NoError(s.t, clients[2].CloseWrite())
					_, err := clients[2].Read(make([]byte, 64))
					require.ErrorIs(s.t, err, unix.ECONNRESET, "the client has nothing more to say")
				}

				require.NoError(s.t, clients[0].Close())
				_, err := s.call(path.from, family, cut[0].SrcPort, 300*time.Millisecond)
				var timeout net.Error
				require.ErrorAs(s.t, err, &timeout)
				require.True(s.t, timeout.Timeout(), "a new connection is denied without a word: %v", err)
				s.open()
				client, server := s.called(path.from, family, cut[0].SrcPort, listener)
				say(s.t, client, server, "a new connection")
				require.NoError(s.t, listener.Close())
			}
		}
	})
}

// TestForbiddenUDPBeforeNAT: what is forbidden of another protocol is left to the
// hooks behind DNAT, which see another destination.
func TestForbiddenUDPBeforeNAT(t *testing.T) {
	onSites(t, func(s *site) {
		s.release()
		for family := range 2 {
			_, server := s.serve("shop/api", family)
			client := s.listen("shop/new", "udp", netip.AddrPortFrom(s.addrs["shop/new"][family], 0).String())
			src := client.LocalAddr().(*net.UDPAddr).AddrPort()
			require.NoError(s.t, s.Forbid(s.t.Context(), []Tuple{{src.Addr(), serviceAddrs[family], 17, src.Port(), servicePort}}, time.Hour))
			_, err := client.WriteTo([]byte("question"), net.UDPAddrFromAddrPort(netip.AddrPortFrom(serviceAddrs[family], servicePort)))
			require.NoError(s.t, err)
			s.receive(server, "question")
			_, err = server.WriteTo([]byte("answer"), net.UDPAddrFromAddrPort(src))
			require.NoError(s.t, err)
			s.receive(client, "answer")
		}
	})
}
