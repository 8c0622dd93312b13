package lab

import (
	"context"
	"encoding/binary"
	"errors"
	"net/netip"
	"os"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func one(t *testing.T, l *Lab, p Probe) Result {
	t.Helper()
	return l.Probe(context.Background(), []Probe{p}, timing)[0]
}

func reaches(t *testing.T, l *Lab, probes ...Probe) {
	t.Helper()
	for i, r := range l.Probe(context.Background(), probes, timing) {
		require.NoError(t, r.Err, "%v", probes[i])
		require.True(t, r.OK, "%v", probes[i])
	}
}

// blocked wants silence: neither an answer nor a refusal.
func blocked(t *testing.T, l *Lab, probes ...Probe) {
	t.Helper()
	for i := range probes {
		probes[i].Deny = true
	}
	for i, r := range l.Probe(context.Background(), probes, timing) {
		require.False(t, r.OK, "%v", probes[i])
		require.False(t, r.Refused, "%v: %v", probes[i], r.Err)
		require.ErrorIs(t, r.Err, os.ErrDeadlineExceeded, "%v", probes[i])
	}
}

// forwardChain puts rules into a node's inet forward hook.
func forwardChain(t *testing.T, l *Lab, node string, rules ...[]expr.Any) {
	t.Helper()
	conn, err := nftables.New(nftables.WithNetNSFd(l.NetNS(node)))
	require.NoError(t, err)
	table := conn.AddTable(&nftables.Table{Name: "test", Family: nftables.TableFamilyINet})
	chain := conn.AddChain(&nftables.Chain{
		Name: "forward", Table: table, Type: nftables.ChainTypeFilter,
		Hooknum: nftables.ChainHookForward, Priority: nftables.ChainPriorityFilter,
	})
	for _, r := range rules {
		conn.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: r})
	}
	require.NoError(t, conn.Flush())
}

func dropRule(protocol, port uint16) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{byte(protocol)}},
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binary.BigEndian.AppendUint16(nil, port)},
		&expr.Verdict{Kind: expr.VerdictDrop},
	}
}

func TestForwardHookSeesPackets(t *testing.T) {
	everyTopology(t, func(t *testing.T, cfg Config) {
		l := shop(t, cfg)
		require.NoError(t, l.Serve("shop/b", "tcp", 81))
		forwardChain(t, l, "node-1", dropRule(unix.IPPROTO_TCP, 80))
		var dropped, passed []Probe
		for _, to := range addrsOf(l, "shop/b") {
			for _, from := range []string{"shop/a", "shop/c", "node-2", Outside} {
				dropped = append(dropped, Probe{From: from, To: to, Protocol: "tcp", Port: 80})
				passed = append(passed, Probe{From: from, To: to, Protocol: "tcp", Port: 81})
			}
			// The own node's packets do not cross its forward hook.
			passed = append(passed, Probe{From: "node-1", To: to, Protocol: "tcp", Port: 80})
		}
		reaches(t, l, passed...)
		blocked(t, l, dropped...)
	})
}

func TestBridgedPodsBypassHooksWithoutNetfilterCalls(t *testing.T) {
	l := shop(t, Config{Topology: Bridged})
	forwardChain(t, l, "node-1", dropRule(unix.IPPROTO_TCP, 80))
	for _, to := range addrsOf(l, "shop/b") {
		blocked(t, l, Probe{From: "shop/a", To: to, Protocol: "tcp", Port: 80})
	}
	require.NoError(t, l.In("node-1", func() error {
		return writeSysctls([]sysctl{
			{path: "bridge/bridge-nf-call-iptables", value: "0"},
			{path: "bridge/bridge-nf-call-ip6tables", value: "0"},
		})
	}))
	for _, to := range addrsOf(l, "shop/b") {
		reaches(t, l, Probe{From: "shop/a", To: to, Protocol: "tcp", Port: 80})
	}
}

