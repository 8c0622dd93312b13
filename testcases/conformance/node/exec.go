package node

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"strconv"
	"time"

	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
	"k8s.io/utils/exec"
)

// execPort is where a kubelet listens.
const execPort = 10250

// serve answers the API server's requests to a kubelet, for exec and logs, on every address of a node,
// until the context ends.
func (n *Nodes) serve(ctx context.Context, node string) error {
	cert, err := tls.LoadX509KeyPair(n.CertFile, n.KeyFile)
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/exec/{namespace}/{pod}/{container}", n.handleExec)
	mux.HandleFunc("/containerLogs/{namespace}/{pod}/{container}", n.handleLogs)
	server := &http.Server{
		Handler:   mux,
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{cert}},
		// SPDY takes connections over, which HTTP/2 does not allow.
		TLSNextProto: map[string]func(*http.Server, *tls.Conn, http.Handler){},
		ErrorLog:     log.New(io.Discard, "", 0),
	}
	for _, addr := range n.Lab.NodeAddrs(node) {
		var listener net.Listener
		err := n.Lab.In(node, func() (err error) {
			listener, err = net.Listen("tcp", net.JoinHostPort(addr.String(), strconv.Itoa(execPort)))
			return err
		})
		if err != nil {
			return err
		}
		go func() {
			if err := server.ServeTLS(listener, "", ""); !errors.Is(err, http.ErrServerClosed) {
				n.Logger.Error("kubelet endpoint ended", "node", node, "err", err)
			}
		}()
	}
	context.AfterFunc(ctx, func() { _ = server.Close() })
	return nil
}

func (n *Nodes) handleExec(w http.ResponseWriter, r *http.Request) {
	key := r.PathValue("namespace") + "/" + r.PathValue("pod")
	options, err := remotecommand.NewOptions(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	remotecommand.ServeExec(w, r, executor{n}, key, "", r.PathValue("container"), r.Form["command"], options,
		time.Hour, remotecommand.DefaultStreamCreationTimeout, remotecommand.SupportedStreamingProtocols)
}

// handleLogs answers with all that a container has written so far, whatever part was asked
// for.
func (n *Nodes) handleLogs(w http.ResponseWriter, r *http.Request) {
	pod := r.PathValue("namespace") + "/" + r.PathValue("pod")
	file, err := os.Open(n.logFile(pod, r.PathValue("container")))
	if err != nil {
		http.Error(w, "only the logs of agents are kept here", http.StatusNotFound)
		return
	}
	defer file.Close()
	_, _ = io.Copy(w, file)
}

// executor runs commands in the pods of Nodes.
type executor struct{ nodes *Nodes }

// ExecInContainer runs a command in a container. The pod is namespace/name.
func (e executor) ExecInContainer(ctx context.Context, pod string, _ string, name string, command []string,
	in io.Reader, out, errOut io.WriteCloser, _ bool, _ <-chan remotecommand.TerminalSize, _ time.Duration) error {
	box := e.nodes.sandbox(pod)
	if box == nil {
		return fmt.Errorf("pod %s does not run here", pod)
	}
	s := streams{in: in}
	if out != nil {
		s.out = out
	}
	if errOut != nil {
		s.err = errOut
	}
	code, err := e.nodes.runIn(ctx, box, name, command, s)
	if err != nil {
		return err
	}
	if code != 0 {
		return exec.CodeExitError{Err: fmt.Errorf("exit code %d", code), Code: code}
	}
	return nil
}
