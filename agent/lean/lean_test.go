package lean

import (
	"encoding/binary"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer/streaming"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	restwatch "k8s.io/client-go/rest/watch"
)

// filler gives every field of a value something to hold.
type filler struct{ n int }

func (f *filler) fill(v reflect.Value) {
	f.n++
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		f.fill(v.Elem())
	case reflect.Struct:
		if t, ok := v.Addr().Interface().(*metav1.Time); ok {
			*t = metav1.Unix(int64(1e9+f.n), 0)
			return
		}
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				f.fill(v.Field(i))
			}
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		f.fill(v.Index(0))
		f.fill(v.Index(1))
	case reflect.Map:
		key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
		f.fill(key)
		f.fill(value)
		v.Set(reflect.MakeMap(v.Type()))
		v.SetMapIndex(key, value)
	case reflect.String:
		v.SetString("text-" + strconv.Itoa(f.n))
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		v.SetInt(int64(f.n % 100))
	case reflect.Uint8:
		v.SetUint(uint64(f.n % 100))
	}
}

// fullPod returns a pod without an empty field.
func fullPod() *corev1.Pod {
	p := &corev1.Pod{}
	(&filler{}).fill(reflect.ValueOf(p).Elem())
	p.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"}
	return p
}

// plainPod returns a pod with something to leave out, for every encoding.
func plainPod() *corev1.Pod {
	return &corev1.Pod{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
		ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: "shop", GenerateName: "web-"},
		Spec:       corev1.PodSpec{NodeName: "node-1", ServiceAccountName: "web", Containers: []corev1.Container{{Name: "web"}}},
		Status:     corev1.PodStatus{Phase: corev1.PodRunning, Message: "all is well"},
	}
}

// kept is what NewClient says of pods.
func kept(p *corev1.Pod) *corev1.Pod {
	containers := func(list []corev1.Container) (out []corev1.Container) {
		for _, c := range list {
			out = append(out, corev1.Container{Ports: c.Ports, RestartPolicy: c.RestartPolicy})
		}
		return out
	}
	return &corev1.Pod{
		TypeMeta: p.TypeMeta,
		ObjectMeta: metav1.ObjectMeta{
			Name: p.Name, Namespace: p.Namespace, UID: p.UID, ResourceVersion: p.ResourceVersion,
			CreationTimestamp: p.CreationTimestamp, Labels: p.Labels, Annotations: p.Annotations,
		},
		Spec: corev1.PodSpec{
			Containers: containers(p.Spec.Containers), InitContainers: containers(p.Spec.InitContainers),
			NodeName: p.Spec.NodeName, HostNetwork: p.Spec.HostNetwork,
		},
		Status: corev1.PodStatus{Phase: p.Status.Phase, PodIP: p.Status.PodIP, PodIPs: p.Status.PodIPs},
	}
}

func encoding(t testing.TB, mediaType string) runtime.SerializerInfo {
	i, ok := runtime.SerializerInfoForMediaType(scheme.Codecs.SupportedMediaTypes(), mediaType)
	require.True(t, ok)
	return i
}

func encode(t testing.TB, mediaType string, o runtime.Object) []byte {
	t.Helper()
	b, err := runtime.Encode(scheme.Codecs.EncoderForVersion(encoding(t, mediaType).Serializer, corev1.SchemeGroupVersion), o)
	require.NoError(t, err)
	return b
}

func decode(data []byte) (runtime.Object, error) {
	return runtime.Decode(scheme.Codecs.UniversalDeserializer(), data)
}

// TestLeave keeps of a pod what it should, and all of other kinds.
func TestLeave(t *testing.T) {
	for name, p := range map[string]*corev1.Pod{"full": fullPod(), "empty": {}} {
		data := encode(t, runtime.ContentTypeProtobuf, p)
		before := string(data)
		left := leave(data)
		require.Equal(t, before, string(data), name)
		o, err := decode(left)
		require.NoError(t, err, name)
		all, err := decode(data)
		require.NoError(t, err, name)
		require.Equal(t, kept(all.(*corev1.Pod)), o, name)
	}
	full := encode(t, runtime.ContentTypeProtobuf, fullPod())
	require.Less(t, 10*len(leave(full)), len(full))

	list := &corev1.PodList{ListMeta: metav1.ListMeta{ResourceVersion: "7", Continue: "more"}, Items: []corev1.Pod{*fullPod(), {}}}
	o, err := decode(leave(encode(t, runtime.ContentTypeProtobuf, list)))
	require.NoError(t, err)
	got := o.(*corev1.PodList)
	require.Equal(t, list.ListMeta, got.ListMeta)
	require.Len(t, got.Items, 2)
	require.Equal(t, kept(fullPod()).Spec, got.Items[0].Spec)

	marked := metav1.ObjectMeta{Name: "shop", Generation: 7, Annotations: map[string]string{"a": "b"}}
	for _, other := range []runtime.Object{&corev1.Namespace{ObjectMeta: marked}, &corev1.Node{Spec: corev1.NodeSpec{PodCIDR: "10.0.0.0/24"}}, &metav1.Status{Message: "no"}} {
		data := encode(t, runtime.ContentTypeProtobuf, other)
		require.Equal(t, data, leave(data))
	}
	data := encode(t, runtime.ContentTypeJSON, plainPod())
	require.Equal(t, data, leave(data))
}

