package main

import (
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"
	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/portcullis-netpol/portcullis/agent/cni"
	"github.com/portcullis-netpol/portcullis/testcases/lab"
)

// runtimeConf is what a container runtime says of its pod.
func runtimeConf() *libcni.RuntimeConf {
	return &libcni.RuntimeConf{
		ContainerID: "3a1f0c", NetNS: "/nowhere/netns", IfName: "eth0",
		Args: [][2]string{{"IgnoreUnknown", "1"}, {"K8S_POD_NAMESPACE", "shop"}, {"K8S_POD_NAME", "web-0"}, {"K8S_POD_UID", "6f96-1"}},
	}
}

// list is a network of two plugins, the first of which has a fixed result.
func list(t *testing.T, socket, result string) *libcni.NetworkConfigList {
	t.Helper()
	l, err := libcni.NetworkConfFromBytes(fmt.Appendf(nil,
		`{"cniVersion":"1.1.0","name":"pods","plugins":[{"type":%q,"result":%s},{"type":"portcullis-cni","socket":%q,"timeout":"30s"}]}`,
		mainPlugin, result, socket))
	require.NoError(t, err)
	return l
}

// TestChain lets a container runtime's library run a pod's whole life.
func TestChain(t *testing.T) {
	agent := &recorder{}
	l := list(t, serve(t, agent), prevResult)
	rt := runtimeConf()
	runtime := libcni.NewCNIConfigWithCacheDir([]string{binDir}, t.TempDir(), nil)

	_, err := runtime.ValidateNetworkList(t.Context(), l)
	require.NoError(t, err)
	require.NoError(t, runtime.GetStatusNetworkList(t.Context(), l))
	result, err := runtime.AddNetworkList(t.Context(), l, rt)
	require.NoError(t, err)
	require.Equal(t, "1.1.0", result.Version())
	require.NoError(t, runtime.CheckNetworkList(t.Context(), l, rt))
	valid := types.GCAttachment{ContainerID: "3a1f0c", IfName: "eth0"}
	require.NoError(t, runtime.GCNetworkList(t.Context(), l, &libcni.GCArgs{ValidAttachments: []types.GCAttachment{valid}}))
	require.NoError(t, runtime.DelNetworkList(t.Context(), l, rt))
	require.NoError(t, runtime.DelNetworkList(t.Context(), l, rt), "DEL is repeated when in doubt")

	removed := pod(cni.Del)
	removed.Addrs = nil
	require.Equal(t, []cni.Request{
		pod(cni.Add), pod(cni.Check),
		{Command: cni.GC, Valid: []cni.Attachment{{ContainerID: "3a1f0c", Interface: "eth0"}}},
		removed, removed,
	}, agent.noted())
}

// TestChainFails fails the pod with the agent's own words.
func TestChainFails(t *testing.T) {
	l := list(t, serve(t, &recorder{err: errors.New("the kernel is full")}), prevResult)
	runtime := libcni.NewCNIConfigWithCacheDir([]string{binDir}, t.TempDir(), nil)
	_, err := runtime.AddNetworkList(t.Context(), l, runtimeConf())
	require.ErrorContains(t, err, "the agent says: the kernel is full")
}

// node runs f on a thread in a network namespace of its own with a bridge and two
// interfaces whose other ends would be in pods.
func node(t *testing.T, f func() error) {
	t.Helper()
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the namespace ends with the thread
		done <- func() error {
			if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
				return fmt.Errorf("unshare: %w", err)
			}
			links := []netlink.Link{
				&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "cni0"}},
				&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "veth1"}, PeerName: "peer1"},
				&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "veth2"}, PeerName: "peer2"},
			}
			for _, link := range links {
				if err := netlink.LinkAdd(link); err != nil {
					return fmt.Errorf("add %s: %w", link.Attrs().Name, err)
				}
			}
			return f()
		}()
	}()
	require.NoError(t, <-done)
}

// TestHostInterface finds the pod's interface on the node among what results of
// different plugins name, and none where it is not certain.
func TestHostInterface(t *testing.T) {
	lab.Require(t)
	agent := &recorder{}
	socket := serve(t, agent)
	const inside = `{"name":"eth0","sandbox":"/nowhere/netns"}`
	cases := map[string]struct{ interfaces, want string }{
		"ptp":         {`{"name":"veth1"},` + inside, "veth1"},
		"bridge":      {`{"name":"cni0"},{"name":"veth2"},` + inside, "veth2"},
		"named twice": {`{"name":"veth1"},` + inside + `,{"name":"veth1"}`, "veth1"},
		"not there":   {`{"name":"dummy7"},{"name":"veth1"},` + inside, "veth1"},
		"bridge only": {`{"name":"cni0"},` + inside, ""},
		"two of them": {`{"name":"veth1"},{"name":"veth2"},` + inside, ""},
		"pod's own":   {`{"name":"veth1","sandbox":"/nowhere/netns"},` + inside, ""},
		"loopback":    {`{"name":"lo"},` + inside, ""},
		"too long":    {`{"name":"a-name-that-no-interface-has"},` + inside, ""},
		"none":        {inside, ""},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			l := list(t, socket, fmt.Sprintf(`{"cniVersion":"1.1.0","interfaces":[%s],"ips":[{"address":"10.1.0.7/24"}]}`, c.interfaces))
			runtime := libcni.NewCNIConfigWithCacheDir([]string{binDir}, filepath.Join(t.TempDir(), "cache"), nil)
			before := len(agent.noted())
			node(t, func() error {
				_, err := runtime.AddNetworkList(t.Context(), l, runtimeConf())
				return err
			})
			require.Equal(t, c.want, agent.noted()[before].HostInterface)
		})
	}
}
