package nft

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// watched counts the calls of a Watch that runs until the test ends.
type watched struct {
	t     *testing.T
	calls chan struct{} // one for each call
	// goOn lets calls return that were held up.
	goOn func()
	stop func()
}

// watchKernel returns when k is being watched. If hold is set, the first call does
// not return before goOn is called.
func watchKernel(t *testing.T, k Kernel, hold bool) *watched {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	held, free := context.WithCancel(context.Background())
	w := &watched{t: t, calls: make(chan struct{}, 1000), goOn: free}
	ready, done := make(chan struct{}), make(chan error, 1)
	go func() {
		done <- k.Watch(ctx, func() { close(ready) }, func() {
			w.calls <- struct{}{}
			if hold {
				<-held.Done()
			}
		})
	}()
	w.stop = func() {
		free()
		cancel()
		require.NoError(t, <-done)
	}
	select {
	case <-ready:
	case err := <-done:
		t.Fatalf("watch ended: %v", err)
	}
	return w
}

// called waits for one call.
func (w *watched) called(why string) {
	w.t.Helper()
	select {
	case <-w.calls:
	case <-time.After(10 * time.Second):
		w.t.Fatalf("not called: %s", why)
	}
}

// fence makes a change that has to be told. Notifications come in order: if that
// is the next one to be told, nothing in front of it was.
func (w *watched) fence(ns int, why string) {
	w.t.Helper()
	runNFT(w.t, ns, "", "add", "table", "inet", "portcullis-fence")
	w.called(why)
	require.Empty(w.t, w.calls, why)
	runNFT(w.t, ns, "", "delete", "table", "inet", "portcullis-fence")
	w.called(why)
}

// TestWatchTellsWhatOthersDo has every way to change a table of ours, and changes
// that are none of our business.
func TestWatchTellsWhatOthersDo(t *testing.T) {
	ns := newNetNS(t)
	k := openTestKernel(t, ns)
	e := NewEnforcer(Config{Midstream: true, PodCIDRs: podBlocks}, k)
	require.NoError(t, e.Takeover(t.Context(), shop()))
	w := watchKernel(t, k, false)
	defer w.stop()
	theirs := "inet " + e.Table()
	for _, tc := range []struct {
		change string
		told   bool
	}{
		{"add table ip portcullis-a", false},
		{"add table inet other", false},
		{"add chain inet other c; add set inet other s { type ipv4_addr; }; add element inet other s { 10.0.0.1 }; add rule inet other c accept", false},
		{"flush chain inet other c", false},
		{"delete table inet other", false},
		{"add table bridge portcullis-b { chain c { type filter hook forward priority 0; }; }", false},
		{"add element T eg4 { 10.244.1.77 : accept }", true},
		{"delete element T eg4 { 10.244.1.77 }", true},
		{"delete element T in4 { 10.244.1.3 }", true},
		{"insert rule T egress accept", true},
		{"flush chain T ingress", true},
		{"add chain T extra", true},
		{"add set T extra { type ipv4_addr; }", true},
		{"delete chain T extra", true},
		{"add counter T c", true},
		{"add table inet other; delete set T extra; add table inet another", true},
		{"delete table T", true},
		{"add table inet portcullis-x", true},
		{"flush ruleset", true},
	} {
		runNFT(t, ns, strings.ReplaceAll(tc.change, "T", theirs), "-f", "-")
		if tc.told {
			w.called(tc.change)
			for len(w.calls) > 0 { // one change may be told in pieces
				<-w.calls
			}
		}
		if !tc.told {
			w.fence(ns, tc.change)
		}
	}
}

// TestWatchIsSilentAboutOurselves: whatever an enforcer does is not told, even
// where it would not fit the buffer, after errors, and while it is being read.
func TestWatchIsSilentAboutOurselves(t *testing.T) {
	ctx := t.Context()
	ns := newNetNS(t)
	k, err := openKernel(ns, 212992)
	require.NoError(t, err)
	defer func() { require.NoError(t, k.Close()) }()
	w := watchKernel(t, k, true)
	defer w.stop()
	runNFT(t, ns, "", "add", "table", "inet", "portcullis-fence")
	w.called("and now nobody reads")
	runNFT(t, ns, "", "delete", "table", "inet", "portcullis-fence")
	e := NewEnforcer(Config{Midstream: true, PodCIDRs: podBlocks}, k)
	require.NoError(t, e.Takeover(ctx, bigState(50, 20_000, 10)))
	require.NoError(t, e.Forbid(ctx, flows(500), time.Hour))
	require.NoError(t, e.Takeover(ctx, shop()))
	c, to := join(t)
	require.NoError(t, applyAll(ctx, e, c))
	require.ErrorIs(t, k.Send(ctx, Batch{e.Table(), []Op{DelSet{"none"}}}), unix.ENOENT)
	require.NoError(t, e.Takeover(ctx, to), "through another socket")
	require.NoError(t, e.Forbid(ctx, flows(3), time.Millisecond))
	require.NoError(t, Cleanup(ctx, k))
	w.goOn()
	w.called("what was done before")
	w.fence(ns, "only we were at work")
}

// TestWatchTellsOfLostNotifications overruns the buffer with changes of others'
// tables while nobody reads.
func TestWatchTellsOfLostNotifications(t *testing.T) {
	ns := newNetNS(t)
	k, err := openKernel(ns, 1)
	require.NoError(t, err)
	defer func() { require.NoError(t, k.Close()) }()
	w := watchKernel(t, k, true)
	defer w.stop()
	runNFT(t, ns, "", "add", "table", "inet", "portcullis-first")
	w.called("the table")
	var text strings.Builder
	fmt.Fprint(&text, "add table inet other; add set inet other s { type ipv4_addr; }; add element inet other s { 10.0.0.0")
	for i := range 5000 {
		fmt.Fprintf(&text, ", 10.1.%d.%d", i/256, i%256)
	}
	runNFT(t, ns, text.String()+" }", "-f", "-")
	w.goOn()
	w.called("notifications were lost")
	w.fence(ns, "and it goes on")
}

// TestFakeWatch shows that a Fake tells what the kernel tells.
func TestFakeWatch(t *testing.T) {
	e, f := takenOver(t, shop())
	w := watchKernel(t, f, false)
	require.NoError(t, e.Takeover(t.Context(), shop()))
	require.NoError(t, f.Disturb(Batch{"other", []Op{AddTable{}}}))
	require.ErrorIs(t, f.Disturb(Batch{e.Table(), []Op{DelSet{"none"}}}), ErrRefused)
	require.NoError(t, f.Disturb(Batch{e.Table(), []Op{FlushChain{chainIngress}}}))
	w.called("a chain of ours")
	d, err := e.Verify(t.Context(), shop())
	require.NoError(t, err)
	require.NotEmpty(t, d)
	require.NoError(t, f.Disturb(Batch{}))
	w.called("something was lost")
	w.stop()
	require.Empty(t, w.calls)
	require.NoError(t, f.Disturb(Batch{}))
	require.Empty(t, w.calls)
}
