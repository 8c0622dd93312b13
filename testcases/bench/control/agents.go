package control

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/portcullis-netpol/portcullis/testcases/lab"
)

// agentPlan is what to measure of an agent in a process of its own.
type agentPlan struct {
	Size Size
	// Churn is how long pods come and go, 0 for not at all, and Rate how many events
	// there are a second.
	Churn time.Duration
	Rate  int
	// Turns is how often each event that closes a pod is made and undone.
	Turns int
	// Restart replaces the agent by another process, with packets under way.
	Restart  bool
	Profiles string
}

// agentResult is what was seen.
type agentResult struct {
	// Synced is from the process's begin to when it has read the last list, Cold from
	// there to the table in force, Takeover the part of it from the first batch on.
	// ColdCPU is the processor time that Cold has taken.
	Synced, Cold, Takeover, ColdCPU time.Duration
	Memory                          memory
	Listed                          map[resource]volume
	// Selectors are what the watches asked for.
	Selectors map[resource]string
	Churn     *churnResult
	// Obeyed is, by event, from when the API server has it to the sending of the
	// first packet that obeys, in milliseconds.
	Obeyed map[string][]float64
	// Warm is Cold of the agent that has taken the place of the first, and of
	// RestartPackets that were sent meanwhile, RestartWrong met a wrong verdict.
	Warm                         time.Duration
	RestartPackets, RestartWrong int64
	Warnings                     []string
}

// scene is a laboratory with an agent on its only node.
type scene struct {
	*lab.Lab
	api   *apiServer
	agent *child
}

// newScene makes a laboratory with an API server for a cluster, and no agent yet.
func newScene(size Size) (*scene, error) {
	s := &scene{}
	var err error
	if s.Lab, err = lab.New(lab.Config{Topology: lab.Routed, Nodes: []string{node}}); err != nil {
		return nil, err
	}
	if s.api, err = serveAPI(newCluster(size)); err != nil {
		return nil, errors.Join(err, s.Lab.Close())
	}
	if err := s.furnish(); err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

func (s *scene) close() error { return errors.Join(s.api.close(), s.Lab.Close()) }

// measureAgent starts an agent against an API server and measures it.
func measureAgent(ctx context.Context, plan agentPlan) (r *agentResult, err error) {
	s, err := newScene(plan.Size)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	begin := time.Now()
	if err := s.startAgent(ctx, plan, "agent-"); err != nil {
		return nil, err
	}
	defer func() {
		if e := s.agent.close(); err == nil && ctx.Err() == nil {
			err = e
		}
	}()
	status, err := s.status(agentRequest{Wait: true, Settle: true})
	if err != nil {
		return nil, err
	}
	r = &agentResult{
		Synced: status.Read.Sub(begin), Cold: status.InForce.Sub(status.Read), Takeover: status.InForce.Sub(status.Began),
		ColdCPU: status.InForceCPU - status.ReadCPU,
		Memory:  status.Memory, Listed: map[resource]volume{}, Selectors: map[resource]string{},
	}
	for kind := range paths {
		r.Selectors[kind] = s.api.asked(kind)
		r.Listed[kind] = s.api.sent(s.api.initial, kind)
	}
	if plan.Churn > 0 {
		if r.Churn, err = s.churn(ctx, plan); err != nil {
			return nil, fmt.Errorf("churn: %w", err)
		}
	}
	if r.Obeyed, err = s.turns(ctx, plan.Turns); err != nil {
		return nil, err
	}
	if status, err = s.status(agentRequest{}); err != nil {
		return nil, err
	}
	r.Warnings = status.Warnings
	if plan.Restart {
		err = s.restart(ctx, plan, r)
	}
	return r, err
}

// restart ends the agent and starts another.
func (s *scene) restart(ctx context.Context, plan agentPlan, r *agentResult) error {
	traffic, err := s.startProbing(ctx)
	if err != nil {
		return err
	}
	err = s.agent.close()
	if err == nil {
		err = s.startAgent(ctx, plan, "restart-")
	}
	var status agentStatus
	if err == nil {
		status, err = s.status(agentRequest{Wait: true})
	}
	r.Warm = status.InForce.Sub(status.Read)
	var c churnResult
	err = errors.Join(err, traffic.stop(&c))
	r.RestartPackets, r.RestartWrong = c.Packets, c.Wrong
	return err
}

// status asks the agent's process.
func (s *scene) status(r agentRequest) (status agentStatus, err error) {
	err = s.agent.ask(r, &status)
	return status, err
}

func (s *scene) startAgent(ctx context.Context, plan agentPlan, name string) error {
	fd, err := unix.FcntlInt(uintptr(s.NetNS(node)), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return err
	}
	netns := os.NewFile(uintptr(fd), "netns")
	defer netns.Close()
	if s.agent, err = startChild(ctx, "agent", netns); err != nil {
		return err
	}
	return s.agent.enc.Encode(agentJob{Socket: s.api.socket, Profiles: plan.Profiles, Name: name + plan.Size.file()})
}

const (
	probes = "probe" // the namespace of the pods that are real
	// openPort is allowed by every state, closedPort by none.
	openPort, closedPort = 7001, 7002
)

// inhabitants are the pods that are real.
var inhabitants = []string{"client", "stranger", "server", "door"}

// furnish makes the pods that send and receive, and their objects.
func (s *scene) furnish() error {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: node, UID: "node"}}
	for _, c := range append(localBlocks(), s.PodCIDRs(node)...) {
		n.Spec.PodCIDRs = append(n.Spec.PodCIDRs, c.String())
	}
	s.api.set(n)
	s.api.set(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: probes, UID: probes}})
	for _, name := range inhabitants {
		addrs := s.addrs(name)
		if err := s.AddPod(node, probes+"/"+name, addrs); err != nil {
			return err
		}
		s.api.set(probePod(name, name, node, addrs...))
	}
	ports := append(named("open-udp"), named("open-tcp")...)
	udp := corev1.ProtocolUDP
	ports[0].Protocol = &udp
	guard := ingress(*selector("app", "server"), ports, toApp("client"))
	guard.Ingress = append(guard.Ingress, networkingv1.NetworkPolicyIngressRule{Ports: numbered(7003), From: []networkingv1.NetworkPolicyPeer{toApp("other")}})
	s.api.set(probePolicy("guard", guard))
	return s.Serve(probes+"/server", "tcp", openPort)
}

func probePolicy(name string, spec networkingv1.NetworkPolicySpec) *networkingv1.NetworkPolicy {
	p := newPolicy(0, name, spec)
	p.Namespace = probes
	return p
}

func probePod(name, app, on string, addrs ...netip.Addr) *corev1.Pod {
	p := newPod(0, name, 0, on, addrs...)
	p.Namespace = probes
	p.Labels["app"] = app
	p.Spec.Containers[0].Ports = []corev1.ContainerPort{
		{Name: "open-udp", ContainerPort: openPort, Protocol: corev1.ProtocolUDP},
		{Name: "open-tcp", ContainerPort: openPort, Protocol: corev1.ProtocolTCP},
	}
	return p
}

// addr returns the IPv4 address of a pod that is real.
func (s *scene) addr(name string) netip.Addr { return s.addrs(name)[0] }

// addrs returns the addresses of a pod that is real.
func (s *scene) addrs(name string) (out []netip.Addr) {
	for _, c := range s.PodCIDRs(node) {
		a := c.Addr()
		for range 10 + slices.Index(inhabitants, name) {
			a = a.Next()
		}
		out = append(out, a)
	}
	return out
}
