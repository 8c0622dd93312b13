package main

import (
	"bytes"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"sigs.k8s.io/yaml"

	"github.com/portcullis-netpol/portcullis/agent/admin"
	"github.com/portcullis-netpol/portcullis/agent/cni"
	"github.com/portcullis-netpol/portcullis/cmd/portcullis/fleet"
	"github.com/portcullis-netpol/portcullis/cmd/portcullis/installcni"
)

const installDir = "../../manifests"

// kustomization is the part of a kustomization.yaml that is in use.
type kustomization struct {
	APIVersion string   `json:"apiVersion"`
	Kind       string   `json:"kind"`
	Resources  []string `json:"resources"`
	Images     []struct {
		Name    string `json:"name"`
		NewName string `json:"newName"`
		NewTag  string `json:"newTag"`
	} `json:"images"`
}

// installation decodes every file that the kustomization names, strictly.
type installation struct {
	namespace corev1.Namespace
	account   corev1.ServiceAccount
	role      rbacv1.ClusterRole
	binding   rbacv1.ClusterRoleBinding
	daemon    appsv1.DaemonSet
}

func readInstallation(t *testing.T) installation {
	t.Helper()
	var k kustomization
	text, err := os.ReadFile(filepath.Join(installDir, "kustomization.yaml"))
	require.NoError(t, err)
	require.NoError(t, yaml.UnmarshalStrict(text, &k))
	files, err := filepath.Glob(filepath.Join(installDir, "*.yaml"))
	require.NoError(t, err)
	require.Len(t, files, len(k.Resources)+1, "a file that the kustomization does not name")

	var in installation
	into := map[string]any{
		"Namespace": &in.namespace, "ServiceAccount": &in.account, "ClusterRole": &in.role,
		"ClusterRoleBinding": &in.binding, "DaemonSet": &in.daemon,
	}
	for _, name := range k.Resources {
		text, err := os.ReadFile(filepath.Join(installDir, name))
		require.NoError(t, err)
		for _, document := range bytes.Split(text, []byte("\n---\n")) {
			var head struct {
				Kind string `json:"kind"`
			}
			require.NoError(t, yaml.Unmarshal(document, &head))
			require.Contains(t, into, head.Kind, name)
			require.NoError(t, yaml.UnmarshalStrict(document, into[head.Kind]), "%s: %s", name, head.Kind)
			delete(into, head.Kind)
		}
	}
	require.Empty(t, into, "kinds that no file has")
	require.Equal(t, in.daemon.Spec.Template.Spec.Containers[0].Image, k.Images[0].Name)
	return in
}

// TestInstallationFits checks that the objects name each other as they should.
func TestInstallationFits(t *testing.T) {
	in := readInstallation(t)
	namespace := in.namespace.Name
	require.Equal(t, namespace, in.account.Namespace)
	require.Equal(t, namespace, in.daemon.Namespace)
	require.Equal(t, in.account.Name, in.daemon.Spec.Template.Spec.ServiceAccountName)
	require.Equal(t, rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: in.role.Name}, in.binding.RoleRef)
	require.Equal(t, []rbacv1.Subject{{Kind: "ServiceAccount", Name: in.account.Name, Namespace: namespace}}, in.binding.Subjects)
	require.Equal(t, in.daemon.Spec.Selector.MatchLabels, in.daemon.Spec.Template.Labels)
}

// TestInstallationRights grants what the agent's reflectors ask for, and of writing only
// what its recorder of Events does.
func TestInstallationRights(t *testing.T) {
	granted := map[string][]string{}
	for _, rule := range readInstallation(t).role.Rules {
		for _, group := range rule.APIGroups {
			for _, resource := range rule.Resources {
				granted[group+"/"+resource] = rule.Verbs
			}
		}
	}
	require.Equal(t, map[string][]string{
		"/pods":                             {"list", "watch"},
		"/namespaces":                       {"list", "watch"},
		"/nodes":                            {"get", "list", "watch"},
		"networking.k8s.io/networkpolicies": {"list", "watch"},
		"/events":                           {"create", "patch"},
	}, granted)
}

