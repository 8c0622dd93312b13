package control

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer/streaming"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes/scheme"
	restwatch "k8s.io/client-go/rest/watch"
)

const protobufType = runtime.ContentTypeProtobuf

// resource is a kind of object that agents watch.
type resource string

const (
	pods       resource = "pods"
	namespaces resource = "namespaces"
	policies   resource = "networkpolicies"
	nodeObject resource = "nodes"
)

// paths are where the resources are.
var paths = map[resource]string{
	pods: "/api/v1/pods", namespaces: "/api/v1/namespaces", nodeObject: "/api/v1/nodes",
	policies: "/apis/networking.k8s.io/v1/networkpolicies",
}

// volume is what was sent to watches.
type volume struct {
	Objects, Bytes int64
}

// apiServer serves watches of a synthetic cluster and of what is set besides, in
// protobuf, and that is all: streaming lists are the only ones. It has no memory of
// the past: a watch begins with everything.
type apiServer struct {
	*cluster
	http   *http.Server
	socket string // its name, for net.Dial
	served chan error

	mu       sync.Mutex
	version  int
	besides  map[resource]map[string]runtime.Object // by namespace/name
	watchers map[resource]map[*watcher]struct{}
	// initial and live are what was sent before and behind the mark that ends a list,
	// and queued how many objects were on their way to be among the latter.
	initial, live map[resource]volume
	queued        map[resource]int64
	// selectors are those of the last watch of each.
	selectors map[resource]string
}

// watcher is a watch under way.
type watcher struct {
	events   chan watch.Event
	selector fields.Selector
}

// sees returns what a watch is told when an object changes, nil being none: what begins
// or ceases to be selected comes and goes.
func (w *watcher) sees(was, now runtime.Object) (e watch.Event, ok bool) {
	before, after := selected(w.selector, was), selected(w.selector, now)
	switch {
	case before && after:
		return watch.Event{Type: watch.Modified, Object: now}, true
	case after:
		return watch.Event{Type: watch.Added, Object: now}, true
	case before && now == nil:
		return watch.Event{Type: watch.Deleted, Object: was}, true
	case before:
		return watch.Event{Type: watch.Deleted, Object: now}, true
	}
	return e, false
}

// selected reports whether there is an object and a selector selects it.
func selected(s fields.Selector, o runtime.Object) bool {
	if o == nil || s.Empty() {
		return o != nil
	}
	set := fields.Set{"metadata.name": o.(metav1.Object).GetName()}
	if p, ok := o.(*corev1.Pod); ok {
		set["spec.nodeName"], set["status.phase"] = p.Spec.NodeName, string(p.Status.Phase)
		set["spec.hostNetwork"] = strconv.FormatBool(p.Spec.HostNetwork)
	}
	return s.Matches(set)
}

func serveAPI(c *cluster) (*apiServer, error) {
	// An abstract name, which leaves nothing behind.
	socket := fmt.Sprintf("@portcullis-bench-%d-%d", os.Getpid(), time.Now().UnixNano())
	listener, err := net.Listen("unix", socket)
	if err != nil {
		return nil, err
	}
	s := &apiServer{
		cluster: c, socket: socket, served: make(chan error, 1), version: 1,
		besides: map[resource]map[string]runtime.Object{}, watchers: map[resource]map[*watcher]struct{}{},
		initial: map[resource]volume{}, live: map[resource]volume{}, queued: map[resource]int64{}, selectors: map[resource]string{},
	}
	mux := http.NewServeMux()
	for r, path := range paths {
		s.besides[r], s.watchers[r] = map[string]runtime.Object{}, map[*watcher]struct{}{}
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, q *http.Request) { s.serve(r, w, q) })
	}
	s.http = &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	go func() { s.served <- s.http.Serve(listener) }()
	return s, nil
}

func (s *apiServer) close() error {
	err := s.http.Close()
	if e := <-s.served; !errors.Is(e, http.ErrServerClosed) {
		err = errors.Join(err, e)
	}
	return err
}

// set makes or replaces an object besides those of the cluster, and returns when it is
// in the queues of all watches: what a client would call acknowledged.
func (s *apiServer) set(o runtime.Object) time.Time { return s.change(o, false) }

// remove deletes an object that was set.
func (s *apiServer) remove(o runtime.Object) time.Time { return s.change(o, true) }

func (s *apiServer) change(o runtime.Object, gone bool) time.Time {
	r := resourceOf(o)
	o = o.DeepCopyObject() // watches may be encoding the last one
	m := o.(metav1.Object)
	key := m.GetNamespace() + "/" + m.GetName()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.version++
	m.SetResourceVersion(strconv.Itoa(s.version))
	was := s.besides[r][key]
	s.besides[r][key] = o
	if gone {
		was, o = o, nil
		delete(s.besides[r], key)
	}
	for w := range s.watchers[r] {
		if e, ok := w.sees(was, o); ok {
			w.events <- e
			s.queued[r]++
		}
	}
	return time.Now()
}

func resourceOf(o any) resource {
	switch o.(type) {
	case *corev1.Pod:
		return pods
	case *corev1.Namespace:
		return namespaces
	case *networkingv1.NetworkPolicy:
		return policies
	}
	return nodeObject
}

