package main

import (
	"bytes"
	"context"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"github.com/stretchr/testify/require"

	"github.com/portcullis-netpol/portcullis/nft"
	"github.com/portcullis-netpol/portcullis/testcases/lab"
)

// asCommand makes the test binary be the command, for tests of whole processes.
const asCommand = "PORTCULLIS_TEST_AS_COMMAND"

func TestMain(m *testing.M) {
	if os.Getenv(asCommand) != "" {
		main()
	}
	flag.Parse()
	lab.Main(m, lab.NFTables, lab.NFTBinary)
}

var update = flag.Bool("update", false, "write the golden files anew")

// output is a stream that can be read while it is written.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// wait waits until the text is in the stream.
func (o *output) wait(t *testing.T, text string) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !strings.Contains(o.String(), text); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s\n%s", text, o)
		}
	}
}

// testApp is an app whose kernel is in memory.
func testApp() (a *app, stdout, stderr *output) {
	stdout, stderr = &output{}, &output{}
	a = newApp(stdout, stderr)
	a.netns = -1
	a.stdin = strings.NewReader("")
	k := nft.NewFake()
	a.openKernel = func(nft.Config) (nft.Kernel, error) { return k, nil }
	return a, stdout, stderr
}

// run carries out a command line that ends by itself.
func run(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	a, out, errs := testApp()
	code = a.run(t.Context(), args)
	return code, out.String(), errs.String()
}

// golden compares text with testdata/name.
func golden(t *testing.T, name, text string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, []byte(text), 0o644))
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err, "run the test with -update to make it")
	require.Equal(t, string(want), text, "%s (run the test with -update if this is right)", path)
}

