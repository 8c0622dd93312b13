package agent

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"

	"github.com/portcullis-netpol/portcullis/agent/cni"
	"github.com/portcullis-netpol/portcullis/policy/ir"
)

func barePod(name, uid string) *corev1.Pod {
	p := testPod(name, uid)
	p.Spec.NodeName = "node-1"
	return p
}

func addRequest(name, uid, container string, addrs ...string) cni.Request {
	r := cni.Request{Command: cni.Add, Attachment: cni.Attachment{ContainerID: container, Interface: "eth0"},
		Namespace: "shop", Name: name, UID: uid, HostInterface: "veth-" + name}
	for _, a := range addrs {
		r.Addrs = append(r.Addrs, netip.MustParseAddr(a))
	}
	return r
}

func addrsOf(p *corev1.Pod) (out []string) {
	for _, ip := range p.Status.PodIPs {
		out = append(out, ip.IP)
	}
	return out
}

// one returns the addresses of the only pod in list.
func one(t *testing.T, list []*corev1.Pod) []string {
	t.Helper()
	require.Len(t, list, 1)
	return addrsOf(list[0])
}

// running returns a pod whose status names addrs.
func running(name, uid string, addrs ...string) *corev1.Pod {
	p := barePod(name, uid)
	for _, a := range addrs {
		p.Status.PodIPs = append(p.Status.PodIPs, corev1.PodIP{IP: a})
	}
	return p
}

// TestAttachments goes through the orders in which the API server and the CNI plugin
// can tell of a pod.
func TestAttachments(t *testing.T) {
	at := attachment{pod: pod("a"), uid: "1", addrs: []netip.Addr{netip.MustParseAddr("10.244.1.7")}, device: "veth1"}
	id := cni.Attachment{ContainerID: "c1", Interface: "eth0"}

	t.Run("object first", func(t *testing.T) {
		a := newAttachments("node-1")
		require.Empty(t, addrsOf(a.describe(pod("a"), barePod("a", "1"))))
		require.False(t, a.has(at))
		require.Equal(t, []string{"10.244.1.7"}, one(t, a.add(id, at)))
		require.True(t, a.has(at))
		require.Empty(t, one(t, a.remove(id, at)))
		require.False(t, a.has(at))
	})
	t.Run("plugin first", func(t *testing.T) {
		a := newAttachments("node-1")
		require.Empty(t, a.add(id, at))
		given := barePod("a", "1")
		require.Equal(t, []string{"10.244.1.7"}, addrsOf(a.describe(pod("a"), given)))
		require.Empty(t, addrsOf(given)) // the source's object is not written to
	})
	t.Run("status says more", func(t *testing.T) {
		a := newAttachments("node-1")
		require.Empty(t, a.add(id, at))
		require.Equal(t, []string{"10.244.1.7", "10.244.1.99"}, addrsOf(a.describe(pod("a"), running("a", "1", "10.244.1.99"))))
		require.Equal(t, []string{"10.244.1.99"}, one(t, a.remove(id, at)))
	})
	t.Run("another pod of that name", func(t *testing.T) {
		a := newAttachments("node-1")
		require.Empty(t, a.add(id, at))
		require.Empty(t, addrsOf(a.describe(pod("a"), barePod("a", "2"))))
		require.False(t, a.has(at))
		require.Empty(t, a.remove(id, at))
	})
	t.Run("no UID", func(t *testing.T) {
		a := newAttachments("node-1")
		silent := at
		silent.uid = ""
		require.Empty(t, a.add(id, silent))
		require.Equal(t, []string{"10.244.1.7"}, addrsOf(a.describe(pod("a"), barePod("a", "2"))))
	})
	t.Run("static pod", func(t *testing.T) {
		a := newAttachments("node-1")
		mirror := barePod("a", "2")
		mirror.Annotations = map[string]string{staticUID: "1"}
		require.Empty(t, a.add(id, at))
		require.Equal(t, []string{"10.244.1.7"}, addrsOf(a.describe(pod("a"), strip(mirror).(*corev1.Pod))))
		require.True(t, a.has(at))
	})
	t.Run("another node and the host's network", func(t *testing.T) {
		a := newAttachments("node-1")
		require.Empty(t, a.add(id, at))
		p := barePod("a", "1")
		p.Spec.NodeName = "node-2"
		require.Empty(t, addrsOf(a.describe(pod("a"), p)))
		p = barePod("a", "1")
		p.Spec.HostNetwork = true
		require.Empty(t, addrsOf(a.describe(pod("a"), p)))
		require.False(t, a.has(at))
	})
	t.Run("a second sandbox", func(t *testing.T) {
		a := newAttachments("node-1")
		a.describe(pod("a"), running("a", "1", "10.244.1.7"))
		a.add(id, at)
		second := at
		second.addrs = []netip.Addr{netip.MustParseAddr("10.244.1.8")}
		require.Empty(t, one(t, a.remove(id, at))) // whatever the status goes on to say
		require.Empty(t, addrsOf(a.describe(pod("a"), running("a", "1", "10.244.1.7"))))
		require.Equal(t, []string{"10.244.1.8"}, one(t, a.add(cni.Attachment{ContainerID: "c2", Interface: "eth0"}, second)))
		require.Equal(t, []string{"10.244.1.8"}, one(t, a.remove(id, at))) // late, and of the first
		require.True(t, a.has(second))
		require.Equal(t, []string{"10.244.1.7", "10.244.1.8"}, one(t, a.add(id, at))) // given back
	})
}