// A rule that lets established flows pass and drops the rest cuts off probes
// that were answered just before: each one is a new flow.
func TestProbesAreNewFlows(t *testing.T) {
	everyTopology(t, func(t *testing.T, cfg Config) {
		l := shop(t, cfg)
		to := addrsOf(l, "shop/b")[0]
		probes := []Probe{
			{From: "shop/a", To: to, Protocol: "tcp", Port: 80},
			{From: "shop/a", To: to, Protocol: "udp", Port: 53},
			{From: "shop/a", To: to, Protocol: "sctp", Port: 36412},
			{From: "shop/a", To: to, Protocol: "icmp"},
		}
		// ct state established accept: from here on flows are tracked.
		established := []expr.Any{
			&expr.Ct{Key: expr.CtKeySTATE, Register: 1},
			&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: native(expr.CtStateBitESTABLISHED), Xor: native(0)},
			&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: native(0)},
			&expr.Verdict{Kind: expr.VerdictAccept},
		}
		// Nor does conntrack find fault with them, such as a wrong checksum.
		invalid := []expr.Any{
			&expr.Ct{Key: expr.CtKeySTATE, Register: 1},
			&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: native(expr.CtStateBitINVALID), Xor: native(0)},
			&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: native(0)},
			&expr.Verdict{Kind: expr.VerdictDrop},
		}
		forwardChain(t, l, "node-1", established, invalid)
		reaches(t, l, probes...)
		var drops [][]expr.Any
		for _, protocol := range []byte{unix.IPPROTO_TCP, unix.IPPROTO_UDP, unix.IPPROTO_SCTP} {
			drops = append(drops, []expr.Any{
				&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
				&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{protocol}},
				&expr.Verdict{Kind: expr.VerdictDrop},
			})
		}
		for _, echo := range []struct{ protocol, kind byte }{{unix.IPPROTO_ICMP, 8}, {unix.IPPROTO_ICMPV6, 128}} {
			drops = append(drops, []expr.Any{
				&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
				&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{echo.protocol}},
				&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 0, Len: 1},
				&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{echo.kind}},
				&expr.Verdict{Kind: expr.VerdictDrop},
			})
		}
		forwardChain(t, l, "node-1", drops...)
		blocked(t, l, probes...)
	})
}

func TestRefusals(t *testing.T) {
	everyTopology(t, func(t *testing.T, cfg Config) {
		l := shop(t, cfg)
		require.NoError(t, l.AddPod("node-1", "shop/mute", l.ofFamilies(addrs("10.244.1.99", "fd00:10:244:1::99")...)))
		for _, to := range addrsOf(l, "shop/mute") {
			for protocol, errnos := range map[string][]error{
				"tcp": {syscall.ECONNREFUSED},
				"udp": {syscall.ECONNREFUSED},
				// Without SCTP in the kernel there is no such protocol at all.
				"sctp": {syscall.ENOPROTOOPT, syscall.EPROTO, syscall.ECONNREFUSED},
			} {
				if protocol == "sctp" && l.Config().SCTP == SCTPPackets && kernelHasSCTP() {
					continue // there is one, and it is kept silent
				}
				p := Probe{From: "shop/c", To: to, Protocol: protocol, Port: 7}
				r := one(t, l, p)
				require.False(t, r.OK, "%v", p)
				require.True(t, r.Refused, "%v: %v", p, r.Err)
				is := func(e error) bool { return errors.Is(r.Err, e) }
				require.True(t, slices.ContainsFunc(errnos, is), "%v: %v", p, r.Err)
			}
		}
		for _, to := range addrsOf(l, "shop/b") {
			r := one(t, l, Probe{From: "shop/a", To: to, Protocol: "sctp", Port: 7})
			require.True(t, r.Refused && !r.OK, "%v", r)
			require.ErrorIs(t, r.Err, syscall.ECONNREFUSED, "ABORT")
		}
		// A rejecting firewall on the way.
		reject := func(kind uint32, code uint8) []expr.Any {
			return []expr.Any{&expr.Reject{Type: kind, Code: code}}
		}
		forwardChain(t, l, "node-1", reject(unix.NFT_REJECT_ICMPX_UNREACH, unix.NFT_REJECT_ICMPX_ADMIN_PROHIBITED))
		for _, to := range addrsOf(l, "shop/b") {
			for _, protocol := range []string{"tcp", "udp", "sctp", "icmp"} {
				p := Probe{From: "shop/a", To: to, Protocol: protocol, Port: 80}
				r := one(t, l, p)
				require.True(t, r.Refused && !r.OK, "%v: %v", p, r.Err)
			}
		}
	})
}