// FuzzLeave: what the ordinary decoder understands says the same afterwards.
func FuzzLeave(f *testing.F) {
	full := encode(f, runtime.ContentTypeProtobuf, fullPod())
	f.Add(full)
	f.Add(full[:len(full)/2])
	f.Add(append(full, 0x0b, 0x0c)) // a group
	f.Add(encode(f, runtime.ContentTypeProtobuf, &corev1.PodList{Items: []corev1.Pod{*fullPod()}}))
	long := []byte("k8s\x00\x0a\x09\x0a\x02v1\x12\x03Pod\x12\xff\xff\xff\xff\xff\xff\xff\xff\x7f")
	f.Add(long)
	f.Add(binary.AppendUvarint(long[:15], 1<<63))
	f.Fuzz(func(t *testing.T, data []byte) {
		left := leave(data)
		all, err := decode(data)
		if err != nil {
			return
		}
		o, err := decode(left)
		require.NoError(t, err)
		if p, ok := all.(*corev1.Pod); ok {
			require.Equal(t, kept(p), kept(o.(*corev1.Pod)))
		}
	})
}

// serve answers lists and watches of pods and of one node, in protobuf or JSON.
func serve(t *testing.T, mediaType string) kubernetes.Interface {
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node-1", GenerateName: "node-"}}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /api/v1/pods", func(w http.ResponseWriter, q *http.Request) {
		w.Header().Set("Content-Type", mediaType)
		if q.FormValue("watch") == "" {
			_, _ = w.Write(encode(t, mediaType, &corev1.PodList{Items: []corev1.Pod{*plainPod()}}))
			return
		}
		i := encoding(t, mediaType)
		embedded := scheme.Codecs.EncoderForVersion(i.Serializer, schema.GroupVersions{corev1.SchemeGroupVersion})
		e := restwatch.NewEncoder(streaming.NewEncoder(i.StreamSerializer.Framer.NewFrameWriter(w), i.StreamSerializer.Serializer), embedded)
		_ = e.Encode(&watch.Event{Type: watch.Added, Object: plainPod()})
	})
	mux.HandleFunc("GET /api/v1/nodes/node-1", func(w http.ResponseWriter, q *http.Request) {
		w.Header().Set("Content-Type", mediaType)
		_, _ = w.Write(encode(t, mediaType, node))
	})
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	c, err := NewClient(&rest.Config{Host: server.URL, Timeout: time.Minute, ContentConfig: rest.ContentConfig{
		AcceptContentTypes: runtime.ContentTypeProtobuf + "," + runtime.ContentTypeJSON, ContentType: runtime.ContentTypeProtobuf}})
	require.NoError(t, err)
	return c
}

// TestClient lists and watches through HTTP: pods come with what is kept of them in
// protobuf, and whole in JSON; other kinds come whole.
func TestClient(t *testing.T) {
	want := map[string]func(*corev1.Pod) *corev1.Pod{
		runtime.ContentTypeProtobuf: kept,
		runtime.ContentTypeJSON:     func(p *corev1.Pod) *corev1.Pod { return p },
	}
	for mediaType, what := range want {
		c := serve(t, mediaType)
		list, err := c.CoreV1().Pods("").List(t.Context(), metav1.ListOptions{})
		require.NoError(t, err)
		require.Len(t, list.Items, 1)
		require.Equal(t, what(plainPod()).Spec, list.Items[0].Spec, mediaType)
		w, err := c.CoreV1().Pods("").Watch(t.Context(), metav1.ListOptions{})
		require.NoError(t, err)
		e := <-w.ResultChan()
		w.Stop()
		require.Equal(t, watch.Added, e.Type)
		require.Equal(t, what(plainPod()).Status, e.Object.(*corev1.Pod).Status, mediaType)
		n, err := c.CoreV1().Nodes().Get(t.Context(), "node-1", metav1.GetOptions{})
		require.NoError(t, err)
		require.Equal(t, "node-", n.GenerateName)
	}
}

// BenchmarkDecode decodes a pod without an empty field, whole and without what is left out.
func BenchmarkDecode(b *testing.B) {
	i := encoding(b, runtime.ContentTypeProtobuf)
	data := encode(b, runtime.ContentTypeProtobuf, fullPod())
	for name, s := range map[string]runtime.Serializer{"whole": i.Serializer, "lean": serializer{i.Serializer}} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, _, err := s.Decode(data, nil, nil); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
