package evaluate_test

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"

	"github.com/portcullis-netpol/portcullis/policy/evaluate"
)

// shop is the cluster of most tests: shop/web and ops/mon on node-1, shop/db on node-2, all of them dual-stack, with an
// agent in the host's network of node-1.
func shop() evaluate.Cluster {
	return evaluate.Cluster{
		Nodes: []*corev1.Node{
			node("node-1", "10.0.0.1", "fd00::1"),
			node("node-2", "10.0.0.2", "fd00::2"),
		},
		Namespaces: []*corev1.Namespace{
			namespace("shop", "team=a"),
			namespace("ops", "team=b,quiet="),
		},
		Pods: []*corev1.Pod{
			pod("shop/web", "node-1", "app=web,tier=front", "10.1.0.1", "fd01::1"),
			pod("shop/db", "node-2", "app=db", "10.1.0.2", "fd01::2"),
			pod("ops/mon", "node-1", "app=mon", "10.1.1.1", "fd01::1:1"),
			hostNetwork(pod("shop/agent", "node-1", "app=agent", "10.0.0.1", "fd00::1")),
		},
	}
}

func node(name string, addrs ...string) *corev1.Node {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}
	for _, a := range addrs {
		n.Status.Addresses = append(n.Status.Addresses, corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: a})
	}
	return n
}

func namespace(name, labels string) *corev1.Namespace {
	return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labelMap(labels)}}
}

func pod(fullName, nodeName, labels string, addrs ...string) *corev1.Pod {
	ns, name, _ := strings.Cut(fullName, "/")
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name, Labels: labelMap(labels), UID: types.UID("uid-" + name)},
		Spec:       corev1.PodSpec{NodeName: nodeName},
		Status:     corev1.PodStatus{Phase: corev1.PodRunning},
	}
	for _, a := range addrs {
		p.Status.PodIPs = append(p.Status.PodIPs, corev1.PodIP{IP: a})
	}
	return p
}

func labelMap(text string) map[string]string {
	out := map[string]string{}
	for _, pair := range strings.FieldsFunc(text, func(r rune) bool { return r == ',' }) {
		key, value, _ := strings.Cut(pair, "=")
		out[key] = value
	}
	return out
}

func hostNetwork(p *corev1.Pod) *corev1.Pod {
	p.Spec.HostNetwork = true
	return p
}

func phase(p *corev1.Pod, is corev1.PodPhase) *corev1.Pod {
	p.Status.Phase = is
	return p
}

func born(p *corev1.Pod, second int64) *corev1.Pod {
	p.CreationTimestamp = metav1.NewTime(time.Unix(second, 0))
	return p
}

// port declares a port of a new container, "http=8080" or "dns=53/UDP".
func port(p *corev1.Pod, declarations ...string) *corev1.Pod {
	p.Spec.Containers = append(p.Spec.Containers, container(declarations...))
	return p
}

func container(declarations ...string) corev1.Container {
	var c corev1.Container
	for _, d := range declarations {
		name, rest, _ := strings.Cut(d, "=")
		number, protocol, _ := strings.Cut(rest, "/")
		n, err := strconv.Atoi(number)
		if err != nil {
			panic(err)
		}
		c.Ports = append(c.Ports, corev1.ContainerPort{Name: name, ContainerPort: int32(n), Protocol: corev1.Protocol(protocol)})
	}
	return c
}

// parsePolicy reads "namespace/name" and the YAML of a spec.
func parsePolicy(t testing.TB, fullName, spec string) *networkingv1.NetworkPolicy {
	t.Helper()
	ns, name, _ := strings.Cut(fullName, "/")
	p := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name}}
	require.NoError(t, yaml.UnmarshalStrict([]byte(spec), &p.Spec))
	return p
}

// parseFlow reads "source destination PROTOCOL/port". An end is a pod of the cluster (its first address, or its IPv6 address
// behind "6:"), or an address.
func parseFlow(t testing.TB, c evaluate.Cluster, text string) evaluate.Flow {
	t.Helper()
	fields := strings.Fields(text)
	require.Len(t, fields, 3, text)
	protocol, number, hasPort := strings.Cut(fields[2], "/")
	f := evaluate.Flow{Src: end(t, c, fields[0]), Dst: end(t, c, fields[1]), Protocol: corev1.Protocol(protocol)}
	if hasPort {
		n, err := strconv.Atoi(number)
		require.NoError(t, err)
		f.Port = int32(n)
	}
	return f
}

func end(t testing.TB, c evaluate.Cluster, text string) netip.Addr {
	t.Helper()
	name, six := strings.CutPrefix(text, "6:")
	for _, p := range c.Pods {
		if p.Namespace+"/"+p.Name == name {
			if six {
				return netip.MustParseAddr(p.Status.PodIPs[1].IP)
			}
			return netip.MustParseAddr(p.Status.PodIPs[0].IP)
		}
	}
	return netip.MustParseAddr(name)
}

// say words a verdict: both reasons, each behind a + or a -.
func say(v evaluate.Verdict) string {
	sign := func(d evaluate.Decision) string {
		if d.Allowed {
			return "+" + d.Reason
		}
		return "-" + d.Reason
	}
	return fmt.Sprintf("%s | %s", sign(v.Egress), sign(v.Ingress))
}
