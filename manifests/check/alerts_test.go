package check

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	monitoringv1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/template"
	"github.com/stretchr/testify/require"
	"sigs.k8s.io/yaml"
)

var promQL = parser.NewParser(parser.Options{})

// alerts are the rules that are installed.
func alerts(t *testing.T) []monitoringv1.Rule {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(chartDir, "files", "prometheus", "rules.yaml"))
	require.NoError(t, err)
	groups := object[*monitoringv1.PrometheusRule](t, decode(t, string(text))).Spec.Groups
	require.Len(t, groups, 1)
	return groups[0].Rules
}

// TestRules has Prometheus itself judge the rules, as it does when it loads a file.
func TestRules(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(chartDir, "files", "prometheus", "rules.yaml"))
	require.NoError(t, err)
	spec, err := yaml.Marshal(object[*monitoringv1.PrometheusRule](t, decode(t, string(text))).Spec)
	require.NoError(t, err)
	_, errs := rulefmt.Parse(spec, false, model.LegacyValidation, promQL, slog.New(slog.DiscardHandler))
	require.Empty(t, errs)
	names := map[string]bool{}
	for _, r := range alerts(t) {
		require.NotContains(t, names, r.Alert)
		names[r.Alert] = true
		require.Regexp(t, "^Portcullis[A-Z]", r.Alert)
		require.Contains(t, []string{"critical", "warning", "info"}, r.Labels["severity"], r.Alert)
		require.Equal(t, []string{"description", "runbook", "summary"}, slices.Sorted(maps.Keys(r.Annotations)), r.Alert)
	}
}

// healthy are the series of two agents that have nothing to complain of, in the notation
// of promtool: a value a minute.
var healthy = map[string]string{
	`up`:               "1x90",
	`portcullis_ready`: "1x90", `portcullis_healthy`: "1x90",
	`portcullis_queue_age_seconds`:                           "0 0 0.01 0 40 0x85",
	`portcullis_quarantined_pods`:                            "0 1 2 0 0x20 1x10 0x56",
	`portcullis_commit_failures_total{operation="apply"}`:    "2x20 3x70",
	`portcullis_commit_failures_total{operation="takeover"}`: "0x90",
	`portcullis_repairs_total{what="table"}`:                 "7x90",
	`portcullis_log_lost_packets_total`:                      "0x20 900x70",
	`portcullis_policy_problems{field="spec.podSelector"}`:   "0x90",
	`portcullis_sync_duration_seconds_bucket{le="0.0001"}`:   "0x90",
	`portcullis_sync_duration_seconds_bucket{le="0.95"}`:     "0+600x90",
	`portcullis_sync_duration_seconds_bucket{le="2.4"}`:      "0+600x90",
	`portcullis_sync_duration_seconds_bucket{le="+Inf"}`:     "0+600x90",
}

// daemons are what kube-state-metrics says; they are there once.
var daemons = map[string]string{
	`kube_daemonset_status_desired_number_scheduled`: "2x90",
	`kube_daemonset_status_number_available`:         "2 1 0 2x87",
}

// TestAlerts has each alert, and no other, fire on series of one node that is in trouble
// from the 30th minute on, and none on healthy ones, nor when the trouble is soon over.
func TestAlerts(t *testing.T) {
	trouble := []struct {
		alert  string
		series map[string]string // of node-b; the rest is healthy
		after  int               // minutes of trouble until it fires
		labels string            // some of the alert's
	}{
		{"PortcullisAgentDown", map[string]string{"up": "1x29 0x60"}, 10, `node="node-b"`},
		{"PortcullisAgentMissing", map[string]string{"kube_daemonset_status_number_available": "2x29 1x60"}, 15, `daemonset="portcullis"`},
		{"PortcullisAgentNotReady", map[string]string{"portcullis_ready": "1x29 0x60"}, 10, `node="node-b"`},
		{"PortcullisAgentUnhealthy", map[string]string{"portcullis_healthy": "1x29 0x60"}, 5, `node="node-b"`},
		{"PortcullisRulesNotWritten", map[string]string{`portcullis_commit_failures_total{operation="apply"}`: "0x29 1+1x60"}, 10, `node="node-b"`},
		{"PortcullisRulesChangedByOthers", map[string]string{`portcullis_repairs_total{what="table"}`: "7x29 8x60"}, 0, `node="node-b", what="table"`},
		{"PortcullisChangesWait", map[string]string{"portcullis_queue_age_seconds": "0x29 31+60x60"}, 5, `node="node-b"`},
		{"PortcullisSyncSlow", map[string]string{
			`portcullis_sync_duration_seconds_bucket{le="0.95"}`: "0+600x29 17400+500x60"}, 16, `node="node-b"`},
		{"PortcullisPolicyProblems", map[string]string{`portcullis_policy_problems{field="spec.podSelector"}`: "0x29 1x60"}, 5, `field="spec.podSelector"`},
		{"PortcullisPodsQuarantined", map[string]string{"portcullis_quarantined_pods": "0x29 3x60"}, 30, `node="node-b"`},
		{"PortcullisLogLost", map[string]string{"portcullis_log_lost_packets_total": "0x29 1+1000x60"}, 10, `node="node-b"`},
	}
	rules := alerts(t)
	require.Empty(t, firing(t, rules, storageOf(t, nil)), "healthy")
	seen := map[string]bool{"PortcullisAbsent": true}
	for _, c := range trouble {
		seen[c.alert] = true
		fired := firing(t, rules, storageOf(t, c.series))
		require.Equal(t, []string{c.alert}, slices.Sorted(maps.Keys(fired)), c.alert)
		require.InDelta(t, 30+c.after, fired[c.alert].minute, 1, c.alert)
		for want := range strings.SplitSeq(c.labels, ", ") {
			require.Contains(t, fired[c.alert].labels.String(), want, c.alert)
		}
	}
	gone := firing(t, rules, series{})
	require.Equal(t, []string{"PortcullisAbsent"}, slices.Sorted(maps.Keys(gone)))
	for _, r := range rules {
		require.True(t, seen[r.Alert], "%s: nothing makes it fire", r.Alert)
	}
}

