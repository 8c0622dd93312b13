package scenario

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/yaml"

	"github.com/portcullis-netpol/portcullis/testcases/conformance/node"
	"github.com/portcullis-netpol/portcullis/testcases/lab"
)

// stage is where one case plays. Its methods end the case where they fail.
type stage struct {
	Config
	ctx     context.Context
	targets map[string]target // by the names that flows use
	doing   string            // the step
	began   *time.Time        // when it did
	closers []io.Closer       // what to close behind the case
}

// target is an end of flows.
type target struct {
	endpoint string       // of the laboratory
	pod      string       // namespace/name; empty for a node and for the host outside
	addrs    []netip.Addr // one of each family
}

// pod says which pod to make.
type pod struct {
	as          string // its name in flows
	namespace   string
	name        string // empty: as
	node        string
	labels      map[string]string
	hostNetwork bool
	addrs       []netip.Addr // nil: any
	ports       []uint16     // on which it listens; nil: 80
	named       []corev1.ContainerPort
	gated       bool // it is not to be scheduled yet
}

func (s *stage) client() kubernetes.Interface { return s.Cluster.Client }

func (s *stage) target(name string) target {
	t, ok := s.targets[name]
	if !ok {
		panic(fmt.Sprintf("no pod is called %q", name)) // a mistake in the case
	}
	return t
}

func (s *stage) makeNamespaces(names []string) {
	for _, name := range names {
		_, err := s.client().CoreV1().Namespaces().Create(s.ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
		s.must(err)
	}
}

// nodes makes the nodes and the host outside ends of flows.
func (s *stage) nodes() {
	for _, n := range s.Cluster.Nodes() {
		s.targets[n] = target{endpoint: n, addrs: s.Cluster.NodeAddrs(n)}
	}
	s.targets[lab.Outside] = target{endpoint: lab.Outside}
}

// label sets or, with an empty value, removes a label of a namespace.
func (s *stage) label(namespace, key, value string) {
	v := strconv.Quote(value)
	if value == "" {
		v = "null"
	}
	_, err := s.client().CoreV1().Namespaces().Patch(s.ctx, namespace, types.MergePatchType,
		fmt.Appendf(nil, `{"metadata":{"labels":{%q:%s}}}`, key, v), metav1.PatchOptions{})
	s.must(err)
}

// policy creates or replaces a policy. The spec is YAML.
func (s *stage) policy(namespace, name, spec string) {
	s.must(s.setPolicy(namespace, name, spec))
}

func (s *stage) setPolicy(namespace, name, spec string) error {
	p := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
	if err := yaml.UnmarshalStrict([]byte(spec), &p.Spec); err != nil {
		return fmt.Errorf("policy %s: %w", name, err)
	}
	policies := s.client().NetworkingV1().NetworkPolicies(namespace)
	_, err := policies.Create(s.ctx, p, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		_, err = policies.Update(s.ctx, p, metav1.UpdateOptions{}) // whatever its version
	}
	return err
}

func (s *stage) deletePolicy(namespace, name string) {
	s.must(s.client().NetworkingV1().NetworkPolicies(namespace).Delete(s.ctx, name, metav1.DeleteOptions{}))
}

// pods makes pods and waits until they run.
func (s *stage) pods(pods ...pod) {
	for i := range pods {
		s.create(&pods[i])
	}
	for _, p := range pods {
		s.running(p.as, p.namespace, p.name)
	}
}

func (s *stage) create(p *pod) {
	if p.name == "" {
		p.name = p.as
	}
	_, err := s.client().CoreV1().Pods(p.namespace).Create(s.ctx, p.object(), metav1.CreateOptions{})
	s.must(err)
}

// running waits until a pod runs, and gives it a name for flows.
func (s *stage) running(as, namespace, name string) *corev1.Pod {
	var got *corev1.Pod
	s.eventually(func() (err error) {
		got, err = s.client().CoreV1().Pods(namespace).Get(s.ctx, name, metav1.GetOptions{})
		if err == nil && !ready(got) {
			err = fmt.Errorf("pod %s/%s is %s", namespace, name, got.Status.Phase)
		}
		return err
	})
	t := target{endpoint: namespace + "/" + name, pod: namespace + "/" + name}
	if got.Spec.HostNetwork {
		t.endpoint = got.Spec.NodeName
	}
	for _, ip := range got.Status.PodIPs {
		t.addrs = append(t.addrs, netip.MustParseAddr(ip.IP))
	}
	s.targets[as] = t
	return got
}

func ready(p *corev1.Pod) bool {
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue && len(p.Status.PodIPs) == 2
		}
	}
	return false
}

// deletePod deletes a pod at once and does not wait for what follows.
func (s *stage) deletePod(namespace, name string) {
	s.must(s.client().CoreV1().Pods(namespace).Delete(s.ctx, name, *metav1.NewDeleteOptions(0)))
}

// objectPatience bounds the wait for everything but flows: pods that start, Events.
const objectPatience = 30 * time.Second

// eventually asks until there is no error.
func (s *stage) eventually(ask func() error) {
	for deadline := time.Now().Add(objectPatience); ; {
		err := ask()
		if err == nil {
			return
		}
		if s.ctx.Err() != nil {
			s.must(context.Cause(s.ctx))
		}
		if time.Now().After(deadline) {
			s.must(err)
		}
		time.Sleep(20 * time.Millisecond) // between two questions
	}
}

func (p *pod) object() *corev1.Pod {
	ports := p.ports
	if ports == nil {
		ports = []uint16{80}
	}
	container := corev1.Container{Name: "server", Image: "agnhost", Command: []string{"/agnhost", "porter"}, Ports: p.named}
	for _, port := range ports {
		container.Env = append(container.Env, corev1.EnvVar{Name: fmt.Sprintf("SERVE_PORT_%d", port), Value: p.name})
	}
	o := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: p.namespace, Name: p.name, Labels: p.labels},
		Spec: corev1.PodSpec{
			NodeName: p.node, HostNetwork: p.hostNetwork, RestartPolicy: corev1.RestartPolicyNever,
			Containers: []corev1.Container{container},
		},
	}
	if p.gated {
		o.Spec.SchedulingGates = []corev1.PodSchedulingGate{{Name: "portcullis.test/wait"}}
	}
	if len(p.addrs) > 0 {
		var texts []string
		for _, a := range p.addrs {
			texts = append(texts, a.String())
		}
		o.Annotations = map[string]string{node.AddressesAnnotation: strings.Join(texts, ",")}
	}
	return o
}

// app is the label that most selectors here ask for.
func app(name string) map[string]string { return map[string]string{"app": name} }
