package spoof

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func ipText(b []byte) string {
	a, _ := netip.AddrFromSlice(b)
	return a.String()
}

// nft runs the nft program in a namespace.
func nft(t testing.TB, netns int, stdin string, args ...string) string {
	t.Helper()
	var out, errOut bytes.Buffer
	in(t, netns, func() error {
		cmd := exec.Command("nft", args...)
		cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &errOut
		err := cmd.Run()
		if err != nil {
			t.Logf("nft %v: %s", args, errOut.String())
		}
		return err
	})
	return out.String()
}

// set sets bindings and checks that the kernel then holds them, and that setting
// them again, from another process so to speak, writes nothing.
func set(t testing.TB, g *Guard, bindings ...Binding) {
	t.Helper()
	require.NoError(t, g.Set(t.Context(), bindings))
	before, err := g.generation()
	require.NoError(t, err)
	fresh := open(t, g.netns)
	require.NoError(t, fresh.Set(t.Context(), bindings))
	after, err := g.generation()
	require.NoError(t, err)
	require.Equal(t, before, after, "the second time writes nothing")
	got, err := fresh.Bindings(t.Context())
	require.NoError(t, err)
	want, _, err := normalize(bindings)
	require.NoError(t, err)
	require.Equal(t, want, got)
}

func writes(t testing.TB, g *Guard, f func()) uint32 {
	t.Helper()
	before, err := g.generation()
	require.NoError(t, err)
	f()
	after, err := g.generation()
	require.NoError(t, err)
	return after - before
}

func TestSetIsIncremental(t *testing.T) {
	netns := newNetNS(t, "dev0", "dev1", "dev2")
	g := open(t, netns)
	a, b, c := Binding{"dev0", addrs(own4)}, Binding{"dev1", addrs(own4b, own6)}, Binding{"dev2", nil}
	set(t, g, a, b)
	for name, step := range map[string]struct {
		bindings []Binding
		writes   uint32
	}{
		"nothing, in another order": {[]Binding{{"dev1", addrs(own6, own4b, "::ffff:10.0.0.8")}, a}, 0},
		"one more":                  {[]Binding{a, b, c}, 1},
		"one changed":               {[]Binding{a, {"dev1", addrs(own6b)}}, 1},
		"one fewer":                 {[]Binding{a}, 1},
		"all change":                {[]Binding{{"dev0", addrs(own4b)}, c}, 3},
		"none":                      {nil, 2},
	} {
		t.Run(name, func(t *testing.T) {
			set(t, g, a, b)
			require.Equal(t, step.writes, writes(t, g, func() { require.NoError(t, g.Set(t.Context(), step.bindings)) }))
			set(t, g, step.bindings...)
		})
	}
}

// TestOthersTouchTheTable lets somebody else spoil the table in every way.
func TestOthersTouchTheTable(t *testing.T) {
	netns := newNetNS(t, "dev0", "dev1")
	g := open(t, netns)
	w := newWire(t, netns, "dev0", netns, "peer0")
	bindings := []Binding{{"dev0", addrs(own4, own6)}, {"dev1", addrs(own4b)}}
	told := listen(t, g)
	// These leave our chains as they are.
	foreign := map[string]bool{"foreign chain": true, "foreign chains": true, "table asleep": true}
	for name, script := range map[string]string{
		"table deleted":     "delete table netdev portcullis",
		"table asleep":      "add table netdev portcullis { flags dormant; }",
		"chain deleted":     "delete chain netdev portcullis dev_dev0",
		"chain emptied":     "flush chain netdev portcullis dev_dev0",
		"rule inserted":     "insert rule netdev portcullis dev_dev0 accept",
		"rule with counter": "insert rule netdev portcullis dev_dev0 counter",
		"rule appended":     "add rule netdev portcullis dev_dev0 accept",
		"shift inserted":    "insert rule netdev portcullis dev_dev0 meta mark set meta mark << 2",
		"chain elsewhere":   "delete chain netdev portcullis dev_dev0; add chain netdev portcullis dev_dev0 { type filter hook ingress device dev1 priority -2147483648; }",
		"chain later":       "delete chain netdev portcullis dev_dev0; add chain netdev portcullis dev_dev0 { type filter hook ingress device dev0 priority 100; }",
		"chain of no hook":  "delete chain netdev portcullis dev_dev0; add chain netdev portcullis dev_dev0",
		"another policy":    "add chain netdev portcullis dev_dev0 { policy drop; }",
		"foreign chain":     "add chain netdev portcullis x { type filter hook ingress device dev0 priority -2147483648; policy drop; }",
		"foreign chains":    "add chain netdev portcullis x\nadd chain netdev portcullis y { jump x; }",
		"foreign jump":      "add chain netdev portcullis x { accept; }; insert rule netdev portcullis dev_dev0 jump x",
	} {
		t.Run(name, func(t *testing.T) {
			set(t, g, bindings...)
			want := ruleset(t, netns)
			nft(t, netns, strings.ReplaceAll(script, "; add", "\nadd"), "-f", "-")
			require.NotEqual(t, want, ruleset(t, netns), "the script has an effect")
			told.wait(t)
			for len(told) > 0 { // one change may be told in pieces
				<-told
			}
			before := g.Repairs()
			// What is referenced can be deleted only at the second try.
			set(t, g, bindings...)
			if !foreign[name] {
				require.Equal(t, before+1, g.Repairs())
			}
			require.Equal(t, want, ruleset(t, netns))
			marker := frame(ip4, ipv4(own4))
			require.False(t, w.passes(frame(ip4, ipv4(foreign4)), marker))
			require.False(t, w.passes(frame(ip6, udp6(foreign6)), marker))
		})
	}
	nft(t, netns, "", "flush", "ruleset")
	told.wait(t)
	set(t, g, bindings...)
}

