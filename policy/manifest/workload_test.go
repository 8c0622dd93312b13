package manifest_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"

	"github.com/portcullis-netpol/portcullis/policy/manifest"
)

func deployment(name string, replicas int) string {
	return workload("apps/v1", "Deployment", name, fmt.Sprintf("replicas: %d, template: %s", replicas, template))
}

const template = "{metadata: {labels: {app: web}, annotations: {note: x}}, spec: {containers: [{name: c, ports: [{name: http, containerPort: 80}]}]}}"

func workload(apiVersion, kind, name, spec string) string {
	return fmt.Sprintf("{apiVersion: %s, kind: %s, metadata: {name: %s, namespace: shop}, spec: {%s}}\n", apiVersion, kind, name, spec)
}

// pods lists the names of the pods and the nodes they are bound to.
func pods(o *manifest.Objects) []string {
	var out []string
	for _, p := range o.Pods {
		out = append(out, strings.TrimSuffix(p.Name+" "+p.Spec.NodeName, " "))
	}
	return out
}

func TestWorkloads(t *testing.T) {
	const nodes = "---\n{apiVersion: v1, kind: Node, metadata: {name: node-1}}\n---\n{apiVersion: v1, kind: Node, metadata: {name: node-2}}\n"
	for _, tt := range []struct {
		name, text string
		want       []string
	}{
		{"deployment", deployment("d", 2), []string{"d-0", "d-1"}},
		{"replicas left out", workload("apps/v1", "Deployment", "d", ""), []string{"d-0"}},
		{"no replicas", deployment("d", 0), nil},
		{"replica set", workload("apps/v1", "ReplicaSet", "r", "replicas: 2"), []string{"r-0", "r-1"}},
		{"stateful set", workload("apps/v1", "StatefulSet", "s", "replicas: 2"), []string{"s-0", "s-1"}},
		{"stateful set with a start", workload("apps/v1", "StatefulSet", "s", "replicas: 2, ordinals: {start: 5}"), []string{"s-5", "s-6"}},
		{"replication controller", workload("v1", "ReplicationController", "r", "replicas: 1"), []string{"r-0"}},
		{"job", workload("batch/v1", "Job", "j", "parallelism: 2, completions: 9"), []string{"j-0", "j-1"}},
		{"cron job", workload("batch/v1", "CronJob", "c", "jobTemplate: {spec: {parallelism: 2}}"), []string{"c-0", "c-1"}},
		{"cron job, left out", workload("batch/v1", "CronJob", "c", ""), []string{"c-0"}},
		{"daemon set without nodes", workload("apps/v1", "DaemonSet", "d", ""), []string{"d-0"}},
		{"daemon set", workload("apps/v1", "DaemonSet", "d", "") + nodes, []string{"d-0 node-1", "d-1 node-2"}},
		{"two kinds of one name", deployment("x", 1) + "---\n" + workload("batch/v1", "Job", "x", "parallelism: 2"), []string{"x-0", "x-job-0", "x-1"}},
		{"a pod that has the name", deployment("x", 1) + "---\n{apiVersion: v1, kind: Pod, metadata: {name: x-0, namespace: shop}}", []string{"x-0", "x-deployment-0"}},
	} {
		t.Run(tt.name, func(t *testing.T) { assert.Equal(t, tt.want, pods(decode(t, tt.text))) })
	}
}

