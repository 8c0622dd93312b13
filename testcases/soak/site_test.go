package soak

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	"github.com/portcullis-netpol/portcullis/agent"
	"github.com/portcullis-netpol/portcullis/agent/node"
	"github.com/portcullis-netpol/portcullis/nft"
	"github.com/portcullis-netpol/portcullis/nft/conntrack"
	"github.com/portcullis-netpol/portcullis/nft/spoof"
	"github.com/portcullis-netpol/portcullis/policy"
	"github.com/portcullis-netpol/portcullis/policy/manifest"
	"github.com/portcullis-netpol/portcullis/testcases/lab"
)

// site is a laboratory with an API server.
type site struct {
	*lab.Lab
	t   *testing.T
	api *api

	mu   sync.Mutex
	look map[string]nft.Kernel // for the tests' own looks at the rules
}

func newSite(t *testing.T, topo lab.Topology) *site {
	t.Helper()
	l, err := lab.New(lab.Config{Topology: topo})
	require.NoError(t, err)
	s := &site{Lab: l, t: t, look: map[string]nft.Kernel{}}
	t.Cleanup(func() { assert.NoError(t, l.Close()) })
	s.api = newAPI(s.nodes()...)
	for _, n := range l.Nodes() {
		k, err := nft.OpenKernel(nft.Config{NetNS: l.NetNS(n)})
		require.NoError(t, err)
		s.look[n] = k
		t.Cleanup(func() { _ = k.Close() })
	}
	return s
}

// nodes returns the Node objects of the laboratory.
func (s *site) nodes() (out []runtime.Object) {
	for _, name := range s.Nodes() {
		n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, UID: "node"}}
		for _, c := range s.PodCIDRs(name) {
			n.Spec.PodCIDRs = append(n.Spec.PodCIDRs, c.String())
		}
		for _, a := range s.NodeAddrs(name) {
			n.Status.Addresses = append(n.Status.Addresses, corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: a.String()})
		}
		out = append(out, n)
	}
	return out
}

// api is an API server. Its fake sends no event to a watch that is not there yet, so
// whoever starts an agent waits for its watches.
type api struct {
	*fake.Clientset
	mu      sync.Mutex
	watches int
	silent  bool
	open    []watch.Interface
}

func newAPI(objects ...runtime.Object) *api {
	a := &api{Clientset: fake.NewClientset(objects...)}
	a.PrependWatchReactor("*", func(action clienttesting.Action) (bool, watch.Interface, error) {
		var opts metav1.ListOptions
		if w, ok := action.(clienttesting.WatchActionImpl); ok {
			opts = w.ListOptions
		}
		w, err := a.Tracker().Watch(action.GetResource(), action.GetNamespace(), opts)
		a.mu.Lock()
		defer a.mu.Unlock()
		if a.silent {
			w.Stop()
			return true, nil, errSilent
		}
		a.watches++
		a.open = append(a.open, w)
		return true, w, err
	})
	a.PrependReactor("list", "*", a.refuse)
	return a
}

func (a *api) watched() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.watches
}

// watchesPerAgent are those on Pods, Namespaces, NetworkPolicies and the own Node.
const watchesPerAgent = 4

// running is an agent in the test's own process.
type running struct {
	log    *logbook
	cancel context.CancelFunc
	ended  chan error
}

// start starts an agent on a node and returns when it has a table in force.
func (s *site) start(name string, changes ...func(*agent.Config)) *running {
	s.t.Helper()
	watched := s.api.watched()
	a := s.launch(name, changes...)
	a.log.wait(s.t, "table in force")
	eventually(s.t, "the agent watches", func() bool { return s.api.watched() >= watched+watchesPerAgent })
	return a
}

// launch starts an agent on a node.
func (s *site) launch(name string, changes ...func(*agent.Config)) *running {
	s.t.Helper()
	a := &running{log: &logbook{}, ended: make(chan error, 1)}
	cfg := agent.Config{
		Node: name, Source: agent.Kubernetes(s.api), NetNS: s.NetNS(name), Logger: a.log.logger(),
		PodToNode: true, Quarantine: true, Checker: node.NewChecker(node.Config{NetNS: s.NetNS(name)}),
	}
	closing, err := open(&cfg)
	require.NoError(s.t, err)
	for _, change := range changes {
		change(&cfg)
	}
	ctx, cancel := context.WithCancel(context.Background())
	a.cancel = cancel
	go func() { a.ended <- errors.Join(agent.Run(ctx, cfg), closing()) }()
	s.t.Cleanup(func() { assert.NoError(s.t, a.stop()) })
	return a
}

