package scenario

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// recreate deletes a pod and makes another one of its name, on its node, with its
// addresses and with another label, and back: the policies of each, as subject and
// as peer, are those of its own label.
func recreate(s *stage) {
	const ns = "recreate"
	s.step("start pods; policies for app=old and app=new")
	s.pods(
		pod{as: "web", namespace: ns, node: "node-1", labels: app("old")},
		pod{as: "near", namespace: ns, node: "node-1", labels: app("near")},
		pod{as: "far", namespace: ns, node: "node-2", labels: app("far")},
	)
	s.policy(ns, "old", `{podSelector: {matchLabels: {app: old}}, policyTypes: [Ingress], ingress: [{from: [{podSelector: {matchLabels: {app: near}}}]}]}`)
	s.policy(ns, "new", `{podSelector: {matchLabels: {app: new}}, policyTypes: [Ingress], ingress: [{from: [{podSelector: {matchLabels: {app: far}}}]}]}`)
	s.policy(ns, "near", `{podSelector: {matchLabels: {app: near}}, policyTypes: [Ingress], ingress: [{from: [{podSelector: {matchLabels: {app: new}}}]}]}`)
	s.policy(ns, "far", `{podSelector: {matchLabels: {app: far}}, policyTypes: [Ingress], ingress: [{from: [{podSelector: {matchLabels: {app: old}}}]}]}`)
	old := []string{"near>web:80", "!far>web:80", "!web>near:80", "web>far:80"}
	anew := []string{"!near>web:80", "far>web:80", "web>near:80", "!web>far:80"}
	s.expect(old...)

	addrs := s.target("web").addrs
	for _, next := range []struct {
		label string
		flows []string
	}{{"new", anew}, {"old", old}} {
		s.step("the same name and addresses with app=%s", next.label)
		s.deletePod(ns, "web")
		s.pods(pod{as: "web", namespace: ns, node: "node-1", labels: app(next.label), addrs: addrs})
		s.sameAddrs("web", addrs)
		s.expect(next.flows...)
	}
}

// finishedJob lets a Job's pod end and gives its addresses to another pod while the
// finished one still stands in the API with them: neither its policies nor what it
// was allowed as a peer are the other's. The other one is older: that the younger of
// two pods with one address counts does not help here.
func finishedJob(s *stage) {
	const ns, port = "job", 8080
	s.step("a pod waits to be scheduled")
	heir := pod{as: "heir", namespace: ns, labels: app("heir"), ports: []uint16{port}, gated: true}
	s.makeOlder(&heir)

	s.step("run a Job; policies for it and for whom it may reach")
	_, err := s.client().BatchV1().Jobs(ns).Create(s.ctx, jobObject(ns, port), metav1.CreateOptions{})
	s.must(err)
	var name string
	s.eventually(func() error {
		list, err := s.client().CoreV1().Pods(ns).List(s.ctx, metav1.ListOptions{LabelSelector: "app=job"})
		if err == nil && len(list.Items) != 1 {
			err = fmt.Errorf("the Job has %d pods", len(list.Items))
		}
		if err == nil {
			name = list.Items[0].Name
		}
		return err
	})
	node := s.running("job", ns, name).Spec.NodeName
	s.pods(
		pod{as: "near", namespace: ns, node: "node-1", labels: app("db")},
		pod{as: "far", namespace: ns, node: "node-2", labels: app("db")},
		pod{as: "other-near", namespace: ns, node: "node-1", labels: app("other")},
		pod{as: "other-far", namespace: ns, node: "node-2", labels: app("other")},
	)
	s.policy(ns, "job", `{podSelector: {matchLabels: {app: job}}, policyTypes: [Ingress, Egress], egress: [{to: [{podSelector: {matchLabels: {app: db}}}]}]}`)
	s.policy(ns, "db", `{podSelector: {matchLabels: {app: db}}, policyTypes: [Ingress], ingress: [{from: [{podSelector: {matchLabels: {app: job}}}]}]}`)
	s.expect("job>near:80", "job>far:80", "!job>other-near:80", "!job>other-far:80",
		"!other-near>job:8080", "!other-far>job:8080", "!other-near>far:80", "!other-far>near:80")

	s.step("the Job ends; its pod keeps its addresses in its status")
	addrs := s.target("job").addrs
	s.askToEnd(node, net.JoinHostPort(addrs[0].String(), fmt.Sprint(port)))
	s.finished(ns, name)

	s.step("the pod that waited has these addresses")
	s.schedule(heir, node, addrs)
	s.sameAddrs("heir", addrs)
	s.expect("!heir>near:80", "!heir>far:80", "heir>other-near:80", "heir>other-far:80",
		"other-near>heir:8080", "other-far>heir:8080")
	s.finished(ns, name) // still there, so that it could have been mixed up

	s.step("the heir is judged by policies of its own")
	s.policy(ns, "heir", `{podSelector: {matchLabels: {app: heir}}, policyTypes: [Ingress], ingress: [{from: [{podSelector: {matchLabels: {app: job}}}]}]}`)
	s.expect("!other-near>heir:8080", "!other-far>heir:8080", "heir>other-near:80")
}

