package spoof

import (
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"
)

// indexes returns those of all devices, by name.
func indexes(t testing.TB, netns int) map[string]int {
	t.Helper()
	out := map[string]int{}
	in(t, netns, func() error {
		links, err := netlink.LinkList()
		for _, l := range links {
			out[l.Attrs().Name] = l.Attrs().Index
		}
		return err
	})
	return out
}

// update updates bindings, and checks that a process that looks finds nothing to do
// then.
func update(t testing.TB, g *Guard, bindings ...Binding) {
	t.Helper()
	require.NoError(t, g.Update(t.Context(), bindings, indexes(t, g.netns)))
	require.Zero(t, writes(t, g, func() { require.NoError(t, open(t, g.netns).Set(t.Context(), bindings)) }))
}

// TestUpdateWritesTheDifference goes from each of some states to each, and writes once
// for each device that changes.
func TestUpdateWritesTheDifference(t *testing.T) {
	netns := newNetNS(t, "dev0", "dev1", "dev2")
	g := open(t, netns)
	a, b, changed := Binding{"dev0", addrs(own4)}, Binding{"dev1", addrs(own4b, own6)}, Binding{"dev1", addrs(own6b)}
	states := [][]Binding{nil, {a}, {a, b}, {a, changed}, {b, {"dev2", nil}}, {changed}}
	for _, from := range states {
		for _, to := range states {
			update(t, g, from...)
			want := uint32(0)
			was := map[string]Binding{}
			for _, x := range from {
				was[x.Device] = x
			}
			for _, x := range to {
				if y, ok := was[x.Device]; !ok || len(x.Addrs) != len(y.Addrs) {
					want++
				}
				delete(was, x.Device)
			}
			want += uint32(len(was))
			require.Equal(t, want, writes(t, g, func() {
				require.NoError(t, g.Update(t.Context(), to, indexes(t, netns)))
			}), "%v to %v", from, to)
			update(t, g, to...)
		}
	}
	require.Zero(t, g.Repairs())
}

// TestUpdateTrusts looks only when it has reason to: after Doubt, after an error, and
// where it does not know a device.
func TestUpdateTrusts(t *testing.T) {
	netns := newNetNS(t, "dev0", "dev1")
	a, b, other := Binding{"dev0", addrs(own4)}, Binding{"dev1", addrs(own4b)}, Binding{"dev1", addrs(own6)}
	for name, reason := range map[string]struct {
		repairs bool
		update  func(g *Guard) error
	}{
		"none":  {false, func(g *Guard) error { return g.Update(t.Context(), []Binding{a, other}, indexes(t, netns)) }},
		"doubt": {true, func(g *Guard) error { g.Doubt(); return g.Update(t.Context(), []Binding{a, b}, indexes(t, netns)) }},
		"set":   {true, func(g *Guard) error { return g.Set(t.Context(), []Binding{a, b}) }},
		"no index": {true, func(g *Guard) error {
			return g.Update(t.Context(), []Binding{a, b}, map[string]int{"dev0": indexes(t, netns)["dev0"]})
		}},
		"failed write": {true, func(g *Guard) error {
			return g.Update(t.Context(), []Binding{{"dev0", addrs(own6)}, b}, indexes(t, netns))
		}},
	} {
		t.Run(name, func(t *testing.T) {
			g := open(t, netns)
			update(t, g, a, b)
			nft(t, netns, "", "delete", "chain", "netdev", tableName, "dev_dev0")
			require.NoError(t, reason.update(g))
			_, there := observe(t, g).chains["dev_dev0"]
			require.Equal(t, reason.repairs, there)
		})
	}
}

func observe(t testing.TB, g *Guard) *observed {
	t.Helper()
	o, err := g.observe(t.Context())
	require.NoError(t, err)
	return o
}

// TestUpdateKnowsNewDevices: a device that has the name of another, and not its rules,
// gets them.
func TestUpdateKnowsNewDevices(t *testing.T) {
	for _, withChain := range []bool{false, true} {
		netns := newNetNS(t, "dev0", "dev1")
		g := open(t, netns)
		bindings := []Binding{{"dev0", addrs(own4)}, {"dev1", addrs(own4b)}}
		update(t, g, bindings...)
		before := indexes(t, netns)
		delDevice(t, netns, "dev0")
		if !withChain {
			// As before Linux 6.16.
			nft(t, netns, "add table netdev portcullis\nadd chain netdev portcullis dev_dev0\ndelete chain netdev portcullis dev_dev0", "-f", "-")
		}
		addDevice(t, netns, "dev0", 7)
		require.NotEqual(t, before["dev0"], indexes(t, netns)["dev0"])
		require.Equal(t, uint32(1), writes(t, g, func() {
			require.NoError(t, g.Update(t.Context(), bindings, indexes(t, netns)))
		}), "that device only")
		update(t, g, bindings...)
		w := newWire(t, netns, "dev0", netns, "peer7")
		require.False(t, w.passes(frame(ip4, ipv4(foreign4)), frame(ip4, ipv4(own4))))
		if withChain {
			continue
		}
		delDevice(t, netns, "dev1")
		nft(t, netns, "", "delete", "chain", "netdev", tableName, "dev_dev1")
		addDevice(t, netns, "dev1", 8)
		g.Doubt()
		update(t, g, bindings...)
		require.Zero(t, g.Repairs(), "nobody has done anything")
	}
}

// TestUpdateOfADeviceThatIsGone is content if the rules have gone, too, and does not look.
func TestUpdateOfADeviceThatIsGone(t *testing.T) {
	netns := newNetNS(t, "dev0", "dev1")
	g := open(t, netns)
	a, b := Binding{"dev0", addrs(own4)}, Binding{"dev1", addrs(own4b)}
	update(t, g, a, b)
	delDevice(t, netns, "dev0")
	nft(t, netns, "delete chain netdev portcullis dev_dev1\nadd chain netdev portcullis dev_dev0\ndelete chain netdev portcullis dev_dev0", "-f", "-")
	require.NoError(t, g.Update(t.Context(), []Binding{b}, indexes(t, netns)))
	require.Empty(t, observe(t, g).chains)
	g.Doubt()
	update(t, g, b)
}

// TestUpdateLeavesWhatMakesNoSense leaves a device as it is whose binding is bad.
func TestUpdateLeavesWhatMakesNoSense(t *testing.T) {
	netns := newNetNS(t, "dev0", "dev1")
	g := open(t, netns)
	a, b := Binding{"dev0", addrs(own4)}, Binding{"dev1", addrs(own4b)}
	update(t, g, a, b)
	bad := Binding{"dev0", addrs("224.0.0.1")}
	require.Error(t, g.Update(t.Context(), []Binding{bad, {"dev1", addrs(own6)}}, indexes(t, netns)))
	got, err := g.Bindings(t.Context())
	require.NoError(t, err)
	require.Equal(t, []Binding{a, {"dev1", addrs(own6)}}, got)
	require.Equal(t, uint32(2), writes(t, g, func() { require.NoError(t, g.Update(t.Context(), []Binding{b}, indexes(t, netns))) }))
}
