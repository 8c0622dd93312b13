package matrix

import (
	"net/netip"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/portcullis-netpol/portcullis/policy/evaluate"
)

// Input is one state of a cluster. It is not changed.
type Input struct {
	Cluster evaluate.Cluster
	// PodCIDRs are blocks that pods get their addresses from; no address in them counts as outside. Those of
	// spec.podCIDRs of the Nodes belong here, too.
	PodCIDRs []netip.Prefix
	// Workload names what a pod belongs to ("Deployment web"), or is empty for a pod of its own. Nil means WorkloadOf.
	Workload func(*corev1.Pod) string
}

// WorkloadOf names the workload of a pod by its controller, "Deployment web", or is empty. The Deployment of a
// ReplicaSet is known by the hash that it gives to both.
func WorkloadOf(pod *corev1.Pod) string {
	owner := metav1.GetControllerOf(pod)
	if owner == nil {
		return ""
	}
	if hash := pod.Labels["pod-template-hash"]; owner.Kind == "ReplicaSet" && hash != "" {
		if name, ok := strings.CutSuffix(owner.Name, "-"+hash); ok && name != "" {
			return "Deployment " + name
		}
	}
	return owner.Kind + " " + owner.Name
}

// By is what a row stands for.
type By string

// The kinds of rows.
const (
	// ByPod is a row for pods of one workload that no policy can tell apart. Pods without a workload are put together
	// if all their labels are the same.
	ByPod By = "pod"
	// ByWorkload is a row for a workload, and for each pod that has none.
	ByWorkload By = "workload"
	// ByNamespace is a row for all pods of a namespace.
	ByNamespace By = "namespace"
)

// Options say what to show.
type Options struct {
	// Views are the kinds of rows; each becomes a View. Empty means ByPod.
	Views []By
	// Namespaces are those whose pods have rows of their own kind; other namespaces have one row each, and cells between
	// two of these are left empty. Empty means all namespaces.
	Namespaces []string
	// Progress is told now and then how many of all questions were answered. It may be nil.
	Progress func(done, total int)
}
