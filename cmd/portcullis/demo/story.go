package demo

import (
	"embed"
	"errors"
	"fmt"
	"net/netip"

	corev1 "k8s.io/api/core/v1"

	"github.com/portcullis-netpol/portcullis/policy/manifest"
	"github.com/portcullis-netpol/portcullis/testcases/lab"
)

// The policies of the story, each in a file of its own, so that what the demo
// applies can be read (and tried with explain and render) as it is.
//
//go:embed story/*.yaml
var storyFiles embed.FS

// The two hosts outside of the cluster: one in the partner's network, one in the
// part of that network that is excepted.
var (
	partnerAddrs = []netip.Addr{netip.MustParseAddr("203.0.113.10"), netip.MustParseAddr("2001:db8:113::10")}
	bannedAddrs  = []netip.Addr{netip.MustParseAddr("203.0.113.200"), netip.MustParseAddr("2001:db8:113:0:bad::7")}
)

// newStory is the built-in scene.
func newStory(families []int) (*scene, error) {
	cast, err := storyFiles.ReadFile("story/shop.yaml")
	if err != nil {
		return nil, err
	}
	part, err := manifest.Decode("shop.yaml", cast)
	if err != nil {
		return nil, err
	}
	objects, err := manifest.Merge(part)
	if err != nil {
		return nil, err
	}
	s := &scene{
		name:     "a shop, its policies, and real packets",
		nodes:    []string{"node-1", "node-2"},
		objects:  objects,
		policies: map[string][]byte{},
		families: families,
	}
	for _, pod := range objects.Pods {
		s.ends = append(s.ends, &end{
			name:     pod.Name,
			endpoint: pod.Namespace + "/" + pod.Name,
			pod:      pod,
			ports:    podPorts(pod),
			sends:    pod.Namespace != "kube-system",
		})
	}
	// 8000 is in the range of ports that the frontend may use, 8011 just behind it.
	s.ends = append(s.ends,
		&end{name: "node-1", endpoint: "node-1", sends: true},
		&end{name: "partner", endpoint: lab.Outside, addrs: s.ofFamilies(partnerAddrs), ports: []servicePort{{"tcp", 8000}, {"tcp", 8011}}, sends: true},
		&end{name: "banned", endpoint: lab.Outside, addrs: s.ofFamilies(bannedAddrs), ports: []servicePort{{"tcp", 8000}}, sends: true},
	)
	s.steps, err = storySteps()
	return s, err
}

func (s *scene) ofFamilies(addrs []netip.Addr) []netip.Addr {
	var out []netip.Addr
	for _, a := range addrs {
		if s.hasFamily(a) {
			out = append(out, a)
		}
	}
	return out
}

func storySteps() ([]step, error) {
	var errs []error
	apply := func(files ...string) map[string][]byte {
		out := map[string][]byte{}
		for _, f := range files {
			data, err := storyFiles.ReadFile("story/" + f)
			errs = append(errs, err)
			out[f] = data
		}
		return out
	}
	steps := []step{
		{
			title: "No policies",
			text:  "Without a policy everybody reaches everybody.",
		},
		{
			title: "Default deny, ingress and egress",
			text:  "Every pod of shop, data and monitoring is cut off. Only a node still reaches its own pods, as kubelet probes must.",
			add:   apply("default-deny.yaml"),
		},
		{
			title: "DNS for everybody",
			text:  "All pods may ask the DNS pod in kube-system, UDP and TCP 53.",
			add:   apply("dns.yaml"),
		},
		{
			title: "frontend may reach the backend, on 8080 only",
			text:  "users, auth and tasks are the backend (tier=backend). Their metrics ports stay closed.",
			add:   apply("frontend-to-backend.yaml"),
		},
		{
			title: "The backend may reach the database",
			text:  "Across namespaces: namespaceSelector AND podSelector. frontend stays out.",
			add:   apply("backend-to-database.yaml"),
		},
		{
			title: "A partner's network, but not all of it",
			text:  "ipBlock with except, and ports 8000 to 8010: partner is in, banned is in the exception, 8011 is behind the range.",
			add:   apply("partner.yaml"),
		},
		{
			title: "Monitoring may read metrics on port 9090",
			text:  "namespaceSelector purpose=monitoring. users has its metrics there, auth has not.",
			add:   apply("metrics.yaml"),
		},
		{
			title: "Metrics by the port's name",
			text:  "The same with the named port \"metrics\": 9090 at users, 9091 at auth. tasks has no such port.",
			add:   apply("metrics-by-name.yaml"),
			drop:  []string{"metrics.yaml"},
		},
		{
			title:  "Pod tasks is relabelled tier=batch",
			text:   "It is no longer backend: frontend does not reach it, and it does not reach the database.",
			change: relabelTasks,
		},
		{
			title:  "Pod auth is re-created on node-1",
			text:   "Another node, other addresses, the same labels: everybody reaches what they reached before.",
			change: recreateAuth,
		},
		{
			title:  "Namespace monitoring loses its label",
			text:   "purpose=monitoring is gone, and with it the way to the metrics.",
			change: relabelMonitoring,
		},
		{
			title: "All policies are deleted",
			text:  "Everything is open again.",
			drop: []string{
				"default-deny.yaml", "dns.yaml", "frontend-to-backend.yaml", "backend-to-database.yaml",
				"partner.yaml", "metrics-by-name.yaml",
			},
		},
	}
	return steps, errors.Join(errs...)
}

func relabelTasks(s *scene) error {
	pod, err := s.pod("tasks")
	if err == nil {
		pod.Labels["tier"] = "batch"
	}
	return err
}

// recreateAuth makes it another pod with the same name and labels; placing gives it
// new addresses.
func recreateAuth(s *scene) error {
	pod, err := s.pod("auth")
	if err != nil {
		return err
	}
	pod.UID += "-re-created"
	pod.Spec.NodeName = "node-1"
	pod.Status = corev1.PodStatus{}
	return nil
}

func relabelMonitoring(s *scene) error {
	for _, ns := range s.objects.Namespaces {
		if ns.Name == "monitoring" {
			delete(ns.Labels, "purpose")
			return nil
		}
	}
	return errors.New("no namespace monitoring")
}

func (s *scene) pod(name string) (*corev1.Pod, error) {
	for _, pod := range s.objects.Pods {
		if pod.Name == name {
			return pod, nil
		}
	}
	return nil, fmt.Errorf("no pod %s", name)
}
