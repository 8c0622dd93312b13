package node

import (
	"context"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/portcullis-netpol/portcullis/testcases/conformance/container"
	"github.com/portcullis-netpol/portcullis/testcases/conformance/process"
)

// program is the process of a container and how it last ended.
type program struct {
	spec     corev1.Container
	image    image
	env      []string             // as the processes get it
	inside   *container.Container // nil: not running
	process  *process.Process     // nil: not running
	ready    bool                 // by the probe, if there is one
	started  metav1.Time
	restarts int32
	problem  string // why it could not be started; empty: it could
	ended    *corev1.ContainerStateTerminated
}

// image is a program, under the name of its image.
type image struct {
	name string // what it is called on the command line
	path string // in the container
	file string // of this machine
	arg  string // what the image gives to it, if the pod gives nothing; empty: nothing
}

// imageOf returns what an image name stands for.
func (n *Nodes) imageOf(name string) image {
	repository, _, _ := strings.Cut(path.Base(name), "@")
	repository, _, _ = strings.Cut(repository, ":")
	if repository == "portcullis" {
		return image{name: "portcullis", path: "/usr/local/bin/portcullis", file: n.Portcullis}
	}
	return image{name: "agnhost", path: "/agnhost", file: n.Agnhost, arg: "pause"}
}

// command returns the arguments that follow the program's path.
func (i image) command(spec corev1.Container, env map[string]string) ([]string, error) {
	command := expand(slices.Concat(spec.Command, spec.Args), env)
	if len(spec.Command) == 0 {
		command = append([]string{i.path}, command...)
	}
	if len(command) == 1 && i.arg != "" {
		command = append(command, i.arg)
	}
	return i.arguments(command)
}

// arguments returns what follows the program in a command, which must be the image's.
func (i image) arguments(command []string) ([]string, error) {
	if len(command) == 0 || command[0] != i.name && command[0] != i.path {
		return nil, fmt.Errorf("the only program of the image is %s, not %q", i.path, command)
	}
	return command[1:], nil
}

// startContainer starts one container and sees to what follows its end.
func (n *Nodes) startContainer(ctx context.Context, key string, box *sandbox, i int, pod *corev1.Pod) {
	box.mu.Lock()
	defer box.mu.Unlock()
	c := &box.programs[i]
	if box.stopped {
		return
	}
	again := func() {
		n.startContainer(ctx, key, box, i, pod)
		n.queue.Add(key)
	}
	if err := n.start(ctx, box, c, pod); err != nil {
		c.problem = err.Error()
		time.AfterFunc(restartDelay, again)
		return
	}
	c.problem = ""
	c.started, c.ready = metav1.Now(), c.spec.ReadinessProbe == nil
	if !c.ready {
		go n.probe(pod.Spec.NodeName, box, c, c.process, func() { n.queue.Add(key) })
	}
	go func() {
		restart := c.wait(box, pod.Spec.RestartPolicy)
		n.queue.Add(key)
		if restart {
			time.AfterFunc(restartDelay, again)
		}
	}()
}

// wait returns when the container has ended, and whether it is to be started again.
func (c *program) wait(box *sandbox, policy corev1.RestartPolicy) (again bool) {
	p := c.process
	<-p.Done()
	box.mu.Lock()
	defer box.mu.Unlock()
	c.inside.Close()
	c.process, c.inside, c.ready = nil, nil, false
	c.ended = &corev1.ContainerStateTerminated{
		ExitCode: int32(p.ExitCode()), StartedAt: c.started, FinishedAt: metav1.Now(), Reason: "Completed",
	}
	if p.ExitCode() != 0 {
		c.ended.Reason = "Error"
	}
	again = !box.stopped && (policy == corev1.RestartPolicyAlways || policy == corev1.RestartPolicyOnFailure && p.ExitCode() != 0)
	if again {
		c.restarts++
	}
	return again
}

// start makes a container and starts its program.
func (n *Nodes) start(ctx context.Context, box *sandbox, c *program, pod *corev1.Pod) error {
	env, err := n.environment(pod, c.spec, box)
	if err != nil {
		return err
	}
	args, err := c.image.command(c.spec, env)
	if err != nil {
		return err
	}
	cfg, err := n.containerConfig(ctx, box, c, pod)
	if err != nil {
		return err
	}
	netns, err := box.netns(n)
	if err != nil {
		return err
	}
	log, err := n.openLog(pod, c)
	if err != nil {
		return err
	}
	if log != nil {
		defer log.Close() // the program has its own copy
	}
	inside, err := container.New(cfg)
	if err != nil {
		return err
	}
	c.env = environ(env)
	spec := process.Spec{Name: "container of " + box.key, Path: c.image.path, Args: args, Env: c.env, NetNS: netns}
	if log != nil {
		spec.Stdout, spec.Stderr = log, log
	}
	p, err := inside.Start(spec)
	if err != nil {
		inside.Close()
		return err
	}
	c.inside, c.process = inside, p
	return nil
}

// openLog opens the file that a container of an agent writes to. Other containers have
// none.
func (n *Nodes) openLog(pod *corev1.Pod, c *program) (*os.File, error) {
	if c.image.name != "portcullis" {
		return nil, nil
	}
	return os.OpenFile(n.logFile(pod.Namespace+"/"+pod.Name, c.spec.Name), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
}

func (n *Nodes) logFile(pod, name string) string {
	return filepath.Join(n.LogDir, "container-"+strings.ReplaceAll(pod, "/", "-")+"-"+name+".log")
}

// netns returns a descriptor of the network namespace that the pod is in.
func (box *sandbox) netns(n *Nodes) (int, error) {
	fd := n.Lab.NetNS(box.endpoint)
	if fd < 0 {
		return 0, fmt.Errorf("pod %s is gone", box.key)
	}
	return fd, nil
}

type streams struct {
	in       io.Reader
	out, err io.Writer
}

// runIn runs a command in a container until it or the context ends.
func (n *Nodes) runIn(ctx context.Context, box *sandbox, name string, command []string, s streams) (int, error) {
	box.mu.Lock()
	i := slices.IndexFunc(box.programs, func(c program) bool { return c.spec.Name == name })
	if i < 0 || box.programs[i].process == nil {
		box.mu.Unlock()
		return 0, fmt.Errorf("pod %s has no running container %s", box.key, name)
	}
	image, inside, env := box.programs[i].image, box.programs[i].inside, box.programs[i].env
	box.mu.Unlock()
	args, err := image.arguments(command)
	if err != nil {
		return 0, err
	}
	netns, err := box.netns(n)
	if err != nil {
		return 0, err
	}
	spec := process.Spec{
		Name: "command in " + box.key, Path: image.path, Args: args, Env: env, NetNS: netns,
		Stdout: s.out, Stderr: s.err,
	}
	if s.in != nil {
		r, err := feed(s.in)
		if err != nil {
			return 0, err
		}
		defer r.Close()
		spec.Stdin = r
	}
	p, err := inside.Start(spec)
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

// feed returns a pipe with what comes from a client. A command may end while the client
// has more, or goes on waiting: who reads from the client directly would wait with it.
func feed(in io.Reader) (*os.File, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	go func() {
		_, _ = io.Copy(w, in)
		_ = w.Close()
	}()
	return r, nil
}
