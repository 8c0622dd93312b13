package manifest_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/api/equality"
	"sigs.k8s.io/yaml"

	"github.com/portcullis-netpol/portcullis/policy/manifest"
)

// names lists the objects the way they stand in Origins, kind by kind.
func names(o *manifest.Objects) []string {
	var out []string
	for _, x := range o.Namespaces {
		out = append(out, "Namespace "+x.Name)
	}
	for _, x := range o.Nodes {
		out = append(out, "Node "+x.Name)
	}
	for _, x := range o.Pods {
		out = append(out, "Pod "+x.Namespace+"/"+x.Name)
	}
	for _, x := range o.Services {
		out = append(out, "Service "+x.Namespace+"/"+x.Name)
	}
	for _, x := range o.Policies {
		out = append(out, "NetworkPolicy "+x.Namespace+"/"+x.Name)
	}
	return out
}

func decode(t testing.TB, text string) *manifest.Objects {
	t.Helper()
	o, err := manifest.Decode("test.yaml", []byte(text))
	require.NoError(t, err)
	return o
}

const podA = `apiVersion: v1
kind: Pod
metadata: {name: a, namespace: shop}
`

const podB = `{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "b", "namespace": "shop"}}
`

func TestDecodeForms(t *testing.T) {
	for _, tt := range []struct {
		name, text string
		want       []string
	}{
		{"nothing", "", nil},
		{"only comments", "# nothing\n---\n\n# here\n---\n", nil},
		{"one document", podA, []string{"Pod shop/a"}},
		{"marker first", "---\n" + podA, []string{"Pod shop/a"}},
		{"several documents", podA + "---\n" + podB + "--- # comment\n---\n", []string{"Pod shop/a", "Pod shop/b"}},
		{"end marker", podA + "...\n" + podB, []string{"Pod shop/a", "Pod shop/b"}},
		{"content behind the marker", podA + "--- " + podB, []string{"Pod shop/a", "Pod shop/b"}},
		{"tab behind the marker", podA + "---\t\n" + podB, []string{"Pod shop/a", "Pod shop/b"}},
		{"directive", "%YAML 1.1\n---\n" + podA, []string{"Pod shop/a"}},
		{"CR LF", strings.ReplaceAll(podA+"---\n"+podB, "\n", "\r\n"), []string{"Pod shop/a", "Pod shop/b"}},
		{"CR", strings.ReplaceAll(podA+"---\n"+podB, "\n", "\r"), []string{"Pod shop/a", "Pod shop/b"}},
		{"line separators of YAML 1.1", strings.ReplaceAll(podA+"---\n"+podB, "\n", "\u2028"), []string{"Pod shop/a", "Pod shop/b"}},
		{"byte order mark", "\uFEFF" + podA, []string{"Pod shop/a"}},
		{"byte order mark and marker", "\uFEFF---\n" + podA, []string{"Pod shop/a"}},
		{"byte order mark and comment", "\uFEFF# hello\n---\n" + podA, []string{"Pod shop/a"}},
		{"a foreign kind that is called a list", "apiVersion: example.com/v1\nkind: AccessList\nspec: {}\n", nil},
		{"byte order mark and JSON", "\uFEFF{\n\t\"apiVersion\": \"v1\",\n\t\"kind\": \"Pod\",\n\t\"metadata\": {\"name\": \"b\"}\n}", []string{"Pod default/b"}},
		{"JSON with tabs", "{\n\t\"apiVersion\": \"v1\",\n\t\"kind\": \"Pod\",\n\t\"metadata\": {\"name\": \"b\"}\n}", []string{"Pod default/b"}},
		{"list", "apiVersion: v1\nkind: List\nitems:\n- " + podB + "- {apiVersion: v1, kind: Node, metadata: {name: node}}\n", []string{"Node node", "Pod shop/b"}},
		{"empty list", "apiVersion: v1\nkind: List\nitems: []\n", nil},
		{"typed list", "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicyList\nmetadata: {resourceVersion: '1'}\nitems:\n- metadata: {name: p}\n  spec: {podSelector: {}}\n", []string{"NetworkPolicy default/p"}},
		{"typed list whose items say their kind", "apiVersion: v1\nkind: PodList\nitems:\n- " + podB, []string{"Pod shop/b"}},
		{"list in a list", "apiVersion: v1\nkind: List\nitems: [{apiVersion: v1, kind: List, items: [" + podB + "]}]", []string{"Pod shop/b"}},
		{"kinds that do not matter", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\nwhat: ever\n---\napiVersion: projectcalico.org/v3\nkind: NetworkPolicy\nmetadata: {name: x}\n---\napiVersion: networking.k8s.io/v1\nkind: Ingress\n---\napiVersion: networking.k8s.io/v1\nkind: IngressList\nitems: [{}]\n", nil},
		{"service of another group", "apiVersion: serving.knative.dev/v1\nkind: Service\nmetadata: {name: x}\nspec: {template: {}}\n", nil},
		{"null in places", "apiVersion: v1\nkind: Pod\nmetadata: {name: a, creationTimestamp: null, labels: null}\nspec: null\n", []string{"Pod default/a"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o := decode(t, tt.text)
			o.Namespaces = nil
			assert.Equal(t, tt.want, names(o))
		})
	}
}

func TestDecodeErrors(t *testing.T) {
	const np = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: p, namespace: shop}\n"
	const at = "test.yaml, document 1 (line 1): "
	for _, tt := range []struct {
		name, text, want string
	}{
		{"unknown field", np + "spec: {ingres: []}", at + `NetworkPolicy shop/p: unknown field "spec.ingres"`},
		{"unknown field in a list", np + "spec: {ingress: [{}, {from: [{podSelectr: {}}]}]}", at + `NetworkPolicy shop/p: unknown field "spec.ingress[1].from[0].podSelectr"`},
		{"wrong case", np + "spec: {PodSelector: {}}", at + `NetworkPolicy shop/p: unknown field "spec.PodSelector"`},
		{"two unknown fields", np + "a: 1\nb: 2\n", at + `NetworkPolicy shop/p: unknown field "a"` + "\n" + at + `NetworkPolicy shop/p: unknown field "b"`},
		{"duplicate field", np + "spec:\n  podSelector: {}\n  podSelector: {}\n", at + `yaml: unmarshal errors: line 6: key "podSelector" already set in map`},
		{"duplicate field in a later document", podA + "---\n" + np + "spec:\n  podSelector: {}\n  podSelector: {}\n",
			`test.yaml, document 2 (line 4): yaml: unmarshal errors: line 10: key "podSelector" already set in map`},
		{"duplicate field in JSON", `{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "name": "b"}}`, at + `Pod b: duplicate field "metadata.name"`},
		{"wrong type", np + "spec: {policyTypes: Ingress}", at + `NetworkPolicy shop/p: spec.policyTypes: is a string, must be a []v1.PolicyType`},
		{"wrong type deep in", np + "spec: {egress: [{}, {ports: [{port: 1}, {port: 80.5}]}]}", at + `NetworkPolicy shop/p: spec.egress[1].ports[1].port: is a number 80.5, must be a int32`},
		{"object instead of text", np + "spec: {ingress: [{from: [{ipBlock: {cidr: {a: {b: c}}}}]}]}", at + `NetworkPolicy shop/p: spec.ingress[0].from[0].ipBlock.cidr: is a object, must be a string`},
		{"list instead of text", np + "spec: {ingress: [{from: [{ipBlock: {cidr: [[1]]}}]}]}", at + `NetworkPolicy shop/p: spec.ingress[0].from[0].ipBlock.cidr: is a array, must be a string`},
		{"the first of two", `{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x", "labels": {"b": true, "a": 1}}}`, at + `Pod x: metadata.labels.a: is a number, must be a string`},
		{"number as label", "apiVersion: v1\nkind: Pod\nmetadata: {name: a, labels: {good: x, version: 1}}", at + `Pod a: metadata.labels.version: is a number, must be a string`},
		{"number too big", np + "spec: {ingress: [{ports: [{endPort: 4294967296}]}]}", at + `NetworkPolicy shop/p: spec.ingress[0].ports[0].endPort: is a number 4294967296, must be a int32`},
		{"time", "apiVersion: v1\nkind: Pod\nmetadata: {name: a, creationTimestamp: yesterday}", at + `Pod a: metadata.creationTimestamp: parsing time "yesterday" as "2006-01-02T15:04:05Z07:00": cannot parse "yesterday" as "2006"`},
		{"name of the wrong type", "apiVersion: v1\nkind: Pod\nmetadata: {name: 5}", at + `Pod: metadata.name: is a number, must be a string`},
		{"no name", "apiVersion: v1\nkind: Pod\nmetadata: {namespace: x}", at + `Pod x/: metadata.name: Required value`},
		{"no kind", "apiVersion: v1\nmetadata: {name: x}", at + `x: kind: Required value`},
		{"no apiVersion", "kind: Pod\nmetadata: {name: x}", at + `Pod x: apiVersion: Required value`},
		{"no object", "[1, 2]", at + `not a Kubernetes object`},
		{"text", "hello", at + `not a Kubernetes object`},
		{"null", "null", at + `not a Kubernetes object`},
		{"old version", "apiVersion: extensions/v1beta1\nkind: NetworkPolicy\nmetadata: {name: x}", at + `NetworkPolicy x: apiVersion: "extensions/v1beta1" is not supported for this kind, use networking.k8s.io/v1`},
		{"old list", "apiVersion: apps/v1beta1\nkind: DeploymentList\nitems: [{metadata: {name: x}}]", at[:len(at)-2] + `, items[0]: Deployment x: apiVersion: "apps/v1beta1" is not supported for this kind, use apps/v1`},
		{"misspelt kind", "apiVersion: networking.k8s.io/v1\nkind: NetworkPolcy\nmetadata: {name: x}", at + `NetworkPolcy x: kind: networking.k8s.io/v1 has no kind "NetworkPolcy"`},
		{"bad item", "apiVersion: v1\nkind: List\nitems:\n- " + podB + "- {apiVersion: v1, kind: Pod, metadata: {name: x}, spek: {}}\n", at[:len(at)-2] + `, items[1]: Pod x: unknown field "spek"`},
		{"item that is no object", "apiVersion: v1\nkind: List\nitems: [null]", at[:len(at)-2] + `, items[0]: not a Kubernetes object`},
		{"unknown field of a list", "apiVersion: v1\nkind: List\nitem: []", at + `List: unknown field "item"`},
		{"items of the wrong type", "apiVersion: v1\nkind: List\nitems: {}", at + `List: items: is a object, must be a []json.RawMessage`},
		{"lists without end", strings.Repeat("{apiVersion: v1, kind: List, items: [", 9) + strings.Repeat("]}", 9), at[:len(at)-2] + `, items[0].items[0].items[0].items[0]: lists stand in lists more than 4 deep`},
		{"not YAML", "a: [", at + `yaml: line 1: did not find expected node content`},
		{"not UTF-8", "a: \xff", `test.yaml: the text is not UTF-8`},
		{"UTF-16", "\xff\xfea\x00", `test.yaml: the text is not UTF-8`},
		{"two flow mappings", "{apiVersion: v1, kind: Pod, metadata: {name: a}}\n# then\n{kind: NetworkPolicy}\n", at + `yaml: line 2: did not find expected <document start>`},
		{"two JSON values", podB + podB, at + `yaml: line 1: did not find expected <document start>`},
		{"too many replicas", "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: x}\nspec: {replicas: 2000000000}", at + `Deployment default/x: spec.replicas: Invalid value: 2000000000: must be from 0 to 10000`},
		{"one replica too many", "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: x}\nspec: {replicas: 10001}", at + `Deployment default/x: spec.replicas: Invalid value: 10001: must be from 0 to 10000`},
		{"less than no replicas", "apiVersion: batch/v1\nkind: Job\nmetadata: {name: x}\nspec: {parallelism: -1}", at + `Job default/x: spec.parallelism: Invalid value: -1: must be from 0 to 10000`},
		{"twice", podA + "---\n" + podA, `test.yaml, document 2 (line 4): Pod shop/a: the same object is also in test.yaml, document 1 (line 1)`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := manifest.Decode("test.yaml", []byte(tt.text))
			assert.EqualError(t, err, tt.want)
		})
	}
}

