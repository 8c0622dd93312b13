package evaluate_test

import (
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/portcullis-netpol/portcullis/policy/evaluate"
)

// inPorts is a policy that allows ingress on one list of ports.
func inPorts(ports string) map[string]string {
	return map[string]string{"shop/p": selected + "ingress: [{ports: [" + ports + "]}]"}
}

// toWeb says what becomes of flows from shop/db to shop/web: "TCP/80" is allowed or denied.
func toWeb(allowed []string, deniedFlows []string) map[string]string {
	out := map[string]string{}
	for _, f := range allowed {
		out["shop/db shop/web "+f] = open + " | " + inRule
	}
	for _, f := range deniedFlows {
		out["shop/db shop/web "+f] = open + " | " + denied
	}
	return out
}

func TestPorts(t *testing.T) {
	run(t, []scenario{
		{name: "the protocol is TCP if it is left out", policies: inPorts("{port: 80}"), flows: toWeb([]string{"TCP/80"}, []string{"UDP/80", "SCTP/80", "TCP/81", "ICMP", "ICMP/80"})},
		{name: "UDP", policies: inPorts("{port: 53, protocol: UDP}"), flows: toWeb([]string{"UDP/53"}, []string{"TCP/53"})},
		{name: "SCTP", policies: inPorts("{port: 53, protocol: SCTP}"), flows: toWeb([]string{"SCTP/53"}, []string{"TCP/53"})},
		{name: "all ports of a protocol", policies: inPorts("{protocol: UDP}"), flows: toWeb([]string{"UDP/1", "UDP/65535"}, []string{"TCP/1", "ICMP"})},
		{name: "all ports of TCP", policies: inPorts("{}"), flows: toWeb([]string{"TCP/1", "TCP/65535"}, []string{"UDP/1", "ICMP"})},
		{name: "one of several", policies: inPorts("{port: 80}, {port: 443}"), flows: toWeb([]string{"TCP/80", "TCP/443"}, []string{"TCP/81"})},
		{name: "a range", policies: inPorts("{port: 80, endPort: 90}"), flows: toWeb([]string{"TCP/80", "TCP/85", "TCP/90"}, []string{"TCP/79", "TCP/91", "UDP/85"})},
		{name: "a range of one", policies: inPorts("{port: 80, endPort: 80}"), flows: toWeb([]string{"TCP/80"}, []string{"TCP/79", "TCP/81"})},
		{name: "the whole range", policies: inPorts("{port: 1, endPort: 65535}"), flows: toWeb([]string{"TCP/1", "TCP/65535"}, []string{"UDP/1"})},
		{name: "the last port", policies: inPorts("{port: 65535}"), flows: toWeb([]string{"TCP/65535"}, []string{"TCP/65534"})},
		{name: "overlapping ranges", policies: inPorts("{port: 80, endPort: 90}, {port: 85, endPort: 95}, {port: 96, endPort: 99}"), flows: toWeb([]string{"TCP/80", "TCP/95", "TCP/96", "TCP/99"}, []string{"TCP/100"})},
	})
}

func TestUnusablePorts(t *testing.T) {
	nothing := toWeb(nil, []string{"TCP/80", "UDP/80", "TCP/0", "ICMP"})
	withPort := func(c *evaluate.Cluster) { port(c.Pods[0], "80=80", "http=80", "Http=80") }
	run(t, []scenario{
		{name: "port 0", policies: inPorts("{port: 0}"), flows: nothing},
		{name: "port negative", policies: inPorts("{port: -1}"), flows: nothing},
		{name: "port too big", policies: inPorts("{port: 65536}"), flows: nothing},
		{name: "end before start", policies: inPorts("{port: 81, endPort: 80}"), flows: nothing},
		{name: "end too big", policies: inPorts("{port: 80, endPort: 65536}"), flows: nothing},
		{name: "start 0", policies: inPorts("{port: 0, endPort: 80}"), flows: nothing},
		{name: "end without start", policies: inPorts("{endPort: 80}"), flows: nothing},
		{name: "end with a name", change: withPort, policies: inPorts("{port: http, endPort: 80}"), flows: nothing},
		{name: "a number as text", change: withPort, policies: inPorts("{port: '80'}"), flows: nothing},
		{name: "a name that is none", change: withPort, policies: inPorts("{port: Http}"), flows: nothing},
		{name: "an empty name", policies: inPorts("{port: ''}"), flows: nothing},
		{name: "protocol unknown", policies: inPorts("{protocol: ICMP}"), flows: nothing},
		{name: "protocol empty", policies: inPorts("{protocol: '', port: 80}"), flows: nothing},
		{name: "protocol in small letters", policies: inPorts("{protocol: tcp, port: 80}"), flows: nothing},
		{name: "beside a usable one", policies: inPorts("{port: 0}, {port: 443}"), flows: toWeb([]string{"TCP/443"}, []string{"TCP/80"})},
	})
}

