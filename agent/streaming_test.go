package agent

import (
	"context"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer/streaming"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	restwatch "k8s.io/client-go/rest/watch"
	"k8s.io/utils/clock"

	"github.com/portcullis-netpol/portcullis/agent/lean"
)

// listServer is an API server with a Node, two pods, and nothing that changes. Its
// streaming list of pods ends only when it is told to.
type listServer struct {
	streams bool // it has streaming lists
	release chan struct{}
	lists   chan string // paths of lists that do not stream
}

// objects are those of a path, and an empty object and list of their kind.
func (s *listServer) objects(path string) (all []runtime.Object, one runtime.Object, list runtime.Object) {
	switch path {
	case "/api/v1/pods":
		a, b := versioned("a", "1", "11"), versioned("b", "2", "12")
		return []runtime.Object{a, b}, &corev1.Pod{}, &corev1.PodList{Items: []corev1.Pod{*a, *b}}
	case "/api/v1/namespaces":
		return nil, &corev1.Namespace{}, &corev1.NamespaceList{}
	case "/api/v1/nodes":
		return []runtime.Object{testNode("node-1")}, &corev1.Node{}, &corev1.NodeList{Items: []corev1.Node{*testNode("node-1")}}
	}
	return nil, &networkingv1.NetworkPolicy{}, &networkingv1.NetworkPolicyList{}
}

func (s *listServer) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	i, _ := runtime.SerializerInfoForMediaType(scheme.Codecs.SupportedMediaTypes(), runtime.ContentTypeProtobuf)
	coder := scheme.Codecs.EncoderForVersion(i.Serializer, schema.GroupVersions{corev1.SchemeGroupVersion, networkingv1.SchemeGroupVersion})
	all, one, list := s.objects(q.URL.Path)
	w.Header().Set("Content-Type", runtime.ContentTypeProtobuf)
	initial := q.FormValue("sendInitialEvents") == "true"
	switch {
	case initial && !s.streams:
		// What an API server answers that does not know them.
		refused := apierrors.NewInvalid(schema.GroupKind{Group: "meta.k8s.io", Kind: "ListOptions"}, "", nil).Status()
		w.WriteHeader(int(refused.Code))
		_ = coder.Encode(&refused, w)
		return
	case q.FormValue("watch") == "":
		s.lists <- q.URL.Path
		list.(metav1.ListInterface).SetResourceVersion("20")
		_ = coder.Encode(list, w)
		return
	}
	e := restwatch.NewEncoder(streaming.NewEncoder(i.StreamSerializer.Framer.NewFrameWriter(w), i.StreamSerializer.Serializer), coder)
	if initial {
		for _, o := range all {
			_ = e.Encode(&watch.Event{Type: watch.Added, Object: o})
		}
		w.(http.Flusher).Flush()
		if q.URL.Path == "/api/v1/pods" {
			<-s.release
		}
		m := one.(metav1.Object)
		m.SetResourceVersion("20")
		m.SetAnnotations(map[string]string{metav1.InitialEventsAnnotationKey: "true"})
		_ = e.Encode(&watch.Event{Type: watch.Bookmark, Object: one})
	}
	w.(http.Flusher).Flush()
	<-q.Context().Done()
}

// TestClusterStreams reads streaming lists where the API server has them, delivers what
// they bring at once, and is synced only when they are complete. Where it has none, it
// lists.
func TestClusterStreams(t *testing.T) {
	for _, streams := range []bool{true, false} {
		s := &listServer{streams: streams, release: make(chan struct{}), lists: make(chan string, 100)}
		server := httptest.NewServer(s)
		client, err := lean.NewClient(&rest.Config{Host: server.URL, ContentConfig: rest.ContentConfig{
			AcceptContentTypes: runtime.ContentTypeProtobuf, ContentType: runtime.ContentTypeProtobuf}})
		require.NoError(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		_, logger := newLogbook()
		c := &clusterTest{queue: newQueue(clock.RealClock{}), last: map[key]any{}}
		ended := make(chan error, 1)
		go func() {
			ended <- Kubernetes(client).run(ctx, sink{node: "node-1", queue: c.queue, health: newHealth(clock.RealClock{}), log: logger})
		}()
		if streams {
			c.wait(t, "pods before the list is complete", func() bool { return c.has(pod("a")) && c.has(pod("b")) })
			require.False(t, c.synced)
		}
		close(s.release)
		c.waitSynced(t)
		require.Len(t, c.last, 3, "%v", slices.Collect(maps.Keys(c.last)))
		require.Equal(t, "11", c.last[pod("a")].(*corev1.Pod).ResourceVersion)
		if streams {
			require.Empty(t, s.lists)
		} else {
			require.Len(t, s.lists, 4)
		}
		cancel()
		require.NoError(t, <-ended)
		server.Close()
	}
}
