package scenario

import (
	"fmt"

	"golang.org/x/sync/errgroup"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// manyPolicies has 200 policies select one pod. Each allows a port to one client and
// says nothing of the others.
func manyPolicies(s *stage) {
	const ns, first, policies, kept = "many", 20001, 200, 20077
	s.step("start pods")
	var ports []uint16
	for i := range policies + 1 {
		ports = append(ports, uint16(first+i))
	}
	s.pods(
		pod{as: "web", namespace: ns, node: "node-1", labels: app("web"), ports: ports},
		pod{as: "near", namespace: ns, node: "node-1", labels: app("client")},
		pod{as: "far", namespace: ns, node: "node-2", labels: app("client")},
		pod{as: "wrong", namespace: ns, node: "node-2", labels: app("wrong")},
	)
	flows := func(from string, open func(port int) bool) []Flow {
		var out []Flow
		for _, p := range ports {
			out = append(out, Flow{from, "web", p, open(int(p))})
		}
		return out
	}
	always := func(int) bool { return true }
	s.settle(append(flows("near", always), flows("wrong", always)...), 1)

	s.step("make %d policies", policies)
	s.each(policies, func(i int) error {
		return s.setPolicy(ns, fmt.Sprint("port-", first+i), fmt.Sprintf(`{podSelector: {matchLabels: {app: web}}, policyTypes: [Ingress],
			ingress: [{from: [{podSelector: {matchLabels: {app: client}}}], ports: [{port: %d}]}]}`, first+i))
	})
	allowed := func(port int) bool { return port < first+policies }
	s.settle(append(flows("near", allowed), flows("far", allowed)...), 2)
	s.expect("!wrong>web:20001", "!wrong>web:20200", "!wrong>web:20201")

	s.step("delete all of them but one")
	s.each(policies, func(i int) error {
		if first+i == kept {
			return nil
		}
		return s.client().NetworkingV1().NetworkPolicies(ns).Delete(s.ctx, fmt.Sprint("port-", first+i), metav1.DeleteOptions{})
	})
	left := func(port int) bool { return port == kept }
	s.settle(append(flows("near", left), flows("far", left)...), 2)
	s.expect("!wrong>web:20077")

	s.step("delete the last one")
	s.deletePolicy(ns, fmt.Sprint("port-", kept))
	s.settle(append(flows("near", always), flows("wrong", always)...), 1)
}

// each does something so many times, several at once.
func (s *stage) each(times int, do func(i int) error) {
	var group errgroup.Group
	group.SetLimit(8)
	for i := range times {
		group.Go(func() error { return do(i) })
	}
	s.must(group.Wait())
}