func TestNamedPorts(t *testing.T) {
	always := corev1.ContainerRestartPolicyAlways
	egress := func(to string) map[string]string {
		return map[string]string{"shop/p": selected + "policyTypes: [Egress]\negress: [{" + to + "ports: [{port: http}]}]"}
	}
	ports := func(c *evaluate.Cluster) { // web, db and mon give one name three numbers
		port(c.Pods[0], "http=80")
		port(c.Pods[1], "http=8080")
		port(c.Pods[2], "http=9090", "http=53/UDP")
		port(c.Pods[3], "http=7070")
	}
	run(t, []scenario{
		{name: "ingress: the selected pod's number", change: ports, policies: inPorts("{port: http}"), flows: toWeb([]string{"TCP/80"}, []string{"TCP/8080", "UDP/80"})},
		{name: "ingress: a name it does not have", policies: inPorts("{port: http}"), flows: toWeb(nil, []string{"TCP/80", "TCP/0"})},
		{name: "ingress: only for another protocol", change: ports, policies: inPorts("{port: http, protocol: UDP}"), flows: toWeb(nil, []string{"TCP/80", "UDP/80"})},
		{name: "ingress: from strangers", change: ports, policies: inPorts("{port: http}"), flows: map[string]string{"192.0.2.9 shop/web TCP/80": noPod + " | " + inRule}},
		{
			name: "egress: each peer's own number", change: ports, policies: egress("to: [{namespaceSelector: {}}], "),
			flows: map[string]string{
				"shop/web shop/db TCP/8080": outRule + " | " + open, "shop/web shop/db TCP/80": denied + " | " + open,
				"shop/web ops/mon TCP/9090": outRule + " | " + open, "shop/web ops/mon TCP/8080": denied + " | " + open,
				"shop/web ops/mon UDP/53": denied + " | " + open,
			},
		},
		{
			name: "egress: to everything", change: ports, policies: egress(""),
			flows: map[string]string{
				"shop/web shop/db TCP/8080": outRule + " | " + open, "shop/web ops/mon TCP/9090": outRule + " | " + open,
				"shop/web 192.0.2.9 TCP/80": denied + " | " + noPod, "shop/web shop/agent TCP/7070": denied + " | " + noPod,
			},
		},
		{
			name: "egress: to a block, only its pods", change: ports, policies: egress("to: [{ipBlock: {cidr: 10.1.0.0/24}}], "),
			flows: map[string]string{
				"shop/web shop/db TCP/8080": outRule + " | " + open, "shop/web ops/mon TCP/9090": denied + " | " + open,
				"shop/web 10.1.0.77 TCP/8080": denied + " | " + noPod,
			},
		},
		{
			name: "the first one of a pod counts",
			change: func(c *evaluate.Cluster) {
				port(c.Pods[0], "x=1", "http=80/UDP", "http=81/TCP", "http=82")
				port(c.Pods[0], "http=83")
			},
			policies: inPorts("{port: http}"), flows: toWeb([]string{"TCP/81"}, []string{"TCP/80", "TCP/82", "TCP/83"}),
		},
		{
			name: "a sidecar counts, behind the regular containers",
			change: func(c *evaluate.Cluster) {
				side := container("http=90", "admin=91")
				side.RestartPolicy = &always
				c.Pods[0].Spec.InitContainers = append(c.Pods[0].Spec.InitContainers, container("once=92"), side)
				port(c.Pods[0], "http=80")
			},
			policies: inPorts("{port: http}, {port: admin}, {port: once}"), flows: toWeb([]string{"TCP/80", "TCP/91"}, []string{"TCP/90", "TCP/92"}),
		},
		{
			name:     "a number that is no port",
			change:   func(c *evaluate.Cluster) { port(c.Pods[0], "http=0") },
			policies: inPorts("{port: http}"), flows: toWeb(nil, []string{"TCP/0", "TCP/80"}),
		},
		{
			name: "a block for one family", change: ports,
			policies: egress("to: [{ipBlock: {cidr: 'fd01::/64'}}], "),
			flows: map[string]string{
				"6:shop/web 6:shop/db TCP/8080": outRule + " | " + open, "shop/web shop/db TCP/8080": denied + " | " + open,
			},
		},
	})
}
