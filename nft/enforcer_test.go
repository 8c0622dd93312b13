package nft

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/portcullis-netpol/portcullis/policy/ir"
)

// takenOver returns an enforcer that took s over in a Fake, whose history is empty.
func takenOver(t testing.TB, s ir.State) (*Enforcer, *Fake) {
	t.Helper()
	f := NewFake()
	e := NewEnforcer(Config{}, f)
	require.NoError(t, e.Takeover(context.Background(), s))
	f.Forget()
	return e, f
}

// told returns the history of a Fake, an operation or grace period a line, with
// a line of dashes in front of every batch.
func told(f *Fake) (out []string) {
	for _, ev := range f.History() {
		if ev.Grace {
			out = append(out, "grace")
			continue
		}
		out = append(out, "---")
		for _, op := range ev.Batch.Ops {
			out = append(out, describe(op))
		}
	}
	return out
}

// TestOperationsOfEvents pins how much is sent for what.
func TestOperationsOfEvents(t *testing.T) {
	ctx := context.Background()
	api := shop().Endpoints[0]
	free := shop().Endpoints[2]
	isolated := free
	isolated.Ingress = "gi-db"
	moved := api
	moved.Ingress = "gi-db"
	fresh := ir.Endpoint{Addr: addr("10.244.1.9"), Pod: "shop/new", Ingress: "gi-db"}
	for name, tc := range map[string]struct {
		c    ir.Change
		want []string
	}{
		"nothing": {},
		"a remote pod comes": {
			ir.Change{PeerSets: []ir.PeerSetChange{{ID: "p-web", Join: addrs("10.244.2.9")}}},
			[]string{"---", "add 1 elements to u_p-web_4"},
		},
		"a remote pod changes its labels": {
			ir.Change{PeerSets: []ir.PeerSetChange{{ID: "p-db", Join: addrs("10.244.2.2")}, {ID: "p-web", Leave: addrs("10.244.2.2")}}},
			[]string{"---", "delete 1 elements of u_p-web_4", "add 1 elements to u_p-db_4"},
		},
		"a local pod comes": {
			ir.Change{Endpoints: []ir.EndpointChange{{New: &fresh}}, PeerSets: []ir.PeerSetChange{{ID: "p-db", Join: addrs("10.244.1.9")}}},
			[]string{"---", "add 1 elements to self4", "---", "add 1 elements to eg4", "add 1 elements to in4", "---", "add 1 elements to u_p-db_4", "add 1 elements to isoin4"},
		},
		"a pod is isolated": {
			ir.Change{Endpoints: []ir.EndpointChange{{Old: &free, New: &isolated}}},
			[]string{"---", "delete 1 elements of in4", "add 1 elements to in4", "add 1 elements to isoin4"},
		},
		"a pod goes": {
			ir.Change{Endpoints: []ir.EndpointChange{{Old: &api}}},
			[]string{"---", "delete 1 elements of isoeg4", "delete 1 elements of eg4", "delete 1 elements of isoin4", "delete 1 elements of in4", "grace", "---", "delete 1 elements of self4"},
		},
		"a pod changes its group": {
			ir.Change{Endpoints: []ir.EndpointChange{{Old: &api, New: &moved}}},
			[]string{"---", "delete 1 elements of in4", "add 1 elements to in4"},
		},
		"only the name of a pod changes": {
			ir.Change{Endpoints: []ir.EndpointChange{{Old: &free, New: &ir.Endpoint{Addr: free.Addr, Pod: "shop/other"}}}},
			nil,
		},
	} {
		t.Run(name, func(t *testing.T) {
			e, f := takenOver(t, shop())
			require.NoError(t, applyAll(ctx, e, tc.c))
			require.Equal(t, tc.want, told(f))
		})
	}
}

