package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/stretchr/testify/require"

	"github.com/portcullis-netpol/portcullis/agent/cni"
)

const podArgs = "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-0;K8S_POD_INFRA_CONTAINER_ID=3a1f0c;K8S_POD_UID=6f96-1"

// prevResult has numbers, spaces and fields that would not survive being decoded and
// written again.
const prevResult = `{"cniVersion":"1.1.0", "extra": 12345678901234567890,
 "interfaces":[{"name":"cni0"},{"name":"vethnowhere","mtu":1450},{"name":"eth0","sandbox":"/nowhere/netns"}],
 "ips":[{"address":"10.1.0.7/24","gateway":"10.1.0.1","interface":2},{"address":"fd00::7/64","interface":2}],
 "dns":{}}`

// pod is what the agent learns of prevResult and podArgs.
func pod(c cni.Command) cni.Request {
	r := cni.Request{
		Command:    c,
		Attachment: cni.Attachment{ContainerID: "3a1f0c", Interface: "eth0"},
		Namespace:  "shop", Name: "web-0", UID: "6f96-1",
		Addrs: []netip.Addr{netip.MustParseAddr("10.1.0.7"), netip.MustParseAddr("fd00::7")},
	}
	if c == cni.Add {
		r.Subnets = []cni.Subnet{{Prefix: netip.MustParsePrefix("10.1.0.0/24"), Gateway: netip.MustParseAddr("10.1.0.1")}}
	}
	return r
}

// recorder is an agent that notes what it is told and says err.
type recorder struct {
	err  error
	hang bool // never ends before it has to

	mu       sync.Mutex
	requests []cni.Request
}

func (r *recorder) note(ctx context.Context, q cni.Request) error {
	r.mu.Lock()
	r.requests = append(r.requests, q)
	r.mu.Unlock()
	if r.hang {
		<-ctx.Done()
	}
	return r.err
}

func (r *recorder) noted() []cni.Request {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.requests
}

func (r *recorder) Add(ctx context.Context, q cni.Request) error   { return r.note(ctx, q) }
func (r *recorder) Del(ctx context.Context, q cni.Request) error   { return r.note(ctx, q) }
func (r *recorder) Check(ctx context.Context, q cni.Request) error { return r.note(ctx, q) }
func (r *recorder) GC(ctx context.Context, valid []cni.Attachment) error {
	return r.note(ctx, cni.Request{Command: cni.GC, Valid: valid})
}

func place(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "cni") // t.TempDir has the test's name in it: too long
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return filepath.Join(dir, "cni.sock")
}

// serve runs an agent's socket until the test ends.
func serve(t *testing.T, h cni.Handler) (path string) {
	t.Helper()
	path = place(t)
	s, err := cni.Listen(path)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx, h) }()
	t.Cleanup(func() {
		cancel()
		require.NoError(t, <-ended)
	})
	return path
}

// stdin is a configuration with prevResult and what more is said.
func stdin(socket, more string) string {
	return fmt.Sprintf(`{"cniVersion":"1.1.0","name":"pods","type":"portcullis-cni","socket":%q,"prevResult":%s%s}`, socket, prevResult, more)
}

// fails wants an error of the plugin with the code and all of the words.
func (o outcome) fails(t *testing.T, code uint, says ...string) {
	t.Helper()
	require.Equal(t, 1, o.code, "%+v", o)
	var e types.Error
	require.NoError(t, json.Unmarshal([]byte(o.stdout), &e), o.stdout)
	require.Equal(t, code, e.Code, o.stdout)
	for _, text := range says {
		require.Contains(t, e.Error(), text)
	}
}

// TestAdd tells the agent about the pod, and passes the result on, byte for byte.
func TestAdd(t *testing.T) {
	agent := &recorder{}
	o := call{"ADD", stdin(serve(t, agent), ""), nil}.run(t)
	require.Equal(t, outcome{prevResult + "\n", "", 0}, o)
	require.Equal(t, []cni.Request{pod(cni.Add)}, agent.noted())
}

