package check

import (
	"maps"
	"path/filepath"
	"slices"
	"testing"

	monitoringv1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
)

// TestServiceListsAgents checks that with all values the Service is there when Prometheus
// can reach the agents, and has the address of each, whether it is ready or not.
func TestServiceListsAgents(t *testing.T) {
	given := slices.Collect(maps.Values(values(t)))
	for _, address := range []string{"10.0.0.1", "0.0.0.0", "fd00::1"} {
		given = append(given, []byte("metrics: {enabled: true, port: 9000, bindAddress: '"+address+"'}"))
	}
	services := 0
	for _, g := range given {
		text, _, err := helmTemplate(g)
		require.NoError(t, err)
		objects := decode(t, text)
		daemon := object[*appsv1.DaemonSet](t, objects)
		ports := daemon.Spec.Template.Spec.Containers[0].Ports
		_, found := objects["Service/portcullis-metrics"]
		require.Equal(t, len(ports) == 1, found, "%s", g)
		if !found {
			continue
		}
		services++
		s := object[*corev1.Service](t, objects)
		require.Equal(t, daemon.Namespace, s.Namespace)
		require.Equal(t, daemon.Spec.Template.Labels, s.Spec.Selector)
		require.Equal(t, corev1.ClusterIPNone, s.Spec.ClusterIP)
		require.True(t, s.Spec.PublishNotReadyAddresses)
		require.Equal(t, corev1.IPFamilyPolicySingleStack, *s.Spec.IPFamilyPolicy)
		require.Len(t, s.Spec.Ports, 1)
		require.Equal(t, ports[0].Name, s.Spec.Ports[0].TargetPort.String())
		require.Equal(t, ports[0].ContainerPort, s.Spec.Ports[0].Port)
	}
	require.GreaterOrEqual(t, services, 3)
	for _, address := range []string{"127.0.0.1", "127.0.0.2", "::1"} {
		text, _, err := helmTemplate([]byte("metrics: {enabled: true, bindAddress: '" + address + "'}"))
		require.NoError(t, err)
		require.NotContains(t, decode(t, text), "Service/portcullis-metrics", "nobody listens at the node's address")
	}
}

// TestMonitorFindsService checks that the ServiceMonitor selects the Service and nothing
// else, and that series get the labels that the rules and the dashboard ask for. The
// operator adds namespace, pod and instance by itself.
func TestMonitorFindsService(t *testing.T) {
	text, _, err := helmTemplate(values(t)[filepath.Join("crds", "prometheus")])
	require.NoError(t, err)
	objects := decode(t, text)
	s := object[*corev1.Service](t, objects)
	m := object[*monitoringv1.ServiceMonitor](t, objects)
	require.Equal(t, s.Namespace, m.Namespace)
	require.Equal(t, monitoringv1.NamespaceSelector{}, m.Spec.NamespaceSelector, "its own")
	selector, err := metav1.LabelSelectorAsSelector(&m.Spec.Selector)
	require.NoError(t, err)
	require.False(t, selector.Empty())
	require.True(t, selector.Matches(labels.Set(s.Labels)))

	require.Len(t, m.Spec.Endpoints, 1)
	e := m.Spec.Endpoints[0]
	require.Equal(t, s.Spec.Ports[0].Name, e.Port)
	require.True(t, e.HonorLabels)
	require.Equal(t, []monitoringv1.RelabelConfig{{
		SourceLabels: []monitoringv1.LabelName{"__meta_kubernetes_pod_node_name"}, TargetLabel: "node"}}, e.RelabelConfigs)
	jobs := jobsAskedFor(t)
	require.NotEmpty(t, jobs)
	for job := range jobs {
		require.Equal(t, s.Labels[m.Spec.JobLabel], job)
	}
	requireMonitored(t, objects)
}

// jobsAskedFor are the values of the label job in all rules and panels.
func jobsAskedFor(t *testing.T) map[string]bool {
	t.Helper()
	out := map[string]bool{}
	for where, text := range expressions(t) {
		e, err := promQL.ParseExpr(text)
		require.NoError(t, err, where)
		parser.Inspect(e, func(node parser.Node, _ []parser.Node) error {
			if v, ok := node.(*parser.VectorSelector); ok {
				for _, l := range v.LabelMatchers {
					if l.Name == "job" {
						out[l.Value] = true
					}
				}
			}
			return nil
		})
	}
	return out
}

// requireMonitored requires that the runbook for series that are not there names what has
// to be there.
func requireMonitored(t *testing.T, objects map[string]runtime.Object) {
	t.Helper()
	for _, r := range alerts(t) {
		if r.Alert == "PortcullisAbsent" {
			require.Contains(t, r.Annotations["runbook"], "ServiceMonitor")
			require.Contains(t, r.Annotations["runbook"], object[*corev1.Service](t, objects).Name)
			return
		}
	}
	require.Fail(t, "no such alert")
}
