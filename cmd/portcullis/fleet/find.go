package fleet

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// Selector is the label that every agent's pod has, and Container where the agent runs.
const (
	Selector  = "app.kubernetes.io/name=portcullis"
	Container = "agent"
)

// Agent is the agent of a node.
type Agent struct {
	Node string
	// Pod is the name of its pod, "" if there is none that can be asked, for the reason Why.
	Pod string
	Why string
	// Absent says that the node has no pod of an agent at all.
	Absent bool
}

// Find lists the agents in a namespace, one for each Linux node, sorted by node. With
// complete false the nodes could not be listed, and those without any pod are missing.
func Find(ctx context.Context, client kubernetes.Interface, namespace string) (agents []Agent, complete bool, err error) {
	pods, err := client.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{LabelSelector: Selector})
	if err != nil {
		return nil, false, fmt.Errorf("list the agents' pods: %w", err)
	}
	byNode := map[string]*corev1.Pod{}
	for i := range pods.Items {
		p := &pods.Items[i]
		if has(p, Container) && p.Spec.NodeName != "" && (byNode[p.Spec.NodeName] == nil || better(p, byNode[p.Spec.NodeName])) {
			byNode[p.Spec.NodeName] = p
		}
	}
	nodes, err := client.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	complete = err == nil
	if err != nil && !apierrors.IsForbidden(err) {
		return nil, false, fmt.Errorf("list the nodes: %w", err)
	}
	if complete {
		for _, n := range nodes.Items {
			if os := n.Labels[corev1.LabelOSStable]; byNode[n.Name] == nil && (os == "" || os == "linux") {
				agents = append(agents, Agent{Node: n.Name, Why: "no pod of the agent runs here", Absent: true})
			}
		}
	}
	for node, p := range byNode {
		a := Agent{Node: node}
		if a.Why = unable(p); a.Why == "" {
			a.Pod = p.Name
		}
		agents = append(agents, a)
	}
	slices.SortFunc(agents, func(a, b Agent) int { return strings.Compare(a.Node, b.Node) })
	return agents, complete, nil
}

func has(p *corev1.Pod, container string) bool {
	return slices.ContainsFunc(p.Spec.Containers, func(c corev1.Container) bool { return c.Name == container })
}

// better orders the pods of one node, of which an update leaves two for a while.
func better(a, b *corev1.Pod) bool {
	able := func(p *corev1.Pod) int {
		switch {
		case unable(p) != "":
			return 0
		case p.DeletionTimestamp != nil:
			return 1
		}
		return 2
	}
	return cmp.Or(
		cmp.Compare(able(a), able(b)),
		a.CreationTimestamp.Compare(b.CreationTimestamp.Time),
		strings.Compare(a.Name, b.Name)) > 0
}

// unable says why no command can run in the agent's container, or nothing.
func unable(p *corev1.Pod) string {
	for _, s := range p.Status.ContainerStatuses {
		if s.Name != Container {
			continue
		}
		switch {
		case s.State.Running != nil:
			return ""
		case s.State.Waiting != nil && s.State.Waiting.Reason != "":
			return fmt.Sprintf("pod %s does not run: %s", p.Name, s.State.Waiting.Reason)
		case s.State.Terminated != nil:
			return fmt.Sprintf("pod %s does not run: the agent ended with code %d", p.Name, s.State.Terminated.ExitCode)
		}
	}
	if len(p.Status.ContainerStatuses) == 0 && p.Status.Phase == corev1.PodRunning {
		return ""
	}
	return fmt.Sprintf("pod %s does not run: %s", p.Name, cmp.Or(string(p.Status.Phase), "it has not been started"))
}
