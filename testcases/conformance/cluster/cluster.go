package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/portcullis-netpol/portcullis/testcases/conformance/node"
	"github.com/portcullis-netpol/portcullis/testcases/conformance/process"
	"github.com/portcullis-netpol/portcullis/testcases/lab"
)

// startTimeout bounds how long any one part takes to get ready. It is generous:
// the machine may be busy. On a slow one it is as many times longer as the laboratory
// waits for packets.
func startTimeout() time.Duration {
	slowdown, _ := strconv.Atoi(os.Getenv("PORTCULLIS_SLOWDOWN")) // the laboratory refuses what is no number
	return 2 * time.Minute * time.Duration(max(slowdown, 1))
}

// Config says which cluster to run.
type Config struct {
	Starter *process.Starter

	Topology  lab.Topology
	IPv6First bool   // whether IPv6 is the primary family; pods and nodes have both
	KubeProxy string // mode: nftables or iptables
	Deny      string // what the agents do with what no policy allows: drop or reject

	// Programs.
	Kube, Agnhost, Portcullis string

	Manifests string // folder with what installs the agent
	DNS       bool   // whether pods find Services by their names
	Dir       string // where the logs go, and until the end all other files
	Logger    *slog.Logger
}

// Cluster is a running cluster.
type Cluster struct {
	Config
	Client     kubernetes.Interface
	Kubeconfig string // file of the administrator

	lab      *lab.Lab
	nodes    *node.Nodes
	secrets  credentials
	address  string // host:port of the API server
	fail     context.CancelCauseFunc
	mu       sync.Mutex
	stopping bool
	running  []*process.Process
}

// Start starts everything but the agents. The context that it returns ends
// when one of the programs does before Stop: its cause says which. The caller
// calls Stop in any case where the error is nil.
func Start(ctx context.Context, cfg Config) (*Cluster, context.Context, error) {
	c := &Cluster{Config: cfg}
	ctx, c.fail = context.WithCancelCause(ctx)
	err := os.MkdirAll(c.path(""), 0o700)
	if err == nil {
		c.lab, err = lab.New(lab.Config{Topology: cfg.Topology})
	}
	if err == nil {
		err = c.start(ctx)
	}
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = cause // which explains it
		}
		c.Stop()
		return nil, nil, err
	}
	return c, ctx, nil
}

func (c *Cluster) start(ctx context.Context) error {
	if err := c.writeCredentials(); err != nil {
		return err
	}
	if err := c.startControlPlane(ctx); err != nil {
		return err
	}
	var err error
	c.nodes, err = node.Start(ctx, node.Config{
		Lab: c.lab, Client: c.Client, IPv6First: c.IPv6First, Agnhost: c.Agnhost, Portcullis: c.Portcullis,
		CertFile: c.path("server.crt"), KeyFile: c.path("server.key"), StateDir: c.path("nodes"), LogDir: c.Dir,
		ServiceHost: c.serviceAddrs(1)[0].String(), DNS: c.nameServers(), Logger: c.Logger,
	})
	if err != nil {
		return err
	}
	if err := c.startProxies(ctx); err != nil || !c.DNS {
		return err
	}
	return c.serveNames(ctx)
}

// Stop ends all programs, lets go of the network and leaves only the logs.
func (c *Cluster) Stop() {
	c.mu.Lock()
	c.stopping = true
	running := slices.Clone(c.running)
	c.mu.Unlock()
	c.fail(errors.New("the cluster is being stopped"))
	if c.nodes != nil {
		if err := c.nodes.Stop(); err != nil {
			c.Logger.Warn("stop the pods", "err", err)
		}
	}
	slices.Reverse(running)
	for _, p := range running {
		p.Stop(0)
	}
	if c.lab != nil {
		if err := c.lab.Close(); err != nil {
			c.Logger.Warn("close laboratory", "err", err)
		}
	}
	if err := os.RemoveAll(c.path("")); err != nil {
		c.Logger.Warn("remove the cluster's files", "err", err)
	}
}

// Nodes returns the names of the nodes.
func (c *Cluster) Nodes() []string { return c.lab.Nodes() }

// NetNS returns a descriptor of the network namespace of a node, or of the host
// on which the API server runs: lab.Outside.
func (c *Cluster) NetNS(endpoint string) int { return c.lab.NetNS(endpoint) }

