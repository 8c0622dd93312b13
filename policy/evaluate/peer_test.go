package evaluate_test

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/portcullis-netpol/portcullis/policy/evaluate"
)

// from is a policy that allows ingress of one list of peers.
func from(peers string) map[string]string {
	return map[string]string{"shop/p": selected + "ingress: [{from: [" + peers + "]}]"}
}

// to is the same for egress.
func to(peers string) map[string]string {
	return map[string]string{"shop/p": selected + "policyTypes: [Egress]\negress: [{to: [" + peers + "]}]"}
}

func TestSelectorPeers(t *testing.T) {
	run(t, []scenario{
		{
			name:     "a podSelector means pods of the policy's namespace",
			policies: from("{podSelector: {}}"),
			flows: map[string]string{
				"shop/db shop/web TCP/1": open + " | " + inRule, "ops/mon shop/web TCP/1": open + " | " + denied,
				"192.0.2.9 shop/web TCP/1": noPod + " | " + denied,
			},
		},
		{
			name:     "a namespaceSelector means all pods of the namespaces",
			policies: from("{namespaceSelector: {matchLabels: {team: b}}}"),
			flows:    map[string]string{"shop/db shop/web TCP/1": open + " | " + denied, "ops/mon shop/web TCP/1": open + " | " + inRule},
		},
		{
			name:     "an empty namespaceSelector means all pods of the cluster",
			policies: to("{namespaceSelector: {}}"),
			flows: map[string]string{
				"shop/web shop/db TCP/1": outRule + " | " + open, "shop/web ops/mon TCP/1": outRule + " | " + open,
				"shop/web 192.0.2.9 TCP/1": denied + " | " + noPod,
			},
		},
		{
			name:     "both in one peer must match both",
			policies: from("{namespaceSelector: {matchLabels: {team: b}}, podSelector: {matchLabels: {app: db}}}"),
			flows:    map[string]string{"shop/db shop/web TCP/1": open + " | " + denied, "ops/mon shop/web TCP/1": open + " | " + denied},
		},
		{
			name:     "in two peers one is enough",
			policies: from("{namespaceSelector: {matchLabels: {team: b}}}, {podSelector: {matchLabels: {app: db}}}"),
			flows:    map[string]string{"shop/db shop/web TCP/1": open + " | " + inRule, "ops/mon shop/web TCP/1": open + " | " + inRule},
		},
		{
			name:     "a namespace that is not known is not selected",
			change:   func(c *evaluate.Cluster) { c.Namespaces = c.Namespaces[:1] },
			policies: from("{namespaceSelector: {}}"),
			flows:    map[string]string{"ops/mon shop/web TCP/1": open + " | " + denied, "shop/db shop/web TCP/1": open + " | " + inRule},
		},
		{
			name:     "the policy's own namespace need not be known",
			change:   func(c *evaluate.Cluster) { c.Namespaces = nil },
			policies: from("{podSelector: {matchLabels: {app: db}}}"),
			flows:    map[string]string{"shop/db shop/web TCP/1": open + " | " + inRule, "ops/mon shop/web TCP/1": open + " | " + denied},
		},
		{
			name:     "pods in the host's network are no pods",
			policies: from("{podSelector: {matchLabels: {app: agent}}}"),
			change: func(c *evaluate.Cluster) {
				c.Pods[3].Spec.NodeName, c.Pods[3].Status.PodIPs[0].IP = "node-2", "10.0.0.2"
			},
			flows: map[string]string{"10.0.0.2 shop/web TCP/1": noPod + " | " + denied},
		},
		{
			name:     "a policy that selects a pod in the host's network does not isolate the node",
			policies: map[string]string{"shop/p": "podSelector: {matchLabels: {app: agent}}\npolicyTypes: [Ingress, Egress]"},
			flows:    map[string]string{"shop/db 10.0.0.1 TCP/1": open + " | " + noPod, "10.0.0.1 shop/db TCP/1": noPod + " | " + open},
		},
	})
}