// TestAddressOfAnother takes an address from the pod whose object still names it when
// the CNI plugin gives it to another pod, or takes it back.
func TestAddressOfAnother(t *testing.T) {
	old := attachment{pod: pod("old"), uid: "1", addrs: []netip.Addr{netip.MustParseAddr("10.244.1.7")}}
	now := attachment{pod: pod("new"), uid: "2", addrs: old.addrs}
	idOld, idNew := cni.Attachment{ContainerID: "c1", Interface: "eth0"}, cni.Attachment{ContainerID: "c2", Interface: "eth0"}

	t.Run("given away", func(t *testing.T) {
		a := newAttachments("node-1")
		require.Equal(t, []string{"10.244.1.7", "10.244.1.9"}, addrsOf(a.describe(pod("old"), running("old", "1", "10.244.1.7", "10.244.1.9"))))
		require.Equal(t, []string{"10.244.1.9"}, one(t, a.add(idNew, now)))
		require.Equal(t, []string{"10.244.1.9"}, addrsOf(a.describe(pod("old"), running("old", "1", "10.244.1.7", "10.244.1.9"))))
		require.Equal(t, []string{"10.244.1.7"}, addrsOf(a.describe(pod("new"), barePod("new", "2"))))
		require.Equal(t, []string{"10.244.1.7"}, addrsOf(a.describe(pod("old"), running("old", "3", "10.244.1.7")))) // another pod, later
	})
	t.Run("taken back", func(t *testing.T) {
		a := newAttachments("node-1")
		a.describe(pod("old"), running("old", "1", "10.244.1.7"))
		require.Equal(t, []string{"10.244.1.7"}, one(t, a.add(idOld, old)))
		require.Empty(t, one(t, a.remove(idOld, attachment{})))
		require.Empty(t, addrsOf(a.describe(pod("old"), running("old", "1", "10.244.1.7"))))
		require.Len(t, a.add(idNew, now), 1)
	})
	t.Run("taken back, ADD unknown", func(t *testing.T) {
		a := newAttachments("node-1")
		a.describe(pod("old"), running("old", "1", "10.244.1.7"))
		require.Empty(t, one(t, a.remove(idOld, old)))
	})
	t.Run("and once the object is gone", func(t *testing.T) {
		a := newAttachments("node-1")
		a.describe(pod("old"), running("old", "1", "10.244.1.7"))
		a.add(idNew, now)
		a.forget(pod("old"))
		require.Empty(t, a.lost)
		require.Equal(t, []string{"10.244.1.7"}, addrsOf(a.describe(pod("old"), running("old", "1", "10.244.1.7"))))
	})
}

// TestAddIsAnsweredWhenInForce answers an ADD after the write that has the pod, and
// not after one before it, nor after one that failed.
func TestAddIsAnsweredWhenInForce(t *testing.T) {
	l := startLoop(t)
	h := handler{l.ask, nil}
	done := make(chan error, 1)
	go func() { done <- h.Add(t.Context(), addRequest("a", "1", "c1", "10.244.1.7")) }()
	eventually(t, "waiting", func() bool { return inLoop(t, l, func(l *loop) bool { return len(l.attachments.waiting) == 1 }) })
	l.queue.put(batch{synced: true})
	l.rules.answer(t, "takeover", nil)
	require.Error(t, h.Check(t.Context(), addRequest("a", "1", "c1", "10.244.1.7")))
	require.Empty(t, done)

	l.queue.put(batch{events: []event{{pod("a"), barePod("a", "1")}}})
	l.rules.answer(t, "apply", errors.New("no"))
	eventually(t, "the loop waits", l.clock.HasWaiters)
	require.Empty(t, done)
	l.clock.Step(time.Second)
	l.rules.answer(t, "repair", nil)
	require.NoError(t, <-done)
	require.NoError(t, h.Check(t.Context(), addRequest("a", "1", "c1", "10.244.1.7")))
	require.Error(t, h.Check(t.Context(), addRequest("a", "2", "c1", "10.244.1.7")))
}

