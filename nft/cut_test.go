package nft

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// flows returns n tuples of each family.
func flows(n int) (out []Tuple) {
	a4, a6 := addr("10.244.1.2"), addr("fd00:10:244:1::2")
	for i := range n {
		a4, a6 = a4.Next(), a6.Next()
		port := uint16(1024 + i)
		out = append(out,
			Tuple{a4, addr("10.244.2.2"), []uint8{6, 17, 132, 1}[i%4], 53, port},
			Tuple{addr("fd00:10:244:2::2"), a6, 17, port, 53})
	}
	return out
}

func (t Tuple) packet() Packet {
	return Packet{Src: t.Src, Dst: t.Dst, Protocol: t.Protocol, SrcPort: t.SrcPort, DstPort: t.DstPort}
}

func TestForbid(t *testing.T) {
	ctx := t.Context()
	e, f := takenOver(t, shop())
	answer := Tuple{addr("10.244.1.4"), addr("198.51.100.1"), 17, 53, 4000}
	answer6 := Tuple{addr("fd00:10:244:2::9"), addr("2001:db9::1"), 132, 53, 4000}
	verdict := func(p Packet) Outcome { return f.Snapshot()[e.Table()].Verdict(p) }
	require.Equal(t, []Outcome{Accept, Accept}, []Outcome{verdict(answer.packet()), verdict(answer6.packet())})
	require.NoError(t, e.Forbid(ctx, []Tuple{answer, answer6, answer}, time.Minute))
	require.NoError(t, e.Forbid(ctx, []Tuple{answer}, time.Minute), "again")
	require.NoError(t, e.Forbid(ctx, nil, time.Minute))
	require.Equal(t, []Outcome{Drop, Drop}, []Outcome{verdict(answer.packet()), verdict(answer6.packet())})
	for _, change := range []func(*Packet){
		func(p *Packet) { p.Src, p.Dst = p.Dst, p.Src },
		func(p *Packet) { p.SrcPort++ },
		func(p *Packet) { p.DstPort++ },
		func(p *Packet) { p.Protocol++ },
		func(p *Packet) { p.Dst = p.Dst.Next() },
		func(p *Packet) { p.CTState = CTEstablished },
		func(p *Packet) { p.Hook = HookInput },
	} {
		p := answer.packet()
		change(&p)
		require.Equal(t, Accept, verdict(p), "%+v", p)
	}
	requireVerified(t, e, shop())
	f.Forget()
	require.NoError(t, e.Repair(ctx, shop()))
	require.Empty(t, f.History(), "what is forbidden is no difference")
	c, to := join(t)
	require.NoError(t, applyAll(ctx, e, c))
	requireVerified(t, e, to)

	require.NoError(t, e.Takeover(ctx, shop()))
	require.Equal(t, []Outcome{Drop, Drop}, []Outcome{verdict(answer.packet()), verdict(answer6.packet())}, "kept")
	requireVerified(t, e, shop())
}

func TestForbidRefuses(t *testing.T) {
	a4, a6 := addr("10.244.1.4"), addr("fd00::1")
	e, f := takenOver(t, shop())
	for name, tuple := range map[string]Tuple{
		"no address":   {Dst: a4},
		"two families": {Src: a4, Dst: a6},
		"mapped":       {Src: addr("::ffff:10.0.0.1"), Dst: a6},
		"a zone":       {Src: a6, Dst: addr("fe80::1%eth0")},
	} {
		require.Error(t, e.Forbid(t.Context(), []Tuple{{Src: a4, Dst: a4}, tuple}, time.Minute), name)
	}
	require.Error(t, e.Forbid(t.Context(), flows(1), time.Microsecond))
	require.Empty(t, f.History())
	require.Error(t, NewEnforcer(Config{}, f).Forbid(t.Context(), flows(1), time.Minute), "nothing in force")

	require.NoError(t, f.Disturb(Batch{e.Table(), []Op{DelTable{}}}))
	require.ErrorIs(t, e.Forbid(t.Context(), flows(1), time.Minute), ErrUncertain)
	c, _ := join(t)
	require.ErrorIs(t, applyAll(t.Context(), e, c), ErrRefused, "Forbid has left it to Apply to find out")
}

// TestForbidTheNode: its own processes are concerned where pods' packets to it are.
func TestForbidTheNode(t *testing.T) {
	for _, tc := range []struct {
		cfg  Config
		want Outcome
	}{{Config{}, Accept}, {Config{PodToNode: true}, Drop}, {Config{PodToNode: true, Deny: DenyReject}, Reject}} {
		f := NewFake()
		e := NewEnforcer(tc.cfg, f)
		require.NoError(t, e.Takeover(t.Context(), shop()))
		for _, answer := range flows(4) {
			verdict := func(change func(*Packet)) Outcome {
				p := answer.packet()
				p.Hook = HookOutput
				change(&p)
				return f.Snapshot()[e.Table()].Verdict(p)
			}
			same := func(*Packet) {}
			require.Equal(t, Accept, verdict(same))
			require.NoError(t, e.Forbid(t.Context(), []Tuple{answer}, time.Minute))
			require.Equal(t, tc.want, verdict(same))
			require.Equal(t, Accept, verdict(func(p *Packet) { p.SrcPort++ }), "a probe of the same port")
			require.Equal(t, Accept, verdict(func(p *Packet) { p.DstPort++ }), "the same process")
			require.Equal(t, Accept, verdict(func(p *Packet) { p.CTState = CTEstablished }))
			require.Equal(t, Accept, verdict(func(p *Packet) { p.Hook = HookInput }))
		}
	}
}

