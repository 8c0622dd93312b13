package agent

import (
	"context"
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/portcullis-netpol/portcullis/agent/cni"
	"github.com/portcullis-netpol/portcullis/nft/spoof"
)

type fakeGuard struct {
	was, set []spoof.Binding
	indexes  map[string]int
	calls    int
	doubts   int
	repairs  int
	undoes   bool // Update finds what others have done
	fails    error
}

func (g *fakeGuard) Update(_ context.Context, b []spoof.Binding, indexes map[string]int) error {
	g.calls++
	g.set, g.indexes = b, indexes
	if g.undoes {
		g.repairs++
	}
	return g.fails
}

func (g *fakeGuard) Doubt() { g.doubts++ }

func (g *fakeGuard) Repairs() int { return g.repairs }

func (g *fakeGuard) Bindings(context.Context) ([]spoof.Binding, error) { return g.was, nil }

func bound(device string, addrs ...string) spoof.Binding {
	b := spoof.Binding{Device: device}
	for _, a := range addrs {
		b.Addrs = append(b.Addrs, netip.MustParseAddr(a))
	}
	return b
}

// TestSenders finds the interfaces of pods by their routes, by what the CNI plugin
// says, and by what an earlier agent has left, and forgets those of pods that are gone.
func TestSenders(t *testing.T) {
	_, logger := newLogbook()
	guard := &fakeGuard{was: []spoof.Binding{bound("veth-old", "10.244.1.9"), bound("veth-gone", "10.244.1.8")}}
	routes := map[netip.Addr]string{netip.MustParseAddr("10.244.1.7"): "veth-a", netip.MustParseAddr("fd00::7"): "veth-a", netip.MustParseAddr("10.0.0.1"): "veth-x"}
	names := map[string]int{"veth-a": 3, "veth-old": 4, "veth-new": 5, "veth-x": 6}
	s := &senders{guard: guard, devices: func() (map[string]int, map[netip.Addr]string, error) { return names, routes, nil },
		attachments: newAttachments("node-1"), health: newHealth(clocktesting.NewFakeClock(time.Unix(1e9, 0))), log: logger}
	pods := map[netip.Addr]string{}
	for _, a := range []string{"10.244.1.7", "fd00::7", "10.244.1.9", "10.244.1.10"} {
		pods[netip.MustParseAddr(a)] = "shop/x"
	}
	s.sync(t.Context(), pods)
	require.Zero(t, guard.calls)
	s.changed()
	s.sync(t.Context(), pods)
	require.Equal(t, []spoof.Binding{bound("veth-a", "10.244.1.7", "fd00::7"), bound("veth-old", "10.244.1.9")}, guard.set)
	require.Equal(t, names, guard.indexes)
	require.Zero(t, guard.doubts)

	id := cni.Attachment{ContainerID: "c", Interface: "eth0"}
	s.attachments.add(id, attachment{pod: pod("new"), addrs: []netip.Addr{netip.MustParseAddr("10.244.1.11")}, device: "veth-new"})
	s.changed()
	guard.fails = errors.New("no")
	sick := len(s.health.sicknesses())
	s.sync(t.Context(), pods)
	require.Contains(t, guard.set, bound("veth-new", "10.244.1.11"))
	require.Len(t, s.health.sicknesses(), sick+1)
	guard.fails = nil
	s.sync(t.Context(), pods) // once more, as it has failed
	require.Len(t, s.health.sicknesses(), sick)

	delete(pods, netip.MustParseAddr("10.244.1.9"))
	pods[netip.MustParseAddr("10.244.1.11")] = "shop/new"
	s.attachments.remove(id, attachment{}) // the address is in the pod's status still
	s.changed()
	s.sync(t.Context(), pods)
	require.Equal(t, []spoof.Binding{bound("veth-a", "10.244.1.7", "fd00::7"), bound("veth-new", "10.244.1.11")}, guard.set)
	delete(names, "veth-a")
	s.disturbed()
	require.Equal(t, 1, guard.doubts)
	guard.undoes = true
	require.True(t, s.sync(t.Context(), pods), "what others had done")
	guard.undoes = false
	s.changed()
	require.False(t, s.sync(t.Context(), pods))
	require.Equal(t, []spoof.Binding{bound("veth-new", "10.244.1.11")}, guard.set)
}

// TestSendersDoubt: the rules of interfaces are read when others may have changed them,
// and when the table is, and not when a pod of this node changes.
func TestSendersDoubt(t *testing.T) {
	_, logger := newLogbook()
	guard := &fakeGuard{}
	rules := newRecorder()
	fake := clocktesting.NewFakeClock(time.Unix(1e9, 0))
	l := &loop{
		node: "node-1", index: newFakeIndex(), enforcer: rules, taken: true, synced: true, log: logger, clock: fake,
		health: newHealth(fake), attachments: newAttachments("node-1"),
	}
	l.senders = &senders{guard: guard, attachments: l.attachments, health: l.health, log: logger,
		devices: func() (map[string]int, map[netip.Addr]string, error) { return nil, nil, nil }}
	turn := func(repair bool) {
		done := make(chan struct{})
		go func() { defer close(done); l.turn(t.Context()) }()
		if repair {
			rules.answer(t, "repair", nil)
		}
		<-done
	}
	l.attached(nil)
	turn(false)
	require.Equal(t, []int{1, 0}, []int{guard.calls, guard.doubts})
	l.absorb(batch{interfaces: true})
	turn(false)
	require.Equal(t, []int{2, 1}, []int{guard.calls, guard.doubts})
	l.absorb(batch{disturbed: true})
	turn(true)
	require.Equal(t, []int{3, 2}, []int{guard.calls, guard.doubts})
	l.audited = true
	turn(true)
	require.Equal(t, []int{4, 3}, []int{guard.calls, guard.doubts})
	turn(false)
	require.Equal(t, []int{4, 3}, []int{guard.calls, guard.doubts})
}
