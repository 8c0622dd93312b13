package cluster

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/kubernetes/scheme"

	"github.com/portcullis-netpol/portcullis/testcases/conformance/container"
	"github.com/portcullis-netpol/portcullis/testcases/conformance/process"
)

// startProxies starts kube-proxy on every node.
func (c *Cluster) startProxies(ctx context.Context) error {
	kubeconfig, err := c.writeKubeconfig("kube-proxy", c.secrets.proxyToken)
	if err != nil {
		return err
	}
	for _, node := range c.lab.Nodes() {
		err := c.startProgram("kube-proxy-"+node, node, c.Kube, "kube-proxy",
			"--kubeconfig="+kubeconfig, "--hostname-override="+node, "--proxy-mode="+c.KubeProxy,
			"--cluster-cidr="+c.families(podNet4, podNet6),
			"--healthz-bind-address=127.0.0.1:10256", "--metrics-bind-address=127.0.0.1:10249",
			// The laboratory has set what it needs; the rest is the machine's.
			"--conntrack-max-per-core=0", "--conntrack-tcp-timeout-established=0", "--conntrack-tcp-timeout-close-wait=0")
		if err != nil {
			return err
		}
	}
	for _, node := range c.lab.Nodes() {
		if err := c.awaitURL(ctx, "kube-proxy of "+node, node, "http://127.0.0.1:10256/livez"); err != nil {
			return err
		}
	}
	return nil
}

// agentAccount is the service account of the manifests.
const agentNamespace, agentAccount = "portcullis", "portcullis"

// StartAgents installs the RBAC of the manifests and starts an agent on every
// node, with a token of the manifests' service account and the capabilities of the
// DaemonSet's container.
func (c *Cluster) StartAgents(ctx context.Context) error {
	for _, name := range []string{"namespace.yaml", "rbac.yaml"} {
		if err := c.apply(ctx, filepath.Join(c.Manifests, name)); err != nil {
			return fmt.Errorf("install %s: %w", name, err)
		}
	}
	seconds := int64(24 * 60 * 60)
	token, err := c.Client.CoreV1().ServiceAccounts(agentNamespace).CreateToken(ctx, agentAccount, &authenticationv1.TokenRequest{
		Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: &seconds},
	}, metav1.CreateOptions{})
	if err != nil {
		return fmt.Errorf("token of the agent: %w", err)
	}
	kubeconfig, err := c.writeKubeconfig("agent", token.Status.Token)
	if err != nil {
		return err
	}
	capabilities, err := c.agentCapabilities()
	if err != nil {
		return err
	}
	confined, err := process.NewConfinedStarter(capabilities...)
	if err != nil {
		return fmt.Errorf("confine the agents: %w", err)
	}
	for _, node := range c.lab.Nodes() {
		err := c.startWith(confined, "agent-"+node, node, c.Portcullis, "agent", "--node-name="+node, "--kubeconfig="+kubeconfig,
			"--deny="+c.Deny, "--log-level=debug", "--healthz-bind-address=127.0.0.1:10247")
		if err != nil {
			return err
		}
	}
	for _, node := range c.lab.Nodes() {
		if err := c.awaitURL(ctx, "agent of "+node, node, "http://127.0.0.1:10247/readyz"); err != nil {
			return err
		}
	}
	return nil
}

// agentCapabilities returns what the DaemonSet adds for the agent; everything else it
// has to drop, and it must not allow escalation.
func (c *Cluster) agentCapabilities() ([]int, error) {
	text, err := os.ReadFile(filepath.Join(c.Manifests, "daemonset.yaml"))
	if err != nil {
		return nil, err
	}
	object, _, err := scheme.Codecs.UniversalDeserializer().Decode(text, nil, nil)
	if err != nil {
		return nil, fmt.Errorf("daemonset.yaml: %w", err)
	}
	daemon, ok := object.(*appsv1.DaemonSet)
	if !ok || len(daemon.Spec.Template.Spec.Containers) != 1 {
		return nil, errors.New("daemonset.yaml is no DaemonSet with one container")
	}
	has := daemon.Spec.Template.Spec.Containers[0].SecurityContext
	if has == nil || has.Capabilities == nil || !slices.Equal(has.Capabilities.Drop, []corev1.Capability{"ALL"}) ||
		has.AllowPrivilegeEscalation == nil || *has.AllowPrivilegeEscalation {
		return nil, errors.New("daemonset.yaml: the agent does not drop all capabilities, or may gain new ones")
	}
	out, err := container.Capabilities(has)
	if err != nil {
		return nil, fmt.Errorf("daemonset.yaml: %w", err)
	}
	return out, nil
}

// apply creates the objects of a file.
func (c *Cluster) apply(ctx context.Context, name string) error {
	file, err := os.Open(name)
	if err != nil {
		return err
	}
	defer file.Close()
	documents := yaml.NewYAMLReader(bufio.NewReader(file))
	for {
		document, err := documents.Read()
		if errors.Is(err, io.EOF) {
			return nil
		}
		var object runtime.Object
		if err == nil {
			object, _, err = scheme.Codecs.UniversalDeserializer().Decode(document, nil, nil)
		}
		if err == nil {
			err = c.create(ctx, object)
		}
		if err != nil {
			return err
		}
	}
}

func (c *Cluster) create(ctx context.Context, object runtime.Object) (err error) {
	options := metav1.CreateOptions{FieldValidation: metav1.FieldValidationStrict}
	switch o := object.(type) {
	case *corev1.Namespace:
		_, err = c.Client.CoreV1().Namespaces().Create(ctx, o, options)
	case *corev1.ServiceAccount:
		_, err = c.Client.CoreV1().ServiceAccounts(o.Namespace).Create(ctx, o, options)
	case *rbacv1.ClusterRole:
		_, err = c.Client.RbacV1().ClusterRoles().Create(ctx, o, options)
	case *rbacv1.ClusterRoleBinding:
		_, err = c.Client.RbacV1().ClusterRoleBindings().Create(ctx, o, options)
	case *rbacv1.Role:
		_, err = c.Client.RbacV1().Roles(o.Namespace).Create(ctx, o, options)
	case *rbacv1.RoleBinding:
		_, err = c.Client.RbacV1().RoleBindings(o.Namespace).Create(ctx, o, options)
	default:
		return fmt.Errorf("%T is not expected among the agent's rights", object)
	}
	return err
}
