package lab

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
)

// Topology is how pods are attached to their node.
type Topology int

const (
	// Routed gives each pod a veth of its own, with the link-local gateways
	// 169.254.1.1 and fe80::1 and one host route per pod address. All pod
	// traffic crosses the node's inet forward hook.
	Routed Topology = iota
	// Bridged puts the pods of a node on a bridge cni0 with hairpin ports.
	// Traffic between two pods of one node crosses the inet hooks only because
	// net.bridge.bridge-nf-call-iptables and -ip6tables are 1 in the node's
	// namespace, and there the bridge is both input and output interface.
	Bridged
)

// String returns "routed" or "bridged".
func (t Topology) String() string {
	if t == Bridged {
		return "bridged"
	}
	return "routed"
}

// ParseTopology reads "routed", "bridged" or its short form "bridge".
func ParseTopology(s string) (Topology, error) {
	switch s {
	case "routed":
		return Routed, nil
	case "bridged", "bridge":
		return Bridged, nil
	}
	return 0, fmt.Errorf("unknown topology %q: want routed or bridge", s)
}

// Outside is the endpoint name of the host outside the cluster.
const Outside = "outside"

// Config says which laboratory to build.
type Config struct {
	Topology   Topology
	IPv4, IPv6 bool     // families; both false means both
	Nodes      []string // names; nil means node-1 and node-2, at most 99
	SCTP       SCTPMode // "" means what PORTCULLIS_SCTP says, or as the kernel allows
	// Slowdown multiplies what a Timing says, for machines that are many times
	// slower than others. 0 means what PORTCULLIS_SLOWDOWN says, or 1.
	Slowdown int
}

// Lab is a running laboratory. Its methods are safe for concurrent use.
type Lab struct {
	cfg     Config
	fabric  *namespace
	outside *namespace
	probing chan struct{} // bounds the probes under way, and with them the descriptors

	mu        sync.Mutex
	endpoints map[string]*namespace // every endpoint, hostNetwork pods included
	nodes     []*node
	pods      map[string]*pod
	addrs     map[netip.Addr]string // owner of every address of a pod
	services  map[string]Service
	made      int // pods ever made, for interface names and link-local addresses
}

// New builds fabric, nodes and the outside host. It needs the rights described
// at [Enter] and changes nothing outside the namespaces it makes.
func New(cfg Config) (*Lab, error) {
	if !cfg.IPv4 && !cfg.IPv6 {
		cfg.IPv4, cfg.IPv6 = true, true
	}
	if cfg.Nodes == nil {
		cfg.Nodes = []string{"node-1", "node-2"}
	}
	cfg.Nodes = slices.Clone(cfg.Nodes)
	if err := checkNodes(cfg.Nodes); err != nil {
		return nil, err
	}
	var err error
	if cfg.SCTP, err = cfg.SCTP.resolve(); err != nil {
		return nil, err
	}
	if cfg.Slowdown, err = slowdown(cfg.Slowdown); err != nil {
		return nil, err
	}
	l := &Lab{
		cfg:       cfg,
		probing:   make(chan struct{}, 1000),
		endpoints: map[string]*namespace{},
		pods:      map[string]*pod{},
		addrs:     map[netip.Addr]string{},
		services:  map[string]Service{},
	}
	if err := l.build(); err != nil {
		return nil, errors.Join(fmt.Errorf("build laboratory: %w", err), l.Close())
	}
	return l, nil
}

func checkNodes(names []string) error {
	if len(names) > 99 {
		return fmt.Errorf("%d nodes: at most 99", len(names))
	}
	seen := map[string]bool{Outside: true, fabricName: true}
	for _, name := range names {
		if name == "" || strings.Contains(name, "/") || seen[name] {
			return fmt.Errorf("node name %q: empty, with a slash, reserved or twice", name)
		}
		seen[name] = true
	}
	return nil
}

