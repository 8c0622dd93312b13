package agent

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	"github.com/portcullis-netpol/portcullis/nft"
)

const (
	webAddr = "10.244.1.7"
	dbAddr  = "10.244.2.9"
)

// shopPod is a running pod with an address.
func shopPod(name, node, addr string) *corev1.Pod {
	p := testPod(name, "uid-"+name)
	p.Labels = map[string]string{"app": name}
	p.Spec.NodeName = node
	p.Status = corev1.PodStatus{Phase: corev1.PodRunning, PodIP: addr, PodIPs: []corev1.PodIP{{IP: addr}}}
	return p
}

// allowFrom isolates app=web for ingress but for pods with the given label.
func allowFrom(app string) *networkingv1.NetworkPolicy {
	return &networkingv1.NetworkPolicy{ObjectMeta: meta("shop", "web", "uid-policy"), Spec: networkingv1.NetworkPolicySpec{
		PodSelector: metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}},
		PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeIngress},
		Ingress: []networkingv1.NetworkPolicyIngressRule{{From: []networkingv1.NetworkPolicyPeer{{
			PodSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": app}}}}}},
	}}
}

func shop() []runtime.Object {
	return []runtime.Object{testNode("node-1"), &corev1.Namespace{ObjectMeta: meta("", "shop", "1")},
		shopPod("web", "node-1", webAddr), shopPod("db", "node-2", dbAddr), allowFrom("db")}
}

// agentTest runs an agent.
type agentTest struct {
	log    *logbook
	cancel context.CancelFunc
	ended  chan error
}

func startAgent(t *testing.T, cfg Config) *agentTest {
	book, logger := newLogbook()
	a := &agentTest{log: book, ended: make(chan error, 1)}
	cfg.Node, cfg.Logger = "node-1", logger
	ctx, cancel := context.WithCancel(context.Background())
	a.cancel = cancel
	go func() { a.ended <- Run(ctx, cfg) }()
	t.Cleanup(func() {
		cancel()
		select {
		case <-a.ended:
		case <-time.After(patience):
			t.Error("the agent does not end")
		}
	})
	return a
}

func (a *agentTest) stop(t *testing.T) {
	t.Helper()
	a.cancel()
	err := <-a.ended
	a.ended <- err
	require.NoError(t, err)
}

// outcome says what the one table in force makes of a packet from db to web, or that
// there is no table.
func outcome(t *testing.T, k nft.Kernel) string {
	t.Helper()
	tables, err := k.Tables(t.Context())
	require.NoError(t, err)
	if len(tables) != 1 {
		return fmt.Sprintf("%d tables", len(tables))
	}
	table, complete, err := k.Read(t.Context(), tables[0])
	if errors.Is(err, nft.ErrNotExist) || err == nil && !complete {
		return "changing"
	}
	require.NoError(t, err)
	base, err := k.BaseChains(t.Context(), tables[0])
	require.NoError(t, err)
	if len(base) == 0 {
		return "not in force"
	}
	switch table.Verdict(nft.Packet{Hook: nft.HookForward, Src: netip.MustParseAddr(dbAddr), Dst: netip.MustParseAddr(webAddr), Protocol: 6, DstPort: 80}) {
	case nft.Accept:
		return "accept"
	case nft.Drop:
		return "drop"
	}
	return "reject"
}

func waitOutcome(t *testing.T, k nft.Kernel, want string) {
	t.Helper()
	eventually(t, want, func() bool { return outcome(t, k) == want })
}

// TestAgentWithCluster goes from objects of an API server to rules, through changes,
// to the end of the agent, which leaves the rules in force for the next one.
func TestAgentWithCluster(t *testing.T) {
	client := fake.NewClientset(shop()...)
	k := nft.NewFake()
	a := startAgent(t, Config{Source: Kubernetes(client), Kernel: k})
	waitOutcome(t, k, "accept")

	policies := client.NetworkingV1().NetworkPolicies("shop")
	_, err := policies.Update(t.Context(), allowFrom("other"), metav1.UpdateOptions{})
	require.NoError(t, err)
	waitOutcome(t, k, "drop")

	moved := shopPod("db", "node-2", dbAddr)
	moved.Labels["app"] = "other"
	_, err = client.CoreV1().Pods("shop").Update(t.Context(), moved, metav1.UpdateOptions{})
	require.NoError(t, err)
	waitOutcome(t, k, "accept")
	require.NoError(t, client.CoreV1().Pods("shop").Delete(t.Context(), "db", metav1.DeleteOptions{}))
	waitOutcome(t, k, "drop")
	require.NoError(t, policies.Delete(t.Context(), "web", metav1.DeleteOptions{}))
	waitOutcome(t, k, "accept")
	require.Zero(t, a.log.count("level=ERROR"), a.log)
}

// TestAgentStops leaves the table in force.
func TestAgentStops(t *testing.T) {
	k := nft.NewFake()
	a := startAgent(t, Config{Source: Kubernetes(fake.NewClientset(shop()...)), Kernel: k})
	waitOutcome(t, k, "accept")
	k.Forget()
	a.stop(t)
	require.Empty(t, k.History())
	require.Equal(t, "accept", outcome(t, k))

	client := fake.NewClientset(append(shop()[:4], allowFrom("nobody"))...)
	startAgent(t, Config{Source: Kubernetes(client), Kernel: k})
	waitOutcome(t, k, "drop")
}

// TestAgentWritesNothingBeforeSync leaves the kernel alone while one kind of objects
// cannot be listed, and while the own Node is missing.
func TestAgentWritesNothingBeforeSync(t *testing.T) {
	for name, objects := range map[string][]runtime.Object{"list": shop(), "node": shop()[1:]} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			client := fake.NewClientset(objects...)
			if name == "list" {
				client.PrependReactor("list", "networkpolicies", func(clienttesting.Action) (bool, runtime.Object, error) {
					return true, nil, errors.New("not today")
				})
			}
			k := nft.NewFake()
			a := startAgent(t, Config{Source: Kubernetes(client), Kernel: k, HealthAddr: "127.0.0.1:0"})
			line := a.log.wait(t, "health endpoint", "address=")
			_, addr, _ := strings.Cut(strings.TrimSpace(line), "address=")
			if name == "list" {
				a.log.wait(t, "not today")
			} else {
				a.log.wait(t, "no Node named")
			}
			answer, err := http.Get("http://" + addr + "/readyz")
			require.NoError(t, err)
			require.NoError(t, answer.Body.Close())
			require.Equal(t, http.StatusServiceUnavailable, answer.StatusCode)
			a.stop(t)
			require.Empty(t, k.History())
			_, err = http.Get("http://" + addr + "/readyz")
			require.Error(t, err) // the listener is closed
		})
	}
}

