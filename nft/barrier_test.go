package nft

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// hourglass is a clock for an Enforcer on a Fake.
type hourglass struct {
	time time.Time
	fake *Fake
}

func (h *hourglass) now() time.Time { return h.time }

func (h *hourglass) pass(d time.Duration) {
	h.time = h.time.Add(d)
	h.fake.Pass(d)
}

func forbidding(t *testing.T, cfg Config) (*Enforcer, *Fake, *hourglass) {
	t.Helper()
	f := NewFake()
	h := &hourglass{time.Unix(1e9, 0), f}
	e := NewEnforcer(cfg, f)
	e.now = h.now
	require.NoError(t, e.Takeover(t.Context(), shop()))
	f.Forget()
	return e, f, h
}

func requireLapse(t *testing.T, e *Enforcer, want time.Duration) {
	t.Helper()
	rest, err := e.Lapse(t.Context())
	require.NoError(t, err)
	require.Equal(t, want, rest)
	require.Equal(t, want > 0, e.Forbidding())
}

// requireBarrier compares a table with what Build makes and, if up, all CutChains.
func requireBarrier(t *testing.T, e *Enforcer, have *Table, up bool) {
	t.Helper()
	want, err := Build(e.cfg, e.Table(), shop())
	require.NoError(t, err)
	require.NotRegexp(t, `@cut|goto deny-cut`, Text(want), "while nothing is forbidden no rule asks")
	if up {
		want.Chains = append(want.Chains, CutChains(e.cfg)...)
	}
	require.Empty(t, Diff(want, have))
}

// TestBarrier: the chains come before the first element, all of them at once, and go
// after the last.
func TestBarrier(t *testing.T) {
	for _, messages := range []int{1, 3, maxMessages} {
		for _, cfg := range []Config{{}, {PodToNode: true}, {Midstream: true, Bridged: true}, everything} {
			e, f, h := forbidding(t, cfg)
			f.Limit.Messages = messages
			table := func() *Table { return f.Snapshot()[e.Table()] }
			requireBarrier(t, e, table(), false)
			require.NoError(t, e.Forbid(t.Context(), nil, time.Minute))
			requireLapse(t, e, 0)
			require.Empty(t, f.History())

			f.OnSend = func(b Batch) error {
				for _, op := range b.Ops {
					if _, ok := op.(AddElements); ok && f.tables[b.Table].chains[chainCut] == nil {
						require.Equal(t, AddChain{CutChains(cfg)[0]}, b.Ops[0])
					}
				}
				return nil
			}
			require.NoError(t, e.Forbid(t.Context(), flows(2), time.Minute))
			require.Equal(t, "grace", told(f)[len(told(f))-1], "packets that came by before")
			requireBarrier(t, e, table(), true)
			f.Forget()
			h.pass(30 * time.Second)
			require.NoError(t, e.Forbid(t.Context(), flows(1), 10*time.Second))
			require.NoError(t, e.Forbid(t.Context(), flows(3), 50*time.Second))
			require.NotContains(t, told(f), "grace")
			requireLapse(t, e, 50*time.Second)
			h.pass(49 * time.Second)
			requireLapse(t, e, time.Second)
			h.time = h.time.Add(time.Second) // for us, not for the kernel
			requireLapse(t, e, time.Second)
			requireBarrier(t, e, table(), true)
			requireVerified(t, e, shop())
			f.Pass(time.Second)
			f.Forget()
			requireLapse(t, e, 0)
			require.Len(t, f.History(), 1)
			requireBarrier(t, e, table(), false)
			requireVerified(t, e, shop())
		}
	}
}

// TestBarrierOfATakeover is there for as long as what the old table forbids, also where
// another process forbade it.
func TestBarrierOfATakeover(t *testing.T) {
	e, f, h := forbidding(t, everything)
	require.NoError(t, e.Forbid(t.Context(), flows(5), time.Minute))
	h.pass(20 * time.Second)
	other := NewEnforcer(everything, f)
	other.now = h.now
	f.OnSend = func(b Batch) error {
		if i := slices.IndexFunc(b.Ops, func(op Op) bool { c, ok := op.(AddChain); return ok && c.Chain.base() }); i >= 0 {
			require.Len(t, f.tables[b.Table].sets["cut4"].elements, 5, "in front of the first packet")
			require.Contains(t, b.Ops, AddChain{CutChains(everything)[0]})
		}
		return nil
	}
	require.NoError(t, other.Takeover(t.Context(), shop()))
	requireBarrier(t, other, f.Snapshot()[other.Table()], true)
	requireLapse(t, other, 40*time.Second)
	h.pass(40 * time.Second)
	requireLapse(t, other, 0)
	f.OnSend = nil
	require.NoError(t, other.Takeover(t.Context(), shop()))
	requireBarrier(t, other, f.Snapshot()[other.Table()], false)
	require.False(t, other.Forbidding())
}