// exitCodes are command lines, their exit codes, and what they say on stderr: all of
// it, or nothing.
var exitCodes = map[string]struct {
	args []string
	code int
	says []string // all of them on stderr
}{
	"nothing":           {nil, exitOK, nil},
	"help":              {[]string{"--help"}, exitOK, nil},
	"version":           {[]string{"version"}, exitOK, nil},
	"unknown command":   {[]string{"frobnicate"}, exitInput, []string{"frobnicate", "portcullis --help"}},
	"unknown flag":      {[]string{"version", "--frobnicate"}, exitInput, []string{"--frobnicate"}},
	"argument too many": {[]string{"cleanup", "now"}, exitInput, []string{`"now"`}},

	"agent without node":      {[]string{"agent"}, exitInput, []string{`"node-name"`}},
	"agent empty node":        {[]string{"agent", "--node-name", ""}, exitInput, []string{"--node-name"}},
	"agent bad node":          {[]string{"agent", "--node-name", "Node_1", "--manifests", "testdata/shop"}, exitInput, []string{`--node-name "Node_1"`}},
	"agent two sources":       {[]string{"agent", "--node-name", "n", "--manifests", "testdata/shop", "--kubeconfig", "x"}, exitInput, []string{"kubeconfig manifests"}},
	"agent no source":         {[]string{"agent", "--node-name", "n"}, exitInput, []string{"--kubeconfig or --manifests"}},
	"agent no directory":      {[]string{"agent", "--node-name", "n", "--manifests", "testdata/nowhere"}, exitInput, []string{"--manifests", "testdata/nowhere"}},
	"agent file as directory": {[]string{"agent", "--node-name", "n", "--manifests", "app.go"}, exitInput, []string{"--manifests", "app.go is not a directory"}},
	"agent no kubeconfig":     {[]string{"agent", "--node-name", "n", "--kubeconfig", "testdata/nowhere"}, exitInput, []string{"--kubeconfig testdata/nowhere", "no such file"}},
	"agent bad kubeconfig":    {[]string{"agent", "--node-name", "n", "--kubeconfig", "app.go"}, exitInput, []string{"--kubeconfig app.go"}},
	"agent bad deny":          {[]string{"agent", "--node-name", "n", "--deny", "ignore"}, exitInput, []string{"--deny", "drop, reject"}},
	"agent bad pod-to-node":   {[]string{"agent", "--node-name", "n", "--pod-to-node", "maybe"}, exitInput, []string{"--pod-to-node", "enforce, allow"}},
	"agent bad pod-cidrs":     {[]string{"agent", "--node-name", "n", "--manifests", "testdata/shop", "--pod-cidrs", "10.244.1.0"}, exitInput, []string{"--pod-cidrs", `"10.244.1.0"`}},
	"agent all pod-cidrs":     {[]string{"agent", "--node-name", "n", "--manifests", "testdata/shop", "--pod-cidrs", "10.244.1.0/24,::/0"}, exitInput, []string{"--pod-cidrs", "::/0 is the whole family"}},
	"agent bad quarantine":    {[]string{"agent", "--node-name", "n", "--quarantine", "no"}, exitInput, []string{"--quarantine", "on, off"}},
	"agent bad level":         {[]string{"agent", "--node-name", "n", "--log-level", "loud"}, exitInput, []string{"--log-level"}},
	"agent bad format":        {[]string{"agent", "--node-name", "n", "--log-format", "xml"}, exitInput, []string{"--log-format"}},
	"agent bad health":        {[]string{"agent", "--node-name", "n", "--manifests", "testdata/shop", "--healthz-bind-address", "here"}, exitInput, []string{`--healthz-bind-address "here"`}},
	"agent bad manifests":     {[]string{"agent", "--node-name", "node-1", "--manifests", "testdata/bad"}, exitFailure, []string{"testdata/bad/policy.yaml, document 2", "NetworkPolicy shop/typo", "spec.podSelectors"}},

	"render without files": {[]string{"render", "--node", "n"}, exitInput, []string{`"filename"`}},
	"render without node":  {[]string{"render", "-f", "testdata/shop"}, exitInput, []string{`"node"`}},
	"render empty node":    {[]string{"render", "-f", "testdata/shop", "--node", ""}, exitInput, []string{"--node is empty"}},
	"render bad file":      {[]string{"render", "-f", "testdata/bad", "--node", "n"}, exitInput, []string{"testdata/bad/policy.yaml, document 2", "NetworkPolicy shop/typo", "spec.podSelectors"}},
	"render no file":       {[]string{"render", "-f", "testdata/nowhere", "--node", "n"}, exitInput, []string{"testdata/nowhere"}},
	"render bad pod-cidrs": {[]string{"render", "-f", "testdata/shop", "--node", "n", "--pod-cidrs", "10.244.1.0/33"}, exitInput, []string{"--pod-cidrs", `"10.244.1.0/33"`}},
	"render all pod-cidrs": {[]string{"render", "-f", "testdata/shop", "--node", "n", "--pod-cidrs", "0.0.0.0/0"}, exitInput, []string{"--pod-cidrs", "0.0.0.0/0 is the whole family"}},
	"render bad Node":      {[]string{"render", "-f", "testdata/badnode", "--node", "all"}, exitInput, []string{"Node all", "every address there is"}},
	"render old bad Node":  {[]string{"render", "-f", "testdata/badnode", "--node", "old"}, exitInput, []string{"Node old", `"10.244.9.0"`}},
	"render":               {[]string{"render", "-f", "testdata/shop", "--node", "node-9"}, exitOK, []string{`no pod of these files is on node "node-9"`}},

	"explain without source": {[]string{"explain", "a/b", "a/c", "tcp/1"}, exitInput, []string{"where do the objects come from"}},
	"explain arguments":      {[]string{"explain", "-f", "testdata/shop", "a/b"}, exitInput, []string{"between 2 and 3 arg"}},
	"explain without port":   {explainShop("testdata/shop", "shop/auth", "shop/users"), exitInput, []string{"which port? Write shop/users:8080"}},
	"explain two ports":      {explainShop("testdata/shop", "shop/auth", "shop/users:1", "tcp/2"), exitInput, []string{`"shop/users:1" has a port already`}},
	"explain odd protocol":   {explainShop("testdata/shop", "shop/auth", "shop/users:1/icmp"), exitInput, []string{"tcp, udp or sctp"}},
	"explain big pod port":   {explainShop("testdata/shop", "shop/auth", "shop/users:65536"), exitInput, []string{"1 to 65535"}},
	"explain port of source": {explainShop("testdata/shop", "shop/auth:80", "shop/users:1"), exitInput, []string{"SRC"}},
	"explain no such name":   {explainShop("testdata/shop", "shop/auth", "shop/users:web"), exitInput, []string{`has no tcp port named "web"`}},
	"explain two sources":    {append(explainShop("testdata/shop", "shop/auth", "shop/users:1"), "--agent"), exitInput, []string{"not from more than one"}},
	"explain no agent":       {[]string{"explain", "--agent=testdata/nowhere", "shop/auth", "shop/users:1"}, exitInput, []string{"testdata/nowhere", "--admin-socket"}},
	"agent admin socket":     {[]string{"agent", "--node-name", "n", "--manifests", "testdata/shop", "--admin-socket", "x.sock"}, exitInput, []string{"--admin-socket"}},
	"agent nflog group":      {[]string{"agent", "--node-name", "n", "--manifests", "testdata/shop", "--nflog-group", "0"}, exitInput, []string{"--nflog-group"}},
	"render nflog group":     {[]string{"render", "-f", "testdata/shop", "--node", "n", "--nflog-group", "65536"}, exitInput, []string{"--nflog-group"}},
	"status no agent":        {[]string{"status", "--agent=testdata/nowhere"}, exitInput, []string{"no agent answers at testdata/nowhere"}},
	"status two sources":     {[]string{"status", "--agent", "--node", "n"}, exitInput, []string{"--node are for a cluster"}},
	"status no cluster":      {[]string{"status"}, exitInput, []string{"which agents?"}},
	"status odd policy":      {[]string{"status", "--policy", "x"}, exitInput, []string{`--policy "x": must be namespace/name`}},
	"status no time":         {[]string{"status", "--timeout", "0"}, exitInput, []string{"--timeout"}},
	"status odd namespace":   {[]string{"status", "--agent-namespace", "A b"}, exitInput, []string{"--agent-namespace"}},
	"monitor odd pod":        {[]string{"monitor", "--pod", "x"}, exitInput, []string{`--pod "x"`}},
	"monitor odd port":       {[]string{"monitor", "--port", "gre/1"}, exitInput, []string{"--port"}},
	"monitor odd reason":     {[]string{"monitor", "--reason", "mood"}, exitInput, []string{"any, policy, audit, quarantine, cut"}},
	"audit odd policy":       {[]string{"audit", "--policy", "x"}, exitInput, []string{`--policy "x"`}},
	"explain bad file":       {explainShop("testdata/bad", "1.2.3.4", "1.2.3.5", "tcp/1"), exitInput, []string{"testdata/bad/policy.yaml"}},
	"explain no pod":         {explainShop("testdata/shop", "shop/web", "shop/auth", "tcp/1"), exitInput, []string{"SRC: no pod shop/web", "shop/frontend"}},
	"explain no namespace":   {explainShop("testdata/shop", "shop/auth", "shoop/auth", "tcp/1"), exitInput, []string{"DST: no pod shoop/auth", "namespace shoop has none"}},
	"explain neither":        {explainShop("testdata/shop", "frontend", "shop/auth", "tcp/1"), exitInput, []string{`SRC "frontend": neither namespace/pod nor an IP address`}},
	"explain zone":           {explainShop("testdata/shop", "fe80::1%eth0", "shop/auth", "tcp/1"), exitInput, []string{"zone"}},
	"explain families":       {explainShop("testdata/shop", "::1", "10.0.0.1", "tcp/1"), exitInput, []string{"no address family in common"}},
	"explain named port":     {explainShop("testdata/shop", "shop/auth", "shop/users", "tcp/http"), exitInput, []string{`"tcp/http"`, "1 to 65535"}},
	"explain no port":        {explainShop("testdata/shop", "shop/auth", "shop/users", "udp"), exitInput, []string{`"udp"`, "udp/8080"}},
	"explain port 0":         {explainShop("testdata/shop", "shop/auth", "shop/users", "udp/0"), exitInput, []string{`"udp/0"`}},
	"explain big port":       {explainShop("testdata/shop", "shop/auth", "shop/users", "udp/65536"), exitInput, []string{`"udp/65536"`}},
	"explain protocol":       {explainShop("testdata/shop", "shop/auth", "shop/users", "gre/1"), exitInput, []string{`"gre/1"`, "tcp, udp, sctp or icmp"}},
	"explain icmp port":      {explainShop("testdata/shop", "shop/auth", "shop/users", "icmp/8"), exitInput, []string{"icmp has no ports"}},
	"explain output":         {append(explainShop("testdata/shop", "shop/auth", "shop/users", "icmp"), "-o", "xml"), exitInput, []string{"text, json"}},
	"demo bad topology":      {[]string{"demo", "--topology", "ring"}, exitInput, []string{"--topology", "routed, bridge"}},
	"demo bad family":        {[]string{"demo", "--ip-family", "5"}, exitInput, []string{"--ip-family", "dual, 4, 6"}},
	"demo no file":           {[]string{"demo", "-f", "testdata/nowhere"}, exitInput, []string{"testdata/nowhere"}},
	"demo bad file":          {[]string{"demo", "-f", "testdata/bad"}, exitInput, []string{"testdata/bad/policy.yaml", "spec.podSelectors"}},
	"explain allowed":        {explainShop("testdata/shop", "shop/frontend", "shop/users", "tcp/8081"), exitOK, nil},
	"explain denied":         {explainShop("testdata/shop", "shop/frontend", "shop/users", "tcp/8080"), exitFailure, nil},
}

