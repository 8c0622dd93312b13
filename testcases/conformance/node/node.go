package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"

	"github.com/portcullis-netpol/portcullis/testcases/lab"
)

// ClusterDomain ends the full names of Services.
const ClusterDomain = "cluster.local"

// workers is how many pods are worked on at once.
const workers = 4

// Config says what the nodes are made of.
type Config struct {
	Lab       *lab.Lab
	Client    kubernetes.Interface
	IPv6First bool // whether IPv6 is the primary family of the cluster

	// Programs. An image is agnhost, whatever it is called, unless it is called portcullis.
	Agnhost, Portcullis string

	StateDir string // a folder for hostPaths and the like
	LogDir   string // a folder for what agents write

	ServiceHost string       // cluster address of the API server
	DNS         []netip.Addr // name servers of the pods; none: they look no names up

	// Certificate and key of the nodes' TLS servers, as files.
	CertFile, KeyFile string
	Logger            *slog.Logger
}

// Nodes are all nodes of the laboratory.
type Nodes struct {
	Config
	pods    corelisters.PodLister
	queue   workqueue.TypedRateLimitingInterface[string]
	working sync.WaitGroup

	mu        sync.Mutex
	sandboxes map[string]*sandbox // by namespace/name of the pod
	next      map[string]int      // host number of the next address of a node
	bound     int                 // pods bound so far
}

// Start registers the nodes and answers for their kubelets. The pods are
// looked after until the context ends.
func Start(ctx context.Context, cfg Config) (*Nodes, error) {
	n := &Nodes{
		Config:    cfg,
		queue:     workqueue.NewTypedRateLimitingQueue(workqueue.NewTypedItemExponentialFailureRateLimiter[string](10*time.Millisecond, time.Second)),
		sandboxes: map[string]*sandbox{},
		next:      map[string]int{},
	}
	for _, name := range cfg.Lab.Nodes() {
		if err := n.serve(ctx, name); err != nil {
			return nil, fmt.Errorf("node %s: %w", name, err)
		}
		if _, err := cfg.Client.CoreV1().Nodes().Create(ctx, n.object(name), metav1.CreateOptions{}); err != nil {
			return nil, fmt.Errorf("register node %s: %w", name, err)
		}
	}
	factory := informers.NewSharedInformerFactory(cfg.Client, 0)
	pods := factory.Core().V1().Pods()
	n.pods = pods.Lister()
	enqueue := func(obj any) {
		if key, err := cache.DeletionHandlingMetaNamespaceKeyFunc(obj); err == nil {
			n.queue.Add(key)
		}
	}
	if _, err := pods.Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    enqueue,
		UpdateFunc: func(_, obj any) { enqueue(obj) },
		DeleteFunc: enqueue,
	}); err != nil {
		return nil, err
	}
	factory.Start(ctx.Done())
	factory.WaitForCacheSync(ctx.Done())
	for range workers {
		n.working.Go(func() { n.work(ctx) })
	}
	context.AfterFunc(ctx, n.queue.ShutDown)
	return n, nil
}

// Stop stops all pods, once the context of Start has ended.
func (n *Nodes) Stop() error {
	n.working.Wait()
	n.mu.Lock()
	boxes := maps.Clone(n.sandboxes)
	n.mu.Unlock()
	var errs []error
	for key, box := range boxes {
		errs = append(errs, n.remove(key, box, 0))
	}
	return errors.Join(errs...)
}

func (n *Nodes) work(ctx context.Context) {
	for {
		key, shutdown := n.queue.Get()
		if shutdown {
			return
		}
		if err := n.sync(ctx, key); err != nil && ctx.Err() == nil {
			n.Logger.Info("pod not in order yet", "pod", key, "err", err)
			n.queue.AddRateLimited(key)
		} else {
			n.queue.Forget(key)
		}
		n.queue.Done(key)
	}
}

// object is the Node as a kubelet and the controllers that we do without would
// leave it.
func (n *Nodes) object(name string) *corev1.Node {
	node := &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{
			corev1.LabelHostname:   name,
			corev1.LabelOSStable:   "linux",
			corev1.LabelArchStable: "amd64",
		}},
		Status: corev1.NodeStatus{
			Capacity: corev1.ResourceList{
				corev1.ResourceCPU:    resource.MustParse("8"),
				corev1.ResourceMemory: resource.MustParse("32Gi"),
				corev1.ResourcePods:   resource.MustParse("250"),
			},
			DaemonEndpoints: corev1.NodeDaemonEndpoints{KubeletEndpoint: corev1.DaemonEndpoint{Port: execPort}},
			Conditions: []corev1.NodeCondition{{
				Type: corev1.NodeReady, Status: corev1.ConditionTrue, Reason: "Ready",
				LastHeartbeatTime: metav1.Now(), LastTransitionTime: metav1.Now(),
			}},
		},
	}
	node.Status.Allocatable = node.Status.Capacity
	for _, c := range n.primaryFirst(n.Lab.PodCIDRs(name)) {
		node.Spec.PodCIDRs = append(node.Spec.PodCIDRs, c.String())
	}
	node.Spec.PodCIDR = node.Spec.PodCIDRs[0]
	for _, a := range n.nodeAddrs(name) {
		node.Status.Addresses = append(node.Status.Addresses, corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: a.String()})
	}
	return node
}

// nodeAddrs returns a node's addresses, that of the primary family first.
func (n *Nodes) nodeAddrs(name string) []netip.Addr {
	addrs := n.Lab.NodeAddrs(name)
	if n.IPv6First {
		slices.Reverse(addrs)
	}
	return addrs
}

func (n *Nodes) primaryFirst(prefixes []netip.Prefix) []netip.Prefix {
	if n.IPv6First {
		slices.Reverse(prefixes)
	}
	return prefixes
}
