package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/exec"

	"github.com/portcullis-netpol/portcullis/agent/admin"
	"github.com/portcullis-netpol/portcullis/cmd/portcullis/fleet"
)

// noon is when these tests are.
var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// fakeAgent answers as an agent does, at a real socket.
type fakeAgent struct {
	state   admin.State
	audit   admin.Audit
	objects string
	feed    *admin.Feed
	socket  string
}

func (f *fakeAgent) State(context.Context) (admin.State, error) { return f.state, nil }
func (f *fakeAgent) Audit(context.Context) (admin.Audit, error) { return f.audit, nil }
func (f *fakeAgent) Objects(_ context.Context, w io.Writer) error {
	_, err := io.WriteString(w, f.objects)
	return err
}

// listen starts to answer, for the first time or again. Hang up with the function that it
// returns.
func (f *fakeAgent) listen(t *testing.T) (hangUp func()) {
	t.Helper()
	if f.feed == nil {
		dir, err := os.MkdirTemp("", "agent") // a socket's path has to be short
		require.NoError(t, err)
		t.Cleanup(func() { _ = os.RemoveAll(dir) })
		f.socket = filepath.Join(dir, "admin.sock")
		f.feed = admin.NewFeed()
	}
	server, err := admin.Listen(f.socket)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- server.Serve(ctx, admin.NewHandler(f, f.feed)) }()
	hangUp = func() {
		cancel()
		if done != nil {
			require.NoError(t, <-done)
		}
		done = nil
	}
	t.Cleanup(hangUp)
	return hangUp
}

// inPods runs our own commands as if they were in the agents' pods.
type inPods map[string]*fakeAgent

func (p inPods) Run(ctx context.Context, pod string, command []string, stdin io.Reader, stdout, stderr io.Writer) error {
	agent := p[pod]
	if agent == nil {
		return fmt.Errorf("pod %s: container not found\x1b[2J", pod)
	}
	a := newApp(stdout, stderr)
	a.now = func() time.Time { return noon }
	if a.stdin = stdin; stdin == nil {
		a.stdin = strings.NewReader("")
	}
	args := slices.Clone(command[1:])
	args[slices.Index(args, "--agent")] = "--agent=" + agent.socket
	if code := a.run(ctx, args); code != exitOK {
		return exec.CodeExitError{Err: fmt.Errorf("exit code %d", code), Code: code}
	}
	return ctx.Err()
}

// clusterOf is an app, and the flag of a cluster with an agent on each of these nodes. Nil
// is a pod that cannot be reached; node-9 has none.
func clusterOf(t *testing.T, agents map[string]*fakeAgent) (a *app, stdout, stderr *output, flag string) {
	t.Helper()
	pods, nodes, run := &corev1.PodList{}, &corev1.NodeList{}, inPods{}
	for _, node := range append([]string{"node-9"}, slices.Sorted(maps.Keys(agents))...) {
		nodes.Items = append(nodes.Items, corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: node}})
		if agent, has := agents[node]; has {
			run["agent-"+node] = agent
			pods.Items = append(pods.Items, corev1.Pod{
				ObjectMeta: metav1.ObjectMeta{Name: "agent-" + node},
				Spec:       corev1.PodSpec{NodeName: node, Containers: []corev1.Container{{Name: fleet.Container}}},
				Status:     corev1.PodStatus{Phase: corev1.PodRunning},
			})
		}
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		var list any = nodes
		if strings.HasPrefix(r.URL.Path, "/api/v1/namespaces/portcullis/pods") {
			list = pods
		}
		if strings.HasPrefix(r.URL.Path, "/api/v1/namespaces/elsewhere/pods") {
			list = &corev1.PodList{}
		}
		_ = json.NewEncoder(w).Encode(list)
	}))
	t.Cleanup(server.Close)
	a, stdout, stderr = testApp()
	a.now = func() time.Time { return noon }
	a.execIn = func(*rest.Config, string) (fleet.Runner, error) { return run, nil }
	return a, stdout, stderr, "--kubeconfig=" + kubeconfigOf(t, server.URL)
}

func podEnd(name, addr string, labels ...string) admin.End {
	e := admin.End{Addr: netip.MustParseAddr(addr), Pod: name}
	for i := 0; i < len(labels); i += 2 {
		if e.Labels == nil {
			e.Labels = map[string]string{}
		}
		e.Labels[labels[i]] = labels[i+1]
	}
	return e
}