// TestOperationsOfAPolicy pins the order of a change of a policy: make, switch,
// wait, remove.
func TestOperationsOfAPolicy(t *testing.T) {
	ctx := context.Background()
	from := shop()
	to := shop()
	to.Groups[2] = np(ir.Ingress, "gi-new", []string{"shop/allow"}, rule(ir.TCP, 5432, 5432, "p-new"), rule(ir.TCP, 1, 9, "p-db"))
	to.Endpoints[1].Ingress, to.Endpoints[4].Ingress = "gi-new", "gi-new"
	to.PeerSets = append(to.PeerSets, ir.PeerSet{ID: "p-new", Selects: true, Addrs: addrs("10.244.1.2", "fd00:10:244:1::2")})
	to = sorted(to)
	e, f := takenOver(t, from)
	require.NoError(t, applyAll(ctx, e, between(from, to)))
	require.Equal(t, []string{
		"---",
		"add set u_p-new_4", "add set u_p-new_6", "add set g_gi-new_ports", "add set g_gi-new_tcp",
		"add chain u_p-db_in", "add chain u_p-new_in", "add chain g_gi-new_shop/allow",
		"add 1 elements to u_p-new_4", "add 1 elements to u_p-new_6", "add 1 elements to g_gi-new_ports", "add 1 elements to g_gi-new_tcp",
		"add rule to u_p-db_in: ip saddr @u_p-db_4 accept", "add rule to u_p-db_in: ip6 saddr @u_p-db_6 accept",
		"add rule to u_p-new_in: ip saddr @u_p-new_4 accept", "add rule to u_p-new_in: ip6 saddr @u_p-new_6 accept",
		"add rule to g_gi-new_shop/allow: meta l4proto . th dport vmap @g_gi-new_ports",
		"add rule to g_gi-new_shop/allow: meta l4proto tcp th dport vmap @g_gi-new_tcp",
		"add rule to g_gi-new_shop/allow: goto deny-ingress comment \"ingress: shop/allow\"",
		"---",
		"delete 1 elements of in4", "add 1 elements to in4", "delete 1 elements of in6", "add 1 elements to in6",
		"grace",
		"---",
		"flush chain g_gi-db_shop/deny", "delete chain g_gi-db_shop/deny",
	}, told(f))

	f.Forget()
	require.NoError(t, applyAll(ctx, e, between(to, from)))
	require.Equal(t, []string{
		"grace", "---",
		"flush chain g_gi-new_shop/allow", "delete set g_gi-new_ports", "delete set g_gi-new_tcp", "delete chain g_gi-new_shop/allow",
		"flush chain u_p-db_in", "flush chain u_p-new_in", "delete set u_p-new_4", "delete set u_p-new_6", "delete chain u_p-db_in", "delete chain u_p-new_in",
	}, told(f)[slices.Index(told(f), "grace"):])
	requireVerified(t, e, from)
}

func requireVerified(t *testing.T, e *Enforcer, s ir.State) {
	t.Helper()
	counted := e.size
	d, err := e.Verify(context.Background(), s)
	require.NoError(t, err)
	require.Empty(t, d)
	require.Equal(t, e.size, counted, "what was found is what was counted")
}

func TestTakeoverTwiceIsTheSame(t *testing.T) {
	e, f := takenOver(t, shop())
	require.Equal(t, "portcullis-a", e.Table())
	first := f.Snapshot()["portcullis-a"]
	require.NoError(t, e.Takeover(context.Background(), shop()))
	require.Equal(t, "portcullis-b", e.Table())
	requireVerified(t, e, shop())
	second := f.Snapshot()
	require.Len(t, second, 1)
	require.Empty(t, Diff(first, second["portcullis-b"]))
}

// join is a change that fits shop, and what it leads to.
func join(t *testing.T) (ir.Change, ir.State) {
	c := ir.Change{PeerSets: []ir.PeerSetChange{{ID: "p-web", Join: addrs("10.244.2.9")}}}
	to, err := shop().Apply(c)
	require.NoError(t, err)
	return c, to
}

// TestLostAcknowledgement: the batch is committed and Send fails all the same.
func TestLostAcknowledgement(t *testing.T) {
	ctx := context.Background()
	e, f := takenOver(t, shop())
	c, to := join(t)
	f.OnSend = func(Batch) error { return fmt.Errorf("%w: no buffer space", ErrUncertain) }
	require.ErrorIs(t, applyAll(ctx, e, c), ErrUncertain)
	f.OnSend = nil
	require.ErrorIs(t, applyAll(ctx, e, c), ErrUncertain, "nothing is applied before the repair")
	f.Forget()
	require.NoError(t, e.Repair(ctx, to))
	require.Empty(t, f.History(), "what is right is left alone")
	requireVerified(t, e, to)
	require.NoError(t, applyAll(ctx, e, ir.Change{PeerSets: []ir.PeerSetChange{{ID: "p-web", Leave: addrs("10.244.2.9")}}}))
	requireVerified(t, e, shop())
}

