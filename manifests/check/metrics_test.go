package check

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/stretchr/testify/require"
)

// metric is what an agent exports under a name.
type metric struct {
	kind   dto.MetricType
	labels []string
}

// later are metrics of which an agent has no series before something has happened, so that
// one without traffic does not show them. Their names are looked up in its source.
var later = map[string]metric{
	"portcullis_denied_packets_total": {dto.MetricType_COUNTER, []string{"direction", "namespace"}},
	"portcullis_obstacle":             {dto.MetricType_GAUGE, []string{"topic", "severity"}},
	"portcullis_policy_problems":      {dto.MetricType_GAUGE, []string{"field"}},
}

// ofTarget are labels that Prometheus puts on all series of an agent.
var ofTarget = []string{"job", "instance", "node", "namespace", "pod"}

// expressions are all queries of the rules and of the dashboard, by where they are.
func expressions(t *testing.T) map[string]string {
	t.Helper()
	out := map[string]string{}
	for _, r := range alerts(t) {
		out["alert "+r.Alert] = r.Expr.String()
	}
	for _, p := range readDashboard(t).Panels {
		for _, q := range p.Targets {
			out["panel "+p.Title+" "+q.RefID] = strings.NewReplacer("$__rate_interval", "5m", "$node", ".*").Replace(q.Expr)
		}
	}
	return out
}

// TestMetricsExist reads the metrics of a real agent, and requires that all that the rules
// and the dashboard ask for are there: names, labels, and counters where rates are taken.
func TestMetricsExist(t *testing.T) {
	known := scrape(t)
	for name, m := range later {
		_, ok := known[name]
		require.False(t, ok, "%s: an agent shows it at once", name)
		require.True(t, inSource(t, name), "%s is not in the agent's source", name)
		known[name] = m
	}
	for where, text := range expressions(t) {
		e, err := promQL.ParseExpr(text)
		require.NoError(t, err, where)
		require.NoError(t, fits(e, known), "%s: %s", where, text)
	}
}

// fits says what of an expression asks for what no agent has.
func fits(e parser.Expr, known map[string]metric) error {
	var problem error
	parser.Inspect(e, func(node parser.Node, path []parser.Node) error {
		if problem != nil {
			return problem
		}
		switch n := node.(type) {
		case *parser.VectorSelector:
			problem = selects(n, path, known)
		case *parser.AggregateExpr:
			problem = groups(n, known)
		}
		return problem
	})
	return problem
}

// elsewhere says whether a metric is not the agent's own.
func elsewhere(name string) bool { return name == "up" || strings.HasPrefix(name, "kube_") }

// family finds the metric that a series belongs to.
func family(name string, known map[string]metric) (metric, bool) {
	if m, ok := known[name]; ok {
		return m, true
	}
	m, ok := known[strings.TrimSuffix(name, "_bucket")]
	return metric{m.kind, append(slices.Clone(m.labels), "le")}, ok && m.kind == dto.MetricType_HISTOGRAM
}

func selects(n *parser.VectorSelector, path []parser.Node, known map[string]metric) error {
	if elsewhere(n.Name) {
		return nil
	}
	m, ok := family(n.Name, known)
	if !ok {
		return fmt.Errorf("no agent has the metric %q", n.Name)
	}
	for _, l := range n.LabelMatchers {
		if l.Name != model.MetricNameLabel && !slices.Contains(append(m.labels, ofTarget...), l.Name) {
			return fmt.Errorf("%s has no label %s", n.Name, l.Name)
		}
	}
	rate := false
	for _, p := range path {
		if c, ok := p.(*parser.Call); ok && (c.Func.Name == "rate" || c.Func.Name == "increase") {
			rate = true
		}
	}
	if counts := m.kind == dto.MetricType_COUNTER || m.kind == dto.MetricType_HISTOGRAM; counts != rate {
		return fmt.Errorf("%s is a %s", n.Name, strings.ToLower(m.kind.String()))
	}
	return nil
}

// groups checks the labels by which, or without which, series are added up.
func groups(n *parser.AggregateExpr, known map[string]metric) error {
	have := slices.Clone(ofTarget)
	parser.Inspect(n.Expr, func(node parser.Node, _ []parser.Node) error {
		if v, ok := node.(*parser.VectorSelector); ok {
			m, _ := family(v.Name, known)
			have = append(have, m.labels...)
			if elsewhere(v.Name) {
				have = append(have, n.Grouping...)
			}
		}
		return nil
	})
	for _, l := range n.Grouping {
		if !slices.Contains(have, l) {
			return fmt.Errorf("nothing in %s has a label %s", n.Expr, l)
		}
	}
	return nil
}

