package nft

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/portcullis-netpol/portcullis/nft/nflog"
	"github.com/portcullis-netpol/portcullis/policy/ir"
)

// siteLogGroup is where a site logs to.
const siteLogGroup = 4040

func TestLogPrefix(t *testing.T) {
	for prefix, want := range map[string]struct {
		r LogReason
		d ir.Direction
	}{
		"portcullis policy egress":      {LogPolicy, ir.Egress},
		"portcullis policy ingress":     {LogPolicy, ir.Ingress},
		"portcullis audit egress":       {LogAudit, ir.Egress},
		"portcullis quarantine ingress": {LogQuarantine, ir.Ingress},
	} {
		r, d, ok := ParseLogPrefix(prefix)
		require.True(t, ok, prefix)
		require.Equal(t, want.r, r)
		require.Equal(t, want.d, d)
	}
	r, _, ok := ParseLogPrefix("portcullis cut")
	require.True(t, ok)
	require.Equal(t, LogCut, r)
	for _, prefix := range []string{"", "portcullis", "portcullis policy", "portcullis cut egress", "portcullis policy egress ", "other"} {
		_, _, ok := ParseLogPrefix(prefix)
		require.False(t, ok, prefix)
	}
}

// TestCounters sends packets through a Fake. Each is counted once, whatever the mode.
func TestCounters(t *testing.T) {
	ctx := t.Context()
	for _, cfg := range []Config{
		{PodCIDRs: podBlocks, PodToNode: true, Midstream: true, LogGroup: 1},
		{PodCIDRs: podBlocks, PodToNode: true, Midstream: true, Deny: DenyReject},
	} {
		f := NewFake()
		e := NewEnforcer(cfg, f)
		_, err := e.Counters(ctx)
		require.Error(t, err, "nothing is in force")
		s := onTrialToo(shop())
		require.NoError(t, e.Takeover(ctx, s))
		api, db, free, api6, db6 := addr("10.244.1.2"), addr("10.244.1.3"), addr("10.244.1.4"), addr("fd00:10:244:1::2"), addr("fd00:10:244:1::3")
		held, out, out6 := addr("10.244.1.77"), addr("198.51.100.1"), addr("2001:db9::1")
		refused := map[DenyMode]Outcome{DenyDrop: Drop, DenyReject: Reject}[cfg.Deny]
		pass := func(n int, want Outcome, p Packet) {
			t.Helper()
			for range n {
				require.Equal(t, want, f.Deliver(p), "%+v", p)
			}
		}
		require.NoError(t, e.Forbid(ctx, []Tuple{{out, free, 17, 1, 2}}, time.Hour))
		pass(2, refused, Packet{Src: api, Dst: out, Protocol: 6, DstPort: 1})
		pass(3, refused, Packet{Src: out, Dst: db, Protocol: 17, DstPort: 1})
		pass(4, refused, Packet{Src: api, Dst: out, Protocol: 6, DstPort: 1, Hook: HookInput})
		pass(5, refused, Packet{Src: out6, Dst: db6, Protocol: 17, DstPort: 1})
		pass(6, refused, Packet{Src: api6, Dst: db6, Protocol: 17, DstPort: 1})
		pass(7, Accept, Packet{Src: free, Dst: out, Protocol: 6, DstPort: 1})
		pass(8, Drop, Packet{Src: held, Dst: out, Protocol: 6, DstPort: 1})
		pass(9, Drop, Packet{Src: out, Dst: held, Protocol: 6, DstPort: 1})
		pass(10, refused, Packet{Src: out, Dst: free, Protocol: 17, SrcPort: 1, DstPort: 2})
		pass(11, Drop, Packet{Src: addr("fe80::1"), Dst: db6, Protocol: 17})
		pass(12, Drop, Packet{Src: db6, Dst: addr("ff02::1"), Protocol: 58, ICMPType: 128, Hook: HookForward, Loopback: false}.to("fe80::1"))
		// and these are not:
		pass(1, Accept, Packet{Src: free, Dst: out, Protocol: 17, DstPort: 53})
		pass(1, Accept, Packet{Src: free, Dst: free, Protocol: 6, DstPort: 1})
		pass(1, Accept, Packet{Src: db, Dst: db, Protocol: 6, DstPort: 1})
		pass(1, Accept, Packet{Src: out, Dst: db, Protocol: 6, CTState: CTEstablished})
		pass(1, Accept, Packet{Src: addr("fe80::1"), Dst: addr("ff02::16"), Protocol: 58, ICMPType: 143})
		pass(1, Reject, Packet{Src: out, Dst: db, Protocol: 6, TCPFlags: TCPAck})
		want := Counters{
			Denied:  map[netip.Addr][2]uint64{api: counts(2+4, 0), db: counts(0, 3), db6: counts(0, 5), api6: counts(6, 0)},
			Audited: counts(7, 0), Quarantined: counts(8, 9), Cut: 10, LinkLocal: 11 + 12,
		}
		got, err := e.Counters(ctx)
		require.NoError(t, err)
		require.Equal(t, want, got)

		requireVerified(t, e, s)
		f.Forget()
		require.NoError(t, e.Repair(ctx, s))
		require.Empty(t, f.History())
		require.NoError(t, e.Takeover(ctx, s))
		got, err = e.Counters(ctx)
		require.NoError(t, err)
		require.Equal(t, Counters{Denied: map[netip.Addr][2]uint64{}}, got, "the new table begins at 0")
	}
}