// TestBarrierInDoubt loses batches that put the barrier up or take it down, or only the
// kernel's word for them.
func TestBarrierInDoubt(t *testing.T) {
	lost := errors.New("lost")
	for _, after := range []bool{false, true} {
		fail := func(Batch) error {
			if after {
				return fmt.Errorf("%w: %w", ErrUncertain, lost)
			}
			return lost
		}
		for _, then := range []string{"forbid", "lapse", "repair", "apply", "takeover"} {
			for _, up := range []bool{false, true} {
				e, f, h := forbidding(t, everything)
				if up {
					require.NoError(t, e.Forbid(t.Context(), flows(1), time.Minute))
					h.pass(time.Minute)
				}
				f.OnSend = fail
				if up {
					_, err := e.Lapse(t.Context())
					require.ErrorIs(t, err, lost)
				} else {
					require.ErrorIs(t, e.Forbid(t.Context(), flows(1), time.Minute), lost)
				}
				f.OnSend = nil
				require.True(t, e.Forbidding())
				d, err := e.Verify(t.Context(), shop())
				require.NoError(t, err)
				require.Empty(t, d)
				f.Forget()
				s := shop()
				switch then {
				case "forbid":
					require.NoError(t, e.Forbid(t.Context(), flows(2), time.Hour))
					require.Equal(t, "grace", told(f)[len(told(f))-1])
					requireBarrier(t, e, f.Snapshot()[e.Table()], true)
					for _, x := range flows(2) {
						require.NotEqual(t, Accept, f.Snapshot()[e.Table()].Verdict(x.packet()))
					}
				case "lapse":
					h.pass(time.Minute)
					requireLapse(t, e, 0)
					requireBarrier(t, e, f.Snapshot()[e.Table()], false)
				case "repair":
					require.NoError(t, e.Repair(t.Context(), s))
					require.Empty(t, f.History())
				case "apply":
					c, to := join(t)
					require.NoError(t, applyAll(t.Context(), e, c))
					s = to
				case "takeover":
					require.NoError(t, e.Takeover(t.Context(), s))
				}
				requireVerified(t, e, s)
				h.pass(time.Hour)
				requireLapse(t, e, 0)
				requireVerified(t, e, s)
			}
		}
	}
}

// TestBarrierTakenAway by another program: that is a difference, and what is forbidden
// stays so when it is repaired.
func TestBarrierTakenAway(t *testing.T) {
	for _, c := range CutChains(everything) {
		e, f, h := forbidding(t, everything)
		require.NoError(t, e.Forbid(t.Context(), flows(1), time.Minute))
		require.NoError(t, f.Disturb(Batch{e.Table(), removeBase([]string{c.Name})}))
		d, err := e.Verify(t.Context(), shop())
		require.NoError(t, err)
		require.Equal(t, []Difference{{Object: "chain " + c.Name, Want: "all of it"}}, d)
		h.pass(time.Minute)
		f.OnSend = func(Batch) error { return errors.New("lost") }
		_, err = e.Lapse(t.Context())
		require.Error(t, err)
		f.OnSend = nil
		_, err = e.Lapse(t.Context())
		require.ErrorIs(t, err, ErrUncertain, "some are there and some are not")
		require.ErrorIs(t, e.Forbid(t.Context(), flows(1), time.Minute), ErrUncertain)
		require.NoError(t, e.Repair(t.Context(), shop()))
		require.Equal(t, 2, e.Takeovers())
		require.NoError(t, e.Forbid(t.Context(), flows(1), time.Minute))
		requireBarrier(t, e, f.Snapshot()[e.Table()], true)

		require.NoError(t, f.Disturb(Batch{e.Table(), removeBase([]string{c.Name})}))
		require.NoError(t, e.Repair(t.Context(), shop()))
		requireBarrier(t, e, f.Snapshot()[e.Table()], true)
		require.Equal(t, Reject, f.Snapshot()[e.Table()].Verdict(flows(1)[0].packet()))
		h.pass(time.Minute)
		requireLapse(t, e, 0)

		require.NoError(t, f.Disturb(Batch{e.Table(), createBase([]*Chain{c})}))
		require.NoError(t, e.Repair(t.Context(), shop()))
		require.Equal(t, 4, e.Takeovers(), "what is not ours is taken away")
		requireBarrier(t, e, f.Snapshot()[e.Table()], false)
	}
}