// TestEveryVersion passes the result of each specification on as it is.
func TestEveryVersion(t *testing.T) {
	agent := &recorder{}
	socket := serve(t, agent)
	for _, v := range []string{"0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"} {
		in := strings.ReplaceAll(stdin(socket, ""), `"cniVersion":"1.1.0"`, fmt.Sprintf(`"cniVersion":%q`, v))
		o := call{"ADD", in, nil}.run(t)
		require.Equal(t, 0, o.code, "%+v", o)
		require.Contains(t, o.stdout, fmt.Sprintf(`"cniVersion":%q, "extra": 12345678901234567890`, v))
	}
	require.Len(t, agent.noted(), 5)
	call{"ADD", strings.ReplaceAll(stdin(socket, ""), "1.1.0", "0.2.0"), nil}.run(t).fails(t, types.ErrIncompatibleCNIVersion)
}

// TestAgentsError fails the pod whatever is to be done without an agent.
func TestAgentsError(t *testing.T) {
	socket := serve(t, &recorder{err: errors.New("the kernel is full")})
	for _, mode := range []string{"allow", "fail"} {
		for _, command := range []string{"ADD", "CHECK"} {
			o := call{command, stdin(socket, fmt.Sprintf(`,"onAgentUnreachable":%q`, mode)), nil}.run(t)
			o.fails(t, types.ErrInternal, "the agent says: the kernel is full")
		}
	}
}

// TestAgentUnreachable starts the pod or does not, as it is configured, if there is
// no agent and if there is a slow one.
func TestAgentUnreachable(t *testing.T) {
	agents := map[string]string{
		"away":          place(t),
		"slow":          serve(t, &recorder{hang: true}),
		"slow and late": serve(t, &recorder{hang: true, err: errors.New("late")}),
	}
	for name, socket := range agents {
		t.Run(name, func(t *testing.T) {
			for _, command := range []string{"ADD", "CHECK"} {
				o := call{command, stdin(socket, `,"timeout":"100ms"`), nil}.run(t)
				require.Equal(t, 0, o.code, "%+v", o)
				require.Contains(t, o.stderr, "quarantine")
				require.Equal(t, command == "ADD", o.stdout == prevResult+"\n", o.stdout)
				o = call{command, stdin(socket, `,"timeout":"100ms","onAgentUnreachable":"fail"`), nil}.run(t)
				o.fails(t, types.ErrTryAgainLater, "the agent does not answer", socket)
			}
		})
	}
}

// TestDel succeeds whatever the agent does, and whatever is wrong.
func TestDel(t *testing.T) {
	agent := &recorder{err: errors.New("no")}
	socket := serve(t, agent)
	slow := serve(t, &recorder{hang: true})
	for name, c := range map[string]struct {
		stdin string
		env   []string
		says  string
	}{
		"agent":         {stdin(socket, ""), nil, "the agent says: no"},
		"no prevResult": {fmt.Sprintf(`{"cniVersion":"1.1.0","name":"pods","socket":%q}`, socket), nil, "the agent says: no"},
		"no args":       {stdin(socket, ""), []string{"CNI_ARGS=", "CNI_NETNS="}, "the agent says: no"},
		"away":          {stdin(place(t), `,"onAgentUnreachable":"fail"`), nil, "does not answer"},
		"slow":          {stdin(slow, `,"onAgentUnreachable":"fail","timeout":"50ms"`), nil, "does not answer"},
		"unknown key":   {stdin(socket, `,"sockte":1`), nil, `"sockte"`},
		"hostile":       {stdin(socket, ""), []string{"CNI_ARGS=K8S_POD_NAMESPACE=a\nb;K8S_POD_NAME=c"}, "namespace"},
	} {
		t.Run(name, func(t *testing.T) {
			o := call{"DEL", c.stdin, c.env}.run(t)
			require.Equal(t, 0, o.code, "%+v", o)
			require.Empty(t, o.stdout)
			require.Contains(t, o.stderr, c.says)
		})
	}
	removed := cni.Request{Command: cni.Del, Attachment: cni.Attachment{ContainerID: "3a1f0c", Interface: "eth0"}}
	named := removed
	named.Namespace, named.Name, named.UID = "shop", "web-0", "6f96-1"
	require.ElementsMatch(t, []cni.Request{named, named, removed}, agent.noted())
}

