package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/portcullis-netpol/portcullis/policy/evaluate"
	"github.com/portcullis-netpol/portcullis/policy/matrix"
)

// TestMatrixGolden shows the shop in every way.
func TestMatrixGolden(t *testing.T) {
	var all strings.Builder
	for _, flags := range []string{
		"",
		"--by workload",
		"--by namespace",
		"-n shop",
		"-n reports -n monitoring --by workload",
		"--port tcp/3306 --port icmp",
	} {
		code, stdout, stderr := run(t, append([]string{"matrix", "-f", "testdata/shop"}, strings.Fields(flags)...)...)
		require.Equal(t, exitOK, code, stderr)
		for line := range strings.Lines(stdout) {
			require.LessOrEqual(t, len([]rune(line)), 81, line)
		}
		fmt.Fprintf(&all, "$ portcullis matrix %s\n%s%s\n", flags, stderr, stdout)
	}
	golden(t, "matrix/shop.txt", all.String())
}

// TestMatrixSaysWhatExplainSays asks explain about cells.
func TestMatrixSaysWhatExplainSays(t *testing.T) {
	code, stdout, _ := run(t, "matrix", "-f", "testdata/shop", "-o", "json", "--port", "tcp/3306", "--port", "tcp/8081", "--port", "udp/5353", "--port", "icmp")
	require.Equal(t, exitOK, code)
	var m matrixJSON
	require.NoError(t, json.Unmarshal([]byte(stdout), &m))
	pods := map[string]string{}
	for _, e := range m.Ends {
		if e.Kind == matrix.Pods {
			pods[e.FullName] = e.Namespace + "/" + e.Pods[0]
		}
	}
	asked := 0
	for _, c := range m.Cells {
		from, to := pods[c.From], pods[c.To]
		if from == "" || to == "" {
			continue
		}
		for port, is := range c.Asked {
			_, text, _ := run(t, "explain", "-f", "testdata/shop", "-o", "json", from, to, port)
			var a answer
			require.NoError(t, json.Unmarshal([]byte(text), &a), text)
			for _, f := range a.Flows {
				word := map[string]string{"IPv4": is.IPv4, "IPv6": is.IPv6}[f.Family]
				require.Equal(t, verdict(f.Allowed), word, "%s -> %s %s %s", from, to, port, f.Family)
				asked++
			}
		}
	}
	require.Greater(t, asked, 200)
}

// TestMatrixJSON keeps the form of the output.
func TestMatrixJSON(t *testing.T) {
	code, stdout, _ := run(t, "matrix", "-f", "testdata/shop", "-n", "reports", "-o", "json", "--port", "tcp/3306")
	require.Equal(t, exitOK, code)
	golden(t, "matrix/shop.json", stdout)
}

// TestMatrixHTML writes a page; what is on it is for the tests of matrixpage.
func TestMatrixHTML(t *testing.T) {
	code, stdout, _ := run(t, "matrix", "-f", "testdata/shop", "-o", "html")
	require.Equal(t, exitOK, code)
	require.True(t, strings.HasPrefix(stdout, "<!DOCTYPE html>"))
	require.Contains(t, stdout, `"source":"testdata/shop"`)
	code, stdout, _ = run(t, "matrix", "diff", "testdata/shop", "testdata/shopnew", "-o", "html")
	require.Equal(t, exitFailure, code)
	require.Contains(t, stdout, `"kind":"diff"`)
}

// TestMatrixDiff says what a change opens and closes, by its exit code as well.
func TestMatrixDiff(t *testing.T) {
	var all strings.Builder
	for _, args := range []string{
		"testdata/shop testdata/shop",
		"testdata/shop testdata/shopnew", // policies only: the pods are those of OLD
		"testdata/shopnew/policies.yaml testdata/shop",
		"testdata/shop testdata/shopnew --by namespace",
		"testdata/shop testdata/shopnew --port tcp/8080",
		"testdata/shop testdata/shopnew --port tcp/1",
		"testdata/shop testdata/nowhere",
	} {
		code, stdout, stderr := run(t, append([]string{"matrix", "diff"}, strings.Fields(args)...)...)
		fmt.Fprintf(&all, "$ portcullis matrix diff %s\n%s%sexit code %d\n\n", args, stderr, stdout, code)
	}
	golden(t, "matrix/diff.txt", all.String())
	code, stdout, _ := run(t, "matrix", "diff", "-o", "json", "testdata/shop", "testdata/shopnew")
	require.Equal(t, exitFailure, code)
	golden(t, "matrix/diff.json", stdout)
}

