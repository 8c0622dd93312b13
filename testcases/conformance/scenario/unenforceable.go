package scenario

import (
	"fmt"
	"strings"

	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"
)

// legacyBlocks are forms of a CIDR that programs read differently, if they read them
// at all. API servers took them until v1.35, and keep those that they have. Each of
// them would allow every pod here, were it read in the way of the API server.
var legacyBlocks = []string{
	`{cidr: 010.244.0.0/16}`,
	`{cidr: 10.244.0.0/016}`,
	`{cidr: "::ffff:10.244.0.0/112"}`,
	`{cidr: 10.244.0.0/16, except: [10.244.200.000/24]}`,
	`{cidr: "fd00:10:244::/048"}`,
	`{cidr: "fd00:10:244::/48", except: ["fd00:10:244:ffff::/0064"]}`,
}

// refused are other parts that Portcullis would not enforce. The API server does not
// take them: if that changes one day, this should be noticed.
var refused = []string{
	`{podSelector: {}, ingress: [{ports: [{port: http, endPort: 90}]}]}`,
	`{podSelector: {}, ingress: [{ports: [{port: 90, endPort: 80}]}]}`,
	`{podSelector: {}, ingress: [{ports: [{endPort: 80}]}]}`,
	`{podSelector: {}, ingress: [{ports: [{port: 0}]}]}`,
	`{podSelector: {}, ingress: [{ports: [{port: "80"}]}]}`,
	`{podSelector: {}, ingress: [{ports: [{protocol: ICMP}]}]}`,
	`{podSelector: {}, ingress: [{from: [{}]}]}`,
	`{podSelector: {}, ingress: [{from: [{podSelector: {}, ipBlock: {cidr: 10.0.0.0/8}}]}]}`,
	`{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.0}}]}]}`,
	`{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.0.0.0/8]}}]}]}`,
	`{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [11.0.0.0/16]}}]}]}`,
	`{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: "::/0", except: [10.0.0.0/8]}}]}]}`,
	`{podSelector: {matchExpressions: [{key: a, operator: Gt, values: ["1"]}]}}`,
	`{podSelector: {matchExpressions: [{key: a, operator: In}]}}`,
	`{podSelector: {matchLabels: {a: "b c"}}}`,
	`{podSelector: {}, policyTypes: [Both]}`,
}

// unenforceable has a policy that the API server takes and Portcullis cannot enforce
// in full: what it cannot read allows nothing to the policy's pods, the rest of it and
// everything else stays as it is, and `kubectl describe` of the pod says what is wrong.
func unenforceable(s *stage) {
	const ns = "unenforceable"
	s.step("the API server itself refuses %d other policies", len(refused))
	for _, spec := range refused {
		s.must(s.refused(ns, spec))
	}
	s.step("start pods and a policy that is in order")
	s.pods(
		pod{as: "web", namespace: ns, node: "node-1", labels: app("web"), ports: []uint16{80, 81}},
		pod{as: "other", namespace: ns, node: "node-1", labels: app("other")},
		pod{as: "guarded", namespace: ns, node: "node-2", labels: app("guarded")},
		pod{as: "friend", namespace: ns, node: "node-2", labels: app("friend")},
		pod{as: "stranger", namespace: ns, node: "node-2", labels: app("stranger")},
	)
	s.policy(ns, "in-order", `{podSelector: {matchLabels: {app: guarded}}, ingress: [{from: [{podSelector: {matchLabels: {app: friend}}}]}]}`)
	elsewhere := []string{"stranger>other:80", "other>stranger:80", "friend>guarded:80", "!stranger>guarded:80"}
	s.expect(append(elsewhere, "stranger>web:80", "friend>web:80", "friend>web:81", "web>stranger:80")...)

	s.step("a policy with %d blocks that cannot be read", len(legacyBlocks))
	var peers []string
	for _, b := range legacyBlocks {
		peers = append(peers, "{ipBlock: "+b+"}")
	}
	spec := `{podSelector: {matchLabels: {app: web}}, ingress: [{from: [%s]}, {from: [{podSelector: {matchLabels: {app: friend}}}], ports: [{port: 81}]}]}`
	s.policy(ns, "unreadable", fmt.Sprintf(spec, strings.Join(peers, ", ")))
	s.expect(append(elsewhere, "!stranger>web:80", "!stranger>web:81", "!friend>web:80", "friend>web:81", "web>stranger:80")...)

	s.step("seen with kubectl")
	var fields []string
	for i := range legacyBlocks {
		fields = append(fields, fmt.Sprintf("spec.ingress[0].from[%d].ipBlock", i))
	}
	s.sees(append(fields, "Warning", "CannotEnforce", "portcullis", "NetworkPolicy unenforceable/unreadable"), "describe", "pod", "--namespace="+ns, "web")
	s.sees(append(fields, "Warning", "CannotEnforce"), "events", "--namespace="+ns, "--for=networkpolicy/unreadable")
	for _, p := range []string{"other", "guarded", "friend"} {
		out, err := s.Cluster.Kubectl(s.ctx, "describe", "pod", "--namespace="+ns, p)
		s.must(err)
		if !strings.Contains(out, "<none>") || strings.Contains(out, "CannotEnforce") {
			s.must(fmt.Errorf("kubectl describe pod %s should show no Event:\n%s", p, out))
		}
	}

	s.step("the policy is mended")
	s.policy(ns, "unreadable", fmt.Sprintf(spec, `{ipBlock: {cidr: 10.244.0.0/16}}, {ipBlock: {cidr: "fd00:10:244::/48"}}`))
	s.expect(append(elsewhere, "stranger>web:80", "stranger>web:81", "friend>web:80", "friend>web:81")...)
}

// refused returns an error unless the API server finds a policy invalid.
func (s *stage) refused(namespace, spec string) error {
	p := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "refused"}}
	if err := yaml.UnmarshalStrict([]byte(spec), &p.Spec); err != nil {
		return err
	}
	_, err := s.client().NetworkingV1().NetworkPolicies(namespace).Create(s.ctx, p, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
	if apierrors.IsInvalid(err) {
		return nil
	}
	return fmt.Errorf("policy %s should be invalid; the API server says: %w", spec, err)
}

// sees waits until the output of a kubectl command has all the words.
func (s *stage) sees(words []string, args ...string) {
	s.eventually(func() error {
		out, err := s.Cluster.Kubectl(s.ctx, args...)
		for _, w := range words {
			if err == nil && !strings.Contains(out, w) {
				err = fmt.Errorf("kubectl %s does not show %q:\n%s", strings.Join(args, " "), w, out)
			}
		}
		return err
	})
}
