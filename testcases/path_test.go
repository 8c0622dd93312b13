package testcases

import (
	"fmt"
	"net/netip"
)

// leg is one passage of a flow's first packet through a node at which policy can
// look at it: the destination as it is after DNAT, the source before SNAT.
type leg struct {
	Node     string
	Input    bool // to the node itself, else forwarded
	Src, Dst netip.Addr
	Port     uint16
}

// path is the way of a check's packets to one of the pods that may answer.
type path struct {
	Legs []leg
	// Src, Dst and Port are the flow that policy judges. Where a node port's
	// masquerading shows one node another source than the next one, whole is
	// false and only the legs tell.
	Src, Dst netip.Addr
	Port     uint16
	Whole    bool
}

// paths lists the ways that a check's packets may take: one, or one for each pod
// behind a Service.
func (c *cluster) paths(ch check) ([]path, error) {
	src, dst := ch.Src.addr(ch.V4), ch.Dst.addr(ch.V4)
	if s := ch.Dst.Service; s != nil {
		target, err := s.port(ch.Port, false)
		if err != nil {
			return nil, err
		}
		return c.toPods(s, ch.V4, func(pod netip.Addr) path {
			return path{c.legs(src, pod, target), src, pod, target, true}
		})
	}
	if _, node := c.owner(dst); node != "" && nodeAddrs[node][0].IsValid() && ch.Dst.Text == node {
		if s, target := c.nodePort(ch.Port); s != nil {
			return c.toPods(s, ch.V4, func(pod netip.Addr) path { return c.throughNode(src, node, pod, ch, target) })
		}
	}
	return []path{{c.legs(src, dst, ch.Port.Port), src, dst, ch.Port.Port, true}}, nil
}

func (c *cluster) toPods(s *service, v4 bool, way func(netip.Addr) path) ([]path, error) {
	var out []path
	for _, p := range s.Pods {
		a := p.V6
		if v4 {
			a = p.V4
		}
		if a.IsValid() {
			out = append(out, way(a))
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("no pod of the family is behind Service %s", s.Name)
	}
	return out, nil
}

// nodePort finds the Service that has a node port.
func (c *cluster) nodePort(p protoPort) (*service, uint16) {
	for _, o := range c.objects.Services {
		s, _ := c.service(o.Namespace + "/" + o.Name)
		if target, err := s.port(p, true); err == nil && p.Port != 0 {
			return s, target
		}
	}
	return nil, 0
}

// throughNode is the way through a node port: the node that has the address
// translates the destination before it forwards, and the source after that.
func (c *cluster) throughNode(src netip.Addr, node string, pod netip.Addr, ch check, target uint16) path {
	name, at := c.owner(src)
	p := path{Src: src, Dst: pod, Port: target}
	if name != "" && at != node {
		p.Legs = append(p.Legs, leg{Node: at, Src: src, Dst: ch.Dst.addr(ch.V4), Port: ch.Port.Port})
	}
	if name != "" || at != node {
		p.Legs = append(p.Legs, leg{Node: node, Src: src, Dst: pod, Port: target})
	}
	if _, podNode := c.owner(pod); podNode != node {
		masked := nodeAddrs[node][1]
		if ch.V4 {
			masked = nodeAddrs[node][0]
		}
		p.Legs = append(p.Legs, leg{Node: podNode, Src: masked, Dst: pod, Port: target})
	}
	return p
}

// legs is the way of packets that nobody translates, or that are translated
// before any policy sees them.
func (c *cluster) legs(src, dst netip.Addr, port uint16) []leg {
	srcPod, srcNode := c.owner(src)
	dstPod, dstNode := c.owner(dst)
	forward := func(node string) leg { return leg{Node: node, Src: src, Dst: dst, Port: port} }
	var out []leg
	if srcPod != "" && !(dstNode == srcNode && dstPod == "") {
		out = append(out, forward(srcNode))
	}
	switch {
	case dstNode == "":
	case dstPod == "" && (srcPod != "" || srcNode != dstNode):
		out = append(out, leg{Node: dstNode, Input: true, Src: src, Dst: dst, Port: port})
	case dstPod != "" && srcNode != dstNode:
		out = append(out, forward(dstNode))
	}
	return out
}