// apiServer serves lists, pods in two pages.
func apiServer(t *testing.T, nodes int) (kubeconfig string) {
	t.Helper()
	lists := map[string]any{
		"/api/v1/namespaces": &corev1.NamespaceList{Items: []corev1.Namespace{{ObjectMeta: metav1.ObjectMeta{Name: "shop"}}}},
		"/api/v1/pods": &corev1.PodList{
			ListMeta: metav1.ListMeta{Continue: "more"},
			Items:    []corev1.Pod{{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web"}, Status: corev1.PodStatus{PodIP: "10.1.0.1"}}},
		},
		"/api/v1/pods?more": &corev1.PodList{
			Items: []corev1.Pod{{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "db", Labels: map[string]string{"app": "db"}}, Status: corev1.PodStatus{PodIP: "10.1.0.2"}}},
		},
		"/apis/networking.k8s.io/v1/networkpolicies": &networkingv1.NetworkPolicyList{Items: []networkingv1.NetworkPolicy{{
			ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "odd"},
			Spec: networkingv1.NetworkPolicySpec{
				PodSelector: metav1.LabelSelector{MatchLabels: map[string]string{"app": "db"}},
				Ingress:     []networkingv1.NetworkPolicyIngressRule{{From: []networkingv1.NetworkPolicyPeer{{IPBlock: &networkingv1.IPBlock{CIDR: "every\x1bwhere"}}}}},
			},
		}}},
		"/api/v1/nodes": &corev1.NodeList{},
		"/api/v1/services": &corev1.ServiceList{Items: []corev1.Service{{
			ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "db"},
			Spec:       corev1.ServiceSpec{Selector: map[string]string{"app": "db"}, ClusterIP: "10.96.0.1", Ports: []corev1.ServicePort{{Port: 80}}},
		}}},
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		path := r.URL.Path
		if more := r.URL.Query().Get("continue"); more != "" {
			path += "?" + more
		}
		if nodes != http.StatusOK && path == "/api/v1/nodes" {
			w.WriteHeader(nodes)
			_ = json.NewEncoder(w).Encode(metav1.Status{Status: metav1.StatusFailure, Reason: metav1.StatusReasonForbidden, Code: int32(nodes)})
			return
		}
		_ = json.NewEncoder(w).Encode(lists[path])
	}))
	t.Cleanup(server.Close)
	return kubeconfigOf(t, server.URL)
}

// kubeconfigOf is a file that names an API server.
func kubeconfigOf(t *testing.T, url string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "config")
	require.NoError(t, os.WriteFile(file, []byte("apiVersion: v1\nkind: Config\ncurrent-context: test\nclusters: [{name: c, cluster: {server: "+url+"}}]\n"+
		"contexts: [{name: test, context: {cluster: c, user: u}}]\nusers: [{name: u, user: {}}]\n"), 0o600))
	return file
}

// TestMatrixOfCluster lists a cluster's objects; a policy that cannot be understood is a warning.
func TestMatrixOfCluster(t *testing.T) {
	for _, nodes := range []int{http.StatusOK, http.StatusForbidden} {
		config := apiServer(t, nodes)
		code, stdout, stderr := run(t, "matrix", "--kubeconfig", config)
		require.Equal(t, exitOK, code, stderr)
		require.Regexp(t, `1 db +– +●`, stdout)
		require.Regexp(t, `2 web +· +–`, stdout)
		require.Contains(t, stderr, "NetworkPolicy shop/odd: spec.ingress[0].from[0].ipBlock.cidr")
		require.NotContains(t, stderr, "\x1b")

		t.Setenv("KUBECONFIG", config)
		_, again, _ := run(t, "matrix", "--context", "test")
		require.Equal(t, stdout, again)
	}
	code, _, stderr := run(t, "matrix", "--context", "other")
	require.Equal(t, exitInput, code)
	require.Contains(t, stderr, `"other"`)
}