// states of two nodes: the second one is behind in everything.
func statusAgents() map[string]*fakeAgent {
	policy := func(name string, generation, inForce int64, mode string, pods int, problems ...admin.Problem) admin.PolicyStatus {
		return admin.PolicyStatus{Namespace: "shop", Name: name, Generation: generation, InForce: inForce, Since: noon.Add(-time.Hour), Mode: mode, Pods: pods, Problems: problems}
	}
	odd := admin.Problem{Field: "spec.ingress[0].from[0].ipBlock.cidr", Reason: "every\x1bwhere"}
	one := admin.State{
		Node: "node-1", Version: "v1.2.3", Started: noon.Add(-26 * time.Hour), Ready: true, Table: "portcullis-a", Rules: 120, Sets: 9, Elements: 40, Pods: 12,
		Quarantined: []string{"shop/new-1"},
		Policies: []admin.PolicyStatus{
			policy("frontend", 3, 3, "enforce", 2), policy("backend", 4, 4, "enforce", 5), policy("audited", 1, 1, "audit", 1),
			policy("idle", 1, 1, "enforce", 0), policy("odd", 1, 1, "enforce", 1, odd), policy("young", 1, 1, "enforce", 1),
		},
	}
	two := one
	two.Node, two.Ready, two.Obstacles, two.Quarantined, two.Started = "node-2", false, []string{"sysctl \x1b]0;evil\x07 is off"}, nil, noon.Add(-time.Minute)
	two.Policies = []admin.PolicyStatus{
		policy("frontend", 2, 2, "enforce", 1), policy("backend", 4, 3, "enforce", 1), policy("audited", 1, 1, "audit", 1),
		policy("idle", 1, 1, "enforce", 0), {Namespace: "shop", Name: "odd", Generation: 1, Mode: "enforce", Pods: 1, Problems: []admin.Problem{odd}},
		{Namespace: "lab", Name: "fromfile", Mode: "enforce", Pods: 1, Since: noon.Add(-time.Second)},
	}
	return map[string]*fakeAgent{"node-1": {state: one}, "node-2": {state: two}, "node-3": nil}
}

// TestStatus shows nodes that are well, that are not, and that do not answer.
func TestStatus(t *testing.T) {
	agents := statusAgents()
	agents["node-1"].listen(t)
	agents["node-2"].listen(t)
	var all strings.Builder
	for _, args := range []string{
		"", "-n lab", "--policy shop/audited --node node-1", "--policy shop/odd --node node-1", "--policy shop/audited --node node-2", "--policy shop/nowhere --node node-1", "--node node-7", "--agent-namespace elsewhere",
	} {
		a, stdout, stderr, cluster := clusterOf(t, agents)
		code := a.run(t.Context(), append([]string{"status", cluster}, strings.Fields(args)...))
		fmt.Fprintf(&all, "$ portcullis status %s\n%s%sexit code %d\n\n", args, stderr, stdout, code)
	}
	requirePlain(t, all.String())
	golden(t, "agents/status.txt", all.String())

	a, stdout, _, cluster := clusterOf(t, agents)
	require.Equal(t, exitFailure, a.run(t.Context(), []string{"status", cluster, "-o", "json", "-n", "lab"}))
	golden(t, "agents/status.json", stdout.String())
	var s statusJSON
	require.NoError(t, json.Unmarshal([]byte(stdout.String()), &s))
	require.Len(t, s.Nodes, 4)
	require.Len(t, s.Nodes[0].State.Policies, 6) // all, whatever is shown

	code, local, _ := run(t, "status", "--agent="+agents["node-1"].socket, "--policy", "shop/frontend")
	require.Equal(t, exitOK, code)
	require.Regexp(t, `shop/frontend +enforce +3 +yes .* 2 +1/1\n$`, local)
}

// requirePlain fails if a terminal would obey something in the text.
func requirePlain(t *testing.T, text string) {
	t.Helper()
	for _, r := range text {
		require.True(t, r == '\n' || r >= ' ' && r < 0x7f || r == '…', "%q in\n%s", r, text)
	}
}

// TestExplainAgent asks the node's agent, whose pods elsewhere have no node.
func TestExplainAgent(t *testing.T) {
	agent := &fakeAgent{objects: `{"apiVersion":"v1","kind":"List","items":[
		{"apiVersion":"v1","kind":"Node","metadata":{"name":"node-1"},"spec":{"podCIDRs":["10.1.0.0/24"]},"status":{"addresses":[{"type":"InternalIP","address":"192.0.2.1"}]}},
		{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"a","labels":{"kubernetes.io/metadata.name":"a"}}},
		{"apiVersion":"v1","kind":"Pod","metadata":{"name":"own","namespace":"a"},"spec":{"nodeName":"node-1","containers":null},"status":{"podIP":"10.1.0.1"}},
		{"apiVersion":"v1","kind":"Pod","metadata":{"name":"far","namespace":"a"},"spec":{"containers":null},"status":{"podIP":"10.2.0.1"}},
		{"apiVersion":"v1","kind":"Pod","metadata":{"name":"lost","namespace":"a"},"spec":{"containers":null},"status":{}},
		{"apiVersion":"networking.k8s.io/v1","kind":"NetworkPolicy","metadata":{"name":"p","namespace":"a"},"spec":{"podSelector":{},"policyTypes":["Ingress"]}}]}`}
	agent.listen(t)
	var all strings.Builder
	for _, question := range []string{"192.0.2.1 a/own:80", "192.0.2.1 a/far:80", "a/own a/far:80", "a/own a/lost:80", "a/own svc/a/web:80"} {
		code, stdout, stderr := run(t, append([]string{"explain", "--agent=" + agent.socket}, strings.Fields(question)...)...)
		fmt.Fprintf(&all, "$ portcullis explain --agent %s\n%s%sexit code %d\n\n", question, stderr, stdout, code)
	}
	golden(t, "agents/explain.txt", all.String())
	code, stdout, stderr := run(t, "matrix", "--agent="+agent.socket)
	require.Equal(t, exitOK, code)
	require.Contains(t, stderr, "the agent of node node-1")
	require.Contains(t, stdout, "far")
	code, _, stderr = run(t, "matrix", "diff", "--agent="+agent.socket, "-f", "testdata/shop")
	require.Equal(t, exitInput, code)
	require.Contains(t, stderr, "for matrix alone")
}