func TestErrorLeavesTheRest(t *testing.T) {
	o, err := manifest.Decode("x", []byte("a: [\n---\n"+podA+"---\nkind: 5\n"))
	require.ErrorContains(t, err, "x, document 1 (line 1)")
	require.ErrorContains(t, err, "x, document 3 (line 6): kind: is a number, must be a string")
	assert.Equal(t, []string{"Namespace shop", "Pod shop/a"}, names(o))
}

func TestOrigins(t *testing.T) {
	o := decode(t, "# first\n---\n"+podA+"---\n\n---\nkind: List\napiVersion: v1\nitems:\n- "+podB+"- {apiVersion: v1, kind: Node, metadata: {name: node}}\n")
	assert.Equal(t, map[string]manifest.Origin{
		"Pod shop/a": {File: "test.yaml", Document: 1, Line: 2},
		"Pod shop/b": {File: "test.yaml", Document: 2, Line: 8, Item: "items[0]"},
		"Node node":  {File: "test.yaml", Document: 2, Line: 8, Item: "items[1]"},
	}, o.Origins)
	o = decode(t, strings.ReplaceAll(podA+"---\n"+podB, "\n", "\r\n"))
	assert.Equal(t, 4, o.Origins["Pod shop/b"].Line)
}

func TestOriginString(t *testing.T) {
	o := decode(t, "# first\n---\n"+podA+"---\n\n---\nkind: List\napiVersion: v1\nitems:\n- "+podB+"- {apiVersion: v1, kind: Node, metadata: {name: node}}\n")
	assert.Equal(t, "test.yaml, document 2 (line 8), items[1]", o.Origins["Node node"].String())
}

