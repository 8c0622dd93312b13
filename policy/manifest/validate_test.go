package manifest_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/portcullis-netpol/portcullis/policy/manifest"
)

func validate(t *testing.T, text string) []string {
	t.Helper()
	o := decode(t, text)
	err := o.Validate()
	if err == nil {
		return nil
	}
	return strings.Split(err.Error(), "\n")
}

func TestValidateObjects(t *testing.T) {
	object := func(apiVersion, kind, rest string) string {
		return "{apiVersion: " + apiVersion + ", kind: " + kind + ", " + rest + "}"
	}
	pod := func(rest string) string { return object("v1", "Pod", "metadata: {name: a, namespace: b}, "+rest) }
	service := func(spec string) string {
		return object("v1", "Service", "metadata: {name: a, namespace: b}, spec: {"+spec+"}")
	}
	for _, tt := range []struct {
		name, text string
		want       []string // beginnings of the errors behind the place
	}{
		{"pod", pod("status: {phase: Running, podIP: 10.0.0.1, podIPs: [{ip: 10.0.0.1}, {ip: 'fd00::1'}]}"), nil},
		{"name", object("v1", "Pod", "metadata: {name: A_, namespace: b}"), []string{"Pod b/A_: metadata.name: Invalid value: \"A_\""}},
		{"namespace", object("v1", "Pod", "metadata: {name: a, namespace: b.c}"), []string{"Pod b.c/a: metadata.namespace: Invalid value: \"b.c\""}},
		{"name of a namespace", object("v1", "Namespace", "metadata: {name: b.c}"), []string{"Namespace b.c: metadata.name: Invalid value: \"b.c\""}},
		{"namespace of a node", object("v1", "Node", "metadata: {name: a, namespace: b}"), []string{"Node b/a: metadata.namespace: Forbidden"}},
		{"labels", object("v1", "Pod", "metadata: {name: a, namespace: b, labels: {x: '-'}}"), []string{"Pod b/a: metadata.labels: Invalid value: \"-\": a valid label must be an empty string"}},
		{"phase", pod("status: {phase: running}"), []string{"Pod b/a: status.phase: Unsupported value: \"running\""}},
		{"podIP", pod("status: {podIP: 10.0.0.256}"), []string{"Pod b/a: status.podIP: Invalid value"}},
		{"unspecified podIP", pod("status: {podIP: 0.0.0.0}"), []string{"Pod b/a: status.podIP: Invalid value"}},
		{"mapped podIP", pod("status: {podIP: '::ffff:10.0.0.1'}"), []string{"Pod b/a: status.podIP: Invalid value"}},
		{"podIPs", pod("status: {podIPs: [{ip: 'fe80::1%eth0'}, {ip: x}, {ip: 10.0.0.1}]}"),
			[]string{"Pod b/a: status.podIPs[0].ip: Invalid value", "Pod b/a: status.podIPs[1].ip: Invalid value"}},
		{"two of one family", pod("status: {podIPs: [{ip: 10.0.0.1}, {ip: 10.0.0.2}]}"), []string{"Pod b/a: status.podIPs[1].ip: Invalid value: \"10.0.0.2\": a pod has one address of each family"}},
		{"podIP is another", pod("status: {podIP: 10.0.0.2, podIPs: [{ip: 10.0.0.1}]}"), []string{"Pod b/a: status.podIPs[0].ip: Invalid value: \"10.0.0.1\": must be the same as podIP"}},
		{"node name", pod("spec: {nodeName: _}"), []string{"Pod b/a: spec.nodeName: Invalid value"}},
		{"container ports", pod("spec: {containers: [{name: c, ports: [{containerPort: 0}, {containerPort: 1, protocol: tcp}, {containerPort: 1, name: '80'}]}], initContainers: [{name: i, ports: [{containerPort: 65536}]}]}"),
			[]string{"Pod b/a: spec.containers[0].ports[0].containerPort: Invalid value: 0", "Pod b/a: spec.containers[0].ports[1].protocol: Unsupported value: \"tcp\"",
				"Pod b/a: spec.containers[0].ports[2].name: Invalid value: \"80\"", "Pod b/a: spec.initContainers[0].ports[0].containerPort: Invalid value: 65536"}},
		{"port names", pod("spec: {containers: [{name: c, ports: [{containerPort: 1, name: http}]}, {name: d, ports: [{containerPort: 1, name: http}, {containerPort: 2, name: http}]}]}"),
			[]string{"Pod b/a: spec.containers[1].ports[1].name: Duplicate value: \"http\""}},
		{"node", object("v1", "Node", "metadata: {name: a}, spec: {podCIDRs: [10.0.0.0]}, status: {addresses: [{type: InternalIP, address: x}, {type: Hostname, address: x}, {type: ExternalIP, address: z}]}"),
			[]string{"Node a: spec.podCIDRs[0]: Invalid value", "Node a: status.addresses[0].address: Invalid value", "Node a: status.addresses[2].address: Invalid value"}},
		{"service", service("clusterIP: None, clusterIPs: [None], ports: [{port: 80, targetPort: http}, {port: 81, targetPort: 0, protocol: UDP}]"), nil},
		{"bad service", service("clusterIP: x, clusterIPs: [z], selector: {a: '?'}, ports: [{port: 0, nodePort: 99999, protocol: ICMP, targetPort: '8080'}]"),
			[]string{"Service b/a: spec.clusterIP: Invalid", "Service b/a: spec.clusterIPs[0]: Invalid", "Service b/a: spec.ports[0].nodePort: Invalid",
				"Service b/a: spec.ports[0].port: Invalid", "Service b/a: spec.ports[0].protocol: Unsupported", "Service b/a: spec.ports[0].targetPort: Invalid", "Service b/a: spec.selector: Invalid"}},
		{"workload", object("batch/v1", "CronJob", "metadata: {name: a, namespace: b}, spec: {jobTemplate: {spec: {parallelism: 3, template: {metadata: {labels: {x: '?'}}, spec: {containers: [{name: c, ports: [{containerPort: 0}]}]}}}}}"),
			[]string{"CronJob b/a: spec.jobTemplate.spec.template.metadata.labels: Invalid", "CronJob b/a: spec.jobTemplate.spec.template.spec.containers[0].ports[0].containerPort: Invalid"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			compare(t, tt.want, validate(t, tt.text))
		})
	}
}