// fired is an alert's first moment, and the labels of its series.
type fired struct {
	minute int
	labels labelSet
}

// firing evaluates the rules every minute, as Prometheus does: an alert fires when its
// expression has been true for long enough. It returns the first of each.
func firing(t *testing.T, rules []monitoringv1.Rule, s series) map[string]fired {
	t.Helper()
	engine := promql.NewEngine(promql.EngineOpts{MaxSamples: 1e6, Timeout: time.Minute, Parser: promQL, LookbackDelta: 5 * time.Minute})
	out := map[string]fired{}
	for _, r := range rules {
		since := map[string]int{}
		for minute := range minutes {
			q, err := engine.NewInstantQuery(t.Context(), s, nil, r.Expr.String(), start.Add(time.Duration(minute)*time.Minute))
			require.NoError(t, err, r.Alert)
			v, err := q.Exec(t.Context()).Vector()
			require.NoError(t, err, r.Alert)
			now := map[string]int{}
			for _, sample := range v {
				key := sample.Metric.String()
				now[key] = minute
				if at, ok := since[key]; ok {
					now[key] = at
				}
				if _, ok := out[r.Alert]; !ok && minute-now[key] >= wait(t, r) {
					out[r.Alert] = fired{minute, sample.Metric}
					require.NoError(t, readable(t.Context(), r, sample), r.Alert)
				}
			}
			since = now
		}
	}
	return out
}

// wait is how many minutes an expression has to be true.
func wait(t *testing.T, r monitoringv1.Rule) int {
	t.Helper()
	if r.For == nil {
		return 0
	}
	d, err := model.ParseDuration(string(*r.For))
	require.NoError(t, err)
	return int(time.Duration(d) / time.Minute)
}

// readable fills in the annotations of an alert. No label that they name may be missing.
func readable(ctx context.Context, r monitoringv1.Rule, s promql.Sample) error {
	for name, text := range r.Annotations {
		data := template.AlertTemplateData(s.Metric.Map(), nil, "", s)
		e := template.NewTemplateExpander(ctx, "{{$labels := .Labels}}{{$value := .Value}}"+text, name, data, 0, nil, nil, []string{"missingkey=error"})
		full, err := e.Expand()
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if strings.Contains(full, "no value") {
			return fmt.Errorf("%s: %s", name, full)
		}
	}
	return nil
}

// storageOf has the series of two nodes, and those of one of them as they are given.
func storageOf(t *testing.T, trouble map[string]string) series {
	t.Helper()
	var out series
	used := 0
	add := func(all map[string]string, labels string, with map[string]string) {
		for _, name := range slices.SortedFunc(maps.Keys(all), cmp.Compare[string]) {
			values := all[name]
			if v, ok := with[name]; ok {
				values = v
				used++
			}
			metric, own, _ := strings.Cut(strings.TrimSuffix(name, "}"), "{")
			out = append(out, parseSeries(t, metric+"{"+strings.Trim(own+","+labels, ",")+"} "+values))
		}
	}
	const target = `job="portcullis",namespace="portcullis",container="agent",endpoint="metrics",service="portcullis-metrics"`
	add(healthy, target+`,node="node-a",instance="10.0.0.1:10248",pod="portcullis-a"`, nil)
	add(healthy, target+`,node="node-b",instance="10.0.0.2:10248",pod="portcullis-b"`, trouble)
	add(daemons, `namespace="portcullis",daemonset="portcullis",job="kube-state-metrics"`, trouble)
	require.Equal(t, len(trouble), used, "series that are never healthy")
	return out
}