func TestProbesThatCannotStart(t *testing.T) {
	l := shop(t, Config{IPv4: true})
	a := addrsOf(l, "shop/a")[0]
	for name, p := range map[string]Probe{
		"unknown endpoint": {From: "shop/nobody", To: a, Protocol: "tcp", Port: 80},
		"unknown protocol": {From: "shop/b", To: a, Protocol: "dccp", Port: 80},
		"foreign source":   {From: "shop/b", Src: a, To: a, Protocol: "tcp", Port: 80},
		"no family":        {From: "shop/b", To: netip.MustParseAddr("fd00::1"), Protocol: "tcp", Port: 80},
		"two families":     {From: "shop/b", Src: netip.MustParseAddr("fd00::1"), To: a, Protocol: "tcp", Port: 80},
	} {
		r := one(t, l, p)
		require.Error(t, r.Err, name)
		require.False(t, r.OK || r.Refused, name)
	}
}

func TestProbeEndsWithContext(t *testing.T) {
	l := shop(t, Config{IPv4: true})
	forwardChain(t, l, "node-1", []expr.Any{&expr.Verdict{Kind: expr.VerdictDrop}})
	ctx, cancel := context.WithCancel(context.Background())
	time.AfterFunc(20*time.Millisecond, cancel)
	var probes []Probe
	for _, protocol := range []string{"tcp", "udp", "sctp", "icmp"} {
		probes = append(probes, Probe{From: "shop/a", To: addrsOf(l, "shop/b")[0], Protocol: protocol, Port: 80})
	}
	for _, r := range l.Probe(ctx, probes, Timing{Allow: time.Hour}) {
		require.Error(t, r.Err)
		require.False(t, r.OK)
	}
}

func TestAnswerNamesServerAndClient(t *testing.T) {
	everyTopology(t, func(t *testing.T, cfg Config) {
		l := shop(t, cfg)
		for i, to := range addrsOf(l, "shop/c") {
			protocols := map[string]uint16{"tcp": 80, "udp": 53}
			if l.Config().SCTP == SCTPSockets {
				protocols["sctp"] = 36412
			}
			for protocol, port := range protocols {
				r := one(t, l, Probe{From: "shop/a", To: to, Protocol: protocol, Port: port})
				require.NoError(t, r.Err)
				require.Equal(t, "shop/c", r.Server)
				require.Equal(t, addrsOf(l, "shop/a")[i], r.Seen.Addr())
			}
		}
	})
}

func TestManyConcurrentProbes(t *testing.T) {
	l := shop(t, Config{})
	var probes []Probe
	for range 150 {
		for _, to := range addrsOf(l, "shop/c") {
			probes = append(probes,
				Probe{From: "shop/a", To: to, Protocol: "tcp", Port: 80},
				Probe{From: "shop/b", To: to, Protocol: "udp", Port: 53},
				Probe{From: Outside, To: to, Protocol: "icmp"},
				Probe{From: "node-1", To: to, Protocol: "sctp", Port: 36412})
		}
	}
	start := time.Now()
	for i, r := range l.Probe(context.Background(), probes, timing) {
		require.NoError(t, r.Err, "%v", probes[i])
	}
	t.Logf("%d probes in %v", len(probes), time.Since(start))
}

// Where the kernel has SCTP of its own it must not answer for us. The rule against
// that is put into place here on any kernel.
func TestKernelSCTPIsSilenced(t *testing.T) {
	l := shop(t, Config{SCTP: SCTPPackets})
	for _, e := range []string{"shop/a", "shop/b", "node-1"} {
		require.NoError(t, l.endpoints[e].silenceKernelSCTP())
	}
	for _, to := range addrsOf(l, "shop/b") {
		for _, from := range []string{"shop/a", "node-1"} {
			reaches(t, l, Probe{From: from, To: to, Protocol: "sctp", Port: 36412})
		}
		f, err := openFlow(l.endpoints["shop/a"], Probe{To: to}, unix.SOCK_RAW, unix.IPPROTO_SCTP, false)
		require.NoError(t, err)
		abort := sctpPacket{srcPort: 1, dstPort: 2, kind: sctpAbort}
		_, err = f.Write(abort.marshal())
		require.ErrorIs(t, err, syscall.EPERM, "a packet without our mark")
		require.NoError(t, f.Close())
	}
}
