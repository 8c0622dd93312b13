package node

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/client-go/util/cert"

	"github.com/portcullis-netpol/portcullis/testcases/lab"
)

func TestMain(m *testing.M) { lab.Main(m) }

// agnhost stands for the program of that name: it serves on port 8080 until it is told to
// end, and remembers in a volume that it was.
const agnhost = `package main

import ("fmt"; "net/http"; "os"; "os/signal"; "syscall")

func main() {
	if os.Args[1] == "print" {
		fmt.Println(os.Args[2:], os.Getenv("NODE"))
		return
	}
	term := make(chan os.Signal, 1)
	signal.Notify(term, syscall.SIGTERM)
	go func() {
		<-term
		os.WriteFile("/state/ended", []byte(os.Args[2]), 0o600)
		os.Exit(0)
	}()
	http.HandleFunc("/ready", func(http.ResponseWriter, *http.Request) {})
	http.HandleFunc("/exit", func(http.ResponseWriter, *http.Request) { os.Exit(3) })
	panic(http.ListenAndServe(":8080", nil))
}
`

func start(t *testing.T) (*Nodes, *fake.Clientset) {
	t.Helper()
	dir := t.TempDir()
	crt, key, err := cert.GenerateSelfSignedCertKey("localhost", nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{"crt": crt, "key": key, "agnhost.go": []byte(agnhost)} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	build := exec.Command("go", "build", "-o", filepath.Join(dir, "agnhost"), filepath.Join(dir, "agnhost.go"))
	build.Env = append(build.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	network, err := lab.New(lab.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = network.Close() })
	client := fake.NewClientset()
	ctx, cancel := context.WithCancel(t.Context())
	n, err := Start(ctx, Config{
		Lab: network, Client: client, Agnhost: filepath.Join(dir, "agnhost"), StateDir: filepath.Join(dir, "state"), LogDir: dir,
		CertFile: filepath.Join(dir, "crt"), KeyFile: filepath.Join(dir, "key"), Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		cancel()
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		if err := n.Stop(); err != nil {
			t.Error(err)
		}
	})
	return n, client
}

func testPod() *corev1.Pod {
	kind, grace := corev1.HostPathDirectoryOrCreate, int64(60)
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web", UID: "1"},
		Spec: corev1.PodSpec{
			NodeName: "node-1", RestartPolicy: corev1.RestartPolicyAlways, TerminationGracePeriodSeconds: &grace,
			Containers: []corev1.Container{{
				Name: "main", Image: "agnhost", Command: []string{"/agnhost"}, Args: []string{"serve", "by $(NODE)"},
				Env: []corev1.EnvVar{{Name: "NODE", ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: "spec.nodeName"}}}},
				ReadinessProbe: &corev1.Probe{
					ProbeHandler:   corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Port: intstr.FromInt32(8080), Path: "/ready"}},
					TimeoutSeconds: 5, PeriodSeconds: 3600, FailureThreshold: 3,
				},
				VolumeMounts: []corev1.VolumeMount{{Name: "state", MountPath: "/state"}},
			}},
			Volumes: []corev1.Volume{{Name: "state", VolumeSource: corev1.VolumeSource{
				HostPath: &corev1.HostPathVolumeSource{Path: "/var/state", Type: &kind},
			}}},
		},
	}
}

