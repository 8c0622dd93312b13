package node

import (
	"context"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// report writes the pod's status, if it is another one than the object has.
func (n *Nodes) report(ctx context.Context, pod *corev1.Pod, box *sandbox) error {
	status := n.status(pod, box)
	if equality.Semantic.DeepEqual(pod.Status, status) {
		return nil
	}
	updated := pod.DeepCopy()
	updated.Status = status
	_, err := n.Client.CoreV1().Pods(pod.Namespace).UpdateStatus(ctx, updated, metav1.UpdateOptions{})
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil // the next event tells
	}
	return err
}

// status is the status that a kubelet would report.
func (n *Nodes) status(pod *corev1.Pod, box *sandbox) corev1.PodStatus {
	s := *pod.Status.DeepCopy()
	s.StartTime = &box.started
	s.HostIPs, s.PodIPs, s.ContainerStatuses = nil, nil, nil
	for _, a := range n.nodeAddrs(pod.Spec.NodeName) {
		s.HostIPs = append(s.HostIPs, corev1.HostIP{IP: a.String()})
	}
	for _, a := range box.addrs {
		s.PodIPs = append(s.PodIPs, corev1.PodIP{IP: a.String()})
	}
	s.HostIP, s.PodIP = s.HostIPs[0].IP, s.PodIPs[0].IP
	box.mu.Lock()
	for _, c := range box.programs {
		s.ContainerStatuses = append(s.ContainerStatuses, c.status())
	}
	box.mu.Unlock()
	s.Phase = phase(pod.Spec.RestartPolicy, s.ContainerStatuses)
	ready := corev1.ConditionTrue
	if slices.ContainsFunc(s.ContainerStatuses, func(c corev1.ContainerStatus) bool { return !c.Ready }) {
		ready = corev1.ConditionFalse
	}
	for _, t := range []corev1.PodConditionType{corev1.PodReadyToStartContainers, corev1.PodInitialized} {
		setCondition(&s, t, corev1.ConditionTrue)
	}
	for _, t := range []corev1.PodConditionType{corev1.ContainersReady, corev1.PodReady} {
		setCondition(&s, t, ready)
	}
	return s
}

func setCondition(s *corev1.PodStatus, t corev1.PodConditionType, to corev1.ConditionStatus) {
	i := slices.IndexFunc(s.Conditions, func(c corev1.PodCondition) bool { return c.Type == t })
	if i < 0 {
		s.Conditions = append(s.Conditions, corev1.PodCondition{Type: t})
		i = len(s.Conditions) - 1
	}
	if s.Conditions[i].Status != to {
		s.Conditions[i].Status = to
		s.Conditions[i].LastTransitionTime = metav1.Now()
	}
}

func (c program) status() corev1.ContainerStatus {
	running := c.process != nil
	s := corev1.ContainerStatus{
		Name: c.spec.Name, Image: c.spec.Image, ImageID: c.image.name, ContainerID: "process://" + c.spec.Name,
		Ready: running && c.ready, Started: &running, RestartCount: c.restarts,
	}
	switch {
	case running:
		s.State.Running = &corev1.ContainerStateRunning{StartedAt: c.started}
		if c.ended != nil {
			s.LastTerminationState.Terminated = c.ended
		}
	case c.problem != "":
		s.State.Waiting = &corev1.ContainerStateWaiting{Reason: "CreateContainerError", Message: c.problem}
	default:
		s.State.Terminated = c.ended
	}
	return s
}

// phase follows from the containers: a pod is done when all have ended for good.
func phase(policy corev1.RestartPolicy, containers []corev1.ContainerStatus) corev1.PodPhase {
	waiting, failed := false, false
	for _, c := range containers {
		t := c.State.Terminated
		switch {
		case c.State.Waiting != nil:
			waiting = true
		case t == nil || policy == corev1.RestartPolicyAlways || policy == corev1.RestartPolicyOnFailure && t.ExitCode != 0:
			return corev1.PodRunning
		case t.ExitCode != 0:
			failed = true
		}
	}
	switch {
	case waiting:
		return corev1.PodPending
	case failed:
		return corev1.PodFailed
	}
	return corev1.PodSucceeded
}
