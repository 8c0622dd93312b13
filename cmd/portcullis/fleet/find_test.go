package fleet

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// TestFind takes of every node the pod that can answer, and says why there is none.
func TestFind(t *testing.T) {
	pod := func(node, name string, age int, state corev1.ContainerState, change ...func(*corev1.Pod)) corev1.Pod {
		p := corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: name, CreationTimestamp: metav1.Unix(int64(1000-age), 0)},
			Spec:       corev1.PodSpec{NodeName: node, Containers: []corev1.Container{{Name: Container}}},
			Status:     corev1.PodStatus{Phase: corev1.PodRunning, ContainerStatuses: []corev1.ContainerStatus{{Name: Container, State: state}}},
		}
		for _, c := range change {
			c(&p)
		}
		return p
	}
	running := corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}
	waiting := corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "CrashLoopBackOff"}}
	leaving := func(p *corev1.Pod) { p.DeletionTimestamp = &metav1.Time{Time: time.Unix(1000, 0)} }
	lists := map[string]any{
		"/api/v1/namespaces/portcullis/pods": &corev1.PodList{Items: []corev1.Pod{
			pod("n1", "old", 9, running),
			pod("n1", "new", 1, running),
			pod("n2", "leaving", 1, running, leaving),
			pod("n2", "staying", 9, running),
			pod("n3", "crashing", 1, waiting),
			pod("n3", "still-leaving", 9, running, leaving),
			pod("n4", "crashing-too", 1, waiting),
			pod("", "unplaced", 1, corev1.ContainerState{}),
			pod("n5", "other", 1, running, func(p *corev1.Pod) { p.Spec.Containers[0].Name = "demo" }),
			pod("n7", "pending", 1, corev1.ContainerState{}, func(p *corev1.Pod) { p.Status = corev1.PodStatus{Phase: corev1.PodPending} }),
		}},
		"/api/v1/nodes": &corev1.NodeList{Items: []corev1.Node{
			{ObjectMeta: metav1.ObjectMeta{Name: "n5"}},
			{ObjectMeta: metav1.ObjectMeta{Name: "n6", Labels: map[string]string{corev1.LabelOSStable: "windows"}}},
			{ObjectMeta: metav1.ObjectMeta{Name: "n1", Labels: map[string]string{corev1.LabelOSStable: "linux"}}},
		}},
	}
	forbidden := false
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if forbidden && r.URL.Path == "/api/v1/nodes" {
			w.WriteHeader(http.StatusForbidden)
			_ = json.NewEncoder(w).Encode(metav1.Status{Status: metav1.StatusFailure, Reason: metav1.StatusReasonForbidden, Code: http.StatusForbidden})
			return
		}
		_ = json.NewEncoder(w).Encode(lists[r.URL.Path])
	}))
	defer server.Close()
	client, err := kubernetes.NewForConfig(&rest.Config{Host: server.URL})
	require.NoError(t, err)
	agents, complete, err := Find(t.Context(), client, "portcullis")
	require.NoError(t, err)
	require.True(t, complete)
	none := Agent{Node: "n5", Why: "no pod of the agent runs here", Absent: true}
	want := []Agent{
		{Node: "n1", Pod: "new"},
		{Node: "n2", Pod: "staying"},
		{Node: "n3", Pod: "still-leaving"},
		{Node: "n4", Why: "pod crashing-too does not run: CrashLoopBackOff"},
		none,
		{Node: "n7", Why: "pod pending does not run: Pending"},
	}
	require.Equal(t, want, agents)
	forbidden = true
	agents, complete, err = Find(t.Context(), client, "portcullis")
	require.NoError(t, err)
	require.False(t, complete)
	require.Equal(t, append(want[:4:4], want[5]), agents)
}