// TestAgentRepairs gets an uncertain answer to a write, once applied and once not, and
// has the right rules in force in the end.
func TestAgentRepairs(t *testing.T) {
	for name, answer := range map[string]error{"applied": nft.ErrUncertain, "refused": errors.New("no")} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			client := fake.NewClientset(shop()...)
			k := nft.NewFake()
			answers := make(chan error, 1)
			k.OnSend = func(nft.Batch) error {
				select {
				case err := <-answers:
					return err
				default:
					return nil
				}
			}
			a := startAgent(t, Config{Source: Kubernetes(client), Kernel: k})
			waitOutcome(t, k, "accept")
			answers <- fmt.Errorf("send: %w", answer)
			_, err := client.NetworkingV1().NetworkPolicies("shop").Update(t.Context(), allowFrom("nobody"), metav1.UpdateOptions{})
			require.NoError(t, err)
			a.log.wait(t, "level=ERROR", "retryIn")
			a.log.wait(t, "repaired")
			require.Equal(t, "drop", outcome(t, k))
		})
	}
}

const shopYAML = `
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop, labels: {app: web}}
spec: {nodeName: node-1, containers: [{name: c, image: i}]}
status: {phase: Running, podIPs: [{ip: 10.244.1.7}]}
---
apiVersion: v1
kind: Pod
metadata: {name: db, namespace: shop, labels: {app: db}}
spec: {nodeName: node-2, containers: [{name: c, image: i}]}
status: {phase: Running, podIPs: [{ip: 10.244.2.9}]}
`

const policyYAML = `
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: web, namespace: shop}
spec:
  podSelector: {matchLabels: {app: web}}
  policyTypes: [Ingress]
  ingress: [{from: [{podSelector: {matchLabels: {app: db}}}]}]
`