// news holds a token for each time that somebody else has changed the table.
type news chan struct{}

// listen has g tell of changes until the test ends.
func listen(t *testing.T, g *Guard) news {
	t.Helper()
	n, ready, ended := make(news, 1000), make(chan struct{}), make(chan error, 1)
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		ended <- g.Watch(ctx, func() { close(ready) }, func() { n <- struct{}{} })
	}()
	<-ready
	t.Cleanup(func() {
		cancel()
		require.NoError(t, <-ended)
	})
	return n
}

func (n news) wait(t *testing.T) {
	t.Helper()
	select {
	case <-n:
	case <-time.After(30 * time.Second):
		t.Fatal("nobody told of it")
	}
}

// TestOwnChangesAreNoNews: what Set does is neither told nor counted.
func TestOwnChangesAreNoNews(t *testing.T) {
	netns := newNetNS(t, "dev0", "dev1")
	g := open(t, netns)
	told := listen(t, g)
	set(t, g, Binding{"dev0", addrs(own4)})
	set(t, g, Binding{"dev0", addrs(own4, own6)}, Binding{"dev1", addrs(own4b)})
	set(t, g, Binding{"dev1", addrs(own4b)})
	set(t, g)
	require.NoError(t, g.Cleanup(t.Context()))
	nft(t, netns, "", "add", "table", "netdev", "other")
	require.Zero(t, g.Repairs())
	nft(t, netns, "", "add", "table", "netdev", "portcullis")
	told.wait(t)
	require.Empty(t, told, "that was the only one")
}

// TestUnknownExpression finds a rule that does what ours does, now and then.
func TestUnknownExpression(t *testing.T) {
	netns := newNetNS(t, "dev0")
	g := open(t, netns)
	b := Binding{"dev0", addrs(own4)}
	set(t, g, b)
	_, handle, found := strings.Cut(nft(t, netns, "", "-a", "list", "table", "netdev", tableName), `drop comment "everything else" # handle `)
	require.True(t, found)
	handle, _, _ = strings.Cut(handle, "\n")
	nft(t, netns, "replace rule netdev portcullis dev_dev0 handle "+handle+" limit rate 1/day drop", "-f", "-")
	require.Equal(t, uint32(1), writes(t, g, func() { require.NoError(t, g.Set(t.Context(), []Binding{b})) }))
	set(t, g, b)
}

// ruleset lists our table, its chains in order, or nothing.
func ruleset(t testing.TB, netns int) string {
	t.Helper()
	_, table, found := strings.Cut(nft(t, netns, "", "list", "ruleset", "netdev"), "table netdev portcullis {")
	if !found {
		return ""
	}
	table, _, _ = strings.Cut(table, "\n}")
	chains := strings.SplitAfter(strings.ReplaceAll(table, "\n\n", "\n"), "\n\t}") // listed in the order in which they were made
	slices.SortFunc(chains, func(a, b string) int { return strings.Compare(strings.TrimSpace(a), strings.TrimSpace(b)) })
	return "table netdev portcullis {" + strings.Join(chains, "")
}