func TestPodsOfWorkloads(t *testing.T) {
	texts := map[string]string{
		"Deployment":            deployment("w", 2),
		"ReplicaSet":            workload("apps/v1", "ReplicaSet", "w", "replicas: 2, template: "+template),
		"DaemonSet":             workload("apps/v1", "DaemonSet", "w", "template: "+template),
		"ReplicationController": workload("v1", "ReplicationController", "w", "template: "+template),
		"Job":                   workload("batch/v1", "Job", "w", "template: "+template),
		"CronJob":               workload("batch/v1", "CronJob", "w", "jobTemplate: {spec: {template: "+template+"}}"),
		"StatefulSet":           workload("apps/v1", "StatefulSet", "w", "template: "+template),
	}
	for kind, text := range texts {
		t.Run(kind, func(t *testing.T) {
			o := decode(t, text)
			p := o.Pods[0]
			want := map[string]string{"app": "web"}
			if kind == "StatefulSet" {
				want["statefulset.kubernetes.io/pod-name"] = "w-0"
				want["apps.kubernetes.io/pod-index"] = "0"
			}
			assert.Equal(t, want, p.Labels)
			assert.Equal(t, map[string]string{"note": "x"}, p.Annotations)
			assert.Equal(t, "shop", p.Namespace)
			assert.EqualValues(t, 80, p.Spec.Containers[0].Ports[0].ContainerPort)
			assert.Equal(t, manifest.Origin{File: "test.yaml", Document: 1, Line: 1}, o.Origins["Pod shop/w-0"])
		})
	}
	o := decode(t, deployment("w", 2))
	o.Pods[0].Labels["app"] = "changed"
	assert.Equal(t, "web", o.Pods[1].Labels["app"], "pods share nothing")
}

func TestOutputOfKubectlGetAll(t *testing.T) {
	owned := func(apiVersion, kind, name, ownerKind, owner string) string {
		return fmt.Sprintf("{apiVersion: %s, kind: %s, metadata: {name: %s, namespace: shop, ownerReferences: [{apiVersion: x/v1, kind: %s, name: %s, uid: u, controller: true}]}}\n",
			apiVersion, kind, name, ownerKind, owner)
	}
	given := decode(t, strings.Join([]string{
		owned("v1", "Pod", "web-1a-xyz", "ReplicaSet", "web-1a"),
		deployment("web", 2),
		owned("apps/v1", "ReplicaSet", "web-1a", "Deployment", "web"),
		owned("v1", "Pod", "alone", "Custom", "thing"),
	}, "---\n"))
	assert.Equal(t, []string{"web-1a-xyz", "alone"}, pods(given), "the pods are given")

	notGiven := decode(t, deployment("web", 1)+"---\n"+owned("apps/v1", "ReplicaSet", "web-1a", "Deployment", "web")+
		"---\n"+owned("batch/v1", "Job", "nightly-5", "CronJob", "nightly"))
	assert.Equal(t, []string{"web-0", "nightly-5-0"}, pods(notGiven), "only the outermost that is given makes pods")

	circle := decode(t, owned("v1", "Pod", "p", "Job", "a")+"---\n"+owned("batch/v1", "Job", "a", "Job", "b")+"---\n"+owned("batch/v1", "Job", "b", "Job", "a"))
	assert.Equal(t, []string{"p"}, pods(circle))
}

func TestLongWorkloadNames(t *testing.T) {
	o := decode(t, deployment(strings.Repeat("a", 250)+"."+"bc", 1))
	assert.Equal(t, strings.Repeat("a", 250)+"-0", o.Pods[0].Name)
}

// placeable is four pods that want a place.
func placeable(t *testing.T) *manifest.Objects {
	return decode(t, deployment("web", 4))
}

