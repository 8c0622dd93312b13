package datapath

import (
	"context"
	"errors"
	"math"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"

	"github.com/portcullis-netpol/portcullis/policy/ir"
	"github.com/portcullis-netpol/portcullis/testcases/bench/report"
	"github.com/portcullis-netpol/portcullis/testcases/lab"
)

func TestMain(m *testing.M) { lab.Main(m, lab.NFTables, lab.BridgeNetfilter) }

var tiny = scale{
	sizes: []int{1, 3}, chains: []int{1, 3}, peers: []int{2, 1500}, builds: 1, rounds: 1,
	fewer: []int{1, 3}, fewerBuilds: 1, fewerRounds: 1, loads: 1,
	dose: dose{packets: 256, connections: 5, most: time.Second, stream: time.Millisecond},
}

// TestRun measures everything once over. Every sample counts packets at their
// destination, so that it also shows that the rules do what they are measured for.
func TestRun(t *testing.T) {
	lab.Require(t, lab.NFTables, lab.BridgeNetfilter)
	var r report.Report
	require.NoError(t, tiny.run(t.Context(), report.Options{}, &r))
	var names []string
	for _, table := range r.Tables {
		names = append(names, table.Name)
		want := []string{noRules, onlyTrack, layout, one, full}
		switch table.Name {
		case "peers-routed-v4":
			want = want[1:]
		case "parts-routed-v4", "parts-routed-v6":
			require.Len(t, table.Series, 7)
			continue
		case loadTable:
			want = []string{loading, onePolicy, lessPolicy}
		}
		var series []string
		for _, s := range table.Series {
			series = append(series, s.Name)
			points := 2
			if table.XName == "" || strings.HasPrefix(table.Name, "stream-") {
				points = 1
			}
			require.Len(t, s.Points, points, "%s of %s", table.Name, s.Name)
			for _, p := range s.Points {
				require.NotEmpty(t, p.Samples)
				for _, v := range p.Samples {
					require.Positive(t, v)
				}
			}
		}
		require.ElementsMatch(t, want, series, table.Name)
		require.NotEmpty(t, table.Goals, table.Name)
		for _, g := range table.Goals {
			require.False(t, math.IsNaN(g.Value), "%s: %s", table.Name, g.Text)
		}
	}
	var want []string
	for _, p := range []string{"routed-v4", "routed-v6", "bridged-v4", "bridged-v6"} {
		want = append(want, "new-"+p+"-worst", "new-"+p+"-best", "new-"+p+"-denied", "connect-"+p, "established-"+p, "stream-"+p)
	}
	require.Equal(t, append(want, "peers-routed-v4", "parts-routed-v4", "parts-routed-v6", loadTable), names)
}

// TestNothingWanted: what is not asked for costs nothing, not even a site.
func TestNothingWanted(t *testing.T) {
	var r report.Report
	o := report.Options{Only: regexp.MustCompile("no such table"), Quick: true, Progress: func(line string) { t.Error(line) }}
	require.NoError(t, Run(t.Context(), o, &r))
	require.Empty(t, r.Tables)
}

// TestInterrupted: a run ends soon after its context, and tells so.
func TestInterrupted(t *testing.T) {
	lab.Require(t, lab.NFTables)
	for _, when := range []string{"make", "round 0"} {
		ctx, cancel := context.WithCancel(t.Context())
		var r report.Report
		var after []string
		o := report.Options{Only: regexp.MustCompile("^new-routed-v4-worst$"), Progress: func(line string) {
			if ctx.Err() != nil {
				after = append(after, line)
			}
			if strings.Contains(line, when) {
				cancel()
			}
		}}
		require.ErrorIs(t, tiny.run(ctx, o, &r), context.Canceled)
		require.Empty(t, r.Tables)
		require.Empty(t, after, "what it does when it should have ended")
		cancel()
	}
}

func newTestSite(t *testing.T, p place, load func(*site) error) *site {
	t.Helper()
	s, err := newSite(p)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	require.NoError(t, load(s))
	return s
}

// TestWrongRules: packets that do not go where they should are no sample.
func TestWrongRules(t *testing.T) {
	lab.Require(t, lab.NFTables)
	s := newTestSite(t, place{}, fullModel(3, 0).enforce(t.Context()))
	m := measurer{clock: threadTime, dose: tiny.dose}
	_, err := m.newFlows(s, deniedPort, true)
	require.ErrorIs(t, err, errDisturbed)
	_, err = m.newFlows(s, allowedPort, false)
	require.ErrorIs(t, err, errDisturbed)
	_, err = m.newFlows(s, policyPort(1, 3), false)
	require.NoError(t, err, "the policy in the middle is for its own peers")
}

