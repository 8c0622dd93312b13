package node

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// TestPhase: a pod is done when all its containers have ended for good.
func TestPhase(t *testing.T) {
	running := corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}
	waiting := corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{}}
	well := corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{}}
	badly := corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: 1}}
	const always, onFailure, never = corev1.RestartPolicyAlways, corev1.RestartPolicyOnFailure, corev1.RestartPolicyNever
	for _, c := range []struct {
		policy corev1.RestartPolicy
		states []corev1.ContainerState
		want   corev1.PodPhase
	}{
		{always, []corev1.ContainerState{running}, corev1.PodRunning},
		{always, []corev1.ContainerState{well}, corev1.PodRunning}, // starts again
		{always, []corev1.ContainerState{waiting}, corev1.PodPending},
		{onFailure, []corev1.ContainerState{badly}, corev1.PodRunning}, // starts again
		{onFailure, []corev1.ContainerState{well}, corev1.PodSucceeded},
		{onFailure, []corev1.ContainerState{well, running}, corev1.PodRunning},
		{never, []corev1.ContainerState{running}, corev1.PodRunning},
		{never, []corev1.ContainerState{well}, corev1.PodSucceeded},
		{never, []corev1.ContainerState{badly}, corev1.PodFailed},
		{never, []corev1.ContainerState{well, badly}, corev1.PodFailed},
		{never, []corev1.ContainerState{badly, running}, corev1.PodRunning},
	} {
		var containers []corev1.ContainerStatus
		for _, s := range c.states {
			containers = append(containers, corev1.ContainerStatus{State: s})
		}
		if got := phase(c.policy, containers); got != c.want {
			t.Errorf("%s %+v: %s, want %s", c.policy, c.states, got, c.want)
		}
	}
}