func TestMatchExpressions(t *testing.T) {
	peer := func(expression string) map[string]string {
		return from("{namespaceSelector: {matchExpressions: [" + expression + "]}}")
	}
	yes := map[string]string{"ops/mon shop/web TCP/1": open + " | " + inRule}
	no := map[string]string{"ops/mon shop/web TCP/1": open + " | " + denied}
	run(t, []scenario{
		{name: "In", policies: peer("{key: team, operator: In, values: [a, b]}"), flows: yes},
		{name: "In, other value", policies: peer("{key: team, operator: In, values: [a]}"), flows: no},
		{name: "In, no key", policies: peer("{key: none, operator: In, values: [a, '']}"), flows: no},
		{name: "In, empty value", policies: peer("{key: quiet, operator: In, values: ['']}"), flows: yes},
		{name: "NotIn", policies: peer("{key: team, operator: NotIn, values: [a]}"), flows: yes},
		{name: "NotIn, that value", policies: peer("{key: team, operator: NotIn, values: [a, b]}"), flows: no},
		{name: "NotIn, no key", policies: peer("{key: none, operator: NotIn, values: [a]}"), flows: yes},
		{name: "NotIn, empty value", policies: peer("{key: quiet, operator: NotIn, values: ['']}"), flows: no},
		{name: "Exists", policies: peer("{key: team, operator: Exists}"), flows: yes},
		{name: "Exists, empty value", policies: peer("{key: quiet, operator: Exists}"), flows: yes},
		{name: "Exists, no key", policies: peer("{key: none, operator: Exists}"), flows: no},
		{name: "DoesNotExist", policies: peer("{key: none, operator: DoesNotExist}"), flows: yes},
		{name: "DoesNotExist, empty value", policies: peer("{key: quiet, operator: DoesNotExist}"), flows: no},
		{name: "matchLabels, empty value", policies: from("{namespaceSelector: {matchLabels: {quiet: ''}}}"), flows: yes},
		{name: "matchLabels, empty value, no key", policies: from("{namespaceSelector: {matchLabels: {none: ''}}}"), flows: no},
		{name: "all must match", policies: peer("{key: team, operator: Exists}, {key: quiet, operator: DoesNotExist}"), flows: no},
	})
}

func TestBlocks(t *testing.T) {
	run(t, []scenario{
		{
			name:     "except belongs to its own peer",
			policies: from("{ipBlock: {cidr: 192.0.2.0/24, except: [192.0.2.8/29]}}, {ipBlock: {cidr: 192.0.2.9/32}}"),
			flows: map[string]string{
				"192.0.2.9 shop/web TCP/1": noPod + " | " + inRule, "192.0.2.10 shop/web TCP/1": noPod + " | " + denied,
				"192.0.2.16 shop/web TCP/1": noPod + " | " + inRule, "192.0.3.1 shop/web TCP/1": noPod + " | " + denied,
			},
		},
		{
			name:     "overlapping excepts of one peer",
			policies: from("{ipBlock: {cidr: 192.0.2.0/24, except: [192.0.2.0/25, 192.0.2.64/26, 192.0.2.0/25]}}"),
			flows: map[string]string{
				"192.0.2.65 shop/web TCP/1": noPod + " | " + denied, "192.0.2.128 shop/web TCP/1": noPod + " | " + inRule,
			},
		},
		{
			name:     "bits behind the prefix do not count",
			policies: from("{ipBlock: {cidr: 192.0.2.77/24, except: [192.0.2.15/29]}}"),
			flows: map[string]string{
				"192.0.2.1 shop/web TCP/1": noPod + " | " + inRule, "192.0.2.8 shop/web TCP/1": noPod + " | " + denied,
			},
		},
		{
			name:     "a whole family matches pods and strangers, and not the other family",
			policies: to("{ipBlock: {cidr: 0.0.0.0/0}}"),
			flows: map[string]string{
				"shop/web shop/db TCP/1": outRule + " | " + open, "shop/web 255.255.255.255 UDP/1": outRule + " | " + noPod,
				"shop/web 192.0.2.9 ICMP": outRule + " | " + noPod, "6:shop/web 6:shop/db TCP/1": denied + " | " + open,
				"shop/web ::ffff:192.0.2.9 TCP/1": outRule + " | " + noPod,
			},
		},
		{
			name:     "the top of a family",
			policies: to("{ipBlock: {cidr: '::/0', except: ['ffff:ffff::/32']}}, {ipBlock: {cidr: 255.255.255.254/31}}"),
			flows: map[string]string{
				"6:shop/web 6:shop/db TCP/1":                             outRule + " | " + open,
				"shop/web ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff TCP/1": denied + " | " + noPod,
				"shop/web ffff:fffe:ffff:ffff:ffff:ffff:ffff:ffff TCP/1": outRule + " | " + noPod,
				"shop/web 255.255.255.255 TCP/1":                         outRule + " | " + noPod,
				"shop/web 255.255.255.253 TCP/1":                         denied + " | " + noPod,
			},
		},
		{
			name:     "nodes and pods of the host's network are reached by their addresses",
			policies: to("{ipBlock: {cidr: 10.0.0.0/24}}"),
			flows:    map[string]string{"shop/web shop/agent TCP/1": outRule + " | " + noPod},
		},
	})
}

