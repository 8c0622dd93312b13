package matrixpage

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/portcullis-netpol/portcullis/policy/evaluate"
	"github.com/portcullis-netpol/portcullis/policy/matrix"
)

const evil = "</script><img src=x onerror=pwned=1>\x1b[2J\u202e<!--\u2028{{data}}{{script}}"

func pod(ns, name, app, addr string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name, Labels: map[string]string{"app": app}},
		Spec:       corev1.PodSpec{NodeName: "node-1"},
		Status:     corev1.PodStatus{PodIP: addr},
	}
}

func policy(t testing.TB, ns, name, spec string) *networkingv1.NetworkPolicy {
	t.Helper()
	p := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name}}
	require.NoError(t, yaml.UnmarshalStrict([]byte(spec), &p.Spec))
	return p
}

func namespaces(names ...string) []*corev1.Namespace {
	var out []*corev1.Namespace
	for _, n := range names {
		out = append(out, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: n, Labels: map[string]string{"name": n}}})
	}
	return out
}

// shopInput is a database that web reaches at its port, and scraper at all of them.
func shopInput(t testing.TB) matrix.Input {
	web := func(name, addr string) *corev1.Pod {
		p := pod("shop", name, "web", addr)
		p.OwnerReferences = []metav1.OwnerReference{{Kind: "StatefulSet", Name: "web", Controller: new(true)}}
		return p
	}
	return matrix.Input{Cluster: evaluate.Cluster{
		Namespaces: namespaces("shop", "monitoring"),
		Nodes: []*corev1.Node{{
			ObjectMeta: metav1.ObjectMeta{Name: "node-1"},
			Status:     corev1.NodeStatus{Addresses: []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "10.0.0.1"}}},
		}},
		Pods: []*corev1.Pod{web("web-1", "10.1.0.1"), web("web-2", "10.1.0.2"), pod("shop", "db", "db", "10.1.0.3"), pod("monitoring", "scraper", "scraper", "10.1.0.4")},
		Policies: []*networkingv1.NetworkPolicy{
			policy(t, "shop", "db", "podSelector: {matchLabels: {app: db}}\npolicyTypes: [Ingress, Egress]\n"+
				"ingress: [{from: [{podSelector: {matchLabels: {app: web}}}], ports: [{port: 5432}]}]"),
			policy(t, "shop", "monitoring", "podSelector: {matchLabels: {app: db}}\n"+
				"ingress: [{from: [{namespaceSelector: {matchLabels: {name: monitoring}}}]}]"),
		},
	}}
}

func shop(t testing.TB) *matrix.Matrix {
	m, err := matrix.Compute(t.Context(), shopInput(t), matrix.Options{Views: []matrix.By{matrix.ByPod, matrix.ByNamespace}})
	require.NoError(t, err)
	return m
}

// hostile has the name everywhere.
func hostile(t testing.TB) (*matrix.Matrix, *matrix.Diff) {
	p := policy(t, evil, evil, "podSelector: {}\ningress: [{from: [{podSelector: {}}], ports: [{port: 1}]}]")
	p.Spec.PodSelector.MatchLabels = map[string]string{"app": evil}
	p.Spec.Ingress[0].From[0].PodSelector.MatchLabels = map[string]string{"app": evil}
	in := matrix.Input{Cluster: evaluate.Cluster{
		Namespaces: namespaces(evil, "a"),
		Pods:       []*corev1.Pod{pod(evil, evil, evil, "10.1.0.1"), pod("a", evil, "a", "10.1.0.2")},
	}}
	after := in
	after.Cluster.Policies = []*networkingv1.NetworkPolicy{p}
	m, err := matrix.Compute(t.Context(), after, matrix.Options{Views: []matrix.By{matrix.ByPod, matrix.ByNamespace}})
	require.NoError(t, err)
	d, err := matrix.Compare(t.Context(), in, after, matrix.Options{})
	require.NoError(t, err)
	return m, d
}

