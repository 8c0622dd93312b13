package node

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Reasons of conditions. They are part of what users see and stay as they are.
const (
	// BridgeNetfilterMissing: pods are bridged and br_netfilter is not loaded.
	BridgeNetfilterMissing = "BridgeNetfilterMissing"
	// BridgeNetfilterOff: pods are bridged and a sysctl of br_netfilter is 0.
	BridgeNetfilterOff = "BridgeNetfilterOff"
	// IPVSProxy: the namespace has IPVS services.
	IPVSProxy = "IPVSProxy"
	// NodeUnreadable: it could not be found out whether all is well.
	NodeUnreadable = "NodeUnreadable"
)

// Condition is one thing that lets packets past policies, or may.
type Condition struct {
	// Reason is one of the constants of this package, in CamelCase.
	Reason string
	// Message says for people what is wrong, what it means and what to do.
	Message string
	// Repaired says that the checker has put it right: worth telling, but
	// policies are enforced.
	Repaired bool
}

// String returns reason and message.
func (c Condition) String() string { return c.Reason + ": " + c.Message }

// Config says where a Checker looks and what it may do.
type Config struct {
	// NetNS is a file descriptor of the node's network namespace; 0 means the
	// one of the process.
	NetNS int
	// Manage allows to write sysctls.
	Manage bool
}

// Local is what is known of the pods of the node, hostNetwork pods left out.
// Each of its parts is enough to find their bridge, and all may be empty.
type Local struct {
	// PodCIDRs are the blocks that pods get their addresses from: a bridge
	// with an address in one of them has pods.
	PodCIDRs []netip.Prefix
	// Addrs are the addresses of the pods: a bridge that they are routed to
	// has pods.
	Addrs []netip.Addr
	// Devices are the node's ends of the pods' veths: a bridge that has one of
	// them as a port has pods.
	Devices []string
}

// Checker looks for conditions. It remembers nothing and is safe for concurrent
// use.
type Checker struct {
	netns  int
	manage bool
	proc   string // where proc is mounted
}

// NewChecker returns a Checker. It looks at nothing yet.
func NewChecker(cfg Config) *Checker {
	return &Checker{netns: cfg.NetNS, manage: cfg.Manage, proc: "/proc"}
}

// Report is what a look at the node finds.
type Report struct {
	// Conditions are in a stable order; none means that all is well.
	Conditions []Condition
	// Bridged says that pods are attached to a bridge.
	Bridged bool
}

// Check looks at the node. What it could not look at is a condition too, so the only error is
// that of a context that has ended.
//
// It takes some hundred microseconds, and a few microseconds more for each
// address if there is a bridge. With Config.Manage it also writes.
func (c *Checker) Check(ctx context.Context, local Local) (out Report, err error) {
	if err := ctx.Err(); err != nil {
		return out, err
	}
	err = enter(c.netns, func() error {
		// Without proc, what is missing there would look like what is not.
		if _, err := os.Stat(filepath.Join(c.proc, "thread-self/net/dev")); err != nil {
			return err
		}
		bridges, err := podBridges(local)
		out.Bridged = len(bridges) > 0
		if err != nil {
			out.Conditions = append(out.Conditions, unreadable("the node's bridges", err))
		} else {
			out.Conditions = append(out.Conditions, c.bridges(bridges)...)
		}
		out.Conditions = append(out.Conditions, c.ipvs()...)
		return nil
	})
	if err != nil {
		out.Conditions = append(out.Conditions, unreadable("the node's network settings", err))
	}
	return out, ctx.Err()
}

func unreadable(what string, err error) Condition {
	hint := ""
	if errors.Is(err, os.ErrPermission) {
		hint = " Run the agent with the rights to read it (as root of the node, privileged)."
	}
	return Condition{Reason: NodeUnreadable, Message: fmt.Sprintf("The agent cannot look at %s and so cannot tell whether packets get past policies: %v.%s", what, err, hint)}
}

// bridges reports bridged pods whose packets br_netfilter does not show to the
// inet hooks.
func (c *Checker) bridges(bridges []bridge) []Condition {
	var out []Condition
	for _, f := range families {
		var of, off []string
		for _, b := range bridges {
			if b.pods[f.index] {
				of = append(of, b.name)
			}
			if b.pods[f.index] && !b.calls[f.index] {
				off = append(off, b.name)
			}
		}
		if len(of) == 0 {
			continue
		}
		on, err := c.sysctl(f)
		switch {
		case errors.Is(err, os.ErrNotExist):
			// One condition: a module is missing for both families.
			return []Condition{missing(of)}
		case err != nil:
			out = append(out, unreadable("net.bridge."+f.sysctl, err))
		case !on && len(off) > 0:
			out = append(out, c.off(f, off))
		}
	}
	return out
}

func missing(bridges []string) Condition {
	return Condition{Reason: BridgeNetfilterMissing, Message: fmt.Sprintf(
		"Pods are attached to %s, but the kernel module br_netfilter is not loaded: packets between pods of this node get past all policies. Load it on the node (modprobe br_netfilter, and a line in /etc/modules-load.d to keep it).",
		named(bridges))}
}

// off is the condition of a sysctl that is 0, which it repairs where it may.
func (c *Checker) off(f family, bridges []string) Condition {
	out := Condition{Reason: BridgeNetfilterOff}
	name := "net.bridge." + f.sysctl
	what := fmt.Sprintf("Pods are attached to %s, but %s is 0: %s packets between pods of this node get past all policies.", named(bridges), name, f.name)
	if !c.manage {
		out.Message = fmt.Sprintf("%s Set it to 1 on the node (sysctl -w %s=1), or let the agent do it (--manage-sysctls).", what, name)
		return out
	}
	err := os.WriteFile(c.sysctlPath(f), []byte("1"), 0)
	if err == nil {
		var on bool
		if on, err = c.sysctl(f); err == nil && !on {
			err = errors.New("it stays 0")
		}
	}
	if err != nil {
		out.Message = fmt.Sprintf("%s The agent may not set it (%v): set it to 1 on the node (sysctl -w %s=1).", what, err, name)
		return out
	}
	out.Repaired = true
	out.Message = fmt.Sprintf("%s was 0, although pods are attached to %s: until now %s packets between pods of this node got past all policies. The agent has set it to 1; find out what had set it to 0.", name, named(bridges), f.name)
	return out
}

// named writes "bridge a" or "bridges a, b".
func named(bridges []string) string {
	if len(bridges) == 1 {
		return "bridge " + bridges[0]
	}
	return "bridges " + strings.Join(bridges, ", ")
}

func (c *Checker) sysctlPath(f family) string {
	return filepath.Join(c.proc, "sys/net/bridge", f.sysctl)
}

// sysctl reports whether br_netfilter shows bridged packets of a family to the
// inet hooks. The error wraps os.ErrNotExist if br_netfilter is not loaded.
func (c *Checker) sysctl(f family) (on bool, err error) {
	b, err := os.ReadFile(c.sysctlPath(f))
	if err != nil {
		// A proc/sys that is hidden altogether says nothing about the module.
		if _, errSys := os.Stat(filepath.Join(c.proc, "sys/net/ipv4")); errors.Is(err, os.ErrNotExist) && errSys != nil {
			return false, fmt.Errorf("%v: %w", err, unix.EACCES)
		}
		return false, err
	}
	// The kernel turns whatever is written into 0 or 1.
	return strings.TrimSpace(string(b)) == "1", nil
}