func TestUnusablePeers(t *testing.T) {
	db := map[string]string{"shop/db shop/web TCP/1": open + " | " + denied}
	strange := map[string]string{"192.0.2.9 shop/web TCP/1": noPod + " | " + denied}
	run(t, []scenario{
		{name: "no field", policies: from("{}"), flows: db},
		{name: "block and selector", policies: from("{ipBlock: {cidr: 0.0.0.0/0}, podSelector: {}}"), flows: db},
		{name: "block and namespaces", policies: from("{ipBlock: {cidr: 0.0.0.0/0}, namespaceSelector: {}}"), flows: db},
		{name: "cidr unreadable", policies: from("{ipBlock: {cidr: 192.0.2.0}}"), flows: strange},
		{name: "cidr empty", policies: from("{ipBlock: {cidr: ''}}"), flows: strange},
		{name: "cidr with leading zeros", policies: from("{ipBlock: {cidr: 192.0.02.0/24}}"), flows: strange},
		{name: "cidr mapped", policies: from("{ipBlock: {cidr: '::ffff:192.0.2.0/0'}}"), flows: map[string]string{"6:shop/db 6:shop/web TCP/1": open + " | " + denied}},
		{name: "except unreadable", policies: from("{ipBlock: {cidr: 192.0.2.0/24, except: [x]}}"), flows: strange},
		{name: "except outside", policies: from("{ipBlock: {cidr: 192.0.2.0/24, except: [10.0.0.0/24]}}"), flows: strange},
		{name: "except of the other family", policies: from("{ipBlock: {cidr: 192.0.2.0/24, except: ['fd00::/64']}}"), flows: strange},
		{name: "except wider", policies: from("{ipBlock: {cidr: 192.0.2.0/24, except: [192.0.0.0/16]}}"), flows: strange},
		{name: "except everything", policies: from("{ipBlock: {cidr: 192.0.2.0/24, except: [192.0.2.0/24]}}"), flows: strange},
		{name: "operator unknown", policies: from("{podSelector: {matchExpressions: [{key: app, operator: Is, values: [db]}]}}"), flows: db},
		{name: "In without values", policies: from("{podSelector: {matchExpressions: [{key: app, operator: In}]}}"), flows: db},
		{name: "NotIn without values", policies: from("{podSelector: {matchExpressions: [{key: app, operator: NotIn}]}}"), flows: db},
		{name: "Exists with values", policies: from("{podSelector: {matchExpressions: [{key: app, operator: Exists, values: [db]}]}}"), flows: db},
		{name: "DoesNotExist with values", policies: from("{podSelector: {matchExpressions: [{key: none, operator: DoesNotExist, values: [db]}]}}"), flows: db},
		{name: "key not well formed", policies: from("{podSelector: {matchExpressions: [{key: 'a b', operator: DoesNotExist}]}}"), flows: db},
		{name: "value not well formed", policies: from("{podSelector: {matchExpressions: [{key: app, operator: NotIn, values: ['a b']}]}}"), flows: db},
		{name: "namespaceSelector not well formed", policies: from("{podSelector: {}, namespaceSelector: {matchExpressions: [{key: x, operator: NotIn}]}}"), flows: db},
		{name: "podSelector not well formed", policies: from("{namespaceSelector: {}, podSelector: {matchExpressions: [{key: x, operator: NotIn}]}}"), flows: db},
		{
			name:     "a usable peer beside an unusable one counts",
			policies: from("{}, {podSelector: {}}"),
			flows:    map[string]string{"shop/db shop/web TCP/1": open + " | " + inRule},
		},
		{
			name: "a podSelector of the policy that is not well formed isolates the namespace",
			policies: map[string]string{"shop/p": "podSelector: {matchExpressions: [{key: app, operator: In}]}\ningress: [{}]",
				"shop/q": selected + "ingress: [{ports: [{port: 1}]}]"},
			flows: map[string]string{
				"shop/web shop/db TCP/1": open + " | " + nothing, "shop/db shop/web TCP/1": open + " | +allowed by ingress[0] of shop/q",
				"shop/web ops/mon TCP/1": open + " | " + open,
			},
		},
		{
			name:     "an operator of the policy that is unknown does too",
			policies: map[string]string{"shop/p": "podSelector: {matchExpressions: [{key: app, operator: Is}]}"},
			flows:    map[string]string{"shop/web shop/db TCP/1": open + " | " + nothing},
		},
		{
			name:     "matchLabels of the policy that are not well formed do too",
			policies: map[string]string{"shop/p": "podSelector: {matchLabels: {app: 'a b'}}\ningress: [{}]"},
			flows:    map[string]string{"shop/web shop/db TCP/1": open + " | " + nothing},
		},
		{
			name:     "so does a key that is not well formed",
			policies: map[string]string{"shop/p": "podSelector: {matchLabels: {'a b': web}}\ningress: [{}]"},
			flows:    map[string]string{"shop/web shop/db TCP/1": open + " | " + nothing},
		},
	})
}

