package agent

import (
	"bytes"
	"io"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"

	"github.com/portcullis-netpol/portcullis/agent/admin"
	"github.com/portcullis-netpol/portcullis/policy"
	"github.com/portcullis-netpol/portcullis/policy/manifest"
	"github.com/portcullis-netpol/portcullis/testcases/lab"
)

// onTrial isolates app=ghost for ingress, in audit mode, but for pods with app=db.
func onTrial() *networkingv1.NetworkPolicy {
	p := allowFrom("db")
	p.Name, p.UID, p.Generation = "trial", "uid-trial", 3
	p.Annotations = map[string]string{policy.AnnotationMode: policy.ModeAudit.String()}
	p.Spec.PodSelector.MatchLabels = map[string]string{"app": "ghost"}
	return p
}

// TestDeniedPacketsHaveNames sends real packets: one that is denied, one that would be and
// one of a pod that nobody knows. People are told at the admin socket who it was and why.
func TestDeniedPacketsHaveNames(t *testing.T) {
	for _, topo := range []lab.Topology{lab.Routed, lab.Bridged} {
		t.Run(topo.String(), func(t *testing.T) {
			t.Parallel()
			n := newLab(t, topo)
			client := fake.NewClientset(testNode("node-1"), &corev1.Namespace{ObjectMeta: meta("", "shop", "1")}, allowFrom("db"), onTrial(),
				shopPodAt("web", "node-1", n.web()), shopPodAt("ghost", "node-1", n.ghost()), shopPodAt("far", "node-2", n.addrs("node-2", 9)))
			cfg := n.config(client)
			cfg.PodCIDRs = n.PodCIDRs("node-1")
			cfg.LogGroup, cfg.AdminSocket = 4040, filepath.Join(t.TempDir(), "run", "a.sock")
			cfg.MetricsAddr = "127.0.0.1:0"
			a := startAgent(t, cfg)
			addr := metricsAddr(t, a)
			a.log.wait(t, "table in force")
			agent := admin.New(cfg.AdminSocket)

			n.sees("shop/far", n.web(), false)
			for _, to := range n.web() {
				for _, protocol := range []string{"tcp", "udp"} {
					d := firstDenial(t, agent, to, protocol)
					require.Equal(t, admin.ReasonPolicy, d.Reason)
					require.Equal(t, "ingress", d.Direction)
					require.Equal(t, "shop/far", d.Source.Pod)
					require.Equal(t, map[string]string{"app": "far"}, d.Source.Labels)
					require.Contains(t, n.addrs("node-2", 9), d.Source.Addr)
					require.Equal(t, "shop/web", d.Destination.Pod)
					require.EqualValues(t, labPort, d.Port)
					require.NotZero(t, d.SourcePort)
					require.Equal(t, []string{"shop/web"}, d.Policies)
					require.NotNil(t, d.Closest)
					require.Equal(t, "shop/web spec.ingress[0]", d.Closest.Policy+" "+d.Closest.Rule)
					require.Contains(t, d.Closest.Missing, "from pod shop/far")
				}
			}
			require.Contains(t, a.log.wait(t, `msg="packet denied"`, "sourcePod=shop/far"), "closest=")

			n.sees("shop/far", n.ghost(), true)
			d := firstDenial(t, agent, n.ghost()[0], "tcp")
			require.Equal(t, admin.ReasonAudit, d.Reason)
			require.Equal(t, []string{"shop/trial"}, d.Policies)
			require.Equal(t, "shop/trial", d.Closest.Policy)
			a.log.wait(t, `msg="packet would be denied"`, "destinationPod=shop/ghost")
			audit, err := agent.Audit(t.Context())
			require.NoError(t, err)
			require.NotEmpty(t, audit.Rows)
			require.Equal(t, "shop/ghost", audit.Rows[0].Destination.Pod)
			require.GreaterOrEqual(t, audit.Packets, audit.Logged)

			require.NoError(t, client.CoreV1().Pods("shop").Delete(t.Context(), "ghost", metav1.DeleteOptions{}))
			waitMetrics(t, addr, "portcullis_pod_addresses 2")
			n.sees("shop/far", n.ghost(), false)
			d = reasonedDenial(t, agent, admin.ReasonQuarantine)
			require.Empty(t, d.Destination.Pod)
			require.Equal(t, "shop/far", d.Source.Pod)
			checkState(t, agent)
		})
	}
}

