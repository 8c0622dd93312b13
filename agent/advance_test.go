package agent

import (
	"errors"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	apiruntime "k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	"github.com/portcullis-netpol/portcullis/nft"
	"github.com/portcullis-netpol/portcullis/policy/ir"
)

func blocksOf(texts ...string) (out []netip.Prefix) {
	for _, text := range texts {
		out = append(out, netip.MustParsePrefix(text))
	}
	return out
}

// nodeWith is the own Node with blocks, as a source delivers it.
func nodeWith(blocks ...string) batch {
	n := testNode("node-1")
	n.Spec.PodCIDRs = blocks
	return batch{events: []event{{key{nodeKind, "", "node-1"}, n}}}
}

// startEmpty starts a loop on a node without a table of ours. The enforcer that it
// returns is the one of the time before all objects are known.
func startEmpty(t *testing.T, fixed ...string) (*loopTest, *recorder) {
	l, early := startLoop(t), newRecorder()
	inLoop(t, l, func(l *loop) bool {
		l.fixedCIDRs, l.blocks = blocksOf(fixed...), blocksOf(fixed...)
		l.advance = &advance{enforcer: early, health: l.health, log: l.log, clock: l.clock, backoff: retries()}
		return true
	})
	return l, early
}

func (l *loopTest) obstacles() string { return strings.Join(l.health.obstacles(), "\n") }

// TestFixedBlocksAreHeldBackAtOnce writes a table without pods as soon as the source is
// at work, and nothing else changes: the agent is not ready, an ADD is not answered, and
// the first write comes with the objects.
func TestFixedBlocksAreHeldBackAtOnce(t *testing.T) {
	l, early := startEmpty(t, "10.9.1.0/24", "fd00:9:1::/64")
	h := handler{l.ask, nil}
	done := make(chan error, 1)
	go func() { done <- h.Add(t.Context(), addRequest("a", "1", "c1", "10.9.1.7")) }()
	eventually(t, "waiting", func() bool { return inLoop(t, l, func(l *loop) bool { return len(l.attachments.waiting) == 1 }) })
	early.none(t)

	l.queue.put(batch{begun: true, events: []event{{pod("a"), barePod("a", "1")}}})
	c := early.next(t, "takeover")
	require.Equal(t, ir.State{}, c.state)
	require.Equal(t, blocksOf("10.9.1.0/24", "fd00:9:1::/64"), early.blocks)
	c.reply <- nil
	l.log.wait(t, "held back until all objects have been read", "10.9.1.0/24")
	eventually(t, "the reason", func() bool {
		return strings.Contains(l.obstacles(), "all pods in 10.9.1.0/24, fd00:9:1::/64 are held back")
	})
	require.Contains(t, l.obstacles(), "the cluster's objects have not all been read yet")
	require.Empty(t, l.health.sicknesses())
	require.ErrorContains(t, h.Check(t.Context(), addRequest("a", "1", "c1", "10.9.1.7")), "not in force")
	require.Empty(t, done)
	require.False(t, inLoop(t, l, func(l *loop) bool { return l.taken }))
	l.rules.none(t)
	early.none(t)

	l.queue.put(batch{synced: true})
	l.rules.answer(t, "takeover", nil)
	require.NoError(t, <-done)
	eventually(t, "ready", func() bool { return len(l.health.obstacles()) == 0 })
	l.queue.put(batch{disturbed: true})
	l.rules.answer(t, "repair", nil)
	early.none(t)
}

