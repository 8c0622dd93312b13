package check

import (
	"cmp"
	"flag"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/yaml"
)

var update = flag.Bool("update", false, "write the golden files anew")

// TestChartIsManifests compares object by object. The only difference that is allowed is
// the order of containers, volumes and variables, where Kustomize puts those of a component
// first. The label and the annotations that Helm puts on what it installs are not in
// templates.
func TestChartIsManifests(t *testing.T) {
	for _, c := range []struct {
		components, values string
		objects            int
	}{
		{"", "", 5},
		{"cni", "cni: {enabled: true}", 5},
		{"metrics", "metrics: {enabled: true}", 6},
		{"operator", "operatorRole: {enabled: true}", 6},
		{"grafana", "metrics: {dashboard: {enabled: true}}", 6},
		{"cni, metrics", "{cni: {enabled: true}, metrics: {enabled: true}}", 6},
		{"metrics, cni, prometheus, grafana, operator", "{cni: {enabled: true}, operatorRole: {enabled: true}, " +
			"metrics: {enabled: true, serviceMonitor: {enabled: true}, rules: {enabled: true}, dashboard: {enabled: true}}}", 10},
	} {
		want := decode(t, kustomizeBuild(t, withComponents(t, c.components)))
		rendered, _, err := helmTemplate([]byte(c.values))
		require.NoError(t, err, c.components)
		got := decode(t, rendered)
		require.Equal(t, slices.Sorted(maps.Keys(want)), slices.Sorted(maps.Keys(got)), c.components)
		require.Len(t, want, c.objects)
		inOrder(object[*appsv1.DaemonSet](t, want))
		inOrder(object[*appsv1.DaemonSet](t, got))
		for key := range want {
			require.Equal(t, text(t, want[key]), text(t, got[key]), "%s: %s", c.components, key)
		}
	}
}

// text is an object in a form whose differences are easy to read.
func text(t *testing.T, object runtime.Object) string {
	t.Helper()
	out, err := yaml.Marshal(object)
	require.NoError(t, err)
	return string(out)
}

func inOrder(d *appsv1.DaemonSet) {
	pod := &d.Spec.Template.Spec
	slices.SortFunc(pod.Containers, func(a, b corev1.Container) int { return cmp.Compare(a.Name, b.Name) })
	for i := range pod.Containers {
		slices.SortFunc(pod.Containers[i].Env, func(a, b corev1.EnvVar) int { return cmp.Compare(a.Name, b.Name) })
	}
	slices.SortFunc(pod.Volumes, func(a, b corev1.Volume) int { return cmp.Compare(a.Name, b.Name) })
}

// values are the values files of testdata by the name of what they are about. Those in
// testdata/crds give objects that a cluster does not know by itself.
func values(t *testing.T) map[string][]byte {
	t.Helper()
	files, err := filepath.Glob("testdata/*.values.yaml")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	crds, err := filepath.Glob("testdata/crds/*.values.yaml")
	require.NoError(t, err)
	require.NotEmpty(t, crds)
	files = append(files, crds...)
	out := map[string][]byte{}
	for _, f := range files {
		text, err := os.ReadFile(f)
		require.NoError(t, err)
		name, err := filepath.Rel("testdata", strings.TrimSuffix(f, ".values.yaml"))
		require.NoError(t, err)
		out[name] = text
	}
	return out
}

// TestGoldens compares with the files that the API server of the conformance bed judges.
func TestGoldens(t *testing.T) {
	for name, given := range values(t) {
		text, _, err := helmTemplate(given)
		require.NoError(t, err, name)
		golden := filepath.Join("testdata", name+".yaml")
		if *update {
			require.NoError(t, os.WriteFile(golden, []byte(text), 0o644))
		}
		want, err := os.ReadFile(golden)
		require.NoError(t, err)
		require.Equal(t, string(want), text, name)
	}
}