// TestDevicesComeAndGo reuses the name of a device, as a CNI plugin does that derives
// it from the name of the pod.
func TestDevicesComeAndGo(t *testing.T) {
	netns := newNetNS(t, "dev0")
	g := open(t, netns)
	set(t, g, Binding{"dev0", addrs(own4)})
	delDevice(t, netns, "dev0")
	set(t, g)
	require.NotContains(t, ruleset(t, netns), "chain", "no chain is left for a device that is gone")

	addDevice(t, netns, "dev0", 0)
	w := newWire(t, netns, "dev0", netns, "peer0")
	require.True(t, w.passes(frame(ip4, ipv4(foreign4)), frame(ip4, ipv4(own4))), "nobody has bound this one")
	set(t, g, Binding{"dev0", addrs(foreign4)})
	require.False(t, w.passes(frame(ip4, ipv4(own4)), frame(ip4, ipv4(foreign4))))
}

// TestDeviceToCome binds a device before it exists, where the kernel can.
func TestDeviceToCome(t *testing.T) {
	netns := newNetNS(t, "dev1")
	g := open(t, netns)
	later, now := Binding{"dev0", addrs(own4)}, Binding{"dev1", addrs(own4b)}
	err := g.Set(t.Context(), []Binding{later, now})
	if err != nil {
		require.ErrorIs(t, err, unix.ENOENT, "before Linux 6.16")
		require.ErrorContains(t, err, "device dev0")
		set(t, g, now) // which the failure has not kept from being bound
		t.Log("this kernel wants the device first")
	}
	addDevice(t, netns, "dev0", 1)
	if err != nil {
		require.NoError(t, g.Set(t.Context(), []Binding{later, now}))
	}
	w := newWire(t, netns, "dev0", netns, "peer1")
	require.False(t, w.passes(frame(ip4, ipv4(foreign4)), frame(ip4, ipv4(own4))))
	set(t, g, later, now)
}

func TestStrangeDeviceNames(t *testing.T) {
	names := []string{"a.1", "a-1", "a_1", "veth@if7", "ü", "\"", "accept", "ip", "dev", "-x", "*", "123", "0123456789abcde"}
	netns := newNetNS(t, names...)
	g := open(t, netns)
	var bindings []Binding
	for i, n := range names {
		bindings = append(bindings, Binding{n, addrs(own4, own4b)[i%2:]})
	}
	set(t, g, bindings...)
	listing := nft(t, netns, "", "list", "ruleset", "netdev")
	for _, n := range names {
		require.Contains(t, listing, "chain "+chainName(n)+" {")
	}
	w := newWire(t, netns, "veth@if7", netns, "peer3")
	require.False(t, w.passes(frame(ip4, ipv4(own4)), frame(ip4, ipv4(own4b))))
}

func TestBadBindings(t *testing.T) {
	netns := newNetNS(t, "dev0", "dev1")
	g := open(t, netns)
	was := Binding{"dev0", addrs(own4)}
	set(t, g, was)
	for text, bad := range map[string][]Binding{
		"bound twice":         {{"dev0", addrs(own4b)}, {"dev0", addrs(own6)}},
		"no address":          {{"dev0", []netip.Addr{{}}}},
		"fe80::1%eth0":        {{"dev0", addrs("fe80::1%eth0")}},
		"sends from ::":       {{"dev0", addrs("::")}},
		"sends from 224":      {{"dev0", addrs("224.0.0.1")}},
		"sends from 127.":     {{"dev0", addrs("::ffff:127.0.0.1")}},
		"no name of a device": {was, {Device: "a/b"}, {Device: ""}, {Device: ".."}, {Device: "a b"}, {Device: strings.Repeat("x", 16)}},
	} {
		t.Run(text, func(t *testing.T) {
			set(t, g, was)
			err := g.Set(t.Context(), append(bad, Binding{"dev1", addrs(own4b)}))
			require.ErrorContains(t, err, text)
			got, err := g.Bindings(t.Context())
			require.NoError(t, err)
			require.Equal(t, []Binding{was, {"dev1", addrs(own4b)}}, got, "the others are bound, and this one as before")
		})
	}
}

