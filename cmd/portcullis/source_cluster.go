package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/pflag"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/portcullis-netpol/portcullis/policy/manifest"
)

// clusterFlags name a cluster the way kubectl does.
type clusterFlags struct {
	kubeconfig, context string
}

func (f *clusterFlags) add(to *pflag.FlagSet) {
	to.StringVar(&f.kubeconfig, "kubeconfig", "", "kubeconfig `file` of the cluster (default: as kubectl)")
	to.StringVar(&f.context, "context", "", "`name` of the context in the kubeconfig")
}

func (f *clusterFlags) given() bool { return f.kubeconfig != "" || f.context != "" }

func (f *clusterFlags) config() clientcmd.ClientConfig {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = f.kubeconfig
	return clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, &clientcmd.ConfigOverrides{CurrentContext: f.context})
}

// describe names the cluster, for a title.
func (f *clusterFlags) describe() string {
	raw, err := f.config().RawConfig()
	if name := f.context; name != "" || err != nil {
		return "cluster of context " + name
	}
	return "cluster of context " + raw.CurrentContext
}

// connect reads the kubeconfig. Nothing is asked of the cluster yet.
func (f *clusterFlags) connect() (*rest.Config, kubernetes.Interface, error) {
	if f.kubeconfig != "" {
		if _, err := os.Stat(f.kubeconfig); err != nil {
			return nil, nil, wrongInput(fmt.Errorf("--kubeconfig: %w", err))
		}
	}
	config, err := f.config().ClientConfig()
	if clientcmd.IsEmptyConfig(err) {
		return nil, nil, wrongInput(errNoCluster)
	}
	if err != nil {
		return nil, nil, wrongInput(fmt.Errorf("kubeconfig: %w", sanitized(err)))
	}
	config.UserAgent = "portcullis"
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, nil, wrongInput(fmt.Errorf("API server: %w", sanitized(err)))
	}
	return config, client, nil
}

// errNoCluster is that there is no kubeconfig.
var errNoCluster = errors.New("which cluster? There is no kubeconfig; give one with --kubeconfig")

// objects lists what the cluster has.
func (f *clusterFlags) objects(ctx context.Context, p *progress) (*manifest.Objects, error) {
	_, client, err := f.connect()
	if errors.Is(err, errNoCluster) {
		return nil, wrongInput(errors.New("where do the objects come from? Give files with -f, a cluster with --kubeconfig, or --agent on a node"))
	}
	if err != nil {
		return nil, err
	}
	defer p.done()
	return listObjects(ctx, client, p)
}

// listObjects lists what decides who reaches whom. Nodes may be forbidden: then nothing is said about them.
func listObjects(ctx context.Context, client kubernetes.Interface, p *progress) (*manifest.Objects, error) {
	o := &manifest.Objects{}
	err := errors.Join(
		list(p, "namespaces", func(l metav1.ListOptions) (string, error) {
			page, err := client.CoreV1().Namespaces().List(ctx, l)
			o.Namespaces = appendPage(o.Namespaces, page, err, func(p *corev1.NamespaceList) []corev1.Namespace { return p.Items })
			return next(page, err)
		}),
		list(p, "pods", func(l metav1.ListOptions) (string, error) {
			page, err := client.CoreV1().Pods("").List(ctx, l)
			o.Pods = appendPage(o.Pods, page, err, func(p *corev1.PodList) []corev1.Pod { return p.Items })
			return next(page, err)
		}),
		list(p, "networkpolicies", func(l metav1.ListOptions) (string, error) {
			page, err := client.NetworkingV1().NetworkPolicies("").List(ctx, l)
			o.Policies = appendPage(o.Policies, page, err, func(p *networkingv1.NetworkPolicyList) []networkingv1.NetworkPolicy { return p.Items })
			return next(page, err)
		}))
	if err != nil {
		return nil, err
	}
	err = list(p, "nodes", func(l metav1.ListOptions) (string, error) {
		page, err := client.CoreV1().Nodes().List(ctx, l)
		o.Nodes = appendPage(o.Nodes, page, err, func(p *corev1.NodeList) []corev1.Node { return p.Items })
		return next(page, err)
	})
	if err != nil && !apierrors.IsForbidden(err) {
		return nil, err
	}
	return o, nil
}

// services lists the Services of a cluster, for those who ask about one.
func (f *clusterFlags) services(ctx context.Context, p *progress) ([]*corev1.Service, error) {
	_, client, err := f.connect()
	if err != nil {
		return nil, err
	}
	defer p.done()
	var out []*corev1.Service
	err = list(p, "services", func(l metav1.ListOptions) (string, error) {
		page, err := client.CoreV1().Services("").List(ctx, l)
		out = appendPage(out, page, err, func(p *corev1.ServiceList) []corev1.Service { return p.Items })
		return next(page, err)
	})
	return out, err
}

// list asks page by page, as large clusters want it.
func list(p *progress, what string, page func(metav1.ListOptions) (string, error)) error {
	options := metav1.ListOptions{Limit: 500}
	for pages := 0; ; pages++ {
		p.tell(fmt.Sprintf("listing %s, %d so far", what, pages*500))
		more, err := page(options)
		if err != nil {
			return fmt.Errorf("list %s: %w", what, sanitized(err))
		}
		if more == "" {
			return nil
		}
		options.Continue = more
	}
}

// appendPage adds pointers to the objects of a page.
func appendPage[T, L any](to []*T, page L, err error, items func(L) []T) []*T {
	if err != nil {
		return to
	}
	list := items(page)
	for i := range list {
		to = append(to, &list[i])
	}
	return to
}

func next(page metav1.ListInterface, err error) (string, error) {
	if err != nil {
		return "", err
	}
	return page.GetContinue(), nil
}
