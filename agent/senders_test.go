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
	calls    int
	repairs  int
	undoes   bool // Set finds what others have done
	fails    error
}

func (g *fakeGuard) Set(_ context.Context, b []spoof.Binding) error {
	g.calls++
	g.set = b
	if g.undoes {
		g.repairs++
	}
	return g.fails
}

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
	names := map[string]bool{"veth-a": true, "veth-old": true, "veth-new": true, "veth-x": true}
	s := &senders{guard: guard, devices: func() (map[string]bool, map[netip.Addr]string, error) { return names, routes, nil },
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
	s.changed()
	guard.undoes = true
	require.True(t, s.sync(t.Context(), pods), "what others had done")
	guard.undoes = false
	s.changed()
	require.False(t, s.sync(t.Context(), pods))
	require.Equal(t, []spoof.Binding{bound("veth-new", "10.244.1.11")}, guard.set)
}
