package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/portcullis-netpol/portcullis/testcases/lab"
)

// How long to wait for answers. A connection that should not be there is given
// enough time to show itself; one that should be, enough for a busy machine.
var timing = lab.Timing{Allow: 5 * time.Second, Deny: 250 * time.Millisecond}

// stage is a scene that is being shown: its processes and packets.
type stage struct {
	opts      Options
	scene     *scene
	lab       *lab.Lab
	agents    []*agentProcess
	manifests manifestDir
	out       printer
	errOut    io.Writer

	placed map[string]placement // where the laboratory has each pod

	warnMu sync.Mutex
}

type placement struct {
	node  string
	addrs []netip.Addr
}

// build makes the laboratory with everything in it that has servers.
func (s *stage) build() error {
	var err error
	s.lab, err = lab.New(lab.Config{
		Topology: s.opts.Topology,
		IPv4:     slices.Contains(s.scene.families, 4),
		IPv6:     slices.Contains(s.scene.families, 6),
		Nodes:    s.scene.nodes,
	})
	if err != nil {
		return err
	}
	if err = s.populate(); err != nil {
		return errors.Join(err, s.lab.Close())
	}
	return nil
}

func (s *stage) populate() error {
	s.placed = map[string]placement{}
	if err := s.scene.place(s.lab); err != nil {
		return err
	}
	if err := s.syncPods(); err != nil {
		return err
	}
	for _, e := range s.scene.ends {
		if e.endpoint == lab.Outside {
			if err := s.lab.AddOutside(e.addrs...); err != nil {
				return err
			}
		}
		for _, p := range e.ports {
			err := s.lab.Serve(e.endpoint, p.protocol, p.port)
			if err != nil && !errors.Is(err, os.ErrExist) { // two outside hosts are one
				return err
			}
		}
	}
	return nil
}

// syncPods makes and moves the laboratory's pods so that they are where the scene
// has them.
func (s *stage) syncPods() error {
	for _, e := range s.scene.ends {
		if e.pod == nil {
			continue
		}
		want := placement{e.pod.Spec.NodeName, slices.Clone(e.addrs)}
		have, made := s.placed[e.endpoint]
		var err error
		switch {
		case made && have.node == want.node && slices.Equal(have.addrs, want.addrs):
			continue
		case made:
			err = s.lab.MovePod(e.endpoint, want.node, want.addrs)
		case e.pod.Spec.HostNetwork:
			err = s.lab.AddHostPod(want.node, e.endpoint)
		default:
			err = s.lab.AddPod(want.node, e.endpoint, want.addrs)
		}
		if err != nil {
			return err
		}
		s.placed[e.endpoint] = want
	}
	return nil
}

func (s *stage) close() error {
	var wait sync.WaitGroup
	errs := make([]error, len(s.agents))
	for i, a := range s.agents {
		wait.Go(func() { errs[i] = a.stop() })
	}
	wait.Wait()
	return errors.Join(errors.Join(errs...), s.lab.Close())
}

// play shows the steps until one goes wrong.
func (s *stage) play(ctx context.Context) error {
	start := time.Now()
	s.out.begin(s.scene, s.opts, s.podCount())
	var before *report
	for i := range s.scene.steps {
		r, err := s.step(ctx, i, before)
		if err != nil {
			return err
		}
		s.out.step(r)
		if wrong := r.wrong(); len(wrong) > 0 {
			return &MismatchError{Step: r.title, Cells: wrong}
		}
		before = r
	}
	s.out.end(len(s.scene.steps), time.Since(start))
	return nil
}

func (s *stage) podCount() int {
	n := 0
	for _, e := range s.scene.ends {
		if e.pod != nil {
			n++
		}
	}
	return n
}

// step makes the change of one step, sees it come into force, and tries everything.
func (s *stage) step(ctx context.Context, i int, before *report) (*report, error) {
	st := s.scene.steps[i]
	r := &report{number: i + 1, title: st.title, text: st.text, added: sortedKeys(st.add), dropped: st.drop}
	if err := s.scene.apply(st); err != nil {
		return nil, err
	}
	if err := s.scene.place(s.lab); err != nil {
		return nil, err
	}
	if err := s.syncPods(); err != nil {
		return nil, err
	}
	r.flows = s.scene.flows()
	var err error
	if r.want, err = s.scene.expect(r.flows); err != nil {
		return nil, err
	}
	r.compare(before)
	if err := s.bringIntoForce(ctx, r); err != nil {
		return nil, fmt.Errorf("step %d, %s: %w", r.number, r.title, err)
	}
	probes := make([]lab.Probe, len(r.flows))
	for i, f := range r.flows {
		probes[i] = f.probe()
		probes[i].Deny = !r.want[i].allowed
	}
	r.got = s.lab.Probe(ctx, probes, timing)
	return r, ctx.Err()
}

