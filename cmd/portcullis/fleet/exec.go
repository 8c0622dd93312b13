package fleet

import (
	"context"
	"fmt"
	"io"
	"net/http"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/streaming/pkg/httpstream"
)

// podExec runs commands as `kubectl exec` does.
type podExec struct {
	config    *rest.Config
	client    kubernetes.Interface
	namespace string
}

// Exec returns a Runner for the agents' pods of a namespace. It speaks WebSocket, and SPDY
// with API servers, or proxies before them, that know nothing else.
func Exec(config *rest.Config, namespace string) (Runner, error) {
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	return &podExec{config, client, namespace}, nil
}

func (e *podExec) Run(ctx context.Context, pod string, command []string, stdin io.Reader, stdout, stderr io.Writer) error {
	url := e.client.CoreV1().RESTClient().Post().Namespace(e.namespace).Resource("pods").Name(pod).SubResource("exec").
		VersionedParams(&corev1.PodExecOptions{
			Container: Container, Command: command, Stdin: stdin != nil, Stdout: true, Stderr: true,
		}, scheme.ParameterCodec).URL()
	websocket, err := remotecommand.NewWebSocketExecutor(e.config, http.MethodGet, url.String())
	if err != nil {
		return fmt.Errorf("WebSocket: %w", err)
	}
	spdy, err := remotecommand.NewSPDYExecutor(e.config, http.MethodPost, url)
	if err != nil {
		return fmt.Errorf("SPDY: %w", err)
	}
	either, err := remotecommand.NewFallbackExecutor(websocket, spdy, func(err error) bool {
		return httpstream.IsUpgradeFailure(err) || httpstream.IsHTTPSProxyError(err)
	})
	if err != nil {
		return err
	}
	return either.StreamWithContext(ctx, remotecommand.StreamOptions{Stdin: stdin, Stdout: stdout, Stderr: stderr})
}
