package demo

import (
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

const ownManifests = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: site}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - {name: web, image: web, ports: [{name: http, containerPort: 8080}]}
---
apiVersion: v1
kind: Pod
metadata: {name: client, namespace: site}
spec:
  containers: [{name: client, image: client}]
---
apiVersion: v1
kind: Pod
metadata: {name: done, namespace: site}
spec:
  containers: [{name: done, image: done}]
status: {phase: Succeeded}
---
apiVersion: v1
kind: Pod
metadata: {name: proxy, namespace: kube-system}
spec:
  hostNetwork: true
  nodeName: elsewhere
  containers: [{name: proxy, image: proxy, ports: [{containerPort: 10256}]}]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: web, namespace: site}
spec:
  podSelector: {matchLabels: {app: web}}
  ingress:
  - from:
    - ipBlock: {cidr: 172.17.0.0/16, except: [172.17.1.0/24]}
    - ipBlock: {cidr: 10.0.0.0/8}
    ports:
    - {port: http}
    - {port: 9000, endPort: 9010}
`

func ownDir(t *testing.T, yaml string) string {
	t.Helper()
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "own.yaml"), []byte(yaml), 0o644))
	return dir
}

func named(s *scene, name string) *end {
	i := slices.IndexFunc(s.ends, func(e *end) bool { return e.name == name })
	return s.ends[i]
}

func TestOwnManifestsBecomeAScene(t *testing.T) {
	s, err := newScene(Options{Manifests: ownDir(t, ownManifests), IPFamily: "4"})
	require.NoError(t, err)
	var names []string
	for _, e := range s.ends {
		names = append(names, e.name)
	}
	// The finished pod is not there; each block and exception has a host outside.
	require.ElementsMatch(t, []string{"client", "proxy", "web-0", "web-1", "node-1", "internet", "172.17.0.1", "172.17.1.1", "10.0.0.1"}, names)
	require.Equal(t, []servicePort{{"tcp", 8080}, {"tcp", 9000}}, named(s, "web-0").ports)
	reports := tell(t, s)
	require.Len(t, reports, 2)
	for i := range reports[0].flows {
		require.True(t, reports[0].want[i].allowed)
	}
	with := reports[1]
	require.True(t, allowedIn(t, with, "172.17.0.1", "web-0", "8080"))
	require.False(t, allowedIn(t, with, "172.17.1.1", "web-1", "8080"))
	require.False(t, allowedIn(t, with, "internet", "web-1", "9000"))
	require.True(t, allowedIn(t, with, "client", "web-1", "9000"), "pods are in 10.0.0.0/8")
	require.Equal(t, []servicePort{{"tcp", 80}}, named(s, "client").ports, "the policy does not select it")
}

func TestOwnManifestsWithoutPolicies(t *testing.T) {
	s, err := newScene(Options{Manifests: ownDir(t, "{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {containers: [{name: a, image: a}]}}")})
	require.NoError(t, err)
	require.Len(t, tell(t, s), 1)
	require.Equal(t, []servicePort{{"tcp", 80}}, named(s, "a").ports)
}

func TestOwnManifestsThatAreWrong(t *testing.T) {
	for name, yaml := range map[string]string{
		"no pods":    "{apiVersion: v1, kind: Namespace, metadata: {name: a}}",
		"not valid":  "{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {containres: []}}",
		"not at all": "}{",
		"bad policy": ownManifests + "---\n{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: b}, spec: {podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/99}}]}]}}",
	} {
		_, err := newScene(Options{Manifests: ownDir(t, yaml)})
		var input *InputError
		require.ErrorAs(t, err, &input, name)
	}
	require.Error(t, Options{Manifests: "/does/not/exist"}.Validate())
	require.Error(t, Options{IPFamily: "5"}.Validate())
	require.Error(t, Options{Topology: 7}.Validate())
}

func TestOutsideAddresses(t *testing.T) {
	for _, c := range []struct {
		cidr   string
		except []string
		want   string // "" if there is none
	}{
		{"172.17.0.0/16", nil, "172.17.0.1"},
		{"172.17.0.0/16", []string{"172.17.0.0/17"}, "172.17.128.0"},
		{"203.0.113.7/32", nil, "203.0.113.7"},
		{"0.0.0.0/0", nil, "10.245.0.0"},
		{"10.244.0.0/16", nil, ""},
		{"10.244.0.0/15", nil, "10.245.0.0"},
		{"224.0.0.0/4", nil, ""},
		{"255.255.255.255/32", nil, ""},
		{"2001:db8::/32", nil, "2001:db8::1"},
		{"::/0", nil, "fd00:10:245::"},
	} {
		b := block{Prefix: netip.MustParsePrefix(c.cidr)}
		for _, e := range c.except {
			b.except = append(b.except, netip.MustParsePrefix(e))
		}
		s, err := newStory([]int{4, 6})
		require.NoError(t, err)
		got, ok := s.outsideAddr(b)
		require.Equal(t, c.want != "", ok, "%v: %v", c, got)
		if ok {
			require.Equal(t, c.want, got.String())
		}
	}
}