// TestObjectsFit checks for all values that the objects name each other as they should,
// and that none asks for more than it has a reason for.
func TestObjectsFit(t *testing.T) {
	var plain []rbacv1.PolicyRule
	for name, given := range values(t) {
		text, _, err := helmTemplate(given)
		require.NoError(t, err)
		objects := decode(t, text)
		daemon := object[*appsv1.DaemonSet](t, objects)
		account := object[*corev1.ServiceAccount](t, objects)
		binding := object[*rbacv1.ClusterRoleBinding](t, objects)
		require.Equal(t, account.Namespace, daemon.Namespace, name)
		if _, ok := objects["Namespace/"+account.Namespace]; !ok {
			require.Contains(t, string(given), "create: false", name)
		}
		require.Equal(t, account.Name, daemon.Spec.Template.Spec.ServiceAccountName, name)
		require.Equal(t, []rbacv1.Subject{{Kind: "ServiceAccount", Name: account.Name, Namespace: account.Namespace}}, binding.Subjects, name)
		role := object[*rbacv1.ClusterRole](t, objects)
		require.Equal(t, role.Name, binding.RoleRef.Name, name)
		if plain == nil {
			plain = role.Rules
		}
		require.Equal(t, plain, role.Rules, "%s: no value gives the agent more rights", name)
		for _, c := range daemon.Spec.Template.Spec.Containers {
			require.True(t, *c.SecurityContext.ReadOnlyRootFilesystem, name)
			privileged := c.SecurityContext.Privileged != nil && *c.SecurityContext.Privileged
			require.Equal(t, slices.Contains(c.Args, "--manage-sysctls"), privileged, name)
			require.Equal(t, slices.ContainsFunc(c.Args, func(a string) bool { return strings.HasPrefix(a, "--metrics-bind-address=") }), len(c.Ports) == 1, name)
			for _, a := range c.Args {
				for _, used := range regexp.MustCompile(`\$\((\w+)\)`).FindAllStringSubmatch(a, -1) {
					require.True(t, slices.ContainsFunc(c.Env, func(e corev1.EnvVar) bool { return e.Name == used[1] }), "%s: %s", name, a)
				}
			}
		}
	}
}

// object returns the only object of a type.
func object[T runtime.Object](t *testing.T, objects map[string]runtime.Object) (out T) {
	t.Helper()
	found := 0
	for _, o := range objects {
		if o, ok := o.(T); ok {
			out = o
			found++
		}
	}
	require.Equal(t, 1, found)
	return out
}

// TestFlags gives the real command the arguments of every container, for all values.
// With --help it parses them and does nothing.
func TestFlags(t *testing.T) {
	command := command(t)
	for _, args := range [][]string{{"agent", "--node-name=a", "--no-such-flag"}, {"agent", "--node-name=a", "--deny=never"}} {
		require.Error(t, exec.CommandContext(t.Context(), command, append(args, "--help")...).Run(), "the command takes anything")
	}
	for name, given := range values(t) {
		text, _, err := helmTemplate(given)
		require.NoError(t, err)
		pod := object[*appsv1.DaemonSet](t, decode(t, text)).Spec.Template.Spec
		for _, c := range pod.Containers {
			require.Equal(t, []string{"portcullis"}, c.Command)
			text, err := exec.CommandContext(t.Context(), command, append(c.Args, "--help")...).CombinedOutput()
			require.NoError(t, err, "%s: %s: %s", name, c.Name, text)
			require.Contains(t, string(text), "portcullis "+c.Args[0]+" ", "not the help of that command")
		}
		agent := pod.Containers[0]
		for path, probe := range map[string]*corev1.Probe{"/healthz": agent.LivenessProbe, "/readyz": agent.ReadinessProbe} {
			require.Contains(t, agent.Args, "--healthz-bind-address="+probe.HTTPGet.Host+":"+probe.HTTPGet.Port.String(), name)
			require.Equal(t, path, probe.HTTPGet.Path)
		}
	}
}

// TestValuesRefused refuses what would only be found out on the nodes, or never.
func TestValuesRefused(t *testing.T) {
	for name, given := range map[string]string{
		"unknown key":            "agnet: {}",
		"unknown key further in": "agent: {denny: reject}",
		"unknown resource kind":  "resources: {limit: {memory: 1Gi}}",
		"deny":                   "agent: {deny: refuse}",
		"a word for a bool":      "agent: {quarantine: 'off'}",
		"no CIDR":                "agent: {podCIDRs: [10.244.0.0]}",
		"two flags in one":       "agent: {podCIDRs: ['10.0.0.0/8 --deny=reject']}",
		"no flag":                "extraArgs: [deny]",
		"nobody is updated":      "maxUnavailable: 0",
		"relative directory":     "cni: {binDir: opt}",
		"digest":                 "image: {digest: latest}",
		"port":                   "agent: {healthzPort: 0}",
		"denied packets":         "agent: {deniedPackets: 'no'}",
		"host and port":          "metrics: {bindAddress: '10.0.0.1:10248'}",
		"a name as address":      "metrics: {bindAddress: localhost}",
		"scraped never":          "metrics: {serviceMonitor: {interval: 0s}}",
		"nobody":                 "operatorRole: {subjects: [{kind: Group}]}",
		"not a subject":          "operatorRole: {subjects: [{kind: Pod, name: a}]}",
	} {
		_, _, err := helmTemplate([]byte(given))
		require.ErrorContains(t, err, "don't meet the specifications of the schema", name)
	}
}

