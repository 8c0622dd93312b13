package testcases

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/portcullis-netpol/portcullis/nft"
	"github.com/portcullis-netpol/portcullis/policy"
	"github.com/portcullis-netpol/portcullis/policy/evaluate"
	"github.com/portcullis-netpol/portcullis/policy/ir"
)

// decision is what one height says of a check, for one way that it may go.
type decision struct {
	Egress, Ingress bool // they allow it
	// AuditEgress and AuditIngress say that policies in audit mode would deny it.
	AuditEgress, AuditIngress bool
	Why                       string
}

// evaluated asks package evaluate.
func (c *cluster) decide(ch check) ([]decision, error) {
	paths, err := c.paths(ch)
	if err != nil {
		return nil, err
	}
	cl := c.evaluated()
	var out []decision
	for _, p := range paths {
		d := decision{Egress: true, Ingress: true}
		ask := func(l leg, egress, ingress bool) {
			v := evaluate.Evaluate(cl, evaluate.Flow{Src: l.Src, Dst: l.Dst, Protocol: evaluateProtocol(ch.Port), Port: int32(l.Port)})
			d.Egress = d.Egress && (v.Egress.Allowed || !egress)
			d.Ingress = d.Ingress && (v.Ingress.Allowed || !ingress)
			d.AuditEgress = d.AuditEgress || egress && v.Egress.WouldDeny
			d.AuditIngress = d.AuditIngress || ingress && v.Ingress.WouldDeny
			d.Why += fmt.Sprintf("\n    %s -> %s: egress: %s; ingress: %s", l.Src, l.Dst, v.Egress.Reason, v.Ingress.Reason)
		}
		if p.Whole {
			ask(leg{Src: p.Src, Dst: p.Dst, Port: p.Port}, true, true)
		} else {
			for _, l := range p.Legs {
				_, srcNode := c.owner(l.Src)
				_, dstNode := c.owner(l.Dst)
				ask(l, srcNode == l.Node, dstNode == l.Node)
			}
		}
		out = append(out, d)
	}
	return out, nil
}

func evaluateProtocol(p protoPort) corev1.Protocol {
	return corev1.Protocol(strings.ToUpper(p.Protocol))
}

// protocolNumber is the IANA number of a check's protocol.
func protocolNumber(ch check) uint8 {
	switch ch.Port.Protocol {
	case "tcp":
		return 6
	case "udp":
		return 17
	case "sctp":
		return 132
	}
	if ch.V4 {
		return 1
	}
	return 58
}

// feed hands events to an Index and returns the policies and namespaces that the
// compiler complains about.
func feed(x *policy.Index, events []event) (reports []string) {
	for _, e := range events {
		switch {
		case e.Namespace != nil:
			x.SetNamespace(e.Namespace)
			if len(policy.CheckNamespace(e.Namespace)) > 0 {
				reports = append(reports, e.Namespace.Name)
			}
		case e.Pod != nil:
			x.SetPod(e.Pod)
		case e.Policy != nil:
			if problems := x.SetNetworkPolicy(e.Policy); len(problems) > 0 {
				reports = append(reports, e.Policy.Namespace+"/"+e.Policy.Name)
			}
		case e.Delete.Kind == "Namespace":
			x.DeleteNamespace(e.Delete.Name)
		case e.Delete.Kind == "Pod":
			x.DeletePod(e.Delete.Namespace, e.Delete.Name)
		case e.Delete.Kind == "NetworkPolicy":
			x.DeleteNetworkPolicy(e.Delete.Namespace, e.Delete.Name)
		}
	}
	return reports
}

// everything is the cluster as a list of events, policies first, so that what is
// compiled from it has seen the objects in another order than usual.
func (c *cluster) everything() []event {
	var out []event
	for _, o := range slices.Backward(c.objects.Policies) {
		out = append(out, event{Policy: o})
	}
	for _, o := range slices.Backward(c.objects.Pods) {
		out = append(out, event{Pod: o})
	}
	for _, o := range slices.Backward(c.objects.Namespaces) {
		out = append(out, event{Namespace: o})
	}
	return out
}

// fresh compiles the cluster as it is for one node.
func (c *cluster) fresh(node string) ir.State {
	x := policy.NewIndex(node)
	feed(x, c.everything())
	x.Flush()
	return x.State()
}