// makeOlder makes a pod and waits until every later one has a later time of creation,
// which the API gives in seconds.
func (s *stage) makeOlder(p *pod) {
	s.create(p)
	s.eventually(func() error {
		o, err := s.client().CoreV1().Pods(p.namespace).Get(s.ctx, p.name, metav1.GetOptions{})
		if err == nil && time.Since(o.CreationTimestamp.Time) < time.Second {
			err = fmt.Errorf("pod %s is too young", p.name)
		}
		return err
	})
}

// schedule lets a gated pod run on a node with these addresses.
func (s *stage) schedule(p pod, node string, addrs []netip.Addr) {
	pods := s.client().CoreV1().Pods(p.namespace)
	s.eventually(func() error {
		o, err := pods.Get(s.ctx, p.name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		p.addrs = addrs
		o.Annotations = p.object().Annotations
		o.Spec.NodeSelector = map[string]string{corev1.LabelHostname: node}
		o.Spec.SchedulingGates = nil
		_, err = pods.Update(s.ctx, o, metav1.UpdateOptions{})
		return err
	})
	s.running(p.as, p.namespace, p.name)
}

func jobObject(namespace string, port uint16) *batchv1.Job {
	none := int32(0)
	return &batchv1.Job{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "job"},
		Spec: batchv1.JobSpec{BackoffLimit: &none, Template: corev1.PodTemplateSpec{
			ObjectMeta: metav1.ObjectMeta{Labels: app("job")},
			Spec: corev1.PodSpec{RestartPolicy: corev1.RestartPolicyNever, Containers: []corev1.Container{{
				Name: "work", Image: "agnhost", Command: []string{"/agnhost", "netexec", fmt.Sprintf("--http-port=%d", port), "--udp-port=-1"},
			}}},
		}},
	}
}

// askToEnd tells agnhost netexec to end well, from the pod's own node. It ends without
// an answer: whether it has ended is another question.
func (s *stage) askToEnd(node, address string) {
	client := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DialContext: s.Cluster.DialFrom(node), DisableKeepAlives: true}}
	if response, err := client.Get("http://" + address + "/exit?code=0"); err == nil {
		_ = response.Body.Close()
	}
}

// finished waits until a pod has ended well, and its Job with it, and still has the
// addresses that it had.
func (s *stage) finished(namespace, name string) {
	s.eventually(func() error {
		p, err := s.client().CoreV1().Pods(namespace).Get(s.ctx, name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if p.Status.Phase != corev1.PodSucceeded || len(p.Status.PodIPs) != 2 {
			return fmt.Errorf("pod %s is %s with addresses %v", name, p.Status.Phase, p.Status.PodIPs)
		}
		job, err := s.client().BatchV1().Jobs(namespace).Get(s.ctx, "job", metav1.GetOptions{})
		if err == nil && job.Status.Succeeded != 1 {
			err = fmt.Errorf("the Job has %d pods that succeeded", job.Status.Succeeded)
		}
		return err
	})
}

func (s *stage) sameAddrs(as string, want []netip.Addr) {
	if got := s.target(as).addrs; !slices.Equal(got, want) {
		s.must(fmt.Errorf("pod %s has the addresses %v, not %v", as, got, want))
	}
}