func TestNamespaces(t *testing.T) {
	o := decode(t, `{apiVersion: v1, kind: Namespace, metadata: {name: shop, labels: {team: a, kubernetes.io/metadata.name: lie}}}
---
{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: p, namespace: only-policy}}
---
{apiVersion: v1, kind: Service, metadata: {name: s}}
---
{apiVersion: apps/v1, kind: Deployment, metadata: {name: d, namespace: only-deployment}, spec: {replicas: 0}}
---
`+podA)
	var got []map[string]string
	for _, ns := range o.Namespaces {
		got = append(got, ns.Labels)
	}
	assert.Equal(t, []map[string]string{
		{"team": "a", "kubernetes.io/metadata.name": "shop"},
		{"kubernetes.io/metadata.name": "only-deployment"},
		{"kubernetes.io/metadata.name": "default"},
		{"kubernetes.io/metadata.name": "only-policy"},
	}, got)
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(podA + "---\n" + podB))
	f.Add([]byte("apiVersion: v1\nkind: List\nitems:\n- " + podB))
	f.Add([]byte("apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d}\nspec: {replicas: 3, template: {metadata: {labels: {a: b}}}}"))
	f.Add([]byte("apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: p}\nspec: {ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16]}}], ports: [{port: http}, {port: 1, endPort: 2}]}]}"))
	f.Add([]byte("%YAML 1.1\r\n--- &a\r\nx: *a\n...\n\u2028---\n{\"kind\": [{}]}"))
	f.Fuzz(func(t *testing.T, data []byte) {
		o, err := manifest.Decode("fuzz", data)
		_ = o.Validate() // must not panic either
		if merged, mergeErr := manifest.Merge(o); err == nil {
			require.NoError(t, mergeErr)
			require.Equal(t, names(o), names(merged))
		}
		if err != nil {
			require.Contains(t, err.Error(), "fuzz")
			return
		}
		// What was read can be written and read again.
		for _, p := range o.Policies {
			p.APIVersion, p.Kind = "networking.k8s.io/v1", "NetworkPolicy"
			text, err := yaml.Marshal(p)
			require.NoError(t, err)
			again, err := manifest.Decode("fuzz", text)
			require.NoError(t, err, "%s", text)
			require.True(t, equality.Semantic.DeepEqual(p, again.Policies[0]), "%s", text)
		}
	})
}