// TestFlows: what claims to be new or known is.
func TestFlows(t *testing.T) {
	lab.Require(t, lab.NFTables, lab.BridgeNetfilter)
	for _, p := range []place{{lab.Routed, false}, {lab.Bridged, true}} {
		s := newTestSite(t, p, tracking)
		m := measurer{clock: threadTime, dose: tiny.dose}
		_, err := m.newFlows(s, allowedPort, true)
		require.NoError(t, err)
		flows := s.countFlows(t)
		require.Equal(t, warm+tiny.dose.packets, flows, "%s: each packet is a flow", p)
		_, err = m.knownFlow(s)
		require.NoError(t, err)
		require.Equal(t, 1, s.countFlows(t), "%s: all packets are one flow", p)
		_, err = m.connections(s)
		require.NoError(t, err)
		require.Equal(t, warmCalls+tiny.dose.connections, s.countFlows(t), p)
	}
}

func (s *site) countFlows(t *testing.T) int {
	t.Helper()
	flows, err := s.flows.ConntrackTableList(netlink.ConntrackTable, netlink.InetFamily(domain(s.of(clientAddrs))))
	require.NoError(t, err)
	n := 0
	for _, f := range flows {
		if f.Forward.SrcIP.Equal(s.of(clientAddrs).AsSlice()) {
			n++
		}
	}
	return n
}

// TestSteady: a disturbed sample is taken again, but not for ever, and another
// error ends it.
func TestSteady(t *testing.T) {
	calls := 0
	v, err := steady(func() (float64, error) {
		if calls++; calls < 3 {
			return 0, errDisturbed
		}
		return 7, nil
	})
	require.NoError(t, err)
	require.Equal(t, 7.0, v)
	calls = 0
	_, err = steady(func() (float64, error) { calls++; return 0, errDisturbed })
	require.ErrorIs(t, err, errDisturbed)
	require.Equal(t, 5, calls)
	calls = 0
	other := errors.New("other")
	_, err = steady(func() (float64, error) { calls++; return 0, other })
	require.ErrorIs(t, err, other)
	require.Equal(t, 1, calls)
}

// TestClock: work of the thread counts, waiting does not.
func TestClock(t *testing.T) {
	require.NoError(t, pinned(func() error {
		spin := func() error {
			for end := time.Now().Add(5 * time.Millisecond); time.Now().Before(end); {
			}
			return nil
		}
		d, err := threadTime.measure(spin)
		require.NoError(t, err)
		require.Positive(t, d)
		c, err := fittingClock(spin)
		require.NoError(t, err)
		require.Equal(t, threadTime, c)
		c, err = fittingClock(func() error { time.Sleep(time.Millisecond); return nil })
		require.NoError(t, err)
		require.Equal(t, wallTime, c)
		return nil
	}))
}

// TestWorld: the compiled policies are as many and as distinct as they are said to be.
func TestWorld(t *testing.T) {
	for _, c := range []struct {
		w           world
		rules, sets int
		peers       int // of the set that the client's last policy has
	}{
		{oneDirection(1, 0), 2, 1, 4},
		{oneDirection(5, 0), 10, 5, 4},
		{fullModel(5, 0), 10, 6, 4},
		{oneDirection(maxDistinct+1, 0), 2 * (maxDistinct + 1), 1, 2},
		{oneDirection(1, 100), 2, 1, 104},
	} {
		state, err := c.w.state(place{})
		require.NoError(t, err)
		end, ok := state.Endpoint(serverAddrs[0])
		require.True(t, ok)
		group, ok := state.Group(end.Ingress)
		require.True(t, ok)
		require.Len(t, group.Steps[0].Rules, c.rules)
		require.Len(t, state.PeerSets, c.sets)
		for _, r := range group.Steps[0].Rules {
			if r.First == allowedPort && r.Protocol == ir.UDP {
				set, ok := state.PeerSet(r.Peers.Set)
				require.True(t, ok)
				require.Len(t, set.Addrs, c.peers)
			}
		}
	}
}

// TestFrame: the packets are what they should be, byte by byte.
func TestFrame(t *testing.T) {
	mac := []byte{2, 0, 0, 0, 0, 1}
	data, udp := frame(target{from: mac, to: mac, src: clientAddrs[0], dst: serverAddrs[0]})
	require.Len(t, data, 14+20+8+payload)
	require.Equal(t, 34, udp)
	require.Zero(t, checksum(data[14:34]), "the header with its checksum")
	data, udp = frame(target{from: mac, to: mac, src: clientAddrs[1], dst: serverAddrs[1]})
	require.Len(t, data, 14+40+8+payload)
	require.Equal(t, 54, udp)
	s := &sender{port: lastPort - 1}
	require.Equal(t, uint16(lastPort), s.next())
	require.Equal(t, uint16(firstPort), s.next())
}
