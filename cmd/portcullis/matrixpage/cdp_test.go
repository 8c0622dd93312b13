//go:build browser

package matrixpage

import (
	"bufio"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// browser is a headless Chromium, spoken to through a pipe: JSON messages that end with a zero byte.
type browser struct {
	t       *testing.T
	to      *os.File
	session string

	mu       sync.Mutex
	answers  map[int]chan message
	sent     int
	requests []string // addresses that were asked for
	trouble  []string // exceptions, and messages of the console
	loaded   chan struct{}
}

func startBrowser(t *testing.T, width, height int) *browser {
	t.Helper()
	path, err := exec.LookPath("chromium")
	require.NoError(t, err, "the tests with the tag browser need chromium")
	theirs, ours, err := os.Pipe()
	require.NoError(t, err)
	from, answers, err := os.Pipe()
	require.NoError(t, err)
	c := exec.Command(path, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
		"--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--hide-scrollbars", "--remote-debugging-pipe",
		"--user-data-dir="+t.TempDir(), fmt.Sprintf("--window-size=%d,%d", width, height), "about:blank")
	c.ExtraFiles = []*os.File{theirs, answers}
	require.NoError(t, c.Start())
	require.NoError(t, theirs.Close())
	require.NoError(t, answers.Close())
	b := &browser{t: t, to: ours, answers: map[int]chan message{}, loaded: make(chan struct{}, 8)}
	read := make(chan struct{})
	go func() {
		defer close(read)
		b.read(from)
	}()
	t.Cleanup(func() {
		b.session = ""
		b.call("Browser.close", nil)
		_ = c.Wait()
		<-read
	})
	var target struct{ TargetID string }
	b.into(&target, "Target.createTarget", map[string]any{"url": "about:blank"})
	var session struct{ SessionID string }
	b.into(&session, "Target.attachToTarget", map[string]any{"targetId": target.TargetID, "flatten": true})
	b.session = session.SessionID
	b.call("Emulation.setDeviceMetricsOverride", map[string]any{"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false})
	for _, domain := range []string{"Page", "Runtime", "Network", "Log"} {
		b.call(domain+".enable", nil)
	}
	return b
}

type message struct {
	ID     int             `json:"id"`
	Method string          `json:"method"`
	Params json.RawMessage `json:"params"`
	Result json.RawMessage `json:"result"`
	Error  json.RawMessage `json:"error"`
}

// read takes what the browser says until it ends.
func (b *browser) read(from *os.File) {
	r := bufio.NewReader(from)
	for {
		text, err := r.ReadBytes(0)
		if err != nil {
			b.mu.Lock()
			for _, a := range b.answers {
				close(a)
			}
			b.answers = nil
			b.mu.Unlock()
			return
		}
		var m message
		if json.Unmarshal(text[:len(text)-1], &m) != nil {
			continue
		}
		b.mu.Lock()
		switch {
		case m.ID != 0:
			b.answers[m.ID] <- m
			delete(b.answers, m.ID)
		case m.Method == "Network.requestWillBeSent":
			var p struct{ Request struct{ URL string } }
			_ = json.Unmarshal(m.Params, &p)
			b.requests = append(b.requests, p.Request.URL)
		case m.Method == "Runtime.exceptionThrown", m.Method == "Log.entryAdded", m.Method == "Runtime.consoleAPICalled":
			b.trouble = append(b.trouble, string(m.Params))
		case m.Method == "Page.loadEventFired":
			b.loaded <- struct{}{}
		}
		b.mu.Unlock()
	}
}

// call sends a command and waits for its answer.
func (b *browser) call(method string, params any) json.RawMessage {
	b.t.Helper()
	if params == nil {
		params = map[string]any{}
	}
	b.mu.Lock()
	b.sent++
	id := b.sent
	answer := make(chan message, 1)
	if b.answers != nil {
		b.answers[id] = answer
	} else {
		close(answer)
	}
	b.mu.Unlock()
	m := map[string]any{"id": id, "method": method, "params": params}
	if b.session != "" {
		m["sessionId"] = b.session
	}
	text, err := json.Marshal(m)
	require.NoError(b.t, err)
	_, err = b.to.Write(append(text, 0))
	require.NoError(b.t, err)
	is := <-answer
	require.Empty(b.t, is.Error, "%s: %s", method, is.Error)
	return is.Result
}

func (b *browser) into(v any, method string, params any) {
	b.t.Helper()
	text := b.call(method, params)
	require.NoError(b.t, json.Unmarshal(text, v), "%s: %s", method, text)
}

// open shows a page from a file.
func (b *browser) open(p Page, hash string) {
	b.t.Helper()
	var html strings.Builder
	require.NoError(b.t, Write(&html, p))
	b.openText(html.String(), hash)
}

// openText shows the text of a page from a file.
func (b *browser) openText(html, hash string) {
	b.t.Helper()
	file := filepath.Join(b.t.TempDir(), "page.html")
	require.NoError(b.t, os.WriteFile(file, []byte(html), 0o600))
	b.mu.Lock()
	b.requests, b.trouble = nil, nil
	b.mu.Unlock()
	answer := b.call("Page.navigate", map[string]any{"url": "file://" + file + hash})
	require.NotContains(b.t, string(answer), "errorText")
	<-b.loaded
}

// eval runs a script in the page and decodes what it comes to.
func eval[T any](b *browser, script string) T {
	b.t.Helper()
	var answer struct {
		Result           struct{ Value json.RawMessage }
		ExceptionDetails json.RawMessage
	}
	b.into(&answer, "Runtime.evaluate", map[string]any{"expression": script, "returnByValue": true, "awaitPromise": true})
	require.Empty(b.t, answer.ExceptionDetails, "%s", answer.ExceptionDetails)
	var v T
	require.NoError(b.t, json.Unmarshal(answer.Result.Value, &v), "%s: %s", script, answer.Result.Value)
	return v
}

// press presses a key.
func (b *browser) press(key string) {
	b.t.Helper()
	for _, kind := range []string{"keyDown", "keyUp"} {
		b.call("Input.dispatchKeyEvent", map[string]any{"type": kind, "key": key, "code": key})
	}
}

// clean requires that nothing went wrong and that nothing but the page was asked for.
func (b *browser) clean() {
	b.t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	require.Empty(b.t, b.trouble)
	require.Len(b.t, b.requests, 1, "%q", b.requests)
	require.True(b.t, strings.HasPrefix(b.requests[0], "file:///"), b.requests[0])
}

// capture takes a picture of what is in the window, as a PNG.
func (b *browser) capture() []byte {
	b.t.Helper()
	var shot struct{ Data string }
	b.into(&shot, "Page.captureScreenshot", map[string]any{"format": "png"})
	data, err := base64.StdEncoding.DecodeString(shot.Data)
	require.NoError(b.t, err)
	return data
}

// screenshot writes a picture to $PORTCULLIS_SCREENSHOTS, if that is set.
func (b *browser) screenshot(name string) {
	b.t.Helper()
	if dir := os.Getenv("PORTCULLIS_SCREENSHOTS"); dir != "" {
		require.NoError(b.t, os.WriteFile(filepath.Join(dir, name+".png"), b.capture(), 0o600))
	}
}
