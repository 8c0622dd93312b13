package main

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// target is where packets arrive: behind a Service one of several.
type target struct {
	end
	protocol corev1.Protocol
	port     int32 // the pod's own; 0 for a protocol without ports
}

// targets finds what the user named: a pod or an address, or the pods behind a Service.
func (c *cluster) targets(to destination) ([]target, error) {
	if to.service {
		return c.behind(to)
	}
	e, err := c.end("DST", to.name)
	if err != nil {
		return nil, err
	}
	if e.pod == nil {
		if name := c.serviceAt(e.addrs[0]); name != "" {
			return nil, fmt.Errorf("DST: %s is an address of Service %s, and policies see the pods behind it: ask about svc/%s:PORT", to.name, name, name)
		}
	}
	t := target{end: e, protocol: cmp.Or(to.protocol, corev1.ProtocolTCP)}
	if to.port == "" {
		return []target{t}, nil
	}
	if t.port = c.numberOf(e.pod, intstr.Parse(to.port), t.protocol); t.port == 0 {
		return nil, fmt.Errorf("DST: %s has no %s port named %q", to.name, strings.ToLower(string(t.protocol)), to.port)
	}
	return []target{t}, nil
}

// serviceAt is the Service that has an address of its own, or nothing.
func (c *cluster) serviceAt(addr netip.Addr) string {
	for _, s := range c.objects.Services {
		for _, text := range slices.Concat(s.Spec.ClusterIPs, []string{s.Spec.ClusterIP}) {
			if is, err := netip.ParseAddr(text); err == nil && is.Unmap() == addr {
				return s.Namespace + "/" + s.Name
			}
		}
	}
	return ""
}

// numberOf is the number of a port of a pod, or 0 if it has none of the name. Names are
// those of containers that keep running.
func (c *cluster) numberOf(pod *corev1.Pod, port intstr.IntOrString, protocol corev1.Protocol) int32 {
	if port.Type == intstr.Int {
		return port.IntVal
	}
	if pod == nil {
		return 0
	}
	containers := slices.Clone(pod.Spec.Containers)
	for _, is := range pod.Spec.InitContainers {
		if is.RestartPolicy != nil && *is.RestartPolicy == corev1.ContainerRestartPolicyAlways {
			containers = append(containers, is)
		}
	}
	for _, is := range containers {
		for _, p := range is.Ports {
			if p.Name == port.StrVal && cmp.Or(p.Protocol, corev1.ProtocolTCP) == protocol {
				return p.ContainerPort
			}
		}
	}
	return 0
}

// behind finds the pods behind a Service, sorted by name, ready or not.
func (c *cluster) behind(to destination) ([]target, error) {
	if c.partial {
		return nil, errors.New("DST: an agent knows no Services; name a pod and its port, or ask a cluster")
	}
	s, err := c.service(to.name)
	if err != nil {
		return nil, err
	}
	port, err := servicePort(s, to)
	if err != nil {
		return nil, err
	}
	aim := port.TargetPort
	if aim == (intstr.IntOrString{}) {
		aim = intstr.FromInt32(port.Port)
	}
	protocol := cmp.Or(port.Protocol, corev1.ProtocolTCP)
	selector := labels.SelectorFromValidatedSet(s.Spec.Selector)
	var out []target
	selected := 0
	for _, p := range c.objects.Pods {
		if p.Namespace != s.Namespace || ended(p) || !selector.Matches(labels.Set(p.Labels)) {
			continue
		}
		selected++
		number := c.numberOf(p, aim, protocol)
		e, err := c.end("DST", p.Namespace+"/"+p.Name)
		if number != 0 && err == nil {
			out = append(out, target{e, protocol, number})
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("DST: no pod is behind port %s of Service %s (%s): %d pods have its labels, none of them port %s and an address",
			to.port, to.name, labels.FormatLabels(s.Spec.Selector), selected, aim.String())
	}
	slices.SortFunc(out, func(a, b target) int { return strings.Compare(a.name, b.name) })
	return out, nil
}

// service finds a Service that has pods behind an address of its own.
func (c *cluster) service(name string) (*corev1.Service, error) {
	i := slices.IndexFunc(c.objects.Services, func(s *corev1.Service) bool { return s.Namespace+"/"+s.Name == name })
	if i < 0 {
		return nil, fmt.Errorf("DST: no Service %s in %s", name, c.where)
	}
	s := c.objects.Services[i]
	switch {
	case s.Spec.Type == corev1.ServiceTypeExternalName:
		return nil, fmt.Errorf("DST: Service %s is only another name for %s; policies see the address that it has", name, s.Spec.ExternalName)
	case len(s.Spec.Selector) == 0:
		return nil, fmt.Errorf("DST: Service %s has no selector; which pods are behind it is for others to say: name one, or an address", name)
	case s.Spec.ClusterIP == corev1.ClusterIPNone:
		return nil, fmt.Errorf("DST: Service %s is headless: clients connect to the pods themselves, at the pods' own ports; name one", name)
	}
	return s, nil
}

// servicePort finds a port of a Service by number or name; of two with the same number,
// the one that is tcp if nobody says a protocol.
func servicePort(s *corev1.Service, to destination) (corev1.ServicePort, error) {
	var have []string
	var found []corev1.ServicePort
	for _, p := range s.Spec.Ports {
		protocol := cmp.Or(p.Protocol, corev1.ProtocolTCP)
		number := strconv.Itoa(int(p.Port))
		text := number + "/" + strings.ToLower(string(protocol))
		if p.Name != "" {
			text += " (" + p.Name + ")"
		}
		have = append(have, text)
		if (to.port == number || to.port == p.Name) && (to.protocol == "" || to.protocol == protocol) {
			found = append(found, p)
		}
	}
	if len(found) == 0 {
		return corev1.ServicePort{}, fmt.Errorf("DST: Service %s has no port %s; it has %s",
			to.name, strings.TrimSuffix(cmp.Or(to.port, "without a number")+"/"+strings.ToLower(string(to.protocol)), "/"), few(have))
	}
	for _, p := range found {
		if cmp.Or(p.Protocol, corev1.ProtocolTCP) == corev1.ProtocolTCP {
			return p, nil
		}
	}
	return found[0], nil
}
