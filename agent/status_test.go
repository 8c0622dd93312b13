package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"

	"github.com/portcullis-netpol/portcullis/agent/admin"
	"github.com/portcullis-netpol/portcullis/nft"
	"github.com/portcullis-netpol/portcullis/policy"
	"github.com/portcullis-netpol/portcullis/policy/manifest"
)

// backendOf is what answers for a loop.
func backendOf(l *loopTest) *backend {
	v := visits{l.visits, nil}
	return &backend{
		node: "node-1", version: "v1", started: l.clock.Now(), visits: v, health: l.health, audits: newAudits(l.clock.Now()), tally: newTally(v, l.clock),
		nodeAddrs: func() ([]netip.Addr, error) {
			return []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("192.0.2.7"), netip.MustParseAddr("fe80::1")}, nil
		},
	}
}

func generation(name string, n int64) batch {
	return batch{events: []event{{key{policyKind, "shop", name},
		&networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, UID: "uid", Generation: n}}}}}
}

// TestStatusOfPolicies says what is known and what is in force, since when, while writes
// are under way, fail and succeed.
func TestStatusOfPolicies(t *testing.T) {
	l := startLoop(t, func(x *fakeIndex) { x.problems["b"] = []policy.Problem{{Object: "o", Field: "spec", Reason: "wrong"}} })
	b := backendOf(l)
	state := func() admin.State {
		t.Helper()
		s, err := b.State(t.Context())
		require.NoError(t, err)
		return s
	}
	l.queue.put(generation("b", 1))
	l.queue.put(generation("a", 4))
	eventually(t, "both are known", func() bool { return len(state().Policies) == 2 })
	s := state()
	require.False(t, s.Ready)
	require.NotEmpty(t, s.Obstacles)
	require.Equal(t, []admin.PolicyStatus{
		{Namespace: "shop", Name: "a", Generation: 4, Mode: "enforce"},
		{Namespace: "shop", Name: "b", Generation: 1, Mode: "enforce", Problems: []admin.Problem{{Field: "spec", Reason: "wrong"}}},
	}, s.Policies)
	l.clock.Step(time.Hour)
	l.queue.put(batch{synced: true})
	l.rules.answer(t, "takeover", nil)
	eventually(t, "it is ready", func() bool { return state().Ready })
	first := l.clock.Now()
	require.Equal(t, []any{int64(4), first}, []any{state().Policies[0].InForce, state().Policies[0].Since})

	l.clock.Step(time.Hour)
	l.queue.put(generation("a", 5))
	l.pod("new")
	l.rules.answer(t, "apply", errors.New("no")) // the pod's name is what the fake index writes
	s = state()
	require.Equal(t, []any{int64(5), int64(4), first}, []any{s.Policies[0].Generation, s.Policies[0].InForce, s.Policies[0].Since})
	l.clock.Step(time.Minute)
	l.rules.answer(t, "repair", nil)
	eventually(t, "it is in force", func() bool { return state().Policies[0].InForce == 5 })
	require.Equal(t, l.clock.Now(), state().Policies[0].Since)
	require.Equal(t, first, state().Policies[1].Since)

	l.clock.Step(time.Hour)
	second := state().Policies[0].Since
	l.queue.put(generation("a", 5)) // something was written to it that policies do not depend on
	l.queue.put(batch{events: []event{{key{policyKind, "shop", "b"}, nil}}})
	l.rules.answer(t, "apply", nil)
	eventually(t, "one is gone", func() bool { return len(state().Policies) == 1 })
	require.Equal(t, second, state().Policies[0].Since)
}

// TestStatusWhileBusy says why there is no more, and does not wait for ever.
func TestStatusWhileBusy(t *testing.T) {
	l := startLoop(t)
	b := backendOf(l)
	l.queue.put(batch{synced: true})
	c := l.rules.next(t, "takeover")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	s, err := b.State(ctx)
	require.NoError(t, err)
	require.False(t, s.Ready)
	require.Contains(t, s.Obstacles[len(s.Obstacles)-1], "the agent is busy")
	require.Equal(t, "node-1", s.Node)
	c.reply <- nil
}