// TestValuesThatDoNotFit refuses what is right by itself.
func TestValuesThatDoNotFit(t *testing.T) {
	for given, reason := range map[string]string{
		"metrics: {enabled: true, port: 10247}":                                             "same port",
		"metrics: {serviceMonitor: {enabled: true}}":                                        "metrics.enabled",
		"metrics: {enabled: true, bindAddress: 127.0.0.1, serviceMonitor: {enabled: true}}": "cannot scrape",
		"metrics: {enabled: true, bindAddress: '::1', serviceMonitor: {enabled: true}}":     "cannot scrape",
	} {
		_, _, err := helmTemplate([]byte(given))
		require.ErrorContains(t, err, reason, given)
	}
}

// TestNotes shows what an installation shows.
func TestNotes(t *testing.T) {
	_, plain, err := helmTemplate(nil)
	require.NoError(t, err)
	require.Contains(t, plain, "kubectl --namespace portcullis rollout status daemonset/portcullis")
	require.NotContains(t, plain, "privileged")
	require.NotContains(t, plain, "CNI plugin")
	require.NotContains(t, plain, "Metrics")
	_, notes, err := helmTemplate([]byte("cni: {enabled: true}\nagent: {manageSysctls: true}\nnamespace: {name: other}\nmetrics: {enabled: true}"))
	require.NoError(t, err)
	require.Contains(t, notes, "port 10248 of each node's address")
	require.Contains(t, notes, "--namespace other")
	require.Contains(t, notes, "privileged")
	require.Contains(t, notes, "install-cni --remove")
}

// TestOtherEnforcers does not install beside another program that enforces policies,
// unless it is told to.
func TestOtherEnforcers(t *testing.T) {
	for api, name := range map[string]string{
		"crd.projectcalico.org/v1": "Calico", "projectcalico.org/v3": "Calico", "cilium.io/v2": "Cilium",
		"crd.antrea.io/v1beta1": "Antrea", "k8s.ovn.org/v1": "OVN-Kubernetes",
	} {
		_, _, err := helmTemplate(nil, "monitoring.coreos.com/v1", api)
		require.ErrorContains(t, err, "This cluster has the API of "+name+" ("+api+"), which enforces NetworkPolicies itself")
		_, _, err = helmTemplate([]byte("besideOtherEnforcers: true"), api)
		require.NoError(t, err)
	}
	_, _, err := helmTemplate(nil, "monitoring.coreos.com/v1")
	require.NoError(t, err)
}

// TestValuesDocumented finds every value in the table of the README.
func TestValuesDocumented(t *testing.T) {
	readme, err := os.ReadFile(filepath.Join(manifests, "README.md"))
	require.NoError(t, err)
	table := map[string]bool{}
	for _, row := range regexp.MustCompile(`(?m)^\| (.*?) \|`).FindAllStringSubmatch(string(readme), -1) {
		for _, code := range regexp.MustCompile("`([a-zA-Z.]+)`").FindAllStringSubmatch(row[1], -1) {
			table[code[1]] = true
		}
	}
	text, err := os.ReadFile(filepath.Join(chartDir, "values.yaml"))
	require.NoError(t, err)
	var all map[string]any
	require.NoError(t, yaml.UnmarshalStrict(text, &all))
	for _, path := range leaves("", all) {
		require.Contains(t, table, path)
	}
}

// whole are the values that are documented as what Kubernetes calls them.
var whole = []string{"nodeSelector", "tolerations", "resources", "cni.resources",
	"metrics.serviceMonitor.labels", "metrics.rules.labels", "metrics.dashboard.labels", "metrics.dashboard.annotations"}

// leaves are the paths of all values, as --set takes them.
func leaves(prefix string, values map[string]any) (out []string) {
	for key, value := range values {
		path := prefix + key
		if below, ok := value.(map[string]any); ok && !slices.Contains(whole, path) {
			out = append(out, leaves(path+".", below)...)
		} else {
			out = append(out, path)
		}
	}
	return out
}