// TestCheck asks about the same pod as ADD.
func TestCheck(t *testing.T) {
	agent := &recorder{}
	o := call{"CHECK", stdin(serve(t, agent), ""), nil}.run(t)
	require.Equal(t, outcome{}, o)
	require.Equal(t, []cni.Request{pod(cni.Check)}, agent.noted())
}

// TestGC passes on which attachments exist.
func TestGC(t *testing.T) {
	agent := &recorder{}
	socket := serve(t, agent)
	gc := func(socket, valid string) outcome {
		return call{"GC", fmt.Sprintf(`{"cniVersion":"1.1.0","name":"pods","socket":%q%s}`, socket, valid), nil}.run(t)
	}
	require.Equal(t, outcome{}, gc(socket, `,"cni.dev/valid-attachments":[{"containerID":"a","ifname":"eth0"},{"containerID":"b","ifname":"net1"}],"cni.dev/attachments":[]`))
	require.Equal(t, outcome{}, gc(socket, `,"cni.dev/valid-attachments":[]`))
	require.Equal(t, []cni.Request{
		{Command: cni.GC, Valid: []cni.Attachment{{ContainerID: "a", Interface: "eth0"}, {ContainerID: "b", Interface: "net1"}}},
		{Command: cni.GC},
	}, agent.noted())
	gc(socket, "").fails(t, types.ErrInvalidNetworkConfig, "cni.dev/valid-attachments is missing")
	gc(socket, `,"cni.dev/valid-attachments":[{"containerID":"a","ifname":"e/h"}]`).fails(t, types.ErrInternal, `valid[0].interface: "e/h"`)
	require.Equal(t, 0, gc(place(t), `,"cni.dev/valid-attachments":[]`).code)
	gc(serve(t, &recorder{err: errors.New("no")}), `,"cni.dev/valid-attachments":[]`).fails(t, types.ErrInternal, "the agent says: no")
}

// TestStatus says whether pods can start.
func TestStatus(t *testing.T) {
	fail := `,"onAgentUnreachable":"fail"`
	require.Equal(t, outcome{}, call{"STATUS", stdin(serve(t, &recorder{}), fail), nil}.run(t))
	o := call{"STATUS", stdin(place(t), ""), nil}.run(t)
	require.Equal(t, 0, o.code)
	require.Contains(t, o.stderr, "pods start in quarantine")
	call{"STATUS", stdin(place(t), fail), nil}.run(t).fails(t, 50, "not available")
}

// TestVersion names the specifications.
func TestVersion(t *testing.T) {
	o := call{"VERSION", "", nil}.run(t)
	require.JSONEq(t, `{"cniVersion":"1.1.0","supportedVersions":["0.3.0","0.3.1","0.4.0","1.0.0","1.1.0"]}`, o.stdout)
	require.Contains(t, call{"", "", nil}.run(t).stderr, "CNI plugin portcullis-cni")
}