// TestInstallationPod checks the pod's rights over its host, and that the command has
// the flags that it is given.
func TestInstallationPod(t *testing.T) {
	pod := readInstallation(t).daemon.Spec.Template.Spec
	require.True(t, pod.HostNetwork)
	require.False(t, pod.HostPID || pod.HostIPC)
	require.Equal(t, "system-node-critical", pod.PriorityClassName)
	require.Equal(t, []corev1.Toleration{{Operator: corev1.TolerationOpExists}}, pod.Tolerations)
	require.Len(t, pod.Containers, 1)
	c := pod.Containers[0]
	require.Equal(t, fleet.Container, c.Name)
	key, value, _ := strings.Cut(fleet.Selector, "=")
	require.Equal(t, value, readInstallation(t).daemon.Spec.Template.Labels[key])
	require.Len(t, pod.Volumes, 1)
	require.Len(t, c.VolumeMounts, 1)
	require.Equal(t, pod.Volumes[0].Name, c.VolumeMounts[0].Name)
	require.Equal(t, pod.Volumes[0].HostPath.Path, c.VolumeMounts[0].MountPath)
	require.Equal(t, filepath.Dir(cni.DefaultSocket), c.VolumeMounts[0].MountPath)
	require.Equal(t, []corev1.Capability{"ALL"}, c.SecurityContext.Capabilities.Drop)
	require.Equal(t, []corev1.Capability{"NET_ADMIN"}, c.SecurityContext.Capabilities.Add)
	require.True(t, *c.SecurityContext.ReadOnlyRootFilesystem)
	require.False(t, *c.SecurityContext.AllowPrivilegeEscalation)
	require.Nil(t, c.SecurityContext.Privileged)

	a, _, _ := testApp()
	command, args, err := a.root(new(bool)).Find(c.Args)
	require.NoError(t, err)
	require.Equal(t, "agent", command.Name())
	require.NoError(t, command.ParseFlags(args))
	require.NoError(t, command.ValidateRequiredFlags())
	require.Empty(t, command.Flags().Args())

	require.Equal(t, cni.DefaultSocket, command.Flag("cni-socket").Value.String())
	require.Equal(t, admin.DefaultSocket, command.Flag("admin-socket").Value.String())
	require.Equal(t, filepath.Dir(cni.DefaultSocket), filepath.Dir(admin.DefaultSocket))
	var names []string
	for _, e := range c.Env {
		names = append(names, e.Name)
	}
	for _, used := range regexp.MustCompile(`\$\((\w+)\)`).FindAllStringSubmatch(command.Flag("node-name").Value.String(), -1) {
		require.Contains(t, names, used[1])
	}
	require.Equal(t, "spec.nodeName", c.Env[slices.Index(names, "NODE_NAME")].ValueFrom.FieldRef.FieldPath)
	health := command.Flag("healthz-bind-address").Value.String()
	for path, probe := range map[string]*corev1.Probe{"/healthz": c.LivenessProbe, "/readyz": c.ReadinessProbe} {
		require.Equal(t, health, probe.HTTPGet.Host+":"+probe.HTTPGet.Port.String())
		require.Equal(t, path, probe.HTTPGet.Path)
	}
}

// TestInstallationPlugin checks what manifests/cni adds: a container without any
// capability that writes to the two directories of the CNI, and nothing else.
func TestInstallationPlugin(t *testing.T) {
	var k struct {
		APIVersion string `json:"apiVersion"`
		Kind       string `json:"kind"`
		Patches    []struct {
			Path string `json:"path"`
		} `json:"patches"`
	}
	text, err := os.ReadFile(filepath.Join(installDir, "cni", "kustomization.yaml"))
	require.NoError(t, err)
	require.NoError(t, yaml.UnmarshalStrict(text, &k))
	require.Equal(t, "Component", k.Kind)
	var patch appsv1.DaemonSet
	text, err = os.ReadFile(filepath.Join(installDir, "cni", k.Patches[0].Path))
	require.NoError(t, err)
	require.NoError(t, yaml.UnmarshalStrict(text, &patch))
	in := readInstallation(t)
	require.Equal(t, in.daemon.Namespace+"/"+in.daemon.Name, patch.Namespace+"/"+patch.Name)
	pod := patch.Spec.Template.Spec
	require.Len(t, pod.Containers, 1)
	c := pod.Containers[0]
	require.NotEqual(t, in.daemon.Spec.Template.Spec.Containers[0].Name, c.Name)
	require.Equal(t, in.daemon.Spec.Template.Spec.Containers[0].Image, c.Image)
	require.Equal(t, []corev1.Capability{"ALL"}, c.SecurityContext.Capabilities.Drop)
	require.Empty(t, c.SecurityContext.Capabilities.Add)
	mounts, volumes := map[string]string{}, map[string]string{}
	for _, m := range c.VolumeMounts {
		mounts[m.Name] = m.MountPath
	}
	for _, v := range pod.Volumes {
		volumes[v.Name] = v.HostPath.Path
	}
	require.Equal(t, volumes, mounts)
	require.ElementsMatch(t, []string{installcni.DefaultConfDir, installcni.DefaultBinDir}, slices.Collect(maps.Values(mounts)))

	a, _, _ := testApp()
	command, args, err := a.root(new(bool)).Find(c.Args)
	require.NoError(t, err)
	require.Equal(t, "install-cni", command.Name())
	require.NoError(t, command.ParseFlags(args))
	require.Empty(t, command.Flags().Args())
}