// TestExitCodes gives each kind of mistake its exit code and says what is wrong.
func TestExitCodes(t *testing.T) {
	t.Setenv("KUBERNETES_SERVICE_HOST", "")
	t.Setenv("KUBECONFIG", "testdata/nowhere")
	t.Setenv("HOME", t.TempDir())
	for name, c := range exitCodes {
		t.Run(name, func(t *testing.T) {
			code, _, stderr := run(t, c.args...)
			require.Equal(t, c.code, code, stderr)
			for _, text := range c.says {
				require.Contains(t, stderr, text)
			}
			if len(c.says) == 0 {
				require.Empty(t, stderr)
			}
		})
	}
}

func explainShop(args ...string) []string { return append([]string{"explain", "-f"}, args...) }

// TestVersion prints one line.
func TestVersion(t *testing.T) {
	_, stdout, _ := run(t, "version")
	require.Regexp(t, `^portcullis .+, go1\.[^ ]+ linux/\w+\n$`, stdout)
}

// TestHelp names every command.
func TestHelp(t *testing.T) {
	_, stdout, _ := run(t)
	for _, command := range []string{"agent", "audit", "cleanup", "completion", "demo", "explain", "install-cni", "matrix", "monitor", "render", "status", "version"} {
		require.Contains(t, stdout, "\n  "+command+" ")
	}
}

// TestExamples walks the tree of commands: each says what it is for, and shows how.
func TestExamples(t *testing.T) {
	a, _, _ := testApp()
	var walk func(c *cobra.Command)
	walk = func(c *cobra.Command) {
		if c.Hidden {
			return
		}
		require.NotEmpty(t, c.Short, c.CommandPath())
		require.Contains(t, c.Example, "portcullis", c.CommandPath())
		for line := range strings.Lines(c.Long) {
			require.LessOrEqual(t, len(strings.TrimRight(line, "\n")), 100, "%s: %s", c.CommandPath(), line)
		}
		for _, sub := range c.Commands() {
			walk(sub)
		}
	}
	walk(a.root(new(bool)))
}

// startApp runs a command line that ends when told to.
func startApp(a *app, args ...string) (stop func() int) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan int, 1)
	go func() { ended <- a.run(ctx, args) }()
	return func() int {
		cancel()
		return <-ended
	}
}
