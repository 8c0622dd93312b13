package node

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/portcullis-netpol/portcullis/testcases/conformance/container"
)

// accountDir is where a container finds its service account.
const accountDir = "/var/run/secrets/kubernetes.io/serviceaccount/"

// containerConfig says what a container of a pod is made of.
func (n *Nodes) containerConfig(ctx context.Context, box *sandbox, c *program, pod *corev1.Pod) (container.Config, error) {
	cfg := container.Config{
		Mountpoint: filepath.Join(n.StateDir, "root"),
		Programs:   map[string]string{c.image.path: c.image.file},
		Files:      map[string][]byte{},
		Security:   c.spec.SecurityContext,
	}
	if err := os.MkdirAll(cfg.Mountpoint, 0o700); err != nil {
		return cfg, err
	}
	if len(n.DNS) > 0 && !box.hostNetwork {
		cfg.Files["/etc/resolv.conf"] = n.resolvConf(pod.Namespace)
	}
	if err := n.addAccount(ctx, cfg.Files, pod); err != nil {
		return cfg, err
	}
	for _, m := range c.spec.VolumeMounts {
		source, err := n.volume(pod, m)
		if err != nil {
			return cfg, fmt.Errorf("volume %s: %w", m.Name, err)
		}
		cfg.Volumes = append(cfg.Volumes, container.Volume{Path: m.MountPath, Source: source, ReadOnly: m.ReadOnly})
	}
	return cfg, nil
}

// resolvConf lets programs of a namespace find Services by their names.
func (n *Nodes) resolvConf(namespace string) []byte {
	var b strings.Builder
	for _, a := range n.DNS {
		fmt.Fprintf(&b, "nameserver %v\n", a)
	}
	fmt.Fprintf(&b, "search %[1]s.svc.%[2]s svc.%[2]s %[2]s\noptions ndots:5\n", namespace, ClusterDomain)
	return []byte(b.String())
}

// addAccount adds the token of the pod's service account, and what belongs to it. Pods
// that name no account have none here: nobody has filled in the default.
func (n *Nodes) addAccount(ctx context.Context, files map[string][]byte, pod *corev1.Pod) error {
	name := pod.Spec.ServiceAccountName
	if name == "" {
		return nil
	}
	accounts := n.Client.CoreV1().ServiceAccounts(pod.Namespace)
	account, err := accounts.Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return err
	}
	mount := pod.Spec.AutomountServiceAccountToken
	if mount == nil {
		mount = account.AutomountServiceAccountToken
	}
	if mount != nil && !*mount {
		return nil
	}
	day := int64(24 * 60 * 60)
	token, err := accounts.CreateToken(ctx, name, &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{
		ExpirationSeconds: &day,
		BoundObjectRef:    &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: pod.Name, UID: pod.UID},
	}}, metav1.CreateOptions{})
	if err != nil {
		return fmt.Errorf("token of service account %s: %w", name, err)
	}
	ca, err := os.ReadFile(n.CertFile)
	if err != nil {
		return err
	}
	files[accountDir+"token"] = []byte(token.Status.Token)
	files[accountDir+"ca.crt"] = ca
	files[accountDir+"namespace"] = []byte(pod.Namespace)
	return nil
}

// volume returns the folder that a volume stands for. The nodes share one machine, so
// each has hostPaths of its own.
func (n *Nodes) volume(pod *corev1.Pod, mount corev1.VolumeMount) (string, error) {
	i := slices.IndexFunc(pod.Spec.Volumes, func(v corev1.Volume) bool { return v.Name == mount.Name })
	if i < 0 || pod.Spec.Volumes[i].HostPath == nil || mount.SubPath != "" || mount.SubPathExpr != "" {
		return "", fmt.Errorf("only whole hostPaths are supported here")
	}
	host := pod.Spec.Volumes[i].HostPath
	if host.Type == nil || *host.Type != corev1.HostPathDirectoryOrCreate {
		return "", fmt.Errorf("hostPath %s: only DirectoryOrCreate is supported here", host.Path)
	}
	dir := filepath.Join(n.StateDir, pod.Spec.NodeName, filepath.Clean("/"+host.Path))
	return dir, os.MkdirAll(dir, 0o755)
}