// large is n workloads in ten namespaces, each with a policy of its own.
func large(t testing.TB, n int) matrix.Input {
	var in matrix.Input
	for i := range n {
		ns := fmt.Sprintf("team-%d", i%10)
		in.Cluster.Pods = append(in.Cluster.Pods, pod(ns, fmt.Sprintf("app-%d", i), fmt.Sprintf("app-%d", i), fmt.Sprintf("10.1.%d.%d", i/200, i%200+1)))
		in.Cluster.Policies = append(in.Cluster.Policies, policy(t, ns, fmt.Sprintf("app-%d", i), fmt.Sprintf(
			"podSelector: {matchLabels: {app: app-%d}}\ningress: [{from: [{podSelector: {matchLabels: {app: app-%d}}}, {ipBlock: {cidr: 10.1.0.0/%d}}], ports: [{port: %d}]}]",
			i, (i+10)%n, 24+i%7, 8000+i%7)))
	}
	return in
}

func write(t testing.TB, p Page) string {
	var b bytes.Buffer
	require.NoError(t, Write(&b, p))
	return b.String()
}

// TestSelfContained finds nothing on the page that could be asked for, or that could take a name for HTML.
func TestSelfContained(t *testing.T) {
	html := write(t, Page{Matrix: shop(t), Source: "shop"})
	for _, bad := range []string{"http:", "https:", "//cdn", "@import", "url(", "src=", "href=", "innerHTML", "outerHTML", "insertAdjacent",
		"document.write", "eval(", "Function(", "fetch(", "XMLHttpRequest", "WebSocket", "import(", "style=\"", "onclick=", "{{"} {
		require.NotContains(t, html, bad)
	}
	require.Regexp(t, `Content-Security-Policy" content="default-src 'none'; base-uri 'none'; form-action 'none'; style-src 'sha256-[^']+'; script-src 'sha256-[^']+'"`, html)
	require.NotContains(t, html, "unsafe")
}

// TestHostileData keeps names inside of the element with the data, and whole.
func TestHostileData(t *testing.T) {
	m, d := hostile(t)
	plain := len(regexp.MustCompile(`(?i)<script|</script|<img|<!--`).FindAllString(write(t, Page{Matrix: shop(t)}), -1))
	for _, p := range []Page{{Matrix: m, Source: evil, Notes: []string{evil}, Ports: []string{evil}}, {Diff: d, Source: evil, Notes: []string{evil}}} {
		html := write(t, p)
		require.Len(t, regexp.MustCompile(`(?i)<script|</script|<img|<!--`).FindAllString(html, -1), plain)
		_, data, _ := strings.Cut(html, `<script type="application/json" id="data">`)
		data, _, _ = strings.Cut(data, "</script>")
		var is payload
		require.NoError(t, json.Unmarshal([]byte(data), &is))
		require.Equal(t, evil, is.Source)
		require.Equal(t, evil, is.Views[0].Ends[0].Name)
		require.Equal(t, evil, is.Views[0].Ends[0].Namespace)
	}
}

// TestPayload stores what repeats once, and few parts of a cell that has many.
func TestPayload(t *testing.T) {
	m, err := matrix.Compute(t.Context(), large(t, 100), matrix.Options{Views: []matrix.By{matrix.ByPod, matrix.ByNamespace}})
	require.NoError(t, err)
	p := newPayload(Page{Matrix: m})
	require.Less(t, len(p.Reaches), 60)
	for i, v := range p.Variants {
		require.LessOrEqual(t, len(v.Parts), mostParts)
		require.Equal(t, len(m.Variants[i].Parts), len(v.Parts)+v.More)
	}
	seen := map[string]bool{}
	for _, d := range p.Tables[0].Decisions {
		text, err := json.Marshal(d)
		require.NoError(t, err)
		require.False(t, seen[string(text)], "%s", text)
		seen[string(text)] = true
	}
}