// TestMetricsThatDoNotFit shows that the check finds what is wrong.
func TestMetricsThatDoNotFit(t *testing.T) {
	known := map[string]metric{
		"portcullis_pods":                  {kind: dto.MetricType_GAUGE},
		"portcullis_repairs_total":         {dto.MetricType_COUNTER, []string{"what"}},
		"portcullis_sync_duration_seconds": {kind: dto.MetricType_HISTOGRAM},
	}
	for text, reason := range map[string]string{
		"sum(portcullis_pod)":                                  "no agent has",
		"rate(portcullis_pods[5m])":                            "is a gauge",
		"portcullis_repairs_total > 0":                         "is a counter",
		`rate(portcullis_repairs_total{kind="table"}[5m])`:     "no label kind",
		"sum by (reason) (rate(portcullis_repairs_total[5m]))": "a label reason",
		"portcullis_pods_bucket":                               "no agent has",
		"portcullis_sync_duration_seconds_bucket":              "is a histogram",
	} {
		e, err := promQL.ParseExpr(text)
		require.NoError(t, err)
		require.ErrorContains(t, fits(e, known), reason, text)
	}
	for _, text := range []string{
		`sum by (what, node) (increase(portcullis_repairs_total{what="table", node=~"a.*"}[5m]))`,
		"histogram_quantile(0.9, sum by (le) (rate(portcullis_sync_duration_seconds_bucket[5m])))", `up{job="portcullis"}`,
	} {
		e, err := promQL.ParseExpr(text)
		require.NoError(t, err)
		require.NoError(t, fits(e, known), text)
	}
}

// inSource looks for the name of a metric in the agent's source, where most have no prefix.
func inSource(t *testing.T, name string) bool {
	t.Helper()
	files, err := filepath.Glob("../../agent/*.go")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	quoted := regexp.MustCompile(`"(portcullis_)?` + strings.TrimPrefix(name, "portcullis_") + `"`)
	for _, f := range files {
		text, err := os.ReadFile(f)
		require.NoError(t, err)
		if !strings.HasSuffix(f, "_test.go") && quoted.Match(text) {
			return true
		}
	}
	return false
}

// dashboard is the part of Grafana's format that is checked.
type dashboard struct {
	UID        string
	Title      string
	Templating struct {
		List []struct{ Name, Definition string }
	}
	Panels []struct {
		ID          int
		Title, Type string
		Description string
		GridPos     struct{ X, Y, W, H int }
		Datasource  struct{ UID string }
		Targets     []struct {
			RefID, Expr, LegendFormat string
			Datasource                struct{ UID string }
		}
	}
}

func readDashboard(t *testing.T) (d dashboard) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(chartDir, "files", "grafana", "dashboard.json"))
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(text, &d))
	return d
}

// TestDashboard checks what Grafana does not complain of but shows wrongly.
func TestDashboard(t *testing.T) {
	d := readDashboard(t)
	require.Equal(t, "portcullis", d.UID)
	var variables []string
	for _, v := range d.Templating.List {
		variables = append(variables, v.Name)
	}
	require.Equal(t, []string{"datasource", "node"}, variables)
	ids, taken := map[int]bool{}, map[[2]int]string{}
	for _, p := range d.Panels {
		require.False(t, ids[p.ID], p.Title)
		ids[p.ID] = true
		require.LessOrEqual(t, p.GridPos.X+p.GridPos.W, 24, p.Title)
		for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
			for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
				require.Empty(t, taken[[2]int{x, y}], "%s is on top of it", p.Title)
				taken[[2]int{x, y}] = p.Title
			}
		}
		if p.Type == "row" {
			require.Empty(t, p.Targets)
			continue
		}
		require.NotEmpty(t, p.Targets, p.Title)
		require.NotEmpty(t, p.Description, p.Title)
		require.Equal(t, "${datasource}", p.Datasource.UID, p.Title)
		for _, q := range p.Targets {
			require.Equal(t, "${datasource}", q.Datasource.UID, p.Title)
			require.Contains(t, q.Expr, `node=~"$node"`, p.Title)
			requireLegend(t, q.Expr, q.LegendFormat)
		}
	}
}

// requireLegend requires that a legend names labels by which the query groups, and all of
// them.
func requireLegend(t *testing.T, query, legend string) {
	t.Helper()
	e, err := promQL.ParseExpr(strings.ReplaceAll(query, "$__rate_interval", "5m"))
	require.NoError(t, err, query)
	by := map[string]bool{}
	depth := 100
	parser.Inspect(e, func(node parser.Node, path []parser.Node) error {
		// topk hands on the labels that it finds.
		if a, ok := node.(*parser.AggregateExpr); ok && a.Op != parser.TOPK && len(path) <= depth {
			depth = len(path)
			clear(by)
			for _, l := range a.Grouping {
				by[l] = true
			}
		}
		return nil
	})
	delete(by, "le")
	named := map[string]bool{}
	for _, l := range regexp.MustCompile(`{{(\w+)}}`).FindAllStringSubmatch(legend, -1) {
		named[l[1]] = true
	}
	require.Equal(t, slices.Sorted(maps.Keys(by)), slices.Sorted(maps.Keys(named)), "%s: %s", query, legend)
}
