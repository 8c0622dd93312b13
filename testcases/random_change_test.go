package testcases

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"

	"github.com/portcullis-netpol/portcullis/policy"
)

// modes makes the annotations of a namespace or policy, most often none.
func (m *maker) modes() map[string]string {
	if !m.chance(4) {
		return nil
	}
	return map[string]string{policy.AnnotationMode: pick(m, "audit", "audit", "audit", "enforce", "Audit")}
}

// change makes one random change of the cluster.
func (m *maker) change(c *cluster) event {
	switch m.IntN(10) {
	case 0, 1:
		return m.changeNamespace(c)
	case 2, 3, 4, 5:
		return m.changePod(c)
	}
	return m.changePolicy(c)
}

func (m *maker) changeNamespace(c *cluster) event {
	n := m.namespace(pick(m, randomNamespaces...))
	if m.chance(4) {
		ref := objectRef{Kind: "Namespace", Name: n.Name}
		c.remove(ref)
		return event{Delete: ref}
	}
	for _, old := range c.objects.Namespaces {
		if old.Name == n.Name && m.chance(2) {
			n.Labels = old.Labels // nothing but the mode changes
		}
	}
	c.objects.Namespaces = put(c.objects.Namespaces, n)
	return event{Namespace: n}
}

func (m *maker) changePod(c *cluster) event {
	if len(c.objects.Pods) == 0 || m.chance(4) {
		n := m.IntN(8)
		return c.setPod(m.pod(pick(m, randomHomes...), fmt.Sprintf("p%d", n), n))
	}
	old := c.objects.Pods[m.IntN(len(c.objects.Pods))]
	if m.chance(4) {
		ref := objectRef{"Pod", old.Namespace, old.Name}
		c.remove(ref)
		c.known = nil
		return event{Delete: ref}
	}
	p := old.DeepCopy()
	switch m.IntN(5) {
	case 0:
		p.Status.Phase = pick(m, corev1.PodSucceeded, corev1.PodRunning, corev1.PodFailed)
	case 1:
		if !p.Spec.HostNetwork {
			m.address(p, m.IntN(8))
		}
	default:
		p.Labels = m.labels()
	}
	return c.setPod(p)
}

func (c *cluster) setPod(p *corev1.Pod) event {
	c.objects.Pods = put(c.objects.Pods, p)
	if err := c.place(); err != nil {
		panic(err)
	}
	return event{Pod: p}
}

func (m *maker) changePolicy(c *cluster) event {
	if len(c.objects.Policies) > 0 && m.chance(3) {
		old := c.objects.Policies[m.IntN(len(c.objects.Policies))]
		ref := objectRef{"NetworkPolicy", old.Namespace, old.Name}
		c.remove(ref)
		return event{Delete: ref}
	}
	if len(c.objects.Policies) > 0 && m.chance(4) {
		p := c.objects.Policies[m.IntN(len(c.objects.Policies))].DeepCopy()
		p.Annotations = m.modes()
		c.objects.Policies = put(c.objects.Policies, p)
		return event{Policy: p}
	}
	p := m.policy(pick(m, randomHomes...), fmt.Sprintf("np%d", m.IntN(6)))
	if len(c.objects.Policies) > 0 && m.chance(2) {
		p.Namespace, p.Name = c.objects.Policies[0].Namespace, c.objects.Policies[0].Name
	}
	c.objects.Policies = put(c.objects.Policies, p)
	return event{Policy: p}
}