// TestAddGivesUp ends an ADD with its context, and leaves nothing behind.
func TestAddGivesUp(t *testing.T) {
	l := startLoop(t)
	ended := make(chan struct{})
	h := handler{l.ask, ended}
	ctx, cancel := context.WithCancelCause(t.Context())
	done := make(chan error, 1)
	go func() { done <- h.Add(ctx, addRequest("a", "1", "c1", "10.244.1.7")) }()
	eventually(t, "waiting", func() bool { return inLoop(t, l, func(l *loop) bool { return len(l.attachments.waiting) == 1 }) })
	late := errors.New("too late")
	cancel(late)
	require.ErrorIs(t, <-done, late)
	require.True(t, inLoop(t, l, func(l *loop) bool { return len(l.attachments.waiting) == 0 && len(l.attachments.list) == 1 }))

	require.NoError(t, h.GC(t.Context(), []cni.Attachment{{ContainerID: "c2", Interface: "eth0"}}))
	require.True(t, inLoop(t, l, func(l *loop) bool { return len(l.attachments.list) == 0 }))
	require.NoError(t, l.stop(t))
	close(ended)
	require.ErrorIs(t, h.Del(t.Context(), addRequest("a", "1", "c1")), errEnded)
}

// inLoop returns what f says of the loop.
func inLoop[T any](t *testing.T, l *loopTest, f func(*loop) T) T {
	t.Helper()
	result := make(chan T, 1)
	select {
	case l.ask <- func(l *loop) { result <- f(l) }:
	case <-time.After(patience):
		t.Fatal("the loop is busy")
	}
	return <-result
}

// TestDisturbedIsRepaired looks at the kernel when somebody else may have changed it,
// and counts only what had to be put right.
func TestDisturbedIsRepaired(t *testing.T) {
	l := startLoop(t)
	l.queue.put(batch{synced: true})
	c := l.rules.answer(t, "takeover", nil)

	l.queue.put(batch{disturbed: true})
	l.rules.answer(t, "repair", nil)
	require.Zero(t, inLoop(t, l, func(l *loop) int { return l.repairs }))

	l.queue.put(batch{disturbed: true})
	c = l.rules.next(t, "repair")
	l.rules.takeovers++
	c.reply <- nil
	l.log.wait(t, "another program", "repairs=1")

	l.pod("a")
	l.rules.answer(t, "apply", nil) // and not another repair
}

// TestAudit reads the table now and then although nobody told of a change.
func TestAudit(t *testing.T) {
	l := startLoop(t)
	inLoop(t, l, func(l *loop) bool { l.audit = l.clock.Tick(time.Minute); return true })
	l.queue.put(batch{synced: true})
	l.rules.answer(t, "takeover", nil)
	for range 2 {
		l.clock.Step(time.Minute)
		c := l.rules.next(t, "repair")
		l.rules.takeovers++
		c.reply <- nil
	}
	l.log.wait(t, "another program", "repairs=2")
}