// TestRefusedAtEveryBatch fails each batch of a change and of a takeover in turn,
// applied or not; repair always leads to where it should.
func TestRefusedAtEveryBatch(t *testing.T) {
	ctx := context.Background()
	to := shop()
	to.Groups = to.Groups[:2]
	to.Endpoints = to.Endpoints[:1]
	to.PeerSets = append(to.PeerSets, ir.PeerSet{ID: "p-z", Selects: true})
	to.Groups = append(to.Groups, np(ir.Ingress, "gi-z", nil, rule(ir.TCP, 1, 1, "p-z")))
	to.Endpoints = append(to.Endpoints, ir.Endpoint{Addr: addr("10.244.1.3"), Pod: "shop/db", Ingress: "gi-z"})
	to = sorted(to)
	for _, failure := range []error{errors.New("refused"), fmt.Errorf("%w: lost", ErrUncertain)} {
		failures := 0
		for at := 1; at <= 9; at++ {
			e, f := takenOver(t, shop())
			n := 0
			f.OnSend = func(Batch) error {
				if n++; n == at {
					failures++
					return failure
				}
				return nil
			}
			if err := applyAll(ctx, e, between(shop(), to)); err != nil {
				require.ErrorIs(t, err, ErrUncertain)
				require.NoError(t, e.Repair(ctx, to))
			}
			requireVerified(t, e, to)
			require.Len(t, f.Snapshot(), 1)

			n = 0
			if err := e.Takeover(ctx, shop()); err != nil {
				require.NoError(t, e.Repair(ctx, shop()))
			}
			requireVerified(t, e, shop())
			require.Len(t, f.Snapshot(), 1)
		}
		require.GreaterOrEqual(t, failures, 8, "every batch failed once")
	}
}

// TestFailedTakeoverKeepsTheOldTable until the new one is in force.
func TestFailedTakeoverKeepsTheOldTable(t *testing.T) {
	e, f := takenOver(t, shop())
	before := f.Snapshot()
	f.OnSend = func(b Batch) error {
		if slices.ContainsFunc(b.Ops, func(op Op) bool { _, ok := op.(AddRule); return ok }) {
			return errors.New("refused")
		}
		return nil
	}
	require.ErrorIs(t, e.Takeover(context.Background(), ir.State{}), ErrUncertain)
	after := f.Snapshot()
	require.Len(t, after, 1)
	require.Empty(t, Diff(before["portcullis-a"], after["portcullis-a"]))
	require.Error(t, applyAll(context.Background(), e, ir.Change{PeerSets: []ir.PeerSetChange{{ID: "p-web", Join: addrs("10.244.2.9")}}}))
}

// lossy is a kernel that forgets some elements without a word.
type lossy struct{ *Fake }

func (l lossy) Send(ctx context.Context, b Batch) error {
	for i, op := range b.Ops {
		if add, ok := op.(AddElements); ok && len(add.Elements) > 1 {
			b.Ops[i] = AddElements{add.Set, add.Elements[1:]}
		}
	}
	return l.Fake.Send(ctx, b)
}

func TestTakeoverVerifiesBeforeItEnforces(t *testing.T) {
	f := NewFake()
	require.ErrorIs(t, NewEnforcer(Config{}, lossy{f}).Takeover(context.Background(), shop()), ErrUncertain)
	require.Empty(t, f.Snapshot())
	for _, ev := range f.History() {
		for _, op := range ev.Batch.Ops {
			c, ok := op.(AddChain)
			require.False(t, ok && c.Chain.base(), "nothing of it was in force")
		}
	}
}

