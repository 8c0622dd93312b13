package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/portcullis-netpol/portcullis/agent/cni"
	"github.com/portcullis-netpol/portcullis/testcases/lab"
)

// mainPlugin is the name under which this test binary is the plugin that stands
// before ours.
const mainPlugin = "fixed-result"

// binDir is where both plugins are.
var binDir string

func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == mainPlugin {
		os.Exit(runMainPlugin())
	}
	lab.Main(withPlugins{m})
}

// withPlugins runs the tests after it has built the plugin.
type withPlugins struct{ *testing.M }

func (m withPlugins) Run() int {
	dir, err := os.MkdirTemp("", "portcullis-cni")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	build := exec.Command("go", "build", "-o", filepath.Join(dir, cni.PluginType), ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build the plugin: %v\n%s", err, out)
		return 1
	}
	self, err := os.Executable()
	if err == nil {
		err = os.Symlink(self, filepath.Join(dir, mainPlugin))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	binDir = dir
	// The race detector makes each end of the main plugin last a second otherwise.
	if err := os.Setenv("GORACE", "atexit_sleep_ms=0"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.M.Run()
}

// runMainPlugin answers ADD with the result that stands in its configuration.
func runMainPlugin() int {
	var conf struct {
		Result json.RawMessage `json:"result"`
	}
	text, err := io.ReadAll(os.Stdin)
	if err != nil {
		return 1
	}
	switch os.Getenv("CNI_COMMAND") {
	case "ADD":
		if err := json.Unmarshal(text, &conf); err != nil {
			return 1
		}
		fmt.Println(string(conf.Result))
	case "VERSION":
		fmt.Println(`{"cniVersion":"1.1.0","supportedVersions":["0.3.0","0.3.1","0.4.0","1.0.0","1.1.0"]}`)
	}
	return 0
}

// call is one run of the plugin.
type call struct {
	command string
	stdin   string
	env     []string // added to, or in place of, those of a good call
}

// outcome is what came of a call.
type outcome struct {
	stdout, stderr string
	code           int // exit code
}

// run runs the plugin as a container runtime does.
func (c call) run(t *testing.T) outcome {
	t.Helper()
	cmd := exec.Command(filepath.Join(binDir, cni.PluginType))
	cmd.Env = append([]string{
		"CNI_COMMAND=" + c.command,
		"CNI_CONTAINERID=3a1f0c",
		"CNI_NETNS=/nowhere/netns",
		"CNI_IFNAME=eth0",
		"CNI_PATH=" + binDir,
		"CNI_ARGS=" + podArgs,
	}, c.env...)
	cmd.Stdin = strings.NewReader(c.stdin)
	var stdout, stderr strings.Builder
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if _, exited := err.(*exec.ExitError); err != nil && !exited {
		t.Fatal(err)
	}
	return outcome{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}