// TestTallyTakesItsSet: the Fake refuses what the kernel refuses.
func TestTallyTakesItsSet(t *testing.T) {
	set := families[0].deniedSet(ir.Egress)
	other := *set
	other.Counts = false
	require.NotEmpty(t, Diff(&Table{Sets: []*Set{set}}, &Table{Sets: []*Set{&other}}), "a set of the name that does not count")
	table, err := Build(Config{}, "portcullis-a", ir.State{})
	require.NoError(t, err)
	ns := newNetNS(t)
	runNFT(t, ns, strings.Replace(Text(table), "size 65535", "size 5", 1), "-f", "-")
	have, _, err := openTestKernel(t, ns).Read(t.Context(), "portcullis-a")
	require.NoError(t, err)
	require.Len(t, Diff(table, have), 1, "a set that counts less")
	for _, k := range []Kernel{NewFake(), openTestKernel(t, newNetNS(t))} {
		require.NoError(t, k.Send(t.Context(), Batch{"portcullis-a", []Op{AddTable{}, AddSet{set}, AddSet{&Set{Name: "u_s", Type: TypeAddr4}}, AddChain{&Chain{Name: "g_c"}}}}))
		for name, ok := range map[string]bool{set.Name: true, "u_s": false, "none": false} {
			err := k.Send(t.Context(), Batch{"portcullis-a", []Op{AddRule{"g_c", Rule{Action: Tally{FieldSaddr4, name}}}}})
			require.Equal(t, ok, err == nil, "%T, %s: %v", k, name, err)
		}
		require.ErrorIs(t, k.Send(t.Context(), Batch{"portcullis-a", []Op{DelSet{set.Name}}}), ErrUncertain, "%T: it is in use", k)
	}
}

// mute is a kernel that cannot log.
type mute struct{ *Fake }

func (m mute) Send(ctx context.Context, b Batch) error {
	for _, op := range b.Ops {
		if r, ok := op.(AddRule); ok {
			if _, ok := r.Rule.Action.(Log); ok {
				return fmt.Errorf("%w: %w", ErrUncertain, unix.ENOENT)
			}
		}
	}
	return m.Fake.Send(ctx, b)
}

// TestKernelThatCannotLog enforces all the same.
func TestKernelThatCannotLog(t *testing.T) {
	var out strings.Builder
	cfg := Config{LogGroup: 3, Logger: slog.New(slog.NewTextHandler(&out, nil))}
	e := NewEnforcer(cfg, mute{NewFake()})
	require.NoError(t, e.Takeover(t.Context(), shop()))
	requireVerified(t, e, shop())
	require.Contains(t, out.String(), "cannot log packets")

	out.Reset()
	f := NewFake()
	e = NewEnforcer(cfg, f)
	require.NoError(t, e.Takeover(t.Context(), shop()))
	require.Len(t, f.Snapshot(), 1, "what was tried leaves nothing behind")
	require.Contains(t, Text(f.Snapshot()[e.Table()]), "group 3")
	require.NotContains(t, out.String(), "cannot log")

	k := openTestKernel(t, newNetNS(t))
	require.NoError(t, k.Send(t.Context(), cfg.logTrial()))
	tables, err := k.Tables(t.Context())
	require.NoError(t, err)
	require.Empty(t, tables)
}