// mistakes are calls that are wrong in one way each.
func mistakes(socket string) map[string]struct {
	call call
	code uint
	says []string
} {
	result := func(text string) string {
		return fmt.Sprintf(`{"cniVersion":"1.1.0","name":"pods","socket":%q,"prevResult":%s}`, socket, text)
	}
	env := func(text string) []string { return []string{text} }
	long := strings.Repeat("a", 254)
	return map[string]struct {
		call call
		code uint
		says []string
	}{
		"unknown keys":   {call{"ADD", stdin(socket, `,"onAgentUnreachble":"fail","Socket":1`), nil}, types.ErrInvalidNetworkConfig, []string{`unknown key "Socket", "onAgentUnreachble"`}},
		"wrong values":   {call{"ADD", stdin("cni.sock", `,"timeout":"3","onAgentUnreachable":"ignore"`), nil}, types.ErrInvalidNetworkConfig, []string{`socket: "cni.sock"`, `timeout: "3"`, `onAgentUnreachable: "ignore"`}},
		"wrong type":     {call{"ADD", stdin(socket, `,"timeout":3`), nil}, types.ErrDecodingFailure, []string{"timeout"}},
		"status, too":    {call{"STATUS", stdin(socket, `,"timeuot":"3s"`), nil}, types.ErrInvalidNetworkConfig, []string{`"timeuot"`}},
		"gc, too":        {call{"GC", stdin(socket, `,"timeuot":"3s"`), nil}, types.ErrInvalidNetworkConfig, []string{`"timeuot"`}},
		"no args":        {call{"ADD", stdin(socket, ""), env("CNI_ARGS=")}, types.ErrInvalidEnvironmentVariables, []string{"CNI_ARGS", "K8S_POD_NAMESPACE is missing", "K8S_POD_NAME is missing"}},
		"no name":        {call{"CHECK", stdin(socket, ""), env("CNI_ARGS=K8S_POD_NAMESPACE=shop")}, types.ErrInvalidEnvironmentVariables, []string{"K8S_POD_NAME is missing"}},
		"long name":      {call{"ADD", stdin(socket, ""), env("CNI_ARGS=K8S_POD_NAMESPACE=shop;K8S_POD_NAME=" + long)}, types.ErrInvalidEnvironmentVariables, []string{"name: 254 bytes"}},
		"control":        {call{"ADD", stdin(socket, ""), env("CNI_ARGS=K8S_POD_NAMESPACE=sh\x1bop;K8S_POD_NAME=a")}, types.ErrInvalidEnvironmentVariables, []string{`namespace: "sh\x1bop"`}},
		"container":      {call{"ADD", stdin(socket, ""), env("CNI_CONTAINERID=" + long + "aa")}, types.ErrInvalidEnvironmentVariables, []string{"containerID: 256 bytes"}},
		"no prevResult":  {call{"ADD", fmt.Sprintf(`{"cniVersion":"1.1.0","name":"pods","socket":%q}`, socket), nil}, types.ErrInvalidNetworkConfig, []string{"must stand behind"}},
		"null result":    {call{"ADD", result("null"), nil}, types.ErrInvalidNetworkConfig, []string{"must stand behind"}},
		"no addresses":   {call{"ADD", result(`{}`), nil}, types.ErrInvalidNetworkConfig, []string{"no address of interface eth0 among 0"}},
		"others' ones":   {call{"ADD", result(`{"interfaces":[{"name":"eth0"},{"name":"net1","sandbox":"x"}],"ips":[{"address":"10.1.0.7/24","interface":0},{"address":"10.1.0.8/24","interface":1}]}`), nil}, types.ErrInvalidNetworkConfig, []string{"no address of interface eth0 among 2"}},
		"no such index":  {call{"ADD", result(`{"ips":[{"address":"10.1.0.7/24","interface":0}]}`), nil}, types.ErrInvalidNetworkConfig, []string{"ips[0].interface"}},
		"negative index": {call{"ADD", result(`{"ips":[{"address":"10.1.0.7/24","interface":-1}]}`), nil}, types.ErrInvalidNetworkConfig, []string{"ips[0].interface"}},
		"no prefix":      {call{"ADD", result(`{"ips":[{"address":"10.1.0.7"}]}`), nil}, types.ErrInvalidNetworkConfig, []string{"ips[0].address", "10.1.0.7"}},
		"loopback":       {call{"ADD", result(`{"ips":[{"address":"127.0.0.1/8"}]}`), nil}, types.ErrInvalidNetworkConfig, []string{"ips[0].address", "127.0.0.1"}},
		"result's type":  {call{"ADD", result(`[]`), nil}, types.ErrInvalidNetworkConfig, []string{"prevResult"}},
	}
}