// NodeAddrs returns the addresses of a node, IPv4 first.
func (c *Cluster) NodeAddrs(node string) []netip.Addr { return c.lab.NodeAddrs(node) }

// In runs f inside the network namespace of an endpoint: a pod ("namespace/name"), a
// node, lab.Outside.
func (c *Cluster) In(endpoint string, f func() error) error { return c.lab.In(endpoint, f) }

// Kubectl runs kubectl as the administrator and returns what it prints.
func (c *Cluster) Kubectl(ctx context.Context, args ...string) (string, error) {
	var out bytes.Buffer
	err := c.Starter.Run(ctx, process.Spec{
		Name: "kubectl", Path: c.Kube, Args: append([]string{"kubectl", "--kubeconfig=" + c.Kubeconfig}, args...),
		Env:   []string{"HOME=" + c.path("")}, // where it keeps what it has discovered
		NetNS: c.lab.NetNS(lab.Outside), Stdout: &out, Stderr: &out,
	})
	if err != nil {
		err = fmt.Errorf("kubectl %s: %w: %s", strings.Join(args, " "), err, out.String())
	}
	return out.String(), err
}

// path returns where a file is that goes when the cluster does.
func (c *Cluster) path(name string) string { return filepath.Join(c.Dir, "state", name) }

// startProgram starts a part of the cluster whose end means the end of all. Its
// output goes to <name>.log.
func (c *Cluster) startProgram(name, at, program string, args ...string) error {
	return c.startWith(c.Starter, name, at, program, args...)
}

func (c *Cluster) startWith(starter *process.Starter, name, at, program string, args ...string) error {
	file, err := os.Create(filepath.Join(c.Dir, name+".log"))
	if err != nil {
		return err
	}
	defer file.Close() // the program has its own copy
	p, err := starter.Start(process.Spec{
		Name: name, Path: program, Args: args, NetNS: c.lab.NetNS(at), Stdout: file, Stderr: file,
	})
	if err != nil {
		return err
	}
	c.mu.Lock()
	c.running = append(c.running, p)
	c.mu.Unlock()
	go func() {
		<-p.Done()
		c.mu.Lock()
		defer c.mu.Unlock()
		if !c.stopping {
			c.fail(fmt.Errorf("%s ended with exit code %d; its log ends with:\n%s", name, p.ExitCode(), tail(file.Name())))
		}
	}()
	return nil
}

func tail(file string) string {
	data, err := os.ReadFile(file)
	if err != nil {
		return err.Error()
	}
	return string(data[max(0, len(data)-2000):])
}

// await asks until there is no error.
func await(ctx context.Context, what string, ask func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout())
	defer cancel()
	for {
		err := ask(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s does not get ready: %w", what, err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// awaitURL waits until an HTTP server inside an endpoint's namespace says 200.
func (c *Cluster) awaitURL(ctx context.Context, what, endpoint, url string) error {
	client := http.Client{
		Timeout:   5 * time.Second,
		Transport: &http.Transport{DialContext: c.DialFrom(endpoint), DisableKeepAlives: true},
	}
	return await(ctx, what, func(ctx context.Context) error {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		response, err := client.Do(request)
		if err != nil {
			return err
		}
		response.Body.Close()
		if response.StatusCode != http.StatusOK {
			return fmt.Errorf("%s: %s", url, response.Status)
		}
		return nil
	})
}

// DialFrom returns a dialer for connections from inside an endpoint. Addresses
// must be literal: a name could be dialled from another thread.
func (c *Cluster) DialFrom(endpoint string) func(ctx context.Context, network, address string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (conn net.Conn, err error) {
		if _, err := netip.ParseAddrPort(address); err != nil {
			return nil, err
		}
		err = c.lab.In(endpoint, func() error {
			conn, err = new(net.Dialer).DialContext(ctx, network, address)
			return err
		})
		return conn, err
	}
}

// connect makes the client of this program.
func (c *Cluster) connect() error {
	config := &rest.Config{
		Host:            "https://" + c.address,
		BearerToken:     c.secrets.adminToken,
		TLSClientConfig: rest.TLSClientConfig{CAData: c.secrets.cert},
		Dial:            c.DialFrom(lab.Outside),
		QPS:             -1,
		// Our own cases know what is doubtful about their policies.
		WarningHandler: rest.NoWarnings{},
	}
	var err error
	c.Client, err = kubernetes.NewForConfig(config)
	return err
}