// TestMatrixDiffOfCluster applies policies to a cluster: those of the same name are replaced, no other is deleted.
func TestMatrixDiffOfCluster(t *testing.T) {
	config := apiServer(t, http.StatusOK)
	change := filepath.Join(t.TempDir(), "change.yaml")
	write := func(name string) {
		require.NoError(t, os.WriteFile(change, []byte("apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: "+name+", namespace: shop}\n"+
			"spec: {podSelector: {matchLabels: {app: db}}, ingress: [{ports: [{port: 80}]}]}\n"), 0o600))
	}
	for _, name := range []string{"odd", "more"} {
		write(name)
		code, stdout, stderr := run(t, "matrix", "diff", "--kubeconfig", config, "-f", change)
		require.Equal(t, exitFailure, code, stderr)
		require.Contains(t, stdout, "+ shop/web -> shop/db")
		require.NotContains(t, stdout, "Closed")
	}
}

// TestMatrixBadInput ends with 2 and names what is wrong.
func TestMatrixBadInput(t *testing.T) {
	t.Setenv("KUBECONFIG", "testdata/nowhere")
	t.Setenv("HOME", t.TempDir())
	for _, c := range []struct{ args, says string }{
		{"matrix", "where do the objects come from"},
		{"matrix --kubeconfig testdata/nowhere", "--kubeconfig"},
		{"matrix -f testdata/shop --context x", "not from more than one of them"},
		{"matrix -f testdata/shop now", `"now"`},
		{"matrix -f testdata/shop --by label", "pod, workload, namespace"},
		{"matrix -f testdata/shop -o yaml", "text, json, html"},
		{"matrix -f testdata/shop --port 80", "--port"},
		{"matrix -f testdata/shop -n nowhere", `namespace "nowhere"`},
		{"matrix -f testdata/bad", "NetworkPolicy"},
		{"matrix diff testdata/shop", "1 arguments"},
		{"matrix diff", "-f NEW"},
		{"matrix diff -f testdata/shop", "where do the objects come from"},
		{"matrix diff testdata/shop testdata/shop -f x", "nothing for -f"},
		{"matrix diff testdata/bad testdata/shop", "testdata/bad"},
		{"matrix diff --frobnicate", "--frobnicate"},
	} {
		code, stdout, stderr := run(t, strings.Fields(c.args)...)
		require.Equal(t, exitInput, code, "%s\n%s", c.args, stderr)
		require.Contains(t, stderr, c.says, c.args)
		require.Empty(t, stdout, c.args)
	}
}

// TestMatrixHostileNames shows names that no API server takes without obeying them.
func TestMatrixHostileNames(t *testing.T) {
	evil := "x\x1b[2J\x07\r\u202e</script><img src=x onerror=alert(1)>"
	pod := func(ns, name, addr string) *corev1.Pod {
		return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name, Labels: map[string]string{evil: name}}, Status: corev1.PodStatus{PodIP: addr}}
	}
	policy := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: evil, Name: evil}}
	world := evaluate.Cluster{Pods: []*corev1.Pod{pod(evil, evil, "10.1.0.1"), pod("a", "b", "10.1.0.2")}}
	before := matrix.Input{Cluster: world}
	world.Policies = []*networkingv1.NetworkPolicy{policy}
	after := matrix.Input{Cluster: world}
	m, err := matrix.Compute(t.Context(), after, matrix.Options{})
	require.NoError(t, err)
	d, err := matrix.Compare(t.Context(), before, after, matrix.Options{})
	require.NoError(t, err)
	var b strings.Builder
	require.NoError(t, writeMatrixText(&b, m, nil, textStyle{width: 80}))
	require.NoError(t, writeMatrixText(&b, m, []service{{name: "tcp/1", protocol: "TCP", port: 1}}, textStyle{width: 80}))
	require.NoError(t, writeDiffText(&b, d, textStyle{width: 80}))
	require.Contains(t, b.String(), `x\x1b[2J\a\r\u202e</script>`)
	for _, r := range b.String() {
		require.True(t, r == '\n' || r >= ' ' && r != 0x7f && (r < 0x80 || strings.ContainsRune("●·◐–…×", r)), "%q in\n%s", r, b.String())
	}
}

