package agent

import (
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/utils/clock"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/portcullis-netpol/portcullis/nft"
)

// scrape returns the lines of the metrics that are served at an address.
func scrape(t *testing.T, addr string) []string {
	t.Helper()
	answer, err := http.Get("http://" + addr + "/metrics")
	require.NoError(t, err)
	defer answer.Body.Close()
	require.Equal(t, http.StatusOK, answer.StatusCode)
	text, err := io.ReadAll(answer.Body)
	require.NoError(t, err)
	return strings.Split(string(text), "\n")
}

// waitMetrics waits until the metrics that are served at an address have all these lines.
func waitMetrics(t *testing.T, addr string, lines ...string) {
	t.Helper()
	var missing []string
	var last []string
	defer func() {
		if t.Failed() {
			t.Logf("missing %q of %s", missing, strings.Join(last, "\n"))
		}
	}()
	eventually(t, "the metrics say it", func() bool {
		last, missing = scrape(t, addr), nil
		for _, line := range lines {
			if !slices.Contains(last, line) {
				missing = append(missing, line)
			}
		}
		return len(missing) == 0
	})
}

// TestMetrics has an agent with a known pod, one whose address is not known yet, one
// that nobody guards, and a policy with a mistake; then the mistake goes, and the pod
// gets its address.
func TestMetrics(t *testing.T) {
	bad := allowFrom("db")
	bad.Spec.Ingress[0].From = append(bad.Spec.Ingress[0].From, networkingv1.NetworkPolicyPeer{IPBlock: &networkingv1.IPBlock{CIDR: "10.0.0.0/99"}})
	starting, host := shopPod("starting", "node-1", "10.244.1.8"), shopPod("host", "node-1", "192.0.2.1")
	starting.Status, host.Spec.HostNetwork = corev1.PodStatus{Phase: corev1.PodPending}, true
	client := fake.NewClientset(append(shop()[:4], bad, starting, host)...)
	a := startAgent(t, Config{Source: Kubernetes(client), Kernel: nft.NewFake(), MetricsAddr: "127.0.0.1:0", Version: "v1.2.3"})
	_, addr, _ := strings.Cut(strings.TrimSpace(a.log.wait(t, "metrics endpoint", "address=")), "address=")
	waitMetrics(t, addr, "portcullis_pods 2", "portcullis_quarantined_pods 1", "portcullis_pod_addresses 1",
		`portcullis_policy_problems{field="spec.ingress[].from[].ipBlock.cidr"} 1`, "portcullis_ready 1", "portcullis_healthy 1",
		`portcullis_commit_duration_seconds_count{operation="takeover"} 1`, `portcullis_commit_duration_seconds_count{operation="apply"} 0`,
		`portcullis_events_total{kind="NetworkPolicy"} 1`, `portcullis_build_info{version="v1.2.3"} 1`, "portcullis_queue_age_seconds 0")

	_, err := client.CoreV1().Pods("shop").Update(t.Context(), shopPod("starting", "node-1", "10.244.1.8"), metav1.UpdateOptions{})
	require.NoError(t, err)
	_, err = client.NetworkingV1().NetworkPolicies("shop").Update(t.Context(), allowFrom("db"), metav1.UpdateOptions{})
	require.NoError(t, err)
	waitMetrics(t, addr, "portcullis_pods 2", "portcullis_quarantined_pods 0", "portcullis_pod_addresses 2",
		`portcullis_policy_problems{field="spec.ingress[].from[].ipBlock.cidr"} 0`, `portcullis_events_total{kind="NetworkPolicy"} 2`)

	require.NoError(t, client.NetworkingV1().NetworkPolicies("shop").Delete(t.Context(), "web", metav1.DeleteOptions{}))
	require.NoError(t, client.CoreV1().Pods("shop").Delete(t.Context(), "web", metav1.DeleteOptions{}))
	waitMetrics(t, addr, "portcullis_pods 1", "portcullis_pod_addresses 1")

	// Pods that come and go without an address change no rule.
	starting.Name = "late"
	_, err = client.CoreV1().Pods("shop").Create(t.Context(), starting, metav1.CreateOptions{})
	require.NoError(t, err)
	waitMetrics(t, addr, "portcullis_pods 2", "portcullis_quarantined_pods 1")
	require.NoError(t, client.CoreV1().Pods("shop").Delete(t.Context(), "late", metav1.DeleteOptions{}))
	waitMetrics(t, addr, "portcullis_pods 1", "portcullis_quarantined_pods 0")
}

// TestMetricNames holds the names and helps of all metrics against the conventions.
func TestMetricNames(t *testing.T) {
	m := newMeters(clock.RealClock{}, "v1.2.3", newQueue(clock.RealClock{}), newHealth(clock.RealClock{}))
	problems, err := testutil.GatherAndLint(m.registry)
	require.NoError(t, err)
	require.Empty(t, problems)
}

// TestSyncLatency writes late, and not at the first attempt: what is measured begins
// with the arrival of the first change and ends with the write that succeeds.
func TestSyncLatency(t *testing.T) {
	fake := clocktesting.NewFakeClock(time.Unix(1e9, 0))
	q := newQueue(fake)
	m := newMeters(fake, "", q, newHealth(fake))
	age := func() float64 { return m.age(q).Seconds() }
	require.Zero(t, age())
	q.put(batch{events: []event{{pod("a"), nil}}})
	fake.Step(time.Second)
	require.Equal(t, 1.0, age())
	b := q.take()
	m.took(b.events, b.since)
	fake.Step(time.Second)
	q.put(batch{events: []event{{pod("b"), nil}}}) // a younger one waits
	require.Equal(t, 2.0, age())
	m.committed(opApply, fake.Now(), errors.New("no"))
	b = q.take()
	m.took(b.events, b.since)
	fake.Step(time.Second)
	require.Equal(t, 3.0, age())
	m.committed(opRepair, fake.Now().Add(-time.Second), nil)
	m.synced()
	require.Zero(t, age())
	m.synced() // nothing was taken since
	require.NoError(t, testutil.CollectAndCompare(m.failures, strings.NewReader(`
# HELP portcullis_commit_failures_total Writes to the kernel that have failed; each is tried again.
# TYPE portcullis_commit_failures_total counter
portcullis_commit_failures_total{operation="apply"} 1
portcullis_commit_failures_total{operation="repair"} 0
portcullis_commit_failures_total{operation="takeover"} 0
portcullis_commit_failures_total{operation="tidy"} 0
`)))
	families, err := m.registry.Gather()
	require.NoError(t, err)
	for _, f := range families {
		if f.GetName() == "portcullis_sync_duration_seconds" {
			require.EqualValues(t, 1, f.Metric[0].Histogram.GetSampleCount())
			require.Equal(t, 3.0, f.Metric[0].Histogram.GetSampleSum())
			return
		}
	}
	t.Fatal("no sync latency")
}
