package main

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"

	"github.com/portcullis-netpol/portcullis/agent"
	"github.com/portcullis-netpol/portcullis/agent/admin"
	"github.com/portcullis-netpol/portcullis/agent/lean"
	"github.com/portcullis-netpol/portcullis/agent/node"
	"github.com/portcullis-netpol/portcullis/agent/socket"
)

// agentFlags are the flags of the agent.
type agentFlags struct {
	node       string
	kubeconfig string
	manifests  string
	health     string
	metrics    string
	admin      string
	rules      rulesFlags
	guard      guardFlags
	log        logFlags
}

func (a *app) agent() *cobra.Command {
	var f agentFlags
	c := &cobra.Command{
		Use:   "agent --node-name NODE [--kubeconfig FILE | --manifests DIR]",
		Short: "Enforce the policies of the pods on this node",
		Long: "Enforce the NetworkPolicies that select the pods on this node, until a signal ends it.\n" +
			"The rules stay in force then; 'portcullis cleanup' removes them.\n\n" +
			"The objects come from the API server (the one of --kubeconfig, or inside of a pod the\n" +
			"cluster's own), or from a directory of YAML files.",
		Example: "  portcullis agent --node-name node-1 --kubeconfig /etc/portcullis/kubeconfig\n" +
			"  portcullis agent --node-name node-1 --manifests /etc/portcullis/manifests --admin-socket " + admin.DefaultSocket,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return a.runAgent(c, &f) },
	}
	flags := c.Flags()
	flags.StringVar(&f.node, "node-name", "", "name of this machine's Node `object` (required)")
	flags.StringVar(&f.kubeconfig, "kubeconfig", "", "kubeconfig `file` of the API server")
	flags.StringVar(&f.manifests, "manifests", "", "`directory` of Kubernetes YAML to follow, without an API server")
	flags.StringVar(&f.health, "healthz-bind-address", "", "`host:port` that serves /healthz and /readyz (default: none)")
	flags.StringVar(&f.metrics, "metrics-bind-address", "", "`host:port` that serves /metrics for Prometheus (default: none)")
	flags.StringVar(&f.admin, "admin-socket", "", "`path` of the socket for status, monitor, audit and explain (default: none)")
	f.rules.add(flags)
	f.guard.add(flags)
	f.log.add(flags)
	if err := c.MarkFlagRequired("node-name"); err != nil {
		panic(err) // the flag is defined above
	}
	c.MarkFlagsMutuallyExclusive("kubeconfig", "manifests")
	return c
}

func (a *app) runAgent(c *cobra.Command, f *agentFlags) error {
	if err := f.validate(); err != nil {
		return wrongInput(err)
	}
	log := f.log.logger(a.stderr)
	source, err := f.source(log)
	if err != nil {
		return wrongInput(err)
	}
	rules, err := f.rules.config()
	if err != nil {
		return wrongInput(err)
	}
	rules.Logger = log
	kernel, err := a.openKernel(rules)
	if err != nil {
		return fmt.Errorf("open nftables: %w", err)
	}
	defer kernel.Close() // changes no rule
	cfg := agent.Config{
		Node:       f.node,
		Source:     source,
		Deny:       rules.Deny,
		PodToNode:  rules.PodToNode,
		Quarantine: f.rules.quarantine.value(),
		PodCIDRs:   rules.PodCIDRs,
		HealthAddr: f.health, MetricsAddr: f.metrics, AdminSocket: f.admin, LogGroup: rules.LogGroup, Version: versionName(),
		Logger: log,
		Kernel: kernel,
	}
	if a.netns >= 0 {
		release, err := node.Claim(a.netns)
		if err != nil {
			return err
		}
		defer func() { _ = release() }()
		done, err := f.guard.apply(&cfg, a.netns)
		if err != nil {
			return err
		}
		defer done()
	}
	log.Info("starting", "node", f.node, "version", versionLine())
	if err := agent.Run(c.Context(), cfg); err != nil {
		return err
	}
	log.Info("stopped; the rules stay in force")
	return nil
}

// validate reports flags that cannot be meant, joined.
func (f *agentFlags) validate() error {
	var errs []error
	for _, reason := range validation.IsDNS1123Subdomain(f.node) {
		errs = append(errs, fmt.Errorf("--node-name %q: %s", f.node, reason))
	}
	if f.manifests != "" {
		info, err := os.Stat(f.manifests)
		if err == nil && !info.IsDir() {
			err = fmt.Errorf("%s is not a directory", f.manifests)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("--manifests: %w", err))
		}
	}
	if f.admin != "" {
		if err := socket.Check(f.admin); err != nil {
			errs = append(errs, fmt.Errorf("--admin-socket: %w", err))
		}
	}
	for _, a := range []struct{ flag, addr string }{{"healthz-bind-address", f.health}, {"metrics-bind-address", f.metrics}} {
		if _, _, err := net.SplitHostPort(a.addr); a.addr != "" && err != nil {
			errs = append(errs, fmt.Errorf("--%s %q: %w", a.flag, a.addr, err))
		}
	}
	return errors.Join(errs...)
}

// source returns where the objects come from.
func (f *agentFlags) source(log *slog.Logger) (agent.Source, error) {
	if f.manifests != "" {
		return agent.Manifests(f.manifests), nil
	}
	config, err := f.restConfig()
	if err != nil {
		return nil, err
	}
	// client-go logs through klog, which belongs to the process.
	klog.SetSlogLogger(log.With("from", "client-go"))
	client, err := lean.NewClient(config)
	if err != nil {
		return nil, fmt.Errorf("API server: %w", err)
	}
	return agent.Kubernetes(client), nil
}

func (f *agentFlags) restConfig() (*rest.Config, error) {
	config, err := f.loadRestConfig()
	if err != nil {
		return nil, err
	}
	config.UserAgent = "portcullis-agent"
	// Without a preference the API server answers in JSON, which is larger.
	config.AcceptContentTypes = "application/vnd.kubernetes.protobuf,application/json"
	config.ContentType = "application/vnd.kubernetes.protobuf"
	return config, nil
}

func (f *agentFlags) loadRestConfig() (*rest.Config, error) {
	if f.kubeconfig != "" {
		config, err := clientcmd.BuildConfigFromFlags("", f.kubeconfig)
		if err != nil {
			return nil, fmt.Errorf("--kubeconfig %s: %w", f.kubeconfig, err)
		}
		return config, nil
	}
	config, err := rest.InClusterConfig()
	if errors.Is(err, rest.ErrNotInCluster) {
		return nil, errors.New("where do the objects come from? Outside of a cluster, --kubeconfig or --manifests is needed")
	}
	if err != nil {
		return nil, fmt.Errorf("API server of the pod's own cluster: %w", err)
	}
	return config, nil
}