// TestBarrierOfAnotherConfig: what is set counts from the next Repair or Takeover on.
func TestBarrierOfAnotherConfig(t *testing.T) {
	e, f, h := forbidding(t, Config{Midstream: true})
	before := CutChains(e.cfg)
	e.SetBridged(true)
	require.NoError(t, e.Forbid(t.Context(), flows(1), time.Minute))
	require.Equal(t, before, e.barrier.chains)
	require.NoError(t, e.Repair(t.Context(), shop()))
	requireBarrier(t, e, f.Snapshot()[e.Table()], true)
	h.pass(time.Minute)
	requireLapse(t, e, 0)
	e.SetBridged(false)
	require.NoError(t, e.Repair(t.Context(), shop()))
	require.Equal(t, 2, e.Takeovers(), "while nothing is forbidden that makes no difference")
	require.NoError(t, e.Forbid(t.Context(), flows(1), time.Minute))
	requireBarrier(t, e, f.Snapshot()[e.Table()], true)
	requireVerified(t, e, shop())
}

// TestBarrierInKernel puts the barrier up and lets it lapse, by the kernel's own clock.
func TestBarrierInKernel(t *testing.T) {
	ctx := t.Context()
	ns := newNetNS(t)
	k := openTestKernel(t, ns)
	e := NewEnforcer(everything, k)
	require.NoError(t, e.Takeover(ctx, shop()))
	look := func(up bool) {
		t.Helper()
		have, _, err := k.Read(ctx, e.Table())
		require.NoError(t, err)
		requireBarrier(t, e, have, up)
		require.Equal(t, up, strings.Contains(runNFT(t, ns, "", "list", "ruleset"), "@cut"))
		requireVerified(t, e, shop())
	}
	look(false)
	for range 5 {
		require.NoError(t, e.Forbid(ctx, flows(50), time.Hour))
		look(true)
		require.NoError(t, e.Takeover(ctx, shop()))
		look(true)
		rest, err := e.Lapse(ctx)
		require.NoError(t, err)
		require.Greater(t, rest, 50*time.Minute)

		runNFT(t, ns, "", "flush", "set", "inet", e.Table(), "cut4")
		runNFT(t, ns, "", "flush", "set", "inet", e.Table(), "cut6")
		e.barrier.until = time.Time{}
		require.NoError(t, e.Forbid(ctx, flows(50), 50*time.Millisecond))
		require.Eventually(t, func() bool {
			rest, err := e.Lapse(ctx)
			return err == nil && rest == 0
		}, 20*time.Second, time.Millisecond)
		look(false)
	}
}

// TestForbiddenPacketsFromTheFirst: where nothing was forbidden before, the very first
// packet is denied when Forbid returns, of the node's own processes and of what is
// forwarded; and none any more when that is over.
func TestForbiddenPacketsFromTheFirst(t *testing.T) {
	onSites(t, func(s *site) {
		for family := range 2 {
			at := func(endpoint string) net.PacketConn {
				return s.listen(endpoint, "udp", netip.AddrPortFrom(s.addrs[endpoint][family], 0).String())
			}
			s.open()
			node, api, far, other := at("node-1"), at("shop/api"), at("shop/far"), at("shop/api")
			cut := func(from, to net.PacketConn) Tuple {
				src, dst := netip.MustParseAddrPort(from.LocalAddr().String()), netip.MustParseAddrPort(to.LocalAddr().String())
				return Tuple{src.Addr(), dst.Addr(), 17, src.Port(), dst.Port()}
			}
			send := func(from, to net.PacketConn, text string) error {
				_, err := from.WriteTo([]byte(text), to.LocalAddr())
				return err
			}
			for i := range 10 {
				s.forget()
				require.False(s.t, s.Forbidding())
				require.NoError(s.t, s.Forbid(s.t.Context(), []Tuple{cut(node, api), cut(api, far)}, time.Hour))
				require.ErrorIs(s.t, send(node, api, "denied"), unix.EPERM)
				require.NoError(s.t, send(api, far, "denied"))
				mark := fmt.Sprint("allowed ", i)
				require.NoError(s.t, send(other, far, mark))
				s.receive(far, mark)

				runNFT(s.t, s.NetNS("node-1"), "", "flush", "set", "inet", s.Table(), "cut"+families[family].digit)
				s.barrier.until = time.Time{}
				rest, err := s.Lapse(s.t.Context())
				require.NoError(s.t, err)
				require.Zero(s.t, rest)
				require.NoError(s.t, send(node, api, mark))
				s.receive(api, mark)
				require.NoError(s.t, send(api, far, mark))
				s.receive(far, mark)
			}
		}
	})
}