// TestBlocksOfTheNodeAreHeldBackEarly writes when the Node is there, again when it says
// something else or somebody may have touched the table, and not for anything else.
func TestBlocksOfTheNodeAreHeldBackEarly(t *testing.T) {
	l, early := startEmpty(t)
	l.queue.put(batch{begun: true})
	l.pod("a")
	l.queue.put(nodeWith("10.9.1.0/24"))
	early.answer(t, "takeover", nil)
	l.pod("b")
	l.queue.put(nodeWith("10.9.1.0/24"))
	l.queue.put(nodeWith("10.9.2.0/24"))
	early.answer(t, "repair", nil)
	require.Equal(t, blocksOf("10.9.2.0/24"), inLoop(t, l, func(*loop) []netip.Prefix { return early.blocks }))
	l.queue.put(batch{disturbed: true})
	early.answer(t, "repair", nil)
	l.pod("c")
	l.queue.put(batch{synced: true})
	l.rules.answer(t, "takeover", nil)
	early.none(t)
}

// TestNothingEarlyWithEverythingThere writes once where nobody has to wait.
func TestNothingEarlyWithEverythingThere(t *testing.T) {
	l, early := startEmpty(t, "10.9.1.0/24")
	l.queue.put(batch{begun: true, synced: true})
	l.rules.answer(t, "takeover", nil)
	early.none(t)
}

// TestEarlyWriteFails tries again and says so, and what comes with the objects does not
// wait for it.
func TestEarlyWriteFails(t *testing.T) {
	l, early := startEmpty(t, "10.9.1.0/24")
	l.queue.put(batch{begun: true})
	early.answer(t, "takeover", nft.ErrUncertain)
	l.log.wait(t, "level=ERROR", "cannot be held back", "retryIn")
	require.Contains(t, strings.Join(l.health.sicknesses(), "\n"), "cannot be held back yet")
	l.pod("a")
	eventually(t, "the loop waits", l.clock.HasWaiters)
	early.none(t)
	l.clock.Step(time.Second)
	early.answer(t, "takeover", nil)
	eventually(t, "healthy", func() bool { return len(l.health.sicknesses()) == 0 })

	l.queue.put(batch{disturbed: true})
	early.answer(t, "repair", errors.New("no"))
	eventually(t, "sick", func() bool { return len(l.health.sicknesses()) == 1 })
	l.queue.put(batch{synced: true}) // the clock stands still
	l.rules.answer(t, "takeover", nil)
	eventually(t, "ready", func() bool { return len(l.health.obstacles()) == 0 })
	l.clock.Step(time.Minute)
	l.pod("b")
	l.rules.answer(t, "apply", nil)
	early.none(t)
}

// TestConnectionsSettleBehindTheFirstWrite lets no time count in which no pod's packets
// were seen, or all were held back.
func TestConnectionsSettleBehindTheFirstWrite(t *testing.T) {
	l, early := startEmpty(t, "10.9.1.0/24")
	inLoop(t, l, func(l *loop) bool { l.untracked = true; return true })
	l.queue.put(batch{begun: true})
	early.answer(t, "takeover", nil)
	require.False(t, early.midstream)
	l.clock.Step(2 * settleFor)
	l.queue.put(batch{synced: true})
	l.rules.answer(t, "takeover", nil)
	eventually(t, "the loop waits", l.clock.HasWaiters)
	require.False(t, inLoop(t, l, func(*loop) bool { return l.rules.midstream }))
	l.clock.Step(settleFor)
	c := l.rules.next(t, "takeover")
	require.True(t, l.rules.midstream)
	c.reply <- nil
}

// silent is an API server that lists no policies until it is told to.
func silent(objects ...apiruntime.Object) (client *fake.Clientset, speak func()) {
	client = fake.NewClientset(objects...)
	var open atomic.Bool
	client.PrependReactor("list", "networkpolicies", func(clienttesting.Action) (bool, apiruntime.Object, error) {
		return !open.Load(), nil, errors.New("not today")
	})
	return client, func() { open.Store(true) }
}

// early reports whether the only table in force is one of the time before all objects are
// known, as the next agent sees it.
func early(t *testing.T, k nft.Kernel) bool {
	t.Helper()
	tables, err := inForce(t.Context(), k)
	require.NoError(t, err)
	require.Len(t, tables, 1)
	is, err := isEarly(t.Context(), k, tables[0])
	require.NoError(t, err)
	return is
}

