package manifest

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
)

// kind is how objects of one kind are read.
type kind struct {
	apiVersion string
	namespaced bool
	new        func() any       // nil: the kind does not matter and is passed over
	object     func(any) object // what becomes of the decoded object
}

// kinds are the kinds that matter, by name.
func kinds() map[string]kind {
	return map[string]kind{
		"Namespace":             plain[corev1.Namespace]("v1", false),
		"Node":                  plain[corev1.Node]("v1", false),
		"Pod":                   plain[corev1.Pod]("v1", true),
		"Service":               plain[corev1.Service]("v1", true),
		"NetworkPolicy":         plain[networkingv1.NetworkPolicy]("networking.k8s.io/v1", true),
		"ReplicationController": makesPods("v1", fromReplicationController),
		"Deployment":            makesPods("apps/v1", fromDeployment),
		"ReplicaSet":            makesPods("apps/v1", fromReplicaSet),
		"StatefulSet":           makesPods("apps/v1", fromStatefulSet),
		"DaemonSet":             makesPods("apps/v1", fromDaemonSet),
		"Job":                   makesPods("batch/v1", fromJob),
		"CronJob":               makesPods("batch/v1", fromCronJob),
	}
}

// plain is a kind that is taken as it is.
func plain[T any, P interface {
	*T
	object
}](apiVersion string, namespaced bool) kind {
	return kind{
		apiVersion: apiVersion,
		namespaced: namespaced,
		new:        func() any { return new(T) },
		object:     func(v any) object { return P(v.(*T)) },
	}
}

// makesPods is a kind of which only the pods matter.
func makesPods[T any](apiVersion string, from func(*T) *workload) kind {
	return kind{
		apiVersion: apiVersion,
		namespaced: true,
		new:        func() any { return new(T) },
		object:     func(v any) object { return from(v.(*T)) },
	}
}

// kindOf finds how to read an object. A kind that Kubernetes has, in a version that we do not know, is an error, and so
// is a kind of networking.k8s.io that does not exist: to pass over "NetworkPolcy" would leave pods open. The same kind in
// a foreign API group is another thing.
func kindOf(t typeMeta) (kind, error) {
	group, _, hasGroup := strings.Cut(t.APIVersion, "/")
	if !hasGroup {
		group = ""
	}
	k, matters := kinds()[t.Kind]
	switch {
	case matters && k.apiVersion == t.APIVersion:
		return k, nil
	case matters && slices.Contains([]string{"", "apps", "batch", "extensions", "networking.k8s.io"}, group):
		return kind{}, fmt.Errorf("apiVersion: %q is not supported for this kind, use %s", t.APIVersion, k.apiVersion)
	case group == "networking.k8s.io" && !slices.Contains([]string{"Ingress", "IngressClass", "IPAddress", "ServiceCIDR"}, strings.TrimSuffix(t.Kind, "List")):
		return kind{}, fmt.Errorf("kind: %s has no kind %q", t.APIVersion, t.Kind)
	}
	return kind{}, nil
}

// listOf tells whether a kind is a list, and what its items are if they do not say it: nothing for a plain List.
func listOf(t typeMeta) (item typeMeta, ok bool) {
	if t.Kind == "List" {
		return typeMeta{}, true
	}
	name, isList := strings.CutSuffix(t.Kind, "List")
	if _, matters := kinds()[name]; !isList || !matters {
		return typeMeta{}, false
	}
	return typeMeta{APIVersion: t.APIVersion, Kind: name}, true
}