func TestCleanup(t *testing.T) {
	netns := newNetNS(t, "dev0")
	nft(t, netns, "add table inet portcullis\nadd table netdev other { chain c { type filter hook ingress device dev0 priority 0; }; }", "-f", "-")
	g := open(t, netns)
	before := nft(t, netns, "", "list", "ruleset")
	set(t, g, Binding{"dev0", addrs(own4)})
	require.NotEqual(t, before, nft(t, netns, "", "list", "ruleset"))
	require.NoError(t, g.Cleanup(t.Context()))
	require.Equal(t, before, nft(t, netns, "", "list", "ruleset"), "what belongs to others stays")
	require.Zero(t, writes(t, g, func() { require.NoError(t, g.Cleanup(t.Context())) }))
	none, err := g.Bindings(t.Context())
	require.NoError(t, err)
	require.Empty(t, none)
}

// TestListing is about what an admin sees: every rule says what it is for, and what
// nft lists it loads.
func TestListing(t *testing.T) {
	netns := newNetNS(t, "veth7")
	g := open(t, netns)
	b := Binding{"veth7", addrs(own4, own6)}
	set(t, g, b)
	listing := nft(t, netns, "", "list", "table", "netdev", tableName)
	for _, r := range b.rules() {
		require.Contains(t, listing, fmt.Sprintf("comment %q", r.comment))
	}
	nft(t, netns, "flush ruleset\n"+listing, "-f", "-")
	w := newWire(t, netns, "veth7", netns, "peer0")
	marker := frame(ip4, ipv4(own4))
	for _, f := range frames {
		if f.pass && !strings.Contains(f.name, "second") || f.name == "VLAN, own" {
			require.Equal(t, f.pass, w.passes(f.frame, marker), f.name)
		}
	}
	set(t, g, b)
}

func TestErrors(t *testing.T) {
	_, err := Open(-1)
	require.ErrorContains(t, err, "-1 is no file descriptor")
	null, err := os.Open(os.DevNull)
	require.NoError(t, err)
	defer null.Close()
	_, err = Open(int(null.Fd()))
	require.ErrorIs(t, err, unix.EINVAL)

	g := open(t, newNetNS(t, "dev0"))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, g.Set(ctx, []Binding{{Device: "dev0"}}), context.Canceled)
	require.ErrorIs(t, g.Cleanup(ctx), context.Canceled)
	_, err = g.Bindings(ctx)
	require.ErrorIs(t, err, context.Canceled)
	require.Zero(t, writes(t, g, func() { _ = g.Set(ctx, []Binding{{Device: "dev0"}}) }))
}

// TestReplacementIsAtomic changes a binding over and over while the pod sends from
// the address that it has all the time and from one that it never has.
func TestReplacementIsAtomic(t *testing.T) {
	netns := newNetNS(t, "dev0")
	g := open(t, netns)
	variants := []Binding{{"dev0", addrs(own4)}, {"dev0", addrs(own4, own6)}, {"dev0", addrs(own4b, own4)}}
	set(t, g, variants[0])
	w := newWire(t, netns, "dev0", netns, "peer0")
	// Markers are sent from the own address, frames from a foreign one.
	own, foreign := tagged(frame(ip4, ipv4(own4)), markerTag), tagged(frame(ip4, ipv4(foreign4)), frameTag)
	stop, done := make(chan struct{}), make(chan uint64)
	go func() {
		sent := uint64(0)
		_ = onThread(func() error {
			for {
				select {
				case <-stop:
					return nil
				default:
				}
				if err := w.send(own, foreign); err != nil {
					return err
				}
				sent++
			}
		})
		done <- sent
	}()
	for i := range 300 {
		require.NoError(t, g.Set(t.Context(), []Binding{variants[i%len(variants)]}))
	}
	close(stop)
	sent := <-done
	require.True(t, w.passes(frame(ip4, ipv4(own4)), frame(ip4, ipv4(own4)))) // everything before has been decided
	passed, markers := w.counts()
	require.Equal(t, uint64(1), passed, "one was sent to wait for, and none from a foreign address")
	require.Equal(t, sent+1, markers)
	require.Greater(t, sent, uint64(300))
	t.Logf("%d packets during 300 changes", sent)
}

func TestChainNamesDiffer(t *testing.T) {
	names := []string{"a", "A", "a.b", "a-b", "a_b", "a@b", "a:b", "61", "dev_a", "ü", "x61"}
	var chains []string
	for _, n := range names {
		require.Regexp(t, "^[a-z][A-Za-z0-9/_.-]*$", chainName(n), "nft must be able to read it")
		chains = append(chains, chainName(n))
	}
	slices.Sort(chains)
	require.Len(t, slices.Compact(chains), len(names))
}