// compare checks that each error stands in the file's first document and goes on as wanted.
func compare(t *testing.T, want, got []string) {
	t.Helper()
	require.Len(t, got, len(want), "%q", got)
	for i := range want {
		assert.Contains(t, got[i], "test.yaml, document 1 (line 1): "+want[i])
	}
}

func TestValidatePolicies(t *testing.T) {
	for _, tt := range []struct {
		name, spec string
		want       []string
	}{
		{"empty", "", nil},
		{"everything", `podSelector: {matchLabels: {a: ''}, matchExpressions: [{key: a, operator: NotIn, values: [b]}, {key: x/y, operator: Exists}]}, policyTypes: [Ingress, Egress],
			ingress: [{from: [], ports: [{}]}, {from: [{podSelector: {}, namespaceSelector: {}}, {ipBlock: {cidr: 10.1.2.3/8, except: [10.9.9.9/16]}}], ports: [{port: http, protocol: SCTP}, {port: 1, endPort: 65535}]}], egress: [{to: [{ipBlock: {cidr: '::/0'}}]}]`, nil},
		{"selector", "podSelector: {matchLabels: {a: '?', '?': b}, matchExpressions: [{key: a, operator: in, values: [b]}, {key: '', operator: In}, {key: a, operator: Exists, values: ['?']}]}", []string{
			"spec.podSelector.matchExpressions[0].operator: Invalid value: \"in\"", "spec.podSelector.matchExpressions[1].key: Invalid", "spec.podSelector.matchExpressions[1].key: Invalid",
			"spec.podSelector.matchExpressions[1].values: Required", "spec.podSelector.matchExpressions[2].values: Forbidden", "spec.podSelector.matchExpressions[2].values[0]: Invalid",
			"spec.podSelector.matchLabels: Invalid value: \"?\": a valid label", "spec.podSelector.matchLabels: Invalid value: \"?\": name part",
		}},
		{"policy types", "policyTypes: [ingress, Egress, Egress]", []string{"spec.policyTypes: Too many", "spec.policyTypes[0]: Unsupported value: \"ingress\""}},
		{"peers", "ingress: [{from: [{}, {ipBlock: {cidr: 10.0.0.0/8}, podSelector: {}}]}], egress: [{}, {to: [{ipBlock: {cidr: 0.0.0.0/0}, namespaceSelector: {}}]}]", []string{
			"spec.egress[1].to[0]: Forbidden", "spec.ingress[0].from[0]: Required value", "spec.ingress[0].from[1]: Forbidden",
		}},
		{"selectors of peers", "ingress: [{from: [{podSelector: {matchLabels: {a: '?'}}, namespaceSelector: {matchLabels: {a: '?'}}}]}]", []string{
			"spec.ingress[0].from[0].namespaceSelector.matchLabels: Invalid", "spec.ingress[0].from[0].podSelector.matchLabels: Invalid",
		}},
		{"blocks", "egress: [{to: [{ipBlock: {cidr: 10.0.0.0}}, {ipBlock: {cidr: '::ffff:10.0.0.0/104'}}, {ipBlock: {cidr: 10.0.0.0/33, except: [x]}}, {ipBlock: {cidr: 10.0.0.0/8, except: [10.0.0.0/8, 11.0.0.0/9, 0.0.0.0/0, 'fd00::/64', 10.0.0.0/9]}}]}]", []string{
			"spec.egress[0].to[0].ipBlock.cidr: Invalid", "spec.egress[0].to[1].ipBlock.cidr: Invalid", "spec.egress[0].to[2].ipBlock.cidr: Invalid", "spec.egress[0].to[2].ipBlock.except[0]: Invalid",
			"spec.egress[0].to[3].ipBlock.except[0]: Invalid value: \"10.0.0.0/8\": must be a real part of 10.0.0.0/8", "spec.egress[0].to[3].ipBlock.except[1]: Invalid",
			"spec.egress[0].to[3].ipBlock.except[2]: Invalid", "spec.egress[0].to[3].ipBlock.except[3]: Invalid",
		}},
		{"ports", "ingress: [{ports: [{port: 0}, {port: 65536}, {port: '80'}, {port: Http}, {protocol: tcp}, {protocol: ''}]}]", []string{
			"spec.ingress[0].ports[0].port: Invalid value: 0", "spec.ingress[0].ports[1].port: Invalid value: 65536", "spec.ingress[0].ports[2].port: Invalid value: \"80\"",
			"spec.ingress[0].ports[3].port: Invalid value: \"Http\"", "spec.ingress[0].ports[4].protocol: Unsupported value: \"tcp\"", "spec.ingress[0].ports[5].protocol: Required",
		}},
		{"ends of ranges", "egress: [{ports: [{endPort: 1}, {port: http, endPort: 1}, {port: 2, endPort: 1}, {port: 1, endPort: 65536}, {port: 1, endPort: 1}]}]", []string{
			"spec.egress[0].ports[0].endPort: Forbidden", "spec.egress[0].ports[1].endPort: Forbidden", "spec.egress[0].ports[2].endPort: Invalid value: 1", "spec.egress[0].ports[3].endPort: Invalid value: 65536",
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var want []string
			for _, w := range tt.want {
				want = append(want, "NetworkPolicy shop/p: "+w)
			}
			compare(t, want, validate(t, "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: p, namespace: shop}, spec: {"+tt.spec+"}}"))
		})
	}
}

func TestValidateByHand(t *testing.T) {
	o := decode(t, podA)
	o.Origins = nil
	o.Pods[0].Status.Phase = "x"
	assert.ErrorContains(t, o.Validate(), "Pod shop/a: status.phase")
	assert.NoError(t, (&manifest.Objects{}).Validate())
}