func TestApplyRefusesWhatDoesNotFit(t *testing.T) {
	stranger := ir.Endpoint{Addr: addr("10.9.9.9"), Pod: "x/y", Ingress: "gi-none"}
	api := shop().Endpoints[0]
	for name, c := range map[string]ir.Change{
		"a set that is there":            {AddPeerSets: shop().PeerSets[:1]},
		"a group that is there":          {AddGroups: shop().Groups[:1]},
		"a group with a missing set":     {AddGroups: []ir.Group{np(ir.Ingress, "gi-x", nil, rule(ir.TCP, 1, 1, "p-none"))}},
		"members of a missing set":       {PeerSets: []ir.PeerSetChange{{ID: "p-none", Join: addrs("10.0.0.1")}}},
		"members of a set of blocks":     {PeerSets: []ir.PeerSetChange{{ID: "p-world", Join: addrs("10.0.0.1")}}},
		"a missing group goes":           {RemoveGroups: []ir.GroupID{"gi-none"}},
		"a group in use goes":            {RemoveGroups: []ir.GroupID{"gi-db"}},
		"a missing set goes":             {RemovePeerSets: []ir.PeerSetID{"p-none"}},
		"a set in use goes":              {RemovePeerSets: []ir.PeerSetID{"p-web"}},
		"a pod with a missing group":     {Endpoints: []ir.EndpointChange{{New: &stranger}}},
		"a pod that is not there goes":   {Endpoints: []ir.EndpointChange{{Old: &ir.Endpoint{Addr: addr("10.9.9.9"), Ingress: "gi-db"}}}},
		"a pod changes its address":      {Endpoints: []ir.EndpointChange{{Old: &api, New: &shop().Endpoints[1]}}},
		"a change of nothing":            {Endpoints: []ir.EndpointChange{{}}},
		"one leaves that is not there":   {PeerSets: []ir.PeerSetChange{{ID: "p-web", Leave: addrs("10.9.9.9")}}},
		"a tier that is not known":       {AddGroups: []ir.Group{{ID: "gi-x", Steps: []ir.Step{{Tier: 3}}}}},
		"a set with members and no pods": {AddPeerSets: []ir.PeerSet{{ID: "p-x", Addrs: addrs("10.0.0.1")}}},
	} {
		t.Run(name, func(t *testing.T) {
			e, f := takenOver(t, shop())
			before := f.Snapshot()
			require.ErrorIs(t, applyAll(context.Background(), e, c), ErrUncertain)
			require.Empty(t, Diff(before[e.Table()], f.Snapshot()[e.Table()]))
			require.NoError(t, e.Repair(context.Background(), shop()))
			requireVerified(t, e, shop())
		})
	}
}

func TestCancelledBetweenBatches(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	e, f := takenOver(t, shop())
	f.OnSend = func(Batch) error { cancel(); return nil }
	api := shop().Endpoints[0]
	err := applyAll(ctx, e, ir.Change{Endpoints: []ir.EndpointChange{{Old: &api}}})
	require.ErrorIs(t, err, ErrUncertain)
	require.ErrorIs(t, err, context.Canceled)
	require.NoError(t, e.Repair(context.Background(), shop()))
	requireVerified(t, e, shop())
}

func TestNothingBeforeTakeover(t *testing.T) {
	e := NewEnforcer(Config{}, NewFake())
	require.ErrorIs(t, applyAll(context.Background(), e, ir.Change{}), ErrUncertain)
	_, err := e.Verify(context.Background(), ir.State{})
	require.Error(t, err)
	require.NoError(t, e.Repair(context.Background(), shop()))
	requireVerified(t, e, shop())
}

// TestBatchesAreCut to the limits, and nothing else is.
func TestBatchesAreCut(t *testing.T) {
	f := NewFake()
	f.Limit = Limits{Bytes: 60 << 10, Replies: 300 << 10, Messages: 50}
	e := NewEnforcer(Config{}, f)
	s := bigState(20, 3000, 10)
	require.NoError(t, e.Takeover(context.Background(), s))
	requireVerified(t, e, s)
	for _, ev := range f.History() {
		require.LessOrEqual(t, len(ev.Batch.Ops), 50)
	}
	f.Limit.Bytes = 1 << 10
	require.ErrorIs(t, e.Takeover(context.Background(), s), ErrTooBig)
	require.Len(t, f.Snapshot(), 1)
}

func TestCleanup(t *testing.T) {
	e, f := takenOver(t, shop())
	require.NoError(t, Cleanup(context.Background(), f))
	require.Empty(t, f.Snapshot())
	require.NoError(t, Cleanup(context.Background(), f), "nothing to do")
	d, err := e.Verify(context.Background(), shop())
	require.NoError(t, err)
	require.Equal(t, []Difference{{Object: "table portcullis-a", Want: "all of it"}}, d)
}
