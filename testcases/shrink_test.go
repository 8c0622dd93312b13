package testcases

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"
)

// reportSmaller makes a failing cluster as small as it gets while the check still
// fails, and reports it as the files of a case.
func reportSmaller(t *testing.T, seed uint64, c *cluster, ch check, err error, try func(*cluster, check) error) {
	t.Helper()
	fails := func(c *cluster) bool {
		// An end that was a pod must stay one, or the check asks something else.
		for _, e := range []end{ch.Src, ch.Dst} {
			if name, _ := c.owner(e.addr(ch.V4)); strings.Contains(e.Text, "/") && name != e.Text {
				return false
			}
		}
		return try(c, ch) != nil
	}
	if !fails(c) {
		t.Errorf("seed %d: %v: %v (not with this check alone)\n%s", seed, ch, err, c.yaml())
		return
	}
	c = shrink(c, fails)
	family := "v6"
	if ch.V4 {
		family = "v4"
	}
	t.Errorf("seed %d: %v\n\n%s\n%s %s %v %s %s", seed, try(c, ch), c.yaml(),
		ch.Src.Text, ch.Dst.Text, ch.Port, expectation(t, c, ch), family)
}

// shrink takes things out of a cluster, one after the other, as long as it fails.
func shrink(c *cluster, fails func(*cluster) bool) *cluster {
	for again := true; again; {
		again = false
		for _, cut := range cuts(c) {
			smaller := c.copy()
			cut(smaller)
			smaller.known = nil
			if fails(smaller) {
				c, again = smaller, true
				break
			}
		}
	}
	return c
}

// cut leaves something out of a cluster.
type cut = func(*cluster)

// cuts lists what could be left out of a cluster, the big things first.
func cuts(c *cluster) []cut {
	var out []cut
	for i := range c.objects.Policies {
		out = append(out, func(c *cluster) { c.objects.Policies = slices.Delete(c.objects.Policies, i, i+1) })
	}
	for i := range c.objects.Pods {
		out = append(out, func(c *cluster) { c.objects.Pods = slices.Delete(c.objects.Pods, i, i+1) })
	}
	for i := range c.objects.Namespaces {
		out = append(out, func(c *cluster) { c.objects.Namespaces = slices.Delete(c.objects.Namespaces, i, i+1) })
	}
	for i := range c.objects.Namespaces {
		out = append(out, func(c *cluster) { c.objects.Namespaces[i].Annotations = nil })
	}
	for i := range c.objects.Policies {
		out = append(out, func(c *cluster) { c.objects.Policies[i].Annotations = nil })
		out = append(out, cutsOfPolicy(c, i)...)
	}
	for i := range c.objects.Pods {
		out = append(out, cutsOfPod(c, i)...)
	}
	// A cut that changes nothing would be made for ever.
	before := c.yaml()
	return slices.DeleteFunc(out, func(cut cut) bool {
		try := c.copy()
		cut(try)
		return try.yaml() == before
	})
}

// cutsOfPolicy leaves out rules, and what is in them.
func cutsOfPolicy(c *cluster, i int) []cut {
	spec := func(c *cluster) *networkingv1.NetworkPolicySpec { return &c.objects.Policies[i].Spec }
	var out []cut
	for j, r := range spec(c).Ingress {
		out = append(out, func(c *cluster) { spec(c).Ingress = slices.Delete(spec(c).Ingress, j, j+1) })
		out = append(out, cutPeers(len(r.From), func(c *cluster) *[]networkingv1.NetworkPolicyPeer { return &spec(c).Ingress[j].From })...)
		out = append(out, cutList(len(r.Ports), func(c *cluster) *[]networkingv1.NetworkPolicyPort { return &spec(c).Ingress[j].Ports })...)
	}
	for j, r := range spec(c).Egress {
		out = append(out, func(c *cluster) { spec(c).Egress = slices.Delete(spec(c).Egress, j, j+1) })
		out = append(out, cutPeers(len(r.To), func(c *cluster) *[]networkingv1.NetworkPolicyPeer { return &spec(c).Egress[j].To })...)
		out = append(out, cutList(len(r.Ports), func(c *cluster) *[]networkingv1.NetworkPolicyPort { return &spec(c).Egress[j].Ports })...)
	}
	return append(out, cutList(len(spec(c).PodSelector.MatchExpressions), func(c *cluster) *[]metav1.LabelSelectorRequirement {
		return &spec(c).PodSelector.MatchExpressions
	})...)
}

