package fleet

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/remotecommand"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/exec"
)

// execServer is an API server's exec subresource: it says what it was asked, and ends
// with the exit code in the query of the command.
func execServer(t *testing.T, stdinEnded chan<- bool, refused chan<- string) *rest.Config {
	t.Helper()
	upgrader := websocket.Upgrader{Subprotocols: []string{remotecommand.StreamProtocolV5Name}}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		if q.Get("command") == "refuse" {
			refused <- r.Method + " " + r.Header.Get("Upgrade")
			w.WriteHeader(http.StatusForbidden)
			_ = json.NewEncoder(w).Encode(metav1.Status{Status: metav1.StatusFailure, Reason: metav1.StatusReasonForbidden, Code: http.StatusForbidden, Message: "not for you"})
			return
		}
		conn, err := upgrader.Upgrade(w, r, nil)
		if err != nil {
			return
		}
		defer conn.Close()
		send := func(stream byte, text string) {
			_ = conn.WriteMessage(websocket.BinaryMessage, append([]byte{stream}, text...))
		}
		send(remotecommand.StreamStdOut, r.URL.Path+" "+q.Get("container")+" "+strings.Join(q["command"], " "))
		send(remotecommand.StreamStdErr, "said")
		for q.Get("stdin") == "true" {
			if _, _, err := conn.ReadMessage(); err != nil {
				stdinEnded <- true
				return
			}
		}
		status := metav1.Status{Status: metav1.StatusSuccess}
		if q.Get("command") == "fail" {
			status = metav1.Status{Status: metav1.StatusFailure, Reason: remotecommand.NonZeroExitCodeReason,
				Details: &metav1.StatusDetails{Causes: []metav1.StatusCause{{Type: remotecommand.ExitCodeCauseType, Message: "3"}}}}
		}
		text, _ := json.Marshal(status)
		send(remotecommand.StreamErr, string(text))
		_ = conn.WriteMessage(websocket.CloseMessage, websocket.FormatCloseMessage(websocket.CloseNormalClosure, ""))
	}))
	t.Cleanup(server.Close)
	return &rest.Config{Host: server.URL}
}

// TestExec speaks the WebSocket protocol of the exec subresource.
func TestExec(t *testing.T) {
	ended, refused := make(chan bool, 1), make(chan string, 2)
	r, err := Exec(execServer(t, ended, refused), "portcullis")
	require.NoError(t, err)
	agents := []Agent{{Node: "n", Pod: "pod-1"}}
	ask := func(command ...string) Answer { return Ask(t.Context(), r, agents, command, time.Minute, nil)[0] }

	is := ask("portcullis", "status", "--agent")
	require.NoError(t, is.Err)
	require.Equal(t, "/api/v1/namespaces/portcullis/pods/pod-1/exec agent portcullis status --agent", string(is.Out))
	require.Equal(t, "said", is.Said)

	is = ask("fail")
	require.NoError(t, is.Err)
	require.Equal(t, 3, is.Code)
	require.Contains(t, string(is.Out), "agent fail")

	is = ask("refuse")
	require.Error(t, is.Err)
	require.ErrorContains(t, is.Err, "not for you")
	require.Equal(t, []string{"GET websocket", "POST SPDY/3.1"}, []string{<-refused, <-refused})
	var code exec.CodeExitError
	require.False(t, errors.As(is.Err, &code))

	// The command learns that nobody listens any more.
	ctx, cancel := context.WithCancel(t.Context())
	heard := ""
	Follow(ctx, r, agents, []string{"listen\n"}, func(_ Agent, text []byte) { heard = string(text); cancel() }, func(Agent, error) {})
	require.Contains(t, heard, "agent listen")
	<-ended
}