// TestPodsLife: a container becomes ready by its probe, runs commands, starts again when it
// has ended, and is told when its pod goes.
func TestPodsLife(t *testing.T) {
	n, client := start(t)
	pods := client.CoreV1().Pods("shop")
	changes, err := pods.Watch(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer changes.Stop()
	await := func(what string, is func(*corev1.Pod, corev1.ContainerStatus) bool) *corev1.Pod {
		t.Helper()
		for change := range changes.ResultChan() {
			p := change.Object.(*corev1.Pod)
			if len(p.Status.ContainerStatuses) == 1 && is(p, p.Status.ContainerStatuses[0]) {
				return p
			}
		}
		t.Fatalf("the pod is never %s", what)
		return nil
	}
	if _, err := pods.Create(t.Context(), testPod(), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	p := await("ready", func(_ *corev1.Pod, c corev1.ContainerStatus) bool { return c.Ready })

	client0, never, err := os.Pipe() // as a terminal in which nobody types
	if err != nil {
		t.Fatal(err)
	}
	defer never.Close()
	defer client0.Close()
	var out bytes.Buffer
	box := n.sandbox("shop/web")
	code, err := n.runIn(t.Context(), box, "main", []string{"/agnhost", "print", "a b"}, streams{in: struct{ io.Reader }{client0}, out: &out})
	if code != 0 || err != nil || out.String() != "[a b] node-1\n" {
		t.Errorf("exit code %d, %v: %q", code, err, out.String())
	}

	addr := netip.MustParseAddr(p.Status.PodIP)
	// The answer is that it has ended.
	n.askHTTP("node-1", box, p.Spec.Containers[0], corev1.HTTPGetAction{Host: addr.String(), Port: intstr.FromInt32(8080), Path: "/exit"}, 0)
	p = await("ready again", func(_ *corev1.Pod, c corev1.ContainerStatus) bool { return c.Ready && c.RestartCount == 1 })
	if last := p.Status.ContainerStatuses[0].LastTerminationState.Terminated; last == nil || last.ExitCode != 3 {
		t.Errorf("it ended with %+v", last)
	}

	now, grace := metav1.Now(), int64(60)
	p.DeletionTimestamp, p.DeletionGracePeriodSeconds = &now, &grace
	if err := n.terminate(t.Context(), "shop/web", n.sandbox("shop/web"), p); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(n.StateDir, "node-1", "var/state/ended"))
	if string(text) != "by node-1" {
		t.Errorf("it was not told to end: %q, %v", text, err)
	}
}

func TestImages(t *testing.T) {
	n := &Nodes{Config: Config{Agnhost: "a", Portcullis: "p"}}
	for _, c := range []struct {
		image, command, args, want string
		file                       string
	}{
		{"agnhost", "/agnhost porter", "", "porter", "a"},
		{"registry.example:5000/agnhost:2.1", "", "netexec --port=$(PORT)", "netexec --port=80", "a"},
		{"anything", "", "", "pause", "a"},
		{"anything", "/bin/sh", "-c x", "!", "a"},
		{"registry.example:5000/portcullis:v1", "portcullis", "agent", "agent", "p"},
		{"portcullis@sha256:0", "", "version", "version", "p"},
		{"portcullis", "/agnhost", "", "!", "p"},
	} {
		i := n.imageOf(c.image)
		got, err := i.command(corev1.Container{Command: strings.Fields(c.command), Args: strings.Fields(c.args)}, map[string]string{"PORT": "80"})
		if (err != nil) != (c.want == "!") || err == nil && strings.Join(got, " ") != c.want || i.file != c.file {
			t.Errorf("%+v: %s of %q, %v", c, got, i.file, err)
		}
	}
}

// TestBind: a pod of a DaemonSet goes to the node that it was made for.
func TestBind(t *testing.T) {
	network, err := lab.New(lab.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer network.Close()
	client := fake.NewClientset()
	n := &Nodes{Config: Config{Lab: network, Client: client}}
	for _, node := range []string{"node-2", "node-2", "node-1"} {
		p := testPod()
		p.Spec.NodeName = ""
		p.Spec.Affinity = &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{
			NodeSelectorTerms: []corev1.NodeSelectorTerm{{MatchFields: []corev1.NodeSelectorRequirement{
				{Key: "metadata.name", Operator: corev1.NodeSelectorOpIn, Values: []string{node}},
			}}},
		}}}
		if err := n.bind(t.Context(), p); err != nil {
			t.Fatal(err)
		}
		actions := client.Actions()
		binding := actions[len(actions)-1].(clienttesting.CreateAction).GetObject().(*corev1.Binding)
		if binding.Target.Name != node {
			t.Errorf("%s, not %s", binding.Target.Name, node)
		}
	}
}
