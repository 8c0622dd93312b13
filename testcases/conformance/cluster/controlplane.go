package cluster

import (
	"context"

	"github.com/portcullis-netpol/portcullis/testcases/lab"
)

const (
	podNet4, podNet6         = "10.244.0.0/16", "fd00:10:244::/48" // the laboratory's
	serviceNet4, serviceNet6 = "10.96.0.0/16", "fd00:10:96::/112"
)

// startControlPlane starts etcd, API server and controller manager.
func (c *Cluster) startControlPlane(ctx context.Context) error {
	const etcd = "http://127.0.0.1:2379"
	err := c.startProgram("etcd", lab.Outside, c.Kube, "etcd",
		"--data-dir="+c.path("etcd"), "--unsafe-no-fsync", "--log-level=warn",
		"--listen-client-urls="+etcd, "--advertise-client-urls="+etcd,
		"--listen-peer-urls=http://127.0.0.1:2380", "--initial-advertise-peer-urls=http://127.0.0.1:2380",
		"--initial-cluster=default=http://127.0.0.1:2380")
	if err != nil {
		return err
	}
	err = c.startProgram("kube-apiserver", lab.Outside, c.Kube, "kube-apiserver",
		"--etcd-servers="+etcd,
		"--bind-address=::", "--secure-port=6443", "--advertise-address="+c.serverHost(),
		"--service-cluster-ip-range="+c.families(serviceNet4, serviceNet6),
		"--tls-cert-file="+c.path("server.crt"), "--tls-private-key-file="+c.path("server.key"), "--cert-dir="+c.path("apiserver"),
		"--token-auth-file="+c.path("tokens.csv"), "--authorization-mode=RBAC", "--anonymous-auth=false",
		"--service-account-issuer=https://kubernetes.default.svc",
		"--service-account-key-file="+c.path("service-accounts.key"),
		"--service-account-signing-key-file="+c.path("service-accounts.key"),
		// As API servers were before v1.36, and as their policies still are: with
		// CIDRs of which nobody can be sure what they mean.
		"--feature-gates=StrictIPCIDRValidation=false",
		"--kubelet-preferred-address-types=InternalIP", "--kubelet-certificate-authority="+c.path("server.crt"),
		// Pods that name no service account have none here; and nobody would take the taint of a new
		// node away, which the node lifecycle controller does.
		"--disable-admission-plugins=ServiceAccount,TaintNodesByCondition",
		"--allow-privileged")
	if err != nil {
		return err
	}
	if err := c.connect(); err != nil {
		return err
	}
	err = await(ctx, "kube-apiserver", func(ctx context.Context) error {
		return c.Client.CoreV1().RESTClient().Get().AbsPath("/readyz").Do(ctx).Error()
	})
	if err != nil {
		return err
	}
	return c.startProgram("kube-controller-manager", lab.Outside, c.Kube, "kube-controller-manager",
		"--kubeconfig="+c.Kubeconfig, "--leader-elect=false",
		"--bind-address=127.0.0.1", "--cert-dir="+c.path("controller-manager"),
		"--root-ca-file="+c.path("server.crt"),
		"--kube-api-qps=500", "--kube-api-burst=500",
		"--controllers=daemonset-controller,deployment-controller,endpointslice-controller,job-controller,namespace-controller,"+
			"replicaset-controller,root-ca-certificate-publisher-controller,serviceaccount-controller")
}
