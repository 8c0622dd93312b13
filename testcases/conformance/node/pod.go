package node

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
)

// sync brings one pod to where its object says it should be.
func (n *Nodes) sync(ctx context.Context, key string) error {
	namespace, name, err := cache.SplitMetaNamespaceKey(key)
	if err != nil {
		return err
	}
	pod, err := n.pods.Pods(namespace).Get(name)
	if err != nil && !apierrors.IsNotFound(err) {
		return err
	}
	box := n.sandbox(key)
	if box != nil && (pod == nil || box.uid != pod.UID) {
		if err := n.remove(key, box, 0); err != nil {
			return err
		}
		box = nil
	}
	switch {
	case pod == nil:
		return nil
	case pod.DeletionTimestamp != nil:
		return n.terminate(ctx, key, box, pod)
	case len(pod.Spec.SchedulingGates) > 0:
		return nil
	case pod.Spec.NodeName == "":
		return n.bind(ctx, pod)
	case pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed:
		if box != nil {
			return n.remove(key, box, 0)
		}
		return nil
	case box == nil:
		if box, err = n.create(ctx, key, pod); err != nil {
			return err
		}
	}
	return n.report(ctx, pod, box)
}

// terminate ends a pod that was deleted gracefully, and then its object.
func (n *Nodes) terminate(ctx context.Context, key string, box *sandbox, pod *corev1.Pod) error {
	if box != nil {
		grace := time.Duration(0)
		if s := pod.DeletionGracePeriodSeconds; s != nil {
			grace = time.Duration(*s) * time.Second
		}
		if err := n.remove(key, box, grace); err != nil {
			return err
		}
	}
	now := int64(0)
	err := n.Client.CoreV1().Pods(pod.Namespace).Delete(ctx, pod.Name, metav1.DeleteOptions{
		GracePeriodSeconds: &now,
		Preconditions:      &metav1.Preconditions{UID: &pod.UID},
	})
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil // gone, or another one by now
	}
	return err
}

// bind gives a pod a node: in turn, among those that its nodeSelector and its affinity to
// nodes allow. The pods of a DaemonSet have one for a single node.
func (n *Nodes) bind(ctx context.Context, pod *corev1.Pod) error {
	var nodes []string
	required := nodeaffinity.GetRequiredNodeAffinity(pod)
	for _, name := range n.Lab.Nodes() {
		ok, err := required.Match(n.object(name))
		if err != nil {
			return err
		}
		if ok {
			nodes = append(nodes, name)
		}
	}
	if len(nodes) == 0 {
		return fmt.Errorf("no node for nodeSelector %v and affinity %v", pod.Spec.NodeSelector, pod.Spec.Affinity)
	}
	n.mu.Lock()
	node := nodes[n.bound%len(nodes)]
	n.bound++
	n.mu.Unlock()
	err := n.Client.CoreV1().Pods(pod.Namespace).Bind(ctx, &corev1.Binding{
		ObjectMeta: metav1.ObjectMeta{Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID},
		Target:     corev1.ObjectReference{Kind: "Node", Name: node},
	}, metav1.CreateOptions{})
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil // deleted, or bound already: the next event tells
	}
	return err
}