// TestQuarantineFollowsTheNode holds back the blocks of the own Node, of no other, and
// never fewer because the Node says less.
func TestQuarantineFollowsTheNode(t *testing.T) {
	node := func(name string, blocks ...string) batch {
		n := testNode(name)
		n.Spec.PodCIDRs = blocks
		return batch{events: []event{{key{nodeKind, "", name}, n}}}
	}
	l := startLoop(t)
	l.queue.put(node("node-1", "10.244.1.7/24", "fd00:10:244:1::/64"))
	l.queue.put(batch{synced: true})
	c := l.rules.next(t, "takeover")
	want := []netip.Prefix{netip.MustParsePrefix("10.244.1.0/24"), netip.MustParsePrefix("fd00:10:244:1::/64")}
	require.Equal(t, want, l.rules.blocks)
	c.reply <- nil

	l.queue.put(node("node-2", "10.244.2.0/24"))
	l.queue.put(node("node-1"))
	l.queue.put(node("node-1", "nonsense"))
	l.log.wait(t, "spec.podCIDRs[0]", "nonsense")
	l.queue.put(node("node-1", "10.244.1.0/24", "::/0"))
	l.log.wait(t, "spec.podCIDRs[1]", "::/0")
	l.queue.put(batch{events: []event{{key{nodeKind, "", "node-1"}, nil}}})
	l.pod("a")
	l.rules.answer(t, "apply", nil)
	l.queue.put(node("node-1", "10.244.9.0/24"))
	c = l.rules.next(t, "takeover")
	require.Equal(t, []netip.Prefix{netip.MustParsePrefix("10.244.9.0/24")}, l.rules.blocks)
	c.reply <- nil

	own := startLoop(t)
	inLoop(t, own, func(l *loop) bool { l.fixedCIDRs = want; return true })
	own.queue.put(node("node-1", "10.244.1.0/24"))
	own.queue.put(batch{synced: true})
	c = own.rules.next(t, "takeover")
	require.Empty(t, own.rules.blocks) // what is fixed is in the enforcer from the start
	c.reply <- nil
}

// TestMidstreamWaits turns the guard of connections from nowhere on when those that
// exist can be taken to be known.
func TestMidstreamWaits(t *testing.T) {
	l := startLoop(t)
	inLoop(t, l, func(l *loop) bool { l.settled = l.clock.After(settleFor); return true })
	l.queue.put(batch{synced: true})
	l.rules.answer(t, "takeover", nil)
	l.clock.Step(settleFor)
	c := l.rules.next(t, "takeover")
	require.True(t, l.rules.midstream)
	c.reply <- nil
}

// TestAffected knows which addresses a change may have closed.
func TestAffected(t *testing.T) {
	at := func(s string) netip.Addr { return netip.MustParseAddr(s) }
	end := func(a, pod string, in, eg ir.GroupID) *ir.Endpoint {
		return &ir.Endpoint{Addr: at(a), Pod: pod, Ingress: in, Egress: eg}
	}
	var a affected
	require.True(t, a.empty())
	a.note(ir.Change{
		Endpoints: []ir.EndpointChange{
			{Old: end("10.0.0.1", "a/gone", "g", "")},
			{Old: end("10.0.0.2", "a/old", "g", ""), New: end("10.0.0.2", "a/new", "g", "")},
			{Old: end("10.0.0.3", "a/b", "g", ""), New: end("10.0.0.3", "a/b", "g", "h")},
			{New: end("10.0.0.4", "a/c", "g", "")},
		},
		PeerSets: []ir.PeerSetChange{{Join: []netip.Addr{at("10.1.0.1")}, Leave: []netip.Addr{at("10.1.0.2")}}},
	})
	require.Equal(t, map[netip.Addr]bool{at("10.0.0.1"): true, at("10.0.0.2"): true}, a.gone)
	require.Equal(t, map[netip.Addr]bool{at("10.0.0.3"): true, at("10.0.0.4"): true, at("10.1.0.2"): true}, a.addrs)
	require.False(t, a.all)
	var b affected
	b.add(a)
	require.Equal(t, a, b)
}

// TestStatusAfterDel has the kubelet write a pod's address when the plugin has taken it
// back: the pod does not have it any more, until the plugin gives it to the pod again.
func TestStatusAfterDel(t *testing.T) {
	a := newAttachments("node-1")
	addr := netip.MustParseAddr(webAddr)
	id := cni.Attachment{ContainerID: "sandbox", Interface: "eth0"}
	bare, late := shopPod("web", "node-1", webAddr), shopPod("web", "node-1", webAddr)
	bare.Status = corev1.PodStatus{Phase: corev1.PodPending}
	at := attachment{pod: podKey("shop", "web"), uid: bare.UID, addrs: []netip.Addr{addr}}
	require.Empty(t, statusAddrs(a.describe(at.pod, bare)))
	require.Equal(t, []netip.Addr{addr}, statusAddrs(a.add(id, at)[0]))
	require.Empty(t, statusAddrs(a.remove(id, at)[0]))
	require.Empty(t, statusAddrs(a.describe(at.pod, late)))

	id.ContainerID = "another"
	require.Equal(t, []netip.Addr{addr}, slices.Compact(statusAddrs(a.add(id, at)[0])))
	require.Equal(t, []netip.Addr{addr}, slices.Compact(statusAddrs(a.describe(at.pod, late))))
}
