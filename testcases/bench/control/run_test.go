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
		"control-agent-start", "control-first-packet", "control-churn", "control-api",
	} {
		require.Contains(t, names, want)
	}
	added, ok := names["control-remote-pod-added"].Point("100 policies, 6 local", 300)
	require.True(t, ok)
	require.Len(t, added.Samples, 3, "the round for warming up is not among them")
	for _, g := range slices.Concat(names["control-idle"].Goals, names["control-churn"].Goals[:1], names["control-agent-start"].Goals) {
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
	sent := map[Size]map[string]traffic{}
	small, large := Size{400, 100, 6, 0}, Size{2200, 220, 12, 0}
	for _, s := range []Size{small, large} {
		r, err := runEngine(t.Context(), engineJob{Size: s, Starts: 1, Events: 1})
		require.NoError(t, err)
		require.Zero(t, r.Idle.Messages)
		require.Zero(t, r.Idle.Batches)
		sent[s] = map[string]traffic{}
		for _, e := range r.Events {
			x := e.Sent
			x.Sending, x.Waiting = 0, 0
			sent[s][e.Name] = x
		}
	}
	for name, is := range sent[large] {
		switch {
		case strings.HasPrefix(name, "policy for other nodes' pods"):
			require.Zero(t, is.Messages, name)
		case strings.Contains(name, "remote pod"):
			// One address of each family, in one or more sets.
			require.Equal(t, sent[small][name], is, name)
			require.Equal(t, is.Elements, is.Messages, name)
			require.Equal(t, 1, is.Batches, name)
		case name == "namespace of 1000 pods relabelled into a set", name == "namespace of 1000 pods relabelled out of it":
			require.Equal(t, 2*1000, is.Elements, name)
			require.Less(t, is.Messages, 10, name)
		}
	}
	require.Contains(t, sent[large], "namespace of 1000 pods relabelled into a set")
	require.Less(t, sent[large]["policy created"].Messages, 60)
}