// enforceManifests walks an agent that writes to k through the life of a directory, and
// sees through look what becomes of packets.
func enforceManifests(t *testing.T, k, look nft.Kernel) {
	dir := written(t, map[string]string{"pods.yaml": shopYAML, "policy.yaml": policyYAML})
	a := startAgent(t, Config{Source: Manifests(dir), Kernel: k, PodToNode: true})
	inForce := func() {
		t.Helper()
		a.log.wait(t, `msg="in force"`, "revision="+revisionOf(t, dir))
	}
	replace := func(name, text string) {
		t.Helper()
		write(t, dir, map[string]string{".new": text})
		require.NoError(t, os.Rename(filepath.Join(dir, ".new"), filepath.Join(dir, name)))
	}
	inForce()
	require.Equal(t, "accept", outcome(t, look))

	replace("policy.yaml", strings.Replace(policyYAML, "app: db", "app: other", 1))
	inForce()
	require.Equal(t, "drop", outcome(t, look))

	replace("pods.yaml", strings.Replace(shopYAML, "app: db", "app: other", 1))
	inForce()
	require.Equal(t, "accept", outcome(t, look))

	replace("policy.yaml", policyYAML)
	inForce()
	require.Equal(t, "drop", outcome(t, look))

	replace("policy.yaml", strings.Replace(policyYAML, "podSelector", "podselector", 1))
	a.log.wait(t, "level=ERROR", "policy.yaml", "podselector")
	require.Equal(t, "drop", outcome(t, look))

	require.NoError(t, os.Remove(filepath.Join(dir, "policy.yaml")))
	inForce()
	require.Equal(t, "accept", outcome(t, look))

	replace("policy.yaml", strings.Replace(policyYAML, "app: db", "app: nobody", 1))
	inForce()
	a.stop(t)
	require.Equal(t, "drop", outcome(t, look))
}

// TestAgentWithManifests goes from a directory to rules and back, in memory.
func TestAgentWithManifests(t *testing.T) {
	k := nft.NewFake()
	enforceManifests(t, k, k)
}

// TestAgentBadManifests does not start with a file that is wrong, and writes nothing.
func TestAgentBadManifests(t *testing.T) {
	k := nft.NewFake()
	dir := written(t, map[string]string{"pods.yaml": shopYAML, "policy.yaml": strings.Replace(policyYAML, "Ingress]", "Sideways]", 1)})
	_, logger := newLogbook()
	err := Run(t.Context(), Config{Node: "node-1", Source: Manifests(dir), Kernel: k, Logger: logger})
	require.ErrorContains(t, err, filepath.Join(dir, "policy.yaml"))
	require.ErrorContains(t, err, "NetworkPolicy shop/web")
	require.ErrorContains(t, err, "spec.policyTypes[0]")
	require.Empty(t, k.History())
}

// TestAgentLogsProblems logs what the API server lets through and cannot be enforced.
func TestAgentLogsProblems(t *testing.T) {
	bad := allowFrom("db")
	bad.Spec.Ingress[0].From[0] = networkingv1.NetworkPolicyPeer{IPBlock: &networkingv1.IPBlock{CIDR: "10.0.0.0/99"}}
	client := fake.NewClientset(append(shop()[:4], bad)...)
	k := nft.NewFake()
	a := startAgent(t, Config{Source: Kubernetes(client), Kernel: k})
	a.log.wait(t, "level=WARN", `object="NetworkPolicy shop/web"`, "field=spec.ingress[0].from[0].ipBlock.cidr", "10.0.0.0/99")
	waitOutcome(t, k, "drop")
}

// TestConfigValidate names everything that is wrong.
func TestConfigValidate(t *testing.T) {
	err := Run(t.Context(), Config{HealthAddr: "nonsense", Deny: 77})
	for _, part := range []string{"name is empty", "no source", "no kernel", "nonsense", "77"} {
		require.ErrorContains(t, err, part)
	}
	require.NoError(t, Config{Node: "n", Source: Manifests("d"), Kernel: nft.NewFake(), HealthAddr: "[::1]:80"}.Validate())

	taken := startAgent(t, Config{Source: Manifests(t.TempDir()), Kernel: nft.NewFake(), HealthAddr: "127.0.0.1:0"})
	line := taken.log.wait(t, "health endpoint", "address=")
	_, addr, _ := strings.Cut(strings.TrimSpace(line), "address=")
	_, logger := newLogbook()
	err = Run(t.Context(), Config{Node: "n", Source: Manifests(t.TempDir()), Kernel: nft.NewFake(), HealthAddr: addr, Logger: logger})
	require.ErrorContains(t, err, addr)
}