// compiled asks the compiled form of the nodes on the way.
func compiled(states map[string]ir.State, paths []path, ch check) []decision {
	var out []decision
	for _, p := range paths {
		d := decision{Egress: true, Ingress: true}
		for _, l := range p.Legs {
			packet := ir.Packet{Src: l.Src, Dst: l.Dst, Protocol: ir.Protocol(protocolNumber(ch)), DstPort: l.Port}
			s := states[l.Node]
			d.Egress = d.Egress && s.Verdict(ir.Egress, packet) == ir.Accept
			d.AuditEgress = d.AuditEgress || s.WouldDeny(ir.Egress, packet)
			if !l.Input {
				d.Ingress = d.Ingress && s.Verdict(ir.Ingress, packet) == ir.Accept
				d.AuditIngress = d.AuditIngress || s.WouldDeny(ir.Ingress, packet)
			}
		}
		out = append(out, d)
	}
	return out
}

// simulated walks a check's packets through the tables of the nodes on the way,
// and says of each way whether they arrive.
func simulated(tables map[string]*nft.Table, paths []path, ch check) []bool {
	var out []bool
	for _, p := range paths {
		ok := true
		for _, l := range p.Legs {
			ok = ok && tables[l.Node].Verdict(packetOf(l, ch)) == nft.Accept
		}
		out = append(out, ok)
	}
	return out
}

func packetOf(l leg, ch check) nft.Packet {
	p := nft.Packet{Hook: nft.HookForward, Src: l.Src, Dst: l.Dst, Protocol: protocolNumber(ch), DstPort: l.Port}
	if l.Input {
		p.Hook = nft.HookInput
	}
	switch p.Protocol { // echo request
	case 1:
		p.ICMPType = 8
	case 58:
		p.ICMPType = 128
	}
	return p
}

// tableConfig is how all heights enforce.
var tableConfig = nft.Config{Deny: nft.DenyDrop, PodToNode: true}

// build lays out a fresh table for every node.
func build(states map[string]ir.State) (map[string]*nft.Table, error) {
	tables := map[string]*nft.Table{}
	for node, s := range states {
		t, err := nft.Build(tableConfig, "portcullis-a", s)
		if err != nil {
			return nil, fmt.Errorf("%s: build table: %w", node, err)
		}
		tables[node] = t
	}
	return tables, nil
}

// follower is a node's compiler and enforcer, which follow the events one by one.
type follower struct {
	node     string
	applied  int // changes that Apply carried out
	repaired int // changes that it left to Repair
	index    *policy.Index
	enforcer *nft.Enforcer
	kernel   nft.Kernel
}

func newFollower(ctx context.Context, node string, k nft.Kernel, cfg nft.Config) (*follower, error) {
	f := &follower{node: node, index: policy.NewIndex(node), kernel: k, enforcer: nft.NewEnforcer(cfg, k)}
	if err := f.enforcer.Takeover(ctx, ir.State{}); err != nil {
		return nil, fmt.Errorf("%s: takeover: %w", node, err)
	}
	return f, nil
}

// follow applies events as one change.
func (f *follower) follow(ctx context.Context, events []event) error {
	feed(f.index, events)
	return f.apply(ctx, f.index.Flush())
}

// apply does what an agent does: what cannot be carried out in parts is repaired
// as a whole. What the kernel refuses is another matter.
func (f *follower) apply(ctx context.Context, change ir.Change) error {
	err := f.enforcer.Apply(ctx, change)
	if err == nil {
		f.applied++
		return nil
	}
	if !errors.Is(err, nft.ErrUncertain) || errors.Is(err, nft.ErrRefused) {
		return fmt.Errorf("%s: apply: %w", f.node, err)
	}
	f.repaired++
	if err := f.enforcer.Repair(ctx, f.index.State()); err != nil {
		return fmt.Errorf("%s: repair: %w", f.node, err)
	}
	return nil
}

// table reads the node's table back from its kernel.
func (f *follower) table(ctx context.Context) (*nft.Table, error) {
	names, err := f.kernel.Tables(ctx)
	if err != nil || len(names) != 1 {
		return nil, fmt.Errorf("%s: tables %v (want one): %w", f.node, names, err)
	}
	t, complete, err := f.kernel.Read(ctx, names[0])
	if err != nil || !complete {
		return nil, fmt.Errorf("%s: read table %s: complete %v: %w", f.node, names[0], complete, err)
	}
	return t, nil
}