// checkState looks at what else there is to ask.
func checkState(t *testing.T, agent *admin.Client) {
	t.Helper()
	s, err := agent.State(t.Context())
	require.NoError(t, err)
	require.True(t, s.Ready, s.Obstacles)
	require.Positive(t, s.Rules)
	require.Positive(t, s.Sets)
	require.Positive(t, s.Elements)
	require.Len(t, s.Policies, 2)
	require.Equal(t, []any{"trial", "audit", int64(3), 0}, []any{s.Policies[0].Name, s.Policies[0].Mode, s.Policies[0].InForce, s.Policies[0].Pods})
	require.Equal(t, []any{"web", "enforce", 1}, []any{s.Policies[1].Name, s.Policies[1].Mode, s.Policies[1].Pods})
	body, err := agent.Objects(t.Context())
	require.NoError(t, err)
	defer body.Close()
	text, err := io.ReadAll(body)
	require.NoError(t, err)
	o, err := manifest.Decode("agent", bytes.TrimSpace(text))
	require.NoError(t, err)
	require.NoError(t, o.Validate())
	require.Len(t, o.Pods, 2)
	require.Len(t, o.Policies, 2)
	require.Contains(t, o.Policies[0].Annotations, policy.AnnotationMode)
}

// firstDenial returns the first denied packet to an address, by a protocol.
func firstDenial(t *testing.T, c *admin.Client, to netip.Addr, protocol string) admin.Denial {
	t.Helper()
	return denialThat(t, c, func(d admin.Denial) bool { return d.Destination.Addr == to && d.Protocol == protocol })
}

func reasonedDenial(t *testing.T, c *admin.Client, r admin.Reason) admin.Denial {
	t.Helper()
	return denialThat(t, c, func(d admin.Denial) bool { return d.Reason == r })
}

func denialThat(t *testing.T, c *admin.Client, is func(admin.Denial) bool) admin.Denial {
	t.Helper()
	for d, err := range c.Denied(t.Context(), true) {
		require.NoError(t, err)
		if is(d) {
			return d
		}
	}
	t.Fatal("the agent ended")
	return admin.Denial{}
}

// TestDeniedPacketsAreCounted has the kernel's counters at /metrics.
func TestDeniedPacketsAreCounted(t *testing.T) {
	n := newLab(t, lab.Routed)
	client := fake.NewClientset(testNode("node-1"), &corev1.Namespace{ObjectMeta: meta("", "shop", "1")}, allowFrom("db"), onTrial(),
		shopPodAt("web", "node-1", n.web()), shopPodAt("ghost", "node-1", n.ghost()), shopPodAt("far", "node-2", n.addrs("node-2", 9)))
	cfg := n.config(client)
	cfg.MetricsAddr = "127.0.0.1:0"
	a := startAgent(t, cfg)
	addr := metricsAddr(t, a)
	a.log.wait(t, "table in force")
	for to, metric := range map[netip.Addr]string{
		n.web()[0]:   `portcullis_denied_packets_total{direction="ingress",namespace="shop"}`,
		n.ghost()[0]: `portcullis_audited_packets_total{direction="ingress"}`,
	} {
		n.sees("shop/far", []netip.Addr{to}, to != n.web()[0])
		eventually(t, metric, func() bool { return counter(t, addr, metric) >= 1 })
	}
	require.Positive(t, counter(t, addr, "portcullis_table_rules"))
	require.Positive(t, counter(t, addr, "portcullis_table_sets"))
	require.Positive(t, counter(t, addr, "portcullis_table_elements"))
}

// metricsAddr returns where an agent serves its metrics.
func metricsAddr(t *testing.T, a *agentTest) string {
	t.Helper()
	_, addr, _ := strings.Cut(strings.TrimSpace(a.log.wait(t, "metrics endpoint", "address=")), "address=")
	return addr
}

// counter returns the value of a metric, 0 if it is not there.
func counter(t *testing.T, addr, metric string) float64 {
	t.Helper()
	for _, line := range scrape(t, addr) {
		if value, ok := strings.CutPrefix(line, metric+" "); ok {
			n, err := strconv.ParseFloat(value, 64)
			require.NoError(t, err)
			return n
		}
	}
	return 0
}