// TestMistakes are named, and none of them reaches the agent.
func TestMistakes(t *testing.T) {
	agent := &recorder{}
	for name, c := range mistakes(serve(t, agent)) {
		t.Run(name, func(t *testing.T) { c.call.run(t).fails(t, c.code, c.says...) })
	}
	require.Empty(t, agent.noted())
}

// TestKeysOfOthers does not mind what the specification lets others put there.
func TestKeysOfOthers(t *testing.T) {
	more := `,"runtimeConfig":{},"capabilities":{"x":true},"args":{"y":1},"dns":{},"ipam":{},"ipMasq":false,"cni.dev/attachments":[],"example.com/z":1`
	o := call{"ADD", stdin(serve(t, &recorder{}), more), nil}.run(t)
	require.Equal(t, outcome{prevResult + "\n", "", 0}, o)
}

// TestAddresses takes those of the pod's interface and of none in particular, once.
func TestAddresses(t *testing.T) {
	r, err := readResult([]byte(`{"interfaces":[{"name":"eth0","sandbox":"x"},{"name":"net1","sandbox":"x"}],"ips":[
		{"address":"10.1.0.7/24"},{"address":"::ffff:10.1.0.7/120"},{"address":"10.9.0.1/24","interface":1},{"address":"fd00::7/64","interface":0}]}`))
	require.NoError(t, err)
	addrs, subnets, err := r.addrsOf("eth0")
	require.NoError(t, err)
	require.Equal(t, pod(cni.Add).Addrs, addrs)
	require.Empty(t, subnets)
}

// TestSubnets takes those of addresses with a gateway, once, in IPv4's own form; a
// gateway that makes no sense is none.
func TestSubnets(t *testing.T) {
	r, err := readResult([]byte(`{"ips":[
		{"address":"10.1.0.7/24","gateway":"10.1.0.1"},{"address":"10.1.0.8/24","gateway":"10.1.0.1"},
		{"address":"::ffff:10.7.0.8/120","gateway":"::ffff:10.7.0.1"},
		{"address":"fd00::7/64","gateway":"fe80::1"},{"address":"10.2.0.7/32","gateway":"169.254.1.1"},
		{"address":"10.3.0.7/24"},{"address":"10.4.0.7/24","gateway":"soon"},{"address":"10.5.0.7/24","gateway":"0.0.0.0"},
		{"address":"10.6.0.7/24","gateway":"fd00::1"},{"address":"fd01::7/64","gateway":"fe80::1%eth0"}]}`))
	require.NoError(t, err)
	_, subnets, err := r.addrsOf("eth0")
	require.NoError(t, err)
	var got []string
	for _, s := range subnets {
		got = append(got, s.Prefix.String()+" "+s.Gateway.String())
	}
	require.Equal(t, []string{"10.1.0.0/24 10.1.0.1", "10.7.0.0/24 10.7.0.1", "fd00::/64 fe80::1", "10.2.0.7/32 169.254.1.1"}, got)
}

// TestSmall keeps the cluster's libraries and the rest of the agent out of a program
// that runs for every pod.
func TestSmall(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", ".").Output()
	require.NoError(t, err)
	const module = "github.com/portcullis-netpol/portcullis/"
	for _, dep := range strings.Fields(string(out)) {
		require.False(t, strings.HasPrefix(dep, "k8s.io/") || strings.HasPrefix(dep, "github.com/google/nftables"), dep)
		if own, ok := strings.CutPrefix(dep, module); ok {
			require.Contains(t, []string{"agent/cni", "agent/socket", "cmd/portcullis-cni"}, own)
		}
	}
}