// serve answers one watch.
func (s *apiServer) serve(r resource, w http.ResponseWriter, q *http.Request) {
	if q.FormValue("watch") == "" || q.FormValue("sendInitialEvents") != "true" {
		http.Error(w, "only streaming lists are served", http.StatusNotImplemented)
		return
	}
	w.Header().Set("Content-Type", protobufType+";stream=watch")
	w.WriteHeader(http.StatusOK)
	stream := newStream(w)
	selector, err := fields.ParseSelector(q.FormValue("fieldSelector"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	me := &watcher{events: make(chan watch.Event, 1<<16), selector: selector}
	s.mu.Lock()
	s.watchers[r][me] = struct{}{}
	s.selectors[r] = q.FormValue("fieldSelector") + q.FormValue("labelSelector")
	var besides []runtime.Object
	for _, o := range s.besides[r] {
		besides = append(besides, o)
	}
	version := s.version
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.watchers[r], me)
		s.mu.Unlock()
	}()
	err = s.list(r, stream, selector, besides, version)
	s.count(s.initial, r, stream)
	if err == nil {
		s.follow(q.Context(), r, me, stream)
	}
}

// list sends everything there is, and the mark behind it.
func (s *apiServer) list(r resource, to *stream, selector fields.Selector, besides []runtime.Object, version int) (err error) {
	send := func(o runtime.Object) {
		if err == nil && selected(selector, o) {
			err = to.send(watch.Added, o)
		}
	}
	s.of(r, func(chunk []any) {
		for _, o := range chunk {
			send(dress(o))
		}
	})
	for _, o := range besides {
		send(o)
	}
	if err != nil {
		return err
	}
	to.objects--
	mark := empty(r)
	mark.(metav1.Object).SetResourceVersion(strconv.Itoa(version))
	mark.(metav1.Object).SetAnnotations(map[string]string{metav1.InitialEventsAnnotationKey: "true"})
	return errors.Join(to.send(watch.Bookmark, mark), to.flush())
}

func empty(r resource) runtime.Object {
	switch r {
	case pods:
		return &corev1.Pod{}
	case namespaces:
		return &corev1.Namespace{}
	case policies:
		return &networkingv1.NetworkPolicy{}
	}
	return &corev1.Node{}
}

// follow sends events until the watch ends.
func (s *apiServer) follow(ctx context.Context, r resource, me *watcher, to *stream) {
	for {
		select {
		case <-ctx.Done():
			return
		case e := <-me.events:
			err := to.send(e.Type, e.Object)
			if len(me.events) == 0 && err == nil {
				err = to.flush()
			}
			s.count(s.live, r, to)
			if err != nil {
				return
			}
		}
	}
}

// count adds what a stream has sent since the last time.
func (s *apiServer) count(in map[resource]volume, r resource, from *stream) {
	s.mu.Lock()
	defer s.mu.Unlock()
	v := in[r]
	in[r] = volume{v.Objects + from.objects, v.Bytes + from.bytes}
	from.objects, from.bytes = 0, 0
}

// delivered reports whether all events were sent that watches are to see.
func (s *apiServer) delivered(r resource) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.live[r].Objects == s.queued[r]
}

// sent returns what was sent as lists and as events.
func (s *apiServer) sent(in map[resource]volume, r resource) volume {
	s.mu.Lock()
	defer s.mu.Unlock()
	return in[r]
}

// stream encodes events.
type stream struct {
	encoder *restwatch.Encoder
	buffer  *bufio.Writer
	flusher http.Flusher
	objects int64
	bytes   int64
}

func newStream(w http.ResponseWriter) *stream {
	s := &stream{buffer: bufio.NewWriterSize(w, 64<<10), flusher: w.(http.Flusher)}
	for _, i := range scheme.Codecs.SupportedMediaTypes() {
		if i.MediaType == protobufType {
			framer := i.StreamSerializer.Framer.NewFrameWriter(counted{s.buffer, &s.bytes})
			embedded := scheme.Codecs.EncoderForVersion(i.Serializer, schema.GroupVersions{corev1.SchemeGroupVersion, networkingv1.SchemeGroupVersion})
			s.encoder = restwatch.NewEncoder(streaming.NewEncoder(framer, i.StreamSerializer.Serializer), embedded)
		}
	}
	return s
}

func (s *stream) send(t watch.EventType, o runtime.Object) error {
	s.objects++
	if err := s.encoder.Encode(&watch.Event{Type: t, Object: o}); err != nil {
		return fmt.Errorf("encode %s of %T: %w", t, o, err)
	}
	return nil
}

func (s *stream) flush() error {
	err := s.buffer.Flush()
	s.flusher.Flush()
	return err
}

// counted counts the bytes that are written.
type counted struct {
	io.Writer
	n *int64
}

func (c counted) Write(b []byte) (int, error) {
	*c.n += int64(len(b))
	return c.Writer.Write(b)
}

// asked returns the selectors of the last watch of a resource.
func (s *apiServer) asked(r resource) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.selectors[r]
}
