package lean

import (
	"bytes"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"
)

// NewClient returns a client of the API server that config names. What its CoreV1
// returns of pods has of their metadata name, namespace, uid, resourceVersion,
// creationTimestamp, labels and annotations; of their containers and init containers
// ports and restartPolicy; nodeName, hostNetwork, phase, podIP and podIPs; and nothing
// else, if the API server answers in protobuf, which config has to ask for. Do not write
// such pods back.
func NewClient(config *rest.Config) (kubernetes.Interface, error) {
	http, err := rest.HTTPClientFor(config)
	if err != nil {
		return nil, err
	}
	all, err := kubernetes.NewForConfigAndClient(config, http)
	if err != nil {
		return nil, err
	}
	c := rest.CopyConfig(config)
	c.GroupVersion, c.APIPath = &corev1.SchemeGroupVersion, "/api"
	c.NegotiatedSerializer = negotiated{rest.CodecFactoryForGeneratedClient(scheme.Scheme, scheme.Codecs).WithoutConversion()}
	core, err := rest.RESTClientForConfigAndClient(c, http)
	if err != nil {
		return nil, err
	}
	return client{all, typedcorev1.New(core)}, nil
}

// client is a client with another CoreV1.
type client struct {
	kubernetes.Interface
	core typedcorev1.CoreV1Interface
}

func (c client) CoreV1() typedcorev1.CoreV1Interface { return c.core }

// negotiated has another decoder of protobuf.
type negotiated struct{ runtime.NegotiatedSerializer }

func (n negotiated) SupportedMediaTypes() []runtime.SerializerInfo {
	var out []runtime.SerializerInfo
	for _, i := range n.NegotiatedSerializer.SupportedMediaTypes() {
		if i.MediaType == runtime.ContentTypeProtobuf {
			i.Serializer = serializer{i.Serializer}
		}
		out = append(out, i)
	}
	return out
}

// serializer leaves out what is not kept of pods before it decodes them.
type serializer struct{ runtime.Serializer }

func (s serializer) Decode(data []byte, defaults *schema.GroupVersionKind, into runtime.Object) (runtime.Object, *schema.GroupVersionKind, error) {
	return s.Serializer.Decode(leave(data), defaults, into)
}

// magic is what the API's objects begin with in protobuf, before their envelope.
var magic = []byte("k8s\x00")

// shapes are those of the kinds that something is left out of, in their envelopes.
var shapes = map[string]shape{"Pod": envelope(pod), "PodList": envelope(podList)}

// leave returns of an encoded object what is kept of it; data itself is left alone.
func leave(data []byte) []byte {
	message, ok := bytes.CutPrefix(data, magic)
	if !ok {
		return data
	}
	first, _, err := next(message)
	if err != nil || first.number != 1 || first.kind != delimited {
		return data
	}
	var is runtime.TypeMeta
	if is.Unmarshal(first.all[first.body:]) != nil || is.APIVersion != corev1.SchemeGroupVersion.String() {
		return data
	}
	s, ok := shapes[is.Kind]
	if !ok {
		return data
	}
	out, err := s.cut(append(make([]byte, 0, len(data)/4), magic...), message)
	if err != nil {
		return data // the decoder will say what is wrong with it
	}
	return out
}