// Close stops all servers and lets go of every namespace.
func (l *Lab) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	var errs []error
	closed := map[*namespace]bool{}
	for _, ns := range l.endpoints {
		if !closed[ns] {
			closed[ns] = true
			errs = append(errs, ns.close())
		}
	}
	clear(l.endpoints)
	clear(l.pods)
	clear(l.addrs)
	l.nodes = nil
	return errors.Join(errs...)
}

// Config returns the configuration with its defaults filled in.
func (l *Lab) Config() Config {
	cfg := l.cfg
	cfg.Nodes = slices.Clone(cfg.Nodes)
	return cfg
}

// Nodes returns the node names in the order of the configuration.
func (l *Lab) Nodes() []string { return slices.Clone(l.cfg.Nodes) }

// NodeAddrs returns the node's own addresses on the fabric, IPv4 first: what a
// Node object would list as InternalIP. Nil for an unknown node.
func (l *Lab) NodeAddrs(node string) []netip.Addr {
	i := slices.Index(l.cfg.Nodes, node)
	if i < 0 {
		return nil
	}
	return l.ofFamilies(nodeAddr4(i), nodeAddr6(i))
}

// PodCIDRs returns the node's pod prefixes, IPv4 first. The network address
// and the one behind it (the bridge's) are not for pods. Nil for an unknown node.
func (l *Lab) PodCIDRs(node string) []netip.Prefix {
	i := slices.Index(l.cfg.Nodes, node)
	if i < 0 {
		return nil
	}
	return l.podCIDRs(i)
}

func (l *Lab) podCIDRs(i int) []netip.Prefix {
	var out []netip.Prefix
	if l.cfg.IPv4 {
		out = append(out, podCIDR4(i))
	}
	if l.cfg.IPv6 {
		out = append(out, podCIDR6(i))
	}
	return out
}

// OutsideAddrs returns the addresses that the outside host always has, IPv4
// first, without those of AddOutside.
func (l *Lab) OutsideAddrs() []netip.Addr {
	return l.ofFamilies(outsideAddr4, outsideAddr6)
}

// NetNS returns a descriptor of an endpoint's network namespace: a node, a pod
// ("namespace/name"), [Outside]. It belongs to the Lab, is close-on-exec, and
// is valid until the endpoint is removed or the Lab closed. -1 if there is no
// such endpoint.
func (l *Lab) NetNS(endpoint string) int {
	ns, err := l.endpoint(endpoint)
	if err != nil {
		return -1
	}
	return ns.fd()
}

// In runs f on a thread that is inside the endpoint's network namespace. What f
// opens stays there; goroutines that f starts do not run there.
func (l *Lab) In(endpoint string, f func() error) error {
	ns, err := l.endpoint(endpoint)
	if err != nil {
		return err
	}
	return ns.in(f)
}

func (l *Lab) endpoint(name string) (*namespace, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	ns, ok := l.endpoints[name]
	if !ok {
		return nil, fmt.Errorf("endpoint %q: %w", name, os.ErrNotExist)
	}
	return ns, nil
}

// ofFamilies keeps the addresses of the families that the Lab has, IPv4 first.
func (l *Lab) ofFamilies(addrs ...netip.Addr) []netip.Addr {
	var out []netip.Addr
	for _, a := range addrs {
		if l.hasFamily(a) {
			out = append(out, a)
		}
	}
	slices.SortStableFunc(out, func(a, b netip.Addr) int { return cmp.Compare(a.BitLen(), b.BitLen()) })
	return out
}

func (l *Lab) hasFamily(a netip.Addr) bool {
	return a.Is4() && l.cfg.IPv4 || a.Is6() && l.cfg.IPv6
}

// checkAddr refuses what cannot be the address of an interface here.
func (l *Lab) checkAddr(a netip.Addr) error {
	switch {
	case !a.IsValid() || a.IsUnspecified() || a.IsMulticast() || a.Is4In6() || a.Zone() != "":
		return fmt.Errorf("address %v is not a plain unicast address", a)
	case !l.hasFamily(a):
		return fmt.Errorf("address %v is of a family that this laboratory does not have", a)
	}
	return nil
}