// counts are numbers by ir.Direction.
func counts(egress, ingress uint64) (out [2]uint64) {
	out[ir.Egress], out[ir.Ingress] = egress, ingress
	return out
}

// to returns p with another destination.
func (p Packet) to(dst string) Packet {
	p.Dst = addr(dst)
	return p
}

// pair are sockets at both ends.
func (s *site) pair(from, to string, family int) (client, server net.PacketConn) {
	s.t.Helper()
	return s.listen(from, "udp", netip.AddrPortFrom(s.addrs[from][family], 0).String()),
		s.listen(to, "udp", netip.AddrPortFrom(s.addrs[to][family], 0).String())
}

// sendNew sends packets each of which opens a flow, as none of them is answered or known.
func (s *site) sendNew(n int, from, to net.PacketConn) {
	s.t.Helper()
	for range n {
		_, err := from.WriteTo([]byte("new"), to.LocalAddr())
		require.NoError(s.t, err)
	}
}

// requireCounts waits until all packets were counted that were sent, and reports what
// becomes of them; a packet that is still on its way then comes from nobody.
func (s *site) requireCounts(want Counters) {
	s.t.Helper()
	var got Counters
	require.Eventually(s.t, func() bool {
		var err error
		got, err = s.Counters(s.t.Context())
		got.LinkLocal = 0 // which pods send by themselves
		return err == nil && sum(got) >= sum(want)
	}, 20*time.Second, 5*time.Millisecond)
	require.Equal(s.t, want, got)
	require.NoError(s.t, s.Tidy(s.t.Context()))
	d, err := s.Verify(s.t.Context(), s.state)
	require.NoError(s.t, err)
	require.Empty(s.t, d)
}

func sum(c Counters) (n uint64) {
	for _, x := range c.Denied {
		n += x[0] + x[1]
	}
	return n + c.Audited[0] + c.Audited[1] + c.Quarantined[0] + c.Quarantined[1] + c.Cut
}

// requireLogged takes what is logged, which is this and in any order.
func (s *site) requireLogged(c *nflog.Conn, want map[string]int) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), 20*time.Second)
	defer cancel()
	got, n := map[string]int{}, 0
	for _, x := range want {
		n += x
	}
	for range n {
		p, err := c.Receive(ctx)
		require.NoError(s.t, err, "%v", got)
		require.Zero(s.t, p.Lost)
		got[p.Prefix]++
	}
	require.Equal(s.t, want, got)
}

// openLog listens to what the table logs.
func (s *site) openLog() *nflog.Conn {
	s.t.Helper()
	c, err := nflog.Open(s.NetNS("node-1"), siteLogGroup)
	require.NoError(s.t, err)
	s.t.Cleanup(func() { require.NoError(s.t, c.Close()) })
	return c
}