// cutsOfPod leaves out labels and ports.
func cutsOfPod(c *cluster, i int) []cut {
	out := []cut{
		func(c *cluster) { c.objects.Pods[i].Spec.InitContainers = nil },
		func(c *cluster) { c.objects.Pods[i].Spec.Containers = c.objects.Pods[i].Spec.Containers[:1] },
		func(c *cluster) { c.objects.Pods[i].Spec.Containers[0].Ports = nil },
	}
	for k := range c.objects.Pods[i].Labels {
		out = append(out, func(c *cluster) { delete(c.objects.Pods[i].Labels, k) })
	}
	return out
}

// cutPeers leaves out peers, and excepts of blocks.
func cutPeers(n int, list func(*cluster) *[]networkingv1.NetworkPolicyPeer) []cut {
	out := cutList(n, list)
	for i := range n {
		out = append(out, func(c *cluster) {
			if b := (*list(c))[i].IPBlock; b != nil && len(b.Except) > 0 {
				b.Except = b.Except[1:]
			}
		})
	}
	return out
}

// cutList leaves out one entry, but never the last one: that would mean all.
func cutList[T any](n int, list func(*cluster) *[]T) []cut {
	var out []cut
	for i := range n {
		if n > 1 {
			out = append(out, func(c *cluster) { l := list(c); *l = slices.Delete(*l, i, i+1) })
		}
	}
	return out
}

// shrinkSteps leaves out events as long as what is left fails.
func shrinkSteps(steps [][]event, fails func([][]event) bool) [][]event {
	for again := true; again; {
		again = false
		for i := range steps {
			for j := range steps[i] {
				smaller := slices.Clone(steps)
				smaller[i] = slices.Delete(slices.Clone(steps[i]), j, j+1)
				if len(smaller[i]) == 0 {
					smaller = slices.Delete(smaller, i, i+1)
				}
				if fails(smaller) {
					steps, again = smaller, true
					break
				}
			}
			if again {
				break
			}
		}
	}
	return steps
}

// copy copies a cluster with all its objects.
func (c *cluster) copy() *cluster {
	n := &cluster{}
	for _, o := range c.objects.Namespaces {
		n.objects.Namespaces = append(n.objects.Namespaces, o.DeepCopy())
	}
	for _, o := range c.objects.Pods {
		n.objects.Pods = append(n.objects.Pods, o.DeepCopy())
	}
	for _, o := range c.objects.Policies {
		n.objects.Policies = append(n.objects.Policies, o.DeepCopy())
	}
	for _, o := range c.objects.Services {
		n.objects.Services = append(n.objects.Services, o.DeepCopy())
	}
	return n
}

// replay carries out an event.
func (c *cluster) replay(e event) {
	c.known = nil
	switch {
	case e.Namespace != nil:
		c.objects.Namespaces = put(c.objects.Namespaces, e.Namespace)
	case e.Pod != nil:
		c.objects.Pods = put(c.objects.Pods, e.Pod)
	case e.Policy != nil:
		c.objects.Policies = put(c.objects.Policies, e.Policy)
	default:
		c.remove(e.Delete)
	}
}

// yaml is the cluster as an objects.yaml.
func (c *cluster) yaml() string {
	var events []event
	for _, o := range c.objects.Namespaces {
		events = append(events, event{Namespace: o})
	}
	for _, o := range c.objects.Pods {
		events = append(events, event{Pod: o})
	}
	for _, o := range c.objects.Policies {
		events = append(events, event{Policy: o})
	}
	return yamlOf(events)
}

func yamlOf(events []event) string {
	var parts []string
	for _, e := range events {
		var o any
		switch {
		case e.Namespace != nil:
			o = e.Namespace
		case e.Pod != nil:
			o = e.Pod
		case e.Policy != nil:
			o = e.Policy
		default:
			parts = append(parts, strings.TrimSuffix(fmt.Sprintf("# delete %s %s/%s", e.Delete.Kind, e.Delete.Namespace, e.Delete.Name), "/")+"\n")
			continue
		}
		text, err := yaml.Marshal(o)
		if err != nil {
			text = []byte("# " + err.Error() + "\n")
		}
		parts = append(parts, string(text))
	}
	return strings.Join(parts, "---\n")
}

func yamlOfSteps(steps [][]event) string {
	var b strings.Builder
	for i, s := range steps {
		fmt.Fprintf(&b, "# step-%d\n%s", i+1, yamlOf(s))
	}
	return b.String()
}