// TestMatrixText is about widths: many columns come in parts, long names are cut.
func TestMatrixText(t *testing.T) {
	in := matrix.Input{}
	for i := range 60 {
		in.Cluster.Pods = append(in.Cluster.Pods, &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: fmt.Sprintf("%s-%02d", strings.Repeat("long", 30), i), Labels: map[string]string{"nr": fmt.Sprint(i)}},
			Status:     corev1.PodStatus{PodIP: fmt.Sprintf("10.1.0.%d", i+1)},
		})
	}
	m, err := matrix.Compute(t.Context(), in, matrix.Options{})
	require.NoError(t, err)
	var b, coloured strings.Builder
	require.NoError(t, writeMatrixText(&b, m, nil, textStyle{width: 80}))
	for line := range strings.Lines(b.String()) {
		require.LessOrEqual(t, len([]rune(line)), 81, line)
	}
	require.Contains(t, b.String(), "…")
	require.Regexp(t, `\n +[0-9 ]+ 60 61\n`, b.String())
	require.NotContains(t, b.String(), "\x1b")
	require.NoError(t, writeMatrixText(&coloured, m, nil, textStyle{colour: true, width: 80}))
	require.Contains(t, coloured.String(), "\x1b[32m●\x1b[0m")
}

// TestMatrixManyPods gives each of many pods an address, in files without nodes.
func TestMatrixManyPods(t *testing.T) {
	file := filepath.Join(t.TempDir(), "web.yaml")
	require.NoError(t, os.WriteFile(file, []byte("apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web, namespace: a}\n"+
		"spec: {replicas: 600, selector: {matchLabels: {app: web}}, template: {metadata: {labels: {app: web}}, spec: {containers: [{name: c, image: i}]}}}\n"), 0o600))
	code, stdout, stderr := run(t, "matrix", "-f", file)
	require.Equal(t, exitOK, code, stderr)
	require.Regexp(t, `1 web ×600 +● +●`, stdout)
	require.Empty(t, stderr)
}

// TestLetters counts.
func TestLetters(t *testing.T) {
	require.Equal(t, []string{"a", "z", "aa", "az", "ba", "zz", "aaa"}, []string{letter(0), letter(25), letter(26), letter(51), letter(52), letter(701), letter(702)})
}

// TestProgress says nothing in the first second.
func TestProgress(t *testing.T) {
	a, _, stderr := testApp()
	now := time.Unix(0, 0)
	a.now = func() time.Time { return now }
	report := a.newProgress().of("kinds of pods")
	report(1, 9)
	require.Empty(t, stderr.String())
	now = now.Add(2 * time.Second)
	report(2, 9)
	report(3, 9)
	require.Equal(t, "portcullis: 2 of 9 kinds of pods\n", stderr.String())
}

// TestPluginName says in usage lines what the user typed.
func TestPluginName(t *testing.T) {
	require.Equal(t, "kubectl portcullis", commandName("/usr/local/bin/kubectl-portcullis"))
	require.Equal(t, "portcullis", commandName("bin/portcullis"))
	a, stdout, stderr := testApp()
	a.name = commandName("kubectl-portcullis")
	require.Equal(t, exitOK, a.run(t.Context(), []string{"matrix", "--help"}))
	require.Contains(t, stdout.String(), "  kubectl portcullis matrix [-f PATH...] [flags]")
	require.Contains(t, stdout.String(), "  kubectl portcullis matrix diff old/ new/")
	require.Equal(t, exitInput, a.run(t.Context(), []string{"matrix", "--nonsense"}))
	require.Contains(t, stderr.String(), "See 'kubectl portcullis --help'.")
}