// TestCountedPackets denies, audits, holds back and cuts real packets, so many of each,
// and lets others pass.
func TestCountedPackets(t *testing.T) {
	onSites(t, func(s *site) {
		c := s.openLog()
		want := Counters{Denied: map[netip.Addr][2]uint64{}}
		for family := range 2 {
			api := s.addrs["shop/api"][family]
			client, server := s.pair("shop/far", "shop/api", family)
			s.sendNew(5, client, server) // allowed, neither counted nor logged
			for range 5 {
				s.receive(server, "new")
			}

			s.isolate(ir.Ingress)
			s.forget()
			client, server = s.pair("shop/far", "shop/api", family)
			s.sendNew(21, client, server)
			want.Denied[api] = counts(0, 21)
			s.requireCounts(want)
			s.requireLogged(c, map[string]int{"portcullis policy ingress": 21})

			s.isolate(ir.Egress)
			far, _ := s.pair("shop/far", "shop/api", family)
			s.sendNew(22, server, far)
			node := s.listen("node-1", "udp", netip.AddrPortFrom(s.addrs["node-1"][family], 0).String())
			s.sendNew(3, server, node)
			want.Denied[api] = counts(22+3, 21)
			s.requireCounts(want)
			s.requireLogged(c, map[string]int{"portcullis policy egress": 22 + 3})

			held, _ := s.pair("shop/new", "shop/api", family)
			s.sendNew(6, held, far)
			s.sendNew(7, far, held)
			want.Quarantined[ir.Egress] += 6
			want.Quarantined[ir.Ingress] += 7
			s.requireCounts(want)
			s.requireLogged(c, map[string]int{"portcullis quarantine egress": 6, "portcullis quarantine ingress": 7})

			s.open()
			s.forget()
			src, dst := far.LocalAddr().(*net.UDPAddr).AddrPort(), server.LocalAddr().(*net.UDPAddr).AddrPort()
			require.NoError(s.t, s.Forbid(s.t.Context(), []Tuple{{src.Addr(), dst.Addr(), 17, src.Port(), dst.Port()}}, time.Hour))
			s.sendNew(8, far, server)
			want.Cut += 8
			s.requireCounts(want)
			s.requireLogged(c, map[string]int{"portcullis cut": 8})
		}
		runNFT(s.t, newNetNS(s.t), runNFT(s.t, s.NetNS("node-1"), "", "list", "ruleset"), "-f", "-")
		require.NoError(s.t, s.Takeover(s.t.Context(), s.state))
		s.requireCounts(Counters{Denied: map[netip.Addr][2]uint64{}})
	})
}

// TestAuditPackets has a group on trial: what it would deny passes, and is logged.
func TestAuditPackets(t *testing.T) {
	onSites(t, func(s *site) {
		c := s.openLog()
		want := Counters{Denied: map[netip.Addr][2]uint64{}}
		for _, d := range directions {
			s.become(func(to *ir.State) {
				g := onTrial(np(d, "g-trial-"+short(d), []string{"shop/trial"}, rule(ir.TCP, 1, 1, "*")))
				to.Groups = []ir.Group{g}
				for i := range to.Endpoints {
					to.Endpoints[i].Ingress, to.Endpoints[i].Egress = "", ""
					if d == ir.Egress {
						to.Endpoints[i].Egress = g.ID
					} else {
						to.Endpoints[i].Ingress = g.ID
					}
				}
			})
			for family := range 2 {
				from, to := "shop/far", "shop/api"
				if d == ir.Egress {
					from, to = to, from
				}
				sender, receiver := s.pair(from, to, family)
				s.sendNew(1, sender, receiver)
				s.receive(receiver, "new")
				want.Audited[d]++
				s.requireCounts(want)
				s.requireLogged(c, map[string]int{"portcullis audit " + d.String(): 1})
				s.sendNew(1, receiver, sender) // an answer is no news
				s.receive(sender, "new")
			}
		}
		s.requireCounts(want)
	})
}

// TestLoggedPackets has more packets denied than are logged.
func TestLoggedPackets(t *testing.T) {
	onSites(t, func(s *site) {
		c := s.openLog()
		s.isolate(ir.Ingress)
		client, server := s.pair("shop/far", "shop/api", 0)
		const flood = 2000
		begin := time.Now()
		s.sendNew(flood, client, server)
		s.requireCounts(Counters{Denied: map[netip.Addr][2]uint64{s.addrs["shop/api"][0]: counts(0, flood)}})
		most := logRate + int(logRate*time.Since(begin).Seconds()) + 1
		held, _ := s.pair("shop/new", "shop/api", 0)
		s.sendNew(1, client, held) // for another reason, that has a rate of its own
		ctx, cancel := context.WithTimeout(s.t.Context(), 20*time.Second)
		defer cancel()
		n := 0
		for {
			p, err := c.Receive(ctx)
			require.NoError(s.t, err)
			if p.Prefix == logPrefix(LogQuarantine, ir.Ingress) {
				break
			}
			require.Equal(s.t, logPrefix(LogPolicy, ir.Ingress), p.Prefix)
			n++
		}
		s.t.Logf("%d of %d packets logged", n, flood)
		require.GreaterOrEqual(s.t, n, logRate)
		require.LessOrEqual(s.t, n, most)
	})
}
