package agent

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"github.com/portcullis-netpol/portcullis/nft"
	"github.com/portcullis-netpol/portcullis/policy/ir"
)

// fakeTable is a table whose counters a test sets.
type fakeTable struct {
	counters  nft.Counters
	err       error
	takeovers int
	reads     int
}

func (f *fakeTable) Table() string         { return "portcullis-a" }
func (f *fakeTable) Takeovers() int        { return f.takeovers }
func (f *fakeTable) Size() (int, int, int) { return 7, 8, 9 }
func (f *fakeTable) Counters(context.Context) (nft.Counters, error) {
	f.reads++
	return f.counters, f.err
}

// TestTally counts on when a table, an address or a pod begins anew, reads no more often
// than once in a while, and keeps what it has if it cannot read.
func TestTally(t *testing.T) {
	l := startLoop(t)
	table := &fakeTable{takeovers: 1}
	web, db := netip.MustParseAddr(webAddr), netip.MustParseAddr(dbAddr)
	inLoop(t, l, func(l *loop) bool {
		l.counted, l.local = table, map[netip.Addr]string{web: "shop/web", db: "shop/db"}
		return true
	})
	l.queue.put(batch{synced: true})
	l.rules.answer(t, "takeover", nil)
	n := newTally(visits{l.visits, nil}, l.clock)
	is := func(c nft.Counters, lines string) {
		t.Helper()
		table.counters = c
		l.clock.Step(tallyFor)
		require.NoError(t, testutil.CollectAndCompare(n, strings.NewReader(lines), "portcullis_denied_packets_total",
			"portcullis_audited_packets_total", "portcullis_cut_packets_total", "portcullis_table_elements"))
	}
	lines := func(denied, audited, cut string) string {
		return "# HELP portcullis_audited_packets_total Packets that policies in audit mode would deny.\n# TYPE portcullis_audited_packets_total counter\n" +
			`portcullis_audited_packets_total{direction="egress"} ` + audited + "\n" + `portcullis_audited_packets_total{direction="ingress"} 0` + "\n" +
			"# HELP portcullis_cut_packets_total Packets of connections that were cut a moment ago.\n# TYPE portcullis_cut_packets_total counter\n" +
			"portcullis_cut_packets_total " + cut + "\n" +
			"# HELP portcullis_denied_packets_total Packets that no policy allows, of this node's pods that policies isolate, by the pod's namespace.\n# TYPE portcullis_denied_packets_total counter\n" +
			`portcullis_denied_packets_total{direction="ingress",namespace="shop"} ` + denied + "\n" +
			"# HELP portcullis_table_elements Elements of the sets and maps of the table in force.\n# TYPE portcullis_table_elements gauge\nportcullis_table_elements 9\n"
	}
	ingress := func(n uint64) (c [2]uint64) { c[ir.Ingress] = n; return c }
	egress := func(n uint64) (c [2]uint64) { c[ir.Egress] = n; return c }
	denied := func(w, d uint64) map[netip.Addr][2]uint64 {
		return map[netip.Addr][2]uint64{web: ingress(w), db: ingress(d)}
	}
	is(nft.Counters{Denied: denied(10, 1), Audited: egress(3), Cut: 5}, lines("11", "3", "5"))
	is(nft.Counters{Denied: denied(12, 1), Audited: egress(4), Cut: 5}, lines("13", "4", "5"))
	table.takeovers++ // all begin anew, and some have gone further already
	is(nft.Counters{Denied: denied(20, 1), Audited: egress(4), Cut: 1}, lines("34", "8", "6"))
	is(nft.Counters{Denied: map[netip.Addr][2]uint64{db: ingress(1)}, Audited: egress(4), Cut: 1}, lines("34", "8", "6")) // web has gone
	inLoop(t, l, func(l *loop) bool { l.local[web] = "shop/other"; return true })                                         // and another one came
	is(nft.Counters{Denied: denied(2, 1), Audited: egress(4), Cut: 1}, lines("36", "8", "6"))
	inLoop(t, l, func(l *loop) bool { l.local[web] = "shop/third"; return true })
	is(nft.Counters{Denied: denied(3, 1), Audited: egress(4), Cut: 1}, lines("39", "8", "6"))
	is(nft.Counters{Denied: denied(2, 1), Audited: egress(4), Cut: 1}, lines("41", "8", "6")) // was away for a moment
	table.err = errors.New("no")
	is(nft.Counters{}, lines("41", "8", "6"))
	reads := table.reads
	n.read(t.Context(), func(*totals) {})
	require.Equal(t, reads, table.reads)
}