// bringIntoForce swaps the manifests, watches the first packets change sides, and
// waits for the agents' own word.
func (s *stage) bringIntoForce(ctx context.Context, r *report) error {
	files, err := s.scene.files()
	if err != nil {
		return err
	}
	old := s.manifests.revision
	next, err := s.manifests.write(files)
	if err != nil {
		return fmt.Errorf("write manifests: %w", err)
	}
	r.revision = next.revision
	if next.revision == old {
		return nil // nothing has changed, so nobody will say anything
	}
	first := s.agents == nil
	var seen *observation
	if !first {
		seen = observe(ctx, s.lab, r.witnesses())
		defer seen.stop()
	}
	swapped, err := s.manifests.use(next)
	if err != nil {
		return fmt.Errorf("swap manifests: %w", err)
	}
	if first {
		if err := s.startAgents(); err != nil {
			return err
		}
	}
	for _, a := range s.agents {
		at, err := a.await(ctx, next.revision, swapped)
		if err != nil {
			return err
		}
		r.agents = append(r.agents, agentReport{a.node, at.Sub(swapped)})
	}
	if seen != nil {
		seen.stop()
		r.firstPackets = seen.since(swapped)
	}
	return nil
}

func (s *stage) startAgents() error {
	command, err := s.opts.agentCommand()
	if err != nil {
		return err
	}
	for _, node := range s.scene.nodes {
		a, err := startAgent(s.lab, node, command, s.manifests.path(), func(line string) { s.warn(node, line) })
		if err != nil {
			return err
		}
		s.agents = append(s.agents, a)
	}
	return nil
}

// warn passes on what an agent complains about.
func (s *stage) warn(node, line string) {
	s.warnMu.Lock()
	defer s.warnMu.Unlock()
	fmt.Fprintf(s.errOut, "agent on %s: %s\n", node, line)
}

// keep leaves everything up until ctx is done.
func (s *stage) keep(ctx context.Context) {
	if err := s.restorePolicies(ctx); err != nil {
		fmt.Fprintf(s.errOut, "put the policies back: %v\n", err)
	}
	s.out.keep(s.lookAround())
	<-ctx.Done()
}

// restorePolicies puts back what the story's last step deleted: without policies
// there is little to look at.
func (s *stage) restorePolicies(ctx context.Context) error {
	if len(s.scene.policies) > 0 {
		return nil
	}
	all := map[string][]byte{}
	for _, st := range s.scene.steps[:len(s.scene.steps)-1] {
		for _, file := range st.drop {
			delete(all, file)
		}
		maps.Copy(all, st.add)
	}
	if len(all) == 0 {
		return nil
	}
	s.scene.policies = all
	return s.bringIntoForce(ctx, &report{})
}

// lookAround says how to get at what is up.
func (s *stage) lookAround() []string {
	pid := os.Getpid()
	enter := func(endpoint string) string {
		ns := fmt.Sprintf("--net=/proc/%d/fd/%d", pid, s.lab.NetNS(endpoint))
		if isRootNamespace() {
			return "nsenter " + ns
		}
		return fmt.Sprintf("nsenter --user=/proc/%d/ns/user --preserve-credentials %s", pid, ns)
	}
	lines := []string{
		"Everything stays up until Ctrl-C. The agents follow the files in",
		"  " + s.manifests.path() + "/",
		"so edit, add or delete some. To look at a node's rules, or be a pod, in another terminal:",
	}
	for _, node := range s.scene.nodes {
		lines = append(lines, fmt.Sprintf("  %s nft list ruleset    # %s", enter(node), node))
	}
	for _, e := range s.scene.ends {
		if e.pod == nil {
			continue
		}
		var addrs []string
		for _, a := range e.addrs {
			addrs = append(addrs, a.String())
		}
		lines = append(lines, fmt.Sprintf("  %s sh    # %s, %s", enter(e.endpoint), e.endpoint, strings.Join(addrs, " ")))
	}
	return lines
}

// isRootNamespace tells whether the user namespace is the machine's first one.
func isRootNamespace() bool {
	data, err := os.ReadFile("/proc/self/uid_map")
	f := strings.Fields(string(data))
	return err == nil && len(f) == 3 && f[0] == "0" && f[1] == "0" && f[2] == "4294967295"
}

// isRunning tells whether a pod has packets at all.
func isRunning(pod *corev1.Pod) bool {
	return pod.Status.Phase != corev1.PodSucceeded && pod.Status.Phase != corev1.PodFailed
}