func TestAddressesOfPods(t *testing.T) {
	deny := map[string]string{"shop/p": "podSelector: {matchLabels: {app: job}}"}
	add := func(pods ...*corev1.Pod) func(*evaluate.Cluster) {
		return func(c *evaluate.Cluster) { c.Pods = append(c.Pods, pods...) }
	}
	job := func(name string) *corev1.Pod { return pod("shop/"+name, "node-2", "app=job", "10.1.0.9") }
	free := func(name string) *corev1.Pod { return pod("shop/"+name, "node-2", "app=free", "10.1.0.9") }
	isolated := map[string]string{"shop/web 10.1.0.9 TCP/1": open + " | " + nothing}
	isOpen := map[string]string{"shop/web 10.1.0.9 TCP/1": open + " | " + open}
	unowned := map[string]string{"shop/web 10.1.0.9 TCP/1": open + " | " + noPod}
	run(t, []scenario{
		{name: "a running pod", change: add(job("x")), policies: deny, flows: isolated},
		{name: "a pending pod", change: add(phase(job("x"), corev1.PodPending)), policies: deny, flows: isolated},
		{name: "a succeeded pod", change: add(phase(job("x"), corev1.PodSucceeded)), policies: deny, flows: unowned},
		{name: "a failed pod", change: add(phase(job("x"), corev1.PodFailed)), policies: deny, flows: unowned},
		{name: "a finished pod beside a live one", change: add(born(phase(job("x"), corev1.PodFailed), 9), free("y")), policies: deny, flows: isOpen},
		{name: "the newer one has it", change: add(born(job("a"), 2), born(free("b"), 1)), policies: deny, flows: isolated},
		{name: "the newer one has it, other order", change: add(born(free("b"), 1), born(job("a"), 2)), policies: deny, flows: isolated},
		{name: "of the same age, the greater UID", change: add(free("b"), job("a")), policies: deny, flows: isOpen},
		{name: "the UID comes before the name", change: func(c *evaluate.Cluster) {
			a, b := job("a"), free("b")
			a.UID, b.UID = "2", "1"
			c.Pods = append(c.Pods, a, b)
		}, policies: deny, flows: isolated},
		{name: "without UIDs, the greater name", change: func(c *evaluate.Cluster) {
			a, b := free("a"), job("b")
			a.UID, b.UID = "", ""
			c.Pods = append(c.Pods, a, b)
		}, policies: deny, flows: isolated},
		{name: "only podIP", change: func(c *evaluate.Cluster) {
			p := job("x")
			p.Status.PodIPs, p.Status.PodIP = nil, "10.1.0.9"
			c.Pods = append(c.Pods, p)
		}, policies: deny, flows: isolated},
		{name: "podIP beside podIPs does not count", change: func(c *evaluate.Cluster) {
			p := job("x")
			p.Status.PodIPs[0].IP, p.Status.PodIP = "10.1.0.10", "10.1.0.9"
			c.Pods = append(c.Pods, p)
		}, policies: deny, flows: unowned},
		{name: "a mapped address", change: add(pod("shop/x", "node-2", "app=job", "x", "", "0.0.0.0", "::ffff:10.1.0.9")), policies: deny, flows: isolated},
		{name: "nobody has the unspecified address", change: add(pod("shop/x", "node-2", "app=job", "0.0.0.0", "::")), policies: deny,
			flows: map[string]string{"shop/web 0.0.0.0 TCP/1": open + " | " + noPod, "shop/web :: TCP/1": open + " | " + noPod}},
	})
}

func TestLabelsAreLive(t *testing.T) {
	policies := map[string]string{"shop/p": "podSelector: {matchLabels: {app: web}}\ningress: [{from: [{namespaceSelector: {matchLabels: {team: b}}}]}]"}
	flow := "ops/mon shop/web TCP/1"
	run(t, []scenario{
		{name: "before", policies: policies, flows: map[string]string{flow: open + " | " + inRule}},
		{name: "namespace relabelled", policies: policies, change: func(c *evaluate.Cluster) { c.Namespaces[1].Labels = nil }, flows: map[string]string{flow: open + " | " + denied}},
		{name: "pod relabelled", policies: policies, change: func(c *evaluate.Cluster) { c.Pods[0].Labels["app"] = "x" }, flows: map[string]string{flow: open + " | " + open}},
	})
}

func TestNamesDoNotRunTogether(t *testing.T) {
	run(t, []scenario{{
		name: "a-b/c and a/b-c",
		change: func(c *evaluate.Cluster) {
			c.Pods = append(c.Pods, pod("a-b/c", "node-1", "", "10.2.0.1"), pod("a/b-c", "node-1", "", "10.2.0.2"))
			c.Policies = append(c.Policies, &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "a-b", Name: "c"}})
		},
		flows: map[string]string{
			"shop/db a-b/c TCP/1": open + " | -a-b/c allows nothing", "shop/db a/b-c TCP/1": open + " | " + open,
		},
	}})
}