// open opens what an agent works with in cfg.NetNS.
func open(cfg *agent.Config) (closing func() error, err error) {
	kernel, err := nft.OpenKernel(nft.Config{NetNS: cfg.NetNS, Logger: cfg.Logger})
	if err != nil {
		return nil, err
	}
	flows, err := conntrack.Open(cfg.NetNS)
	if err != nil {
		return nil, errors.Join(err, kernel.Close())
	}
	guard, err := spoof.Open(cfg.NetNS)
	if err != nil {
		return nil, errors.Join(err, kernel.Close(), flows.Close())
	}
	cfg.Kernel, cfg.Connections, cfg.Senders = kernel, flows, guard
	return func() error { return errors.Join(kernel.Close(), flows.Close(), guard.Close()) }, nil
}

// stop ends the agent, which leaves its rules.
func (a *running) stop() error {
	a.cancel()
	err := <-a.ended
	a.ended <- nil
	return err
}

// startAll starts an agent on every node.
func (s *site) startAll(changes ...func(*agent.Config)) map[string]*running {
	s.t.Helper()
	out := map[string]*running{}
	for _, n := range s.Nodes() {
		out[n] = s.start(n, changes...)
	}
	return out
}

// rules are the nft.Configs that an agent of these tests may be at work with: it
// resets connections from nowhere only after a while where none were tracked, and finds
// a bridge with its first pod.
func (s *site) rules(node string) []nft.Config {
	c := nft.Config{PodToNode: true, PodCIDRs: s.PodCIDRs(node)}
	m := c
	m.Midstream = true
	b, mb := c, m
	b.Bridged, mb.Bridged = true, true
	return []nft.Config{mb, m, b, c}
}

// differences says how the rules of a node differ from those that x leads to. None
// means that exactly these are in force.
func (s *site) differences(node string, x *policy.Index) (out []nft.Difference) {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	k, ctx := s.look[node], s.t.Context()
	tables, err := k.Tables(ctx)
	require.NoError(s.t, err)
	if len(tables) != 1 {
		return []nft.Difference{{Object: fmt.Sprintf("%d tables", len(tables))}}
	}
	have, complete, err := k.Read(ctx, tables[0])
	if errors.Is(err, nft.ErrNotExist) || errors.Is(err, unix.ENOENT) || err == nil && !complete {
		return []nft.Difference{{Object: "changing"}}
	}
	require.NoError(s.t, err)
	x.Flush()
	for _, cfg := range s.rules(node) {
		want, err := nft.Build(cfg, tables[0], x.State())
		require.NoError(s.t, err)
		if out = nft.Diff(want, have); len(out) == 0 {
			return nil
		}
		want.Chains = append(want.Chains, nft.CutChains(cfg)...)
		if len(nft.Diff(want, have)) == 0 {
			return nil // something is forbidden
		}
	}
	return out
}

// released reports whether all addresses have, or none has, left the quarantine.
func (s *site) released(node string, addrs []netip.Addr, want bool) bool {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	k, ctx := s.look[node], s.t.Context()
	tables, err := k.Tables(ctx)
	require.NoError(s.t, err)
	for _, a := range addrs {
		set := &nft.Set{Name: "in4", Type: nft.TypeAddr4, Map: true}
		if a.Is6() {
			set = &nft.Set{Name: "in6", Type: nft.TypeAddr6, Map: true}
		}
		for _, table := range tables {
			list, err := k.Elements(ctx, table, set)
			if errors.Is(err, nft.ErrNotExist) || errors.Is(err, unix.ENOENT) {
				return false
			}
			require.NoError(s.t, err)
			there := slices.ContainsFunc(list, func(e nft.Element) bool { return e.Key == string(a.AsSlice()) })
			if there != want {
				return false
			}
		}
	}
	return true
}

// The objects.

func namespaceOf(name string, labels map[string]string) *corev1.Namespace {
	all := map[string]string{corev1.LabelMetadataName: name}
	for k, v := range labels {
		all[k] = v
	}
	return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, UID: "namespace", Labels: all}}
}

