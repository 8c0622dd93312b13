package node

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// restartDelay is how long a container that has ended waits for its next start.
const restartDelay = time.Second

// sandbox is a pod that runs on a node: its network and its processes.
type sandbox struct {
	key         string // namespace/name of the pod
	uid         types.UID
	endpoint    string       // name of its namespace in the laboratory
	hostNetwork bool         // the namespace is the node's
	addrs       []netip.Addr // primary family first
	started     metav1.Time

	mu       sync.Mutex
	programs []program
	stopped  bool
}

func (n *Nodes) sandbox(key string) *sandbox {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.sandboxes[key]
}

// create makes a pod's network and starts its containers.
func (n *Nodes) create(ctx context.Context, key string, pod *corev1.Pod) (*sandbox, error) {
	node := pod.Spec.NodeName
	if !slices.Contains(n.Lab.Nodes(), node) {
		return nil, fmt.Errorf("no such node: %s", node)
	}
	box := &sandbox{key: key, uid: pod.UID, endpoint: key, started: metav1.Now()}
	if pod.Spec.HostNetwork {
		box.hostNetwork, box.endpoint, box.addrs = true, node, n.nodeAddrs(node)
	} else {
		var err error
		if box.addrs, err = n.addrsFor(node, pod); err != nil {
			return nil, err
		}
		if err := n.Lab.AddPod(node, key, box.addrs); err != nil {
			return nil, err
		}
	}
	for _, spec := range pod.Spec.Containers {
		box.programs = append(box.programs, program{spec: spec, image: n.imageOf(spec.Image)})
	}
	n.mu.Lock()
	n.sandboxes[key] = box
	n.mu.Unlock()
	for i := range box.programs {
		n.startContainer(ctx, key, box, i, pod)
	}
	return box, nil
}

// remove stops a pod's processes and takes its network away.
func (n *Nodes) remove(key string, box *sandbox, grace time.Duration) error {
	box.mu.Lock()
	box.stopped = true
	var stopping sync.WaitGroup
	for _, c := range box.programs {
		if c.process != nil {
			stopping.Go(func() { c.process.Stop(grace) })
		}
	}
	box.mu.Unlock()
	stopping.Wait()
	if !box.hostNetwork {
		if err := n.Lab.RemovePod(key); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	n.mu.Lock()
	if n.sandboxes[key] == box {
		delete(n.sandboxes, key)
	}
	n.mu.Unlock()
	return nil
}