// TestTakeoverWithoutWhatWasForbidden: a table of another layout, a set of another
// type or a kernel that cannot tell is no reason not to take over.
func TestTakeoverWithoutWhatWasForbidden(t *testing.T) {
	f := NewFake()
	other := &Set{Name: "cut4", Type: TypeAddr4}
	require.NoError(t, f.Disturb(Batch{"portcullis-a", []Op{AddTable{}, AddSet{other}, AddElements{other, addrElements(addrs("10.0.0.1"))}}}))
	k := forgetful{f}
	e := NewEnforcer(Config{}, k)
	require.NoError(t, e.Takeover(t.Context(), shop()))
	require.Len(t, f.Snapshot(), 1)
	require.NoError(t, e.Forbid(t.Context(), flows(1), time.Minute))
	require.NoError(t, NewEnforcer(Config{}, f).Takeover(t.Context(), shop()))
	require.Equal(t, Drop, f.Snapshot()["portcullis-a"].Verdict(flows(1)[0].packet()))
	require.NoError(t, NewEnforcer(Config{}, k).Takeover(t.Context(), shop()))
	require.Equal(t, Accept, f.Snapshot()["portcullis-b"].Verdict(flows(1)[0].packet()))
}

// forgetful is a kernel that cannot read elements.
type forgetful struct{ *Fake }

func (forgetful) Elements(context.Context, string, *Set) ([]Element, error) {
	return nil, fmt.Errorf("cannot")
}

// TestForbidInKernel forbids a thousand flows of each family, lists them with nft,
// loads the listing, and takes over.
func TestForbidInKernel(t *testing.T) {
	ctx := t.Context()
	const n = 1000
	ns, again := newNetNS(t), newNetNS(t)
	k := openTestKernel(t, ns)
	e := NewEnforcer(everything, k)
	require.NoError(t, e.Takeover(ctx, shop()))
	list := flows(n)
	require.NoError(t, e.Forbid(ctx, list, time.Hour))
	require.NoError(t, e.Forbid(ctx, list[:10], time.Hour), "again")
	requireForbidden(t, k, e.Table(), list, 59*time.Minute, time.Hour)
	requireVerified(t, e, shop())

	listing := runNFT(t, ns, "", "list", "ruleset")
	require.Equal(t, 2*n, strings.Count(listing, "timeout 1h expires"))
	runNFT(t, again, listing, "-f", "-")
	requireForbidden(t, openTestKernel(t, again), e.Table(), list, 59*time.Minute, time.Hour)

	require.NoError(t, e.Takeover(ctx, shop()))
	require.Equal(t, "portcullis-b", e.Table())
	requireForbidden(t, k, e.Table(), list, 59*time.Minute, time.Hour)
	requireVerified(t, e, shop())
	require.Equal(t, 2*n, strings.Count(runNFT(t, ns, "", "list", "ruleset"), " expires "))
}

func requireForbidden(t *testing.T, k Kernel, table string, want []Tuple, atLeast, atMost time.Duration) {
	t.Helper()
	have := map[string]bool{}
	for _, f := range families {
		list, err := k.Elements(t.Context(), table, f.cutSet())
		require.NoError(t, err)
		for _, x := range list {
			have[x.Key] = true
			require.GreaterOrEqual(t, x.Timeout, atLeast)
			require.LessOrEqual(t, x.Timeout, atMost)
		}
	}
	require.Len(t, have, len(want))
	for _, x := range want {
		require.True(t, have[x.key()], "%s", x)
	}
}

// TestForbiddenForATime waits for the kernel to forget, which no takeover undoes.
func TestForbiddenForATime(t *testing.T) {
	ctx := t.Context()
	k := openTestKernel(t, newNetNS(t))
	e := NewEnforcer(Config{}, k)
	require.NoError(t, e.Takeover(ctx, shop()))
	require.NoError(t, e.Forbid(ctx, flows(5), time.Hour))
	require.NoError(t, e.Forbid(ctx, flows(20)[10:], 50*time.Millisecond))
	require.NoError(t, e.Takeover(ctx, shop()))
	require.Eventually(t, func() bool {
		list, err := k.Elements(ctx, e.Table(), families[0].cutSet())
		return err == nil && len(list) == 5
	}, 10*time.Second, time.Millisecond)
	requireForbidden(t, k, e.Table(), flows(5), time.Minute, time.Hour)
	requireVerified(t, e, shop())
}

func TestTupleText(t *testing.T) {
	require.Equal(t, "udp 10.0.0.1:53 -> 10.0.0.2:4000", Tuple{addr("10.0.0.1"), addr("10.0.0.2"), 17, 53, 4000}.String())
	f := NewFake()
	e := NewEnforcer(Config{}, f)
	require.NoError(t, e.Takeover(t.Context(), shop()))
	require.NoError(t, e.Forbid(t.Context(), []Tuple{
		{addr("10.0.0.1"), addr("10.0.0.2"), 17, 53, 4000}, {netip.IPv6LinkLocalAllNodes(), addr("fd00::1"), 132, 1, 65535},
	}, 1500*time.Millisecond))
	text := Text(f.Snapshot()[e.Table()])
	require.Contains(t, text, "10.0.0.1 . udp . 53 . 10.0.0.2 . 4000 timeout 1500ms")
	require.Contains(t, text, "ff02::1 . sctp . 1 . fd00::1 . 65535 timeout 1500ms")
	runNFT(t, newNetNS(t), text, "-f", "-")
}
