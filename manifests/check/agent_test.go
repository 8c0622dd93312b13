package check

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
	appsv1 "k8s.io/api/apps/v1"
)

// scraping tells this program that it is a child in namespaces of its own, which runs an
// agent and prints its metrics.
const scraping = "PORTCULLIS_CHECK_SCRAPE"

func TestMain(m *testing.M) {
	if os.Getenv(scraping) != "" {
		if err := printMetrics(os.Args[1:], os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	code := m.Run()
	if built.dir != "" {
		_ = os.RemoveAll(built.dir)
	}
	os.Exit(code)
}

var built struct {
	sync.Once
	dir  string
	text []byte
	err  error
}

// command builds the real command, once, and returns its file.
func command(t *testing.T) string {
	t.Helper()
	built.Do(func() {
		if built.dir, built.err = os.MkdirTemp("", "portcullis-check-"); built.err != nil {
			return
		}
		build := exec.Command("go", "build", "-o", filepath.Join(built.dir, "portcullis"), "./cmd/portcullis")
		build.Dir = "../.."
		built.text, built.err = build.CombinedOutput()
	})
	require.NoError(t, built.err, "%s", built.text)
	return filepath.Join(built.dir, "portcullis")
}

// scrape runs a real agent in a network of its own, with the metrics flag of the chart, and
// returns what it exports.
func scrape(t *testing.T) map[string]metric {
	t.Helper()
	dir := t.TempDir()
	node := "{apiVersion: v1, kind: Node, metadata: {name: node-1}, spec: {podCIDRs: [10.244.1.0/24]}}"
	require.NoError(t, os.WriteFile(filepath.Join(dir, "node.yaml"), []byte(node), 0o600))
	rendered, _, err := helmTemplate([]byte("metrics: {enabled: true}"))
	require.NoError(t, err)
	args := object[*appsv1.DaemonSet](t, decode(t, rendered)).Spec.Template.Spec.Containers[0].Args
	args = slices.DeleteFunc(args, func(a string) bool { return !strings.HasPrefix(a, "--metrics-bind-address=") })
	require.Len(t, args, 1)
	flag := strings.ReplaceAll(args[0], "$(NODE_IP)", "127.0.0.1")

	child := exec.CommandContext(t.Context(), "/proc/self/exe", command(t), "agent", "--node-name=node-1", "--manifests="+dir, flag)
	child.Env = append(os.Environ(), scraping+"=1")
	child.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	if os.Geteuid() != 0 {
		child.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		child.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}}
		child.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}}
	}
	var problem bytes.Buffer
	child.Stderr = &problem
	text, err := child.Output()
	require.NoError(t, err, "%s", problem.String())

	p := expfmt.NewTextParser(model.LegacyValidation)
	families, err := p.TextToMetricFamilies(bytes.NewReader(text))
	require.NoError(t, err)
	out := map[string]metric{}
	for name, f := range families {
		m := metric{kind: f.GetType()}
		for _, l := range f.GetMetric()[0].GetLabel() {
			m.labels = append(m.labels, l.GetName())
		}
		out[name] = m
	}
	return out
}

// printMetrics runs an agent until its metrics are complete, and prints them.
func printMetrics(args []string, out io.Writer) error {
	if err := loopbackUp(); err != nil {
		return fmt.Errorf("lo: %w", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var log bytes.Buffer
	agent := exec.CommandContext(ctx, args[0], args[1:]...)
	agent.Stderr = &log
	agent.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := agent.Start(); err != nil {
		return err
	}
	_, addr, _ := strings.Cut(args[len(args)-1], "=")
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return err
	}
	var text []byte
	for ctx.Err() == nil {
		text, err = get(ctx, "http://"+net.JoinHostPort(host, port)+"/metrics")
		written := bytes.Contains(text, []byte(`portcullis_commit_duration_seconds_count{operation="takeover"} 1`))
		if written && !bytes.Contains(text, []byte("portcullis_obstacle{")) { // and it is ready
			break
		}
		time.Sleep(20 * time.Millisecond) // between two questions
	}
	failed := ctx.Err()
	cancel()
	_ = agent.Wait()
	if failed != nil {
		return fmt.Errorf("%w\n%s\n%s", errors.Join(failed, err), text, log.String())
	}
	_, err = out.Write(text)
	return err
}

func get(ctx context.Context, url string) ([]byte, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	return io.ReadAll(answer.Body)
}

// loopbackUp switches on the loopback interface of a new network namespace.
func loopbackUp() error {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(s)
	r, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	r.SetUint16(uint16(net.FlagUp))
	return unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, r)
}