// TestAgentHoldsBackEarly has the own Node's pods held back while the API server does not
// answer, and lets them go when it does. An agent that finds a table writes nothing.
func TestAgentHoldsBackEarly(t *testing.T) {
	n := testNode("node-1")
	n.Spec.PodCIDRs = []string{"10.244.1.0/24"}
	objects := append([]apiruntime.Object{n}, shop()[1:]...)
	client, speak := silent(objects...)
	k := nft.NewFake()
	cfg := Config{Source: Kubernetes(client), Kernel: k, Quarantine: true}
	a := startAgent(t, cfg)
	a.log.wait(t, "held back until all objects have been read")
	require.Equal(t, "drop", outcome(t, k))
	require.True(t, early(t, k))
	speak()
	waitOutcome(t, k, "accept")
	require.False(t, early(t, k))
	require.Equal(t, 1, a.log.count("table in force"))
	a.stop(t)

	for name, blocks := range map[string][]netip.Prefix{"Node": nil, "fixed": blocksOf("10.244.1.0/24")} {
		t.Run(name, func(t *testing.T) {
			k.Forget()
			client, speak := silent(objects...)
			cfg.Source, cfg.PodCIDRs = Kubernetes(client), blocks
			a := startAgent(t, cfg)
			a.log.wait(t, "not today")
			a.log.wait(t, "not today") // the pods and the Node have been there for long
			require.Empty(t, k.History())
			require.Equal(t, "accept", outcome(t, k))
			speak()
			a.log.wait(t, "table in force")
		})
	}
}

// TestHalfATableIsNone holds pods back where an agent was killed over its first table.
func TestHalfATableIsNone(t *testing.T) {
	k := nft.NewFake()
	require.NoError(t, k.Send(t.Context(), nft.Batch{Table: "portcullis-a", Ops: []nft.Op{nft.AddTable{}}}))
	client, _ := silent(shop()...)
	a := startAgent(t, Config{Source: Kubernetes(client), Kernel: k, Quarantine: true, PodCIDRs: blocksOf("10.244.1.0/24")})
	a.log.wait(t, "held back until all objects have been read")
	require.Equal(t, "drop", outcome(t, k))
}

// TestBadManifestsHoldNothingBack starts nothing at all.
func TestBadManifestsHoldNothingBack(t *testing.T) {
	k := nft.NewFake()
	_, logger := newLogbook()
	dir := written(t, map[string]string{"policy.yaml": strings.Replace(policyYAML, "Ingress]", "Sideways]", 1)})
	require.Error(t, Run(t.Context(), Config{Node: "node-1", Source: Manifests(dir), Kernel: k, Logger: logger,
		Quarantine: true, PodCIDRs: blocksOf("10.244.1.0/24")}))
	require.Empty(t, k.History())
}

// TestEarlyTableKnowsNoConnections does not take the table of an agent that ended too
// soon for one that has looked at connections.
func TestEarlyTableKnowsNoConnections(t *testing.T) {
	web := ir.State{Endpoints: []ir.Endpoint{{Addr: netip.MustParseAddr("10.244.1.7"), Pod: "shop/web"}}}
	for name, tc := range map[string]struct {
		state     ir.State
		midstream bool
		known     bool
	}{
		"early":              {ir.State{}, false, false},
		"before it settled":  {web, false, true},
		"a node without pod": {ir.State{}, true, true},
		"the usual one":      {web, true, true},
	} {
		t.Run(name, func(t *testing.T) {
			k := nft.NewFake()
			rules := nft.Config{PodCIDRs: blocksOf("10.244.1.0/24"), Midstream: tc.midstream}
			require.NoError(t, nft.NewEnforcer(rules, k).Takeover(t.Context(), tc.state))
			tables, err := inForce(t.Context(), k)
			require.NoError(t, err)
			require.Len(t, tables, 1)
			known, err := tracked(t.Context(), Config{Kernel: k}, tables)
			require.NoError(t, err)
			require.Equal(t, tc.known, known)
		})
	}
}
