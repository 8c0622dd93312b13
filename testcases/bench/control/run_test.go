package control

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/portcullis-netpol/portcullis/testcases/bench/report"
	"github.com/portcullis-netpol/portcullis/testcases/lab"
)

// TestRun measures everything at sizes that mean nothing.
func TestRun(t *testing.T) {
	lab.Require(t, lab.NFTables)
	dir := t.TempDir()
	p := plan{
		sizes:  []Size{{0, 10, 6, 20}, {300, 100, 6, 0}},
		engine: engineJob{Starts: 1, Events: 3, Budget: time.Second, Profiles: dir},
		agents: []agentPlan{{Size: Size{300, 100, 6, 0}, Churn: time.Second, Rate: 500, Turns: 2, Restart: true, Profiles: dir}},
		load:   loadPlan{Size: Size{300, 100, 6, 0}, Lives: 2},
	}
	var r report.Report
	require.NoError(t, run(t.Context(), p, Options{}, &r))
	names := map[string]*report.Table{}
	for i := range r.Tables {
		names[r.Tables[i].Name] = &r.Tables[i]
	}
	for _, want := range []string{
		"control-remote-pod-added", "control-namespace-of-pods-relabelled-into-a-set", "control-policy-created", "control-parts-300-100-6",
		"control-sent-0-10-6-20", "control-sent-300-100-6", "control-allocations-300-100-6", "control-idle", "control-start-100-6", "control-memory",
		"control-agent-start", "control-first-packet", "control-churn", "control-api", loadTable,
	} {
		require.Contains(t, names, want)
	}
	added, ok := names["control-remote-pod-added"].Point("100 policies, 6 local", 300)
	require.True(t, ok)
	require.Len(t, added.Samples, 3, "the round for warming up is not among them")
	for _, g := range slices.Concat(names["control-idle"].Goals, names["control-churn"].Goals[:1], names["control-agent-start"].Goals, names[loadTable].Goals) {
		require.True(t, g.Met(), "%s: %v", g.Text, g.Value)
	}
	for _, name := range []string{"engine-300-100-6-start.cpu", "engine-300-100-6-events.cpu", "engine-300-100-6-steady.heap", "agent-300-100-6-churn.cpu"} {
		require.FileExists(t, dir+"/"+name+".pprof")
	}
	checkLoad(t, names["control-api"])
	checkTurns(t, names["control-first-packet"])
	var text bytes.Buffer
	require.NoError(t, r.WriteText(&text))
	t.Log(text.String())
}

// checkLoad: what was computed is what was counted.
func checkLoad(t *testing.T, table *report.Table) {
	t.Helper()
	counted, ok := table.Point("counted, 100 policies, 6 local", 300)
	require.True(t, ok)
	computed, ok := table.Point("computed, 100 policies, 6 local", 300)
	require.True(t, ok)
	require.InEpsilon(t, counted.Samples[0], computed.Samples[0], 0.05)
}

func checkTurns(t *testing.T, table *report.Table) {
	t.Helper()
	for _, name := range []string{"policy created", "policy deleted", "pod relabelled, closing", "pod added", "namespace relabelled, opening"} {
		p, ok := table.Point(name, 1) // the second of two sizes
		require.True(t, ok)
		require.Len(t, p.Samples, 2)
	}
}

// TestMessagesFollowTheChange: events send what they change, whatever the size of the
// cluster, and a pass with nothing changed sends nothing.
func TestMessagesFollowTheChange(t *testing.T) {
	lab.Require(t, lab.NFTables)
	small := map[string]traffic{}
	for _, s := range []Size{{400, 100, 6, 0}, {2200, 220, 12, 0}, {4400, 1000, 12, 0}} {
		r, err := runEngine(t.Context(), engineJob{Size: s, Starts: 1, Events: 1})
		require.NoError(t, err)
		require.Zero(t, r.Idle.Messages)
		require.Zero(t, r.Idle.Batches)
		seen := map[string]bool{}
		for _, e := range r.Events {
			is := e.Sent
			is.Sending, is.Waiting = 0, 0
			requireProportional(t, newCluster(s), e.Name, is, small)
			seen[bare(e.Name)] = true
		}
		for _, name := range []string{"remote pod added", "remote pod relabelled out of it", "local pod deleted", "policy created", "namespace of pods relabelled into a set"} {
			require.True(t, seen[name], "%s: %s", s, name)
		}
		require.Equal(t, s.Pods > 2000, seen["policy over pods created"])
	}
}

// requireProportional checks what an event has sent, against what it sent in the
// smallest cluster where that has to be the same.
func requireProportional(t *testing.T, c *cluster, name string, is traffic, small map[string]traffic) {
	t.Helper()
	about := c.String() + ": " + name
	same := is
	switch {
	case strings.HasPrefix(name, "policy for other nodes' pods"):
		require.Zero(t, is, about)
	case strings.HasPrefix(name, "policy over"), strings.HasPrefix(name, "namespace of"):
		// Both addresses of so many pods, some hundred in a message.
		changed := 2 * c.big
		if strings.HasPrefix(name, "policy") {
			changed = 2 * c.widePods()
		}
		if strings.HasSuffix(name, "deleted") {
			changed = 0 // the set goes as a whole
		}
		require.InDelta(t, changed, is.Elements, 80, about)
		require.Less(t, is.Messages, 20+changed/500, about)
		return
	case strings.HasPrefix(name, "policy"):
		same.Elements, same.Bytes = 0, 0 // the pods of a namespace are more or less
		require.Less(t, is.Elements, 2*2*perNamespace, about)
	case strings.HasPrefix(name, "remote pod"):
		require.Equal(t, 1, is.Batches, about)
		require.Equal(t, 2, is.Elements, about) // one of each family
	}
	if _, ok := small[name]; !ok {
		small[name] = same
	}
	require.Equal(t, small[name], same, about)
}