func twoNodes() []manifest.PlaceNode {
	return []manifest.PlaceNode{
		{Name: "node-1", PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.1.0/24"), netip.MustParsePrefix("fd00:1::/64")}},
		{Name: "node-2", PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.2.0/24"), netip.MustParsePrefix("fd00:2::/64")}},
	}
}

// placed is what Place decides about a pod.
func placed(o *manifest.Objects) []string {
	var out []string
	for _, p := range o.Pods {
		ips := []string{p.Name, p.Spec.NodeName, string(p.Status.Phase), p.Status.PodIP}
		for _, ip := range p.Status.PodIPs {
			ips = append(ips, ip.IP)
		}
		out = append(out, strings.Join(ips, " "))
	}
	return out
}

func TestPlace(t *testing.T) {
	o := placeable(t)
	require.NoError(t, o.Place(twoNodes()))
	want := []string{
		"web-0 node-1 Running 10.244.1.2 10.244.1.2 fd00:1::2",
		"web-1 node-2 Running 10.244.2.2 10.244.2.2 fd00:2::2",
		"web-2 node-1 Running 10.244.1.3 10.244.1.3 fd00:1::3",
		"web-3 node-2 Running 10.244.2.3 10.244.2.3 fd00:2::3",
	}
	assert.Equal(t, want, placed(o))
	require.NoError(t, o.Place(twoNodes()))
	assert.Equal(t, want, placed(o), "placing twice changes nothing")
	again := placeable(t)
	require.NoError(t, again.Place(twoNodes()))
	assert.Equal(t, want, placed(again))
}

func TestPlaceInOverlappingBlocks(t *testing.T) {
	o := placeable(t)
	require.NoError(t, o.Place([]manifest.PlaceNode{
		{Name: "node-1", PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/24")}},
		{Name: "node-2", PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/16")}},
	}))
	assert.Equal(t, []string{
		"web-0 node-1 Running 10.0.0.2 10.0.0.2", "web-1 node-2 Running 10.0.0.3 10.0.0.3",
		"web-2 node-1 Running 10.0.0.4 10.0.0.4", "web-3 node-2 Running 10.0.0.5 10.0.0.5",
	}, placed(o))
}

func TestPlaceLeavesWhatIsGiven(t *testing.T) {
	o := placeable(t)
	o.Pods[0].Spec.NodeName = "node-2"
	o.Pods[1].Status = corev1.PodStatus{Phase: corev1.PodPending, PodIPs: []corev1.PodIP{{IP: "10.244.2.2"}, {IP: "::ffff:10.244.2.3"}, {IP: "x"}}}
	o.Pods[2].Spec.HostNetwork = true
	o.Pods[3].Status = corev1.PodStatus{Phase: corev1.PodFailed}
	require.NoError(t, o.Place(twoNodes()))
	assert.Equal(t, []string{
		"web-0 node-2 Running 10.244.2.4 10.244.2.4 fd00:2::2",
		"web-1 node-1 Pending  10.244.2.2 ::ffff:10.244.2.3 x",
		"web-2 node-2 Running ",
		"web-3 node-1 Failed ",
	}, placed(o))

	o = placeable(t)
	o.Pods = o.Pods[:1]
	o.Pods[0].Status.PodIP = "10.244.1.9"
	require.NoError(t, o.Place(twoNodes()))
	assert.Equal(t, []string{"web-0 node-1 Running 10.244.1.9"}, placed(o), "podIP alone is an address too")
}

func TestPlaceErrors(t *testing.T) {
	o := placeable(t)
	o.Pods[0].Spec.NodeName = "elsewhere"
	err := o.Place([]manifest.PlaceNode{{Name: "node-1", PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.0.0.1/30")}}})
	assert.EqualError(t, err, "Pod shop/web-0: spec.nodeName: there is no node \"elsewhere\" to place it on\n"+
		"Pod shop/web-2: node node-1 has no free address in 10.0.0.1/30\n"+
		"Pod shop/web-3: node node-1 has no free address in 10.0.0.1/30")
	assert.Equal(t, "10.0.0.2", o.Pods[1].Status.PodIP, "the others are placed; the broadcast address is not given")

	for _, full := range []string{"255.255.255.255/32", "255.255.255.254/31", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/128"} {
		o = placeable(t)
		o.Pods = o.Pods[:1]
		assert.Error(t, o.Place([]manifest.PlaceNode{{Name: "n", PodCIDRs: []netip.Prefix{netip.MustParsePrefix(full)}}}), full)
	}
	o = placeable(t)
	assert.ErrorContains(t, o.Place(nil), `there is no node ""`)
}
