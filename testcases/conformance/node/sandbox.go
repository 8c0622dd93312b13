package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/portcullis-netpol/portcullis/testcases/conformance/process"
)

// restartDelay is how long a container that has ended waits for its next start.
const restartDelay = time.Second

// sandbox is a pod that runs on a node: its network and its processes.
type sandbox struct {
	uid         types.UID
	endpoint    string       // name of its namespace in the laboratory
	hostNetwork bool         // the namespace is the node's
	addrs       []netip.Addr // primary family first
	started     metav1.Time

	mu         sync.Mutex
	containers []container
	stopped    bool
}

// container is a process and how it last ended.
type container struct {
	spec     corev1.Container
	process  *process.Process // nil: not running
	started  metav1.Time
	restarts int32
	problem  string // why it cannot be started; it never will
	ended    *corev1.ContainerStateTerminated
}

func (n *Nodes) sandbox(key string) *sandbox {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.sandboxes[key]
}

// create makes a pod's network and starts its containers.
func (n *Nodes) create(key string, pod *corev1.Pod) (*sandbox, error) {
	node := pod.Spec.NodeName
	if !slices.Contains(n.Lab.Nodes(), node) {
		return nil, fmt.Errorf("no such node: %s", node)
	}
	box := &sandbox{uid: pod.UID, endpoint: key, started: metav1.Now()}
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
		box.containers = append(box.containers, container{spec: spec})
	}
	n.mu.Lock()
	n.sandboxes[key] = box
	n.mu.Unlock()
	for i := range box.containers {
		n.startContainer(key, box, i, pod.Spec.RestartPolicy)
	}
	return box, nil
}

// AddressesAnnotation of a pod lists the addresses that it is to have, separated by
// commas, that of the primary family first. The pod waits until they are free.
const AddressesAnnotation = "portcullis.test/addresses"

// addrsFor returns the addresses of a new pod.
func (n *Nodes) addrsFor(node string, pod *corev1.Pod) ([]netip.Addr, error) {
	list := pod.Annotations[AddressesAnnotation]
	if list == "" {
		return n.freeAddrs(node)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	var addrs []netip.Addr
	for text := range strings.SplitSeq(list, ",") {
		a, err := netip.ParseAddr(text)
		if err != nil {
			return nil, fmt.Errorf("annotation %s: %w", AddressesAnnotation, err)
		}
		for other, box := range n.sandboxes {
			if slices.Contains(box.addrs, a) {
				return nil, fmt.Errorf("address %v still belongs to pod %s", a, other)
			}
		}
		addrs = append(addrs, a)
	}
	return addrs, nil
}

// freeAddrs returns the next address of each podCIDR of a node that no pod has.
// Like the host-local plugin it goes round, so that an address rests before it
// is somebody else's.
func (n *Nodes) freeAddrs(node string) ([]netip.Addr, error) {
	const first, last = 2, 254 // the first address is the bridge's
	n.mu.Lock()
	defer n.mu.Unlock()
	used := map[netip.Addr]bool{}
	for _, box := range n.sandboxes {
		for _, a := range box.addrs {
			used[a] = true
		}
	}
	for range last - first + 1 {
		number := max(n.next[node], first)
		n.next[node] = number + 1
		if number == last {
			n.next[node] = first
		}
		var addrs []netip.Addr
		for _, c := range n.primaryFirst(n.Lab.PodCIDRs(node)) {
			b := c.Addr().AsSlice()
			b[len(b)-1] = byte(number)
			a, _ := netip.AddrFromSlice(b)
			addrs = append(addrs, a)
		}
		if !used[addrs[0]] {
			return addrs, nil
		}
	}
	return nil, fmt.Errorf("node %s has no free address", node)
}

// remove stops a pod's processes and takes its network away.
func (n *Nodes) remove(key string, box *sandbox, grace time.Duration) error {
	box.mu.Lock()
	box.stopped = true
	var stopping sync.WaitGroup
	for _, c := range box.containers {
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

// startContainer starts one container and sees to what follows its end.
func (n *Nodes) startContainer(key string, box *sandbox, i int, policy corev1.RestartPolicy) {
	box.mu.Lock()
	defer box.mu.Unlock()
	c := &box.containers[i]
	if box.stopped {
		return
	}
	command := slices.Concat(c.spec.Command, c.spec.Args)
	if len(c.spec.Command) == 0 {
		command = append([]string{"/agnhost"}, c.spec.Args...)
	}
	if len(command) == 1 {
		command = append(command, "pause") // what the image does by default
	}
	p, err := n.start(box, command, c.spec.Env, streams{})
	if err != nil {
		c.problem = err.Error()
		return
	}
	c.process, c.started = p, metav1.Now()
	go func() {
		<-p.Done()
		box.mu.Lock()
		c.process = nil
		c.ended = &corev1.ContainerStateTerminated{
			ExitCode: int32(p.ExitCode()), StartedAt: c.started, FinishedAt: metav1.Now(), Reason: "Completed",
		}
		if p.ExitCode() != 0 {
			c.ended.Reason = "Error"
		}
		again := !box.stopped && (policy == corev1.RestartPolicyAlways || policy == corev1.RestartPolicyOnFailure && p.ExitCode() != 0)
		if again {
			c.restarts++
		}
		box.mu.Unlock()
		n.queue.Add(key)
		if again {
			time.AfterFunc(restartDelay, func() {
				n.startContainer(key, box, i, policy)
				n.queue.Add(key)
			})
		}
	}()
}

type streams struct {
	in       io.Reader
	out, err io.Writer
}

// start runs a command of the agnhost image in a pod's namespace.
func (n *Nodes) start(box *sandbox, command []string, env []corev1.EnvVar, s streams) (*process.Process, error) {
	if len(command) == 0 || path.Base(command[0]) != "agnhost" {
		return nil, fmt.Errorf("the only program here is agnhost, not %q", command)
	}
	spec := process.Spec{
		Name: "container of " + box.endpoint, Path: n.Agnhost, Args: command[1:], NetNS: n.Lab.NetNS(box.endpoint),
		Env:   []string{"PATH=/", "HOSTNAME=" + path.Base(box.endpoint)},
		Stdin: s.in, Stdout: s.out, Stderr: s.err,
	}
	if spec.NetNS < 0 {
		return nil, fmt.Errorf("pod %s is gone", box.endpoint)
	}
	for _, e := range env {
		if e.ValueFrom != nil {
			return nil, fmt.Errorf("environment variable %s: valueFrom is not supported here", e.Name)
		}
		spec.Env = append(spec.Env, e.Name+"="+e.Value)
	}
	return n.Starter.Start(spec)
}

// runIn runs a command in a pod until it or the context ends.
func (n *Nodes) runIn(ctx context.Context, box *sandbox, command []string, env []corev1.EnvVar, s streams) (int, error) {
	p, err := n.start(box, command, env, s)
	if err != nil {
		return 0, err
	}
	select {
	case <-p.Done():
		return p.ExitCode(), nil
	case <-ctx.Done():
		p.Stop(0)
		return 0, ctx.Err()
	}
}