// podOf is a pod; without addresses it has not been started yet.
func podOf(namespace, name, uid, node string, labels map[string]string, addrs ...netip.Addr) *corev1.Pod {
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, UID: "u", Labels: labels},
		Spec:       corev1.PodSpec{NodeName: node, Containers: []corev1.Container{{Name: "c", Image: "i"}}},
		Status:     corev1.PodStatus{Phase: corev1.PodPending},
	}
	p.UID = types.UID(uid)
	for _, a := range addrs {
		p.Status.Phase = corev1.PodRunning
		p.Status.PodIP = addrs[0].String()
		p.Status.PodIPs = append(p.Status.PodIPs, corev1.PodIP{IP: a.String()})
	}
	return p
}

// policyOf reads the spec of a policy in YAML.
func policyOf(t *testing.T, namespace, name, spec string) *networkingv1.NetworkPolicy {
	t.Helper()
	o, err := manifest.Decode("test", []byte(policyText(namespace, name, spec)))
	require.NoError(t, err)
	return o.Policies[0]
}

func policyText(namespace, name, spec string) string {
	return fmt.Sprintf("{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: %s, namespace: %s}, spec: %s}\n", name, namespace, spec)
}

func (a *api) makePod(t *testing.T, p *corev1.Pod) {
	t.Helper()
	_, err := a.CoreV1().Pods(p.Namespace).Create(t.Context(), p, metav1.CreateOptions{})
	require.NoError(t, err)
}

func (a *api) setPod(t *testing.T, p *corev1.Pod) {
	t.Helper()
	_, err := a.CoreV1().Pods(p.Namespace).Update(t.Context(), p, metav1.UpdateOptions{})
	require.NoError(t, err)
}

func (a *api) deletePod(t *testing.T, p *corev1.Pod) {
	t.Helper()
	require.NoError(t, a.CoreV1().Pods(p.Namespace).Delete(t.Context(), p.Name, metav1.DeleteOptions{}))
}

func (a *api) makeNamespace(t *testing.T, n *corev1.Namespace) {
	t.Helper()
	_, err := a.CoreV1().Namespaces().Create(t.Context(), n, metav1.CreateOptions{})
	require.NoError(t, err)
}

// putPolicy makes or replaces a policy.
func (a *api) putPolicy(t *testing.T, p *networkingv1.NetworkPolicy) {
	t.Helper()
	policies := a.NetworkingV1().NetworkPolicies(p.Namespace)
	_, err := policies.Update(t.Context(), p, metav1.UpdateOptions{})
	if err != nil {
		_, err = policies.Create(t.Context(), p, metav1.CreateOptions{})
	}
	require.NoError(t, err)
}

// index compiles what the API server has, for one node.
func (a *api) index(t *testing.T, node string) *policy.Index {
	t.Helper()
	x := policy.NewIndex(node)
	namespaces, err := a.CoreV1().Namespaces().List(t.Context(), metav1.ListOptions{})
	require.NoError(t, err)
	for i := range namespaces.Items {
		x.SetNamespace(&namespaces.Items[i])
	}
	pods, err := a.CoreV1().Pods("").List(t.Context(), metav1.ListOptions{})
	require.NoError(t, err)
	for i := range pods.Items {
		x.SetPod(&pods.Items[i])
	}
	policies, err := a.NetworkingV1().NetworkPolicies("").List(t.Context(), metav1.ListOptions{})
	require.NoError(t, err)
	for i := range policies.Items {
		x.SetNetworkPolicy(&policies.Items[i])
	}
	return x
}

// settle waits until every node holds what the API server's objects lead to.
func (s *site) settle() {
	s.t.Helper()
	for _, n := range s.Nodes() {
		x := s.api.index(s.t, n)
		var d []nft.Difference
		eventually(s.t, "the rules of "+n+" are what they should be", func() bool {
			d = s.differences(n, x)
			return len(d) == 0
		})
	}
}

// address returns the i-th address of a node for pods of each family, v4 first.
func (s *site) addresses(node string, i int) []netip.Addr {
	var out []netip.Addr
	for _, c := range s.PodCIDRs(node) {
		b := c.Addr().AsSlice()
		b[len(b)-1] = byte(i)
		a, _ := netip.AddrFromSlice(b)
		out = append(out, a)
	}
	return out
}
