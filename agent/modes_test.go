package agent

import (
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"

	"github.com/portcullis-netpol/portcullis/agent/admin"
	"github.com/portcullis-netpol/portcullis/nft"
	"github.com/portcullis-netpol/portcullis/policy"
)

// TestModesThatMeanNothing has Events about the mode of a policy and that of a namespace,
// which mean nothing, and both in the policies' status.
func TestModesThatMeanNothing(t *testing.T) {
	ns := &corev1.Namespace{ObjectMeta: meta("", "shop", "1")}
	ns.UID, ns.Annotations = "uid-ns", map[string]string{policy.AnnotationMode: "dry-run"}
	wrong, silent := allowFrom("db"), allowFrom("api")
	wrong.Annotations = map[string]string{policy.AnnotationMode: "audti"}
	silent.Name, silent.UID = "silent", "uid-silent"
	path := filepath.Join(t.TempDir(), "run", "a.sock")
	client := fake.NewClientset(testNode("node-1"), ns, shopPod("web", "node-1", webAddr), wrong, silent)
	a := startAgent(t, Config{Source: Kubernetes(client), Kernel: nft.NewFake(), AdminSocket: path})
	e := &eventsTest{client, t, a}
	e.wait("Namespace shop uid-ns: dry-run", "NetworkPolicy web uid-policy: audti", "Pod web uid-web: audti")
	s, err := admin.New(path).State(t.Context())
	require.NoError(t, err)
	require.Equal(t, []admin.Problem{{Field: "Namespace shop: metadata.annotations[portcullis.dev/mode]", Reason: `"dry-run" is neither audit nor enforce`}}, s.Policies[0].Problems)
	require.Equal(t, []admin.Problem{{Field: "metadata.annotations[portcullis.dev/mode]", Reason: `"audti" is neither audit nor enforce`}}, s.Policies[1].Problems)
	require.Equal(t, []string{"enforce", "enforce"}, []string{s.Policies[0].Mode, s.Policies[1].Mode})

	list, err := client.CoreV1().Events("").List(t.Context(), metav1.ListOptions{})
	require.NoError(t, err)
	for _, ev := range list.Items {
		require.Contains(t, ev.Message, "Enforced as if the annotation were not there.")
	}
}
