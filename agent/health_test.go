package agent

import (
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	clocktesting "k8s.io/utils/clock/testing"
)

func get(h *health, path string) (int, string) {
	w := httptest.NewRecorder()
	h.handler().ServeHTTP(w, httptest.NewRequest("GET", path, nil))
	return w.Code, w.Body.String()
}

// TestHealth serves the reasons as text, and those of /healthz on /readyz as well.
func TestHealth(t *testing.T) {
	clock := clocktesting.NewFakeClock(time.Unix(1e9, 0))
	h := newHealth(clock)
	code, text := get(h, "/readyz")
	require.Equal(t, 503, code)
	require.Equal(t, "objects: the cluster's objects have not all been read yet\nrules: no rules have been written yet\n", text)
	code, text = get(h, "/healthz")
	require.Equal(t, 200, code)
	require.Equal(t, "ok\n", text)

	h.notReady(aboutObjects, "")
	h.notReady(aboutRules, "")
	code, _ = get(h, "/readyz")
	require.Equal(t, 200, code)

	h.unhealthy(aboutRules, "the kernel says no")
	for _, path := range []string{"/healthz", "/readyz"} {
		code, text = get(h, path)
		require.Equal(t, 503, code, path)
		require.Equal(t, "rules: the kernel says no\n", text)
	}
	h.unhealthy(aboutRules, "")

	h.doing("writing rules")
	clock.Step(stuckAfter)
	code, _ = get(h, "/healthz")
	require.Equal(t, 200, code)
	clock.Step(time.Second)
	code, text = get(h, "/healthz")
	require.Equal(t, 503, code)
	require.Equal(t, "loop: writing rules for 2m1s\n", text)
	h.doing("")
	code, _ = get(h, "/healthz")
	require.Equal(t, 200, code)

	code, _ = get(h, "/")
	require.Equal(t, 404, code)
}