// TestObjects writes what explain and matrix can read like a manifest.
func TestObjects(t *testing.T) {
	l := startLoop(t, func(x *fakeIndex) {
		x.pods = map[netip.Addr]*corev1.Pod{netip.MustParseAddr(webAddr): shopPod("web", "node-1", webAddr)}
		x.namespaces = map[string]*corev1.Namespace{"shop": {ObjectMeta: metav1.ObjectMeta{Name: "shop", Labels: map[string]string{"x": "y"}}}}
	})
	b := backendOf(l)
	stray := allowFrom("db")
	stray.Namespace = "stray" // without a Namespace or pods
	l.queue.put(batch{events: []event{{key{policyKind, "shop", "web"}, allowFrom("db")}, {key{policyKind, "stray", "web"}, stray}}, synced: true})
	l.rules.answer(t, "takeover", nil)
	var text bytes.Buffer
	require.NoError(t, b.Objects(t.Context(), &text))
	o, err := manifest.Decode("agent", text.Bytes())
	require.NoError(t, err, text.String())
	require.NoError(t, o.Validate())
	require.Len(t, o.Pods, 1)
	require.Equal(t, "node-1", o.Pods[0].Spec.NodeName)
	require.Equal(t, "y", o.Namespaces[0].Labels["x"])
	require.Len(t, o.Policies, 2)
	require.Equal(t, allowFrom("db").Spec, o.Policies[0].Spec)
	require.Len(t, o.Nodes, 1)
	require.Equal(t, []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "192.0.2.7"}}, o.Nodes[0].Status.Addresses)
	require.ErrorContains(t, b.Objects(t.Context(), failingWriter{}), "no room")
}

// TestObjectsArePaged: packets wait for the loop, so no visit takes more than so many
// pods. One that goes meanwhile is left out.
func TestObjectsArePaged(t *testing.T) {
	const pods = 3*perVisit + 7
	l := startLoop(t, func(x *fakeIndex) {
		x.pods = map[netip.Addr]*corev1.Pod{}
		addr := netip.MustParseAddr("10.244.1.1")
		for i := range pods {
			x.pods[addr] = shopPod(fmt.Sprintf("web-%04d", i), "node-1", addr.String())
			addr = addr.Next()
		}
		x.namespaces = map[string]*corev1.Namespace{"empty": {ObjectMeta: metav1.ObjectMeta{Name: "empty"}}, "shop": {ObjectMeta: metav1.ObjectMeta{Name: "shop"}}}
	})
	b := backendOf(l)
	ask := make(chan func(*loop))
	b.visits.in = ask
	done := make(chan struct{})
	var looked []int // in each visit
	go func() {
		defer close(done)
		for f := range ask {
			l.visits <- func(loop *loop) {
				if l.index.looked > 0 { // the names are known
					maps.DeleteFunc(l.index.pods, func(_ netip.Addr, p *corev1.Pod) bool { return p.Name == "web-0500" })
				}
				l.index.looked = 0
				f(loop)
				looked = append(looked, l.index.looked)
			}
		}
	}()
	var text bytes.Buffer
	require.NoError(t, b.Objects(t.Context(), &text))
	close(ask)
	<-done
	inLoop(t, l, func(*loop) bool { return true }) // so that the last visit has ended
	require.Equal(t, []int{0, 0, 0, perVisit, perVisit, perVisit, 7}, looked)
	o, err := manifest.Decode("agent", text.Bytes())
	require.NoError(t, err)
	require.Equal(t, pods-1, len(o.Pods)) // shorter than all of them, should it fail
	require.Len(t, o.Namespaces, 2)
}

type failingWriter struct{}

func (failingWriter) Write([]byte) (int, error) { return 0, errors.New("no room") }

// TestAgentAnswers asks an agent at its socket, which cannot have its nflog group: it says
// so once and does without.
func TestAgentAnswers(t *testing.T) {
	starting := shopPod("starting", "node-1", "10.244.1.8")
	starting.Status = corev1.PodStatus{Phase: corev1.PodPending}
	done := shopPod("done", "node-1", "10.244.1.9")
	done.Status.Phase = corev1.PodSucceeded
	client := fake.NewClientset(append(shop(), starting, done)...)
	path := filepath.Join(t.TempDir(), "run", "a.sock")
	cfg := Config{
		Source: Kubernetes(client), Kernel: nft.NewFake(), AdminSocket: path, Version: "v1", LogGroup: 4040,
		openPackets: func(int, uint16) (packetLog, error) { return nil, errors.New("the kernel has no nflog") },
	}
	without := cfg.withDefaults()
	require.Nil(t, without.openLog())
	require.Zero(t, without.LogGroup) // the rules copy nothing then
	a := startAgent(t, cfg)
	a.log.wait(t, "denied packets are not logged", "the kernel has no nflog")
	c := admin.New(path)
	var s admin.State
	eventually(t, "it is ready", func() bool {
		s, _ = c.State(t.Context())
		return s.Ready && s.Pods == 2
	})
	require.Equal(t, []string{"shop/starting"}, s.Quarantined)
	require.Equal(t, "v1", s.Version)
	require.NotEmpty(t, s.Table)
	require.Len(t, s.Policies, 1)
	require.False(t, s.Policies[0].Since.IsZero())
	audit, err := c.Audit(t.Context())
	require.NoError(t, err)
	require.Equal(t, "node-1", audit.Node)
	body, err := c.Objects(t.Context())
	require.NoError(t, err)
	require.NoError(t, body.Close())
	a.stop(t)
	require.NoFileExists(t, path)
	require.Equal(t, 1, a.log.count("level=WARN"))
}
