package soak

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/runtime"
	clienttesting "k8s.io/client-go/testing"

	"github.com/portcullis-netpol/portcullis/agent"
	"github.com/portcullis-netpol/portcullis/testcases/lab"
)

// TestNoAPIServer takes the API server away. On one node the agent goes on, on the other
// it is restarted: on both, what is in force stays so, pods that are new stay in
// quarantine, and readiness of the agent that has read nothing says why. When the API
// server is back everything goes on.
func TestNoAPIServer(t *testing.T) {
	for _, topo := range topologies {
		t.Run(topo.String(), func(t *testing.T) {
			t.Parallel()
			lab.Require(t, needs...)
			n := newNursery(t, topo)
			agents, all := n.startServers()
			require.NoError(t, agents["node-1"].stop())
			n.api.silence(true)
			a := n.launch("node-1", func(c *agent.Config) { c.HealthAddr = "127.0.0.1:0" })
			_, addr, _ := strings.Cut(a.log.wait(t, "health endpoint", "address="), "address=")
			for _, log := range []*logbook{a.log, agents["node-2"].log} {
				log.wait(t, "watch ended", errSilent.Error())
			}
			code, text := get(t, "http://"+addr+"/readyz")
			require.Equal(t, http.StatusServiceUnavailable, code)
			require.Contains(t, text, errSilent.Error())
			code, _ = get(t, "http://"+addr+"/healthz")
			require.Equal(t, http.StatusOK, code)

			var births []*birth
			var stops []func()
			for i, node := range n.Nodes() {
				b := &birth{id: uint32(1 + i), name: fmt.Sprintf("p%d", i), node: node, addrs: n.addresses(node, 20), sport: 10000 + 1000*uint16(i)}
				n.births.Store(b.id, b)
				n.live(b)
				births, stops = append(births, b), append(stops, n.flood(b))
			}
			for _, b := range births {
				n.wait(b)
				n.wait(b)
			}
			n.noLeak("without an API server")
			require.Empty(t, a.log.find("table in force"))

			n.api.silence(false)
			for i, b := range births {
				b.announce()
				n.api.makePod(t, b.object(b.addrs...))
				n.through(b)
				stops[i]()
			}
			n.settle()
			eventually(t, "ready", func() bool { code, _ := get(t, "http://"+addr+"/readyz"); return code == http.StatusOK })
			allowed, denied, dropped, passed := all.stop(t)
			n.noLeak("until it was back")
			n.result(fmt.Sprintf("no API server, %s", topo), "one agent restarted meanwhile, one not: %d of %d allowed packets dropped, %d of %d forbidden packets passed, 0 of 2 new pods' %d", dropped, allowed, passed, denied, n.sent.Load())
		})
	}
}

// startServers starts a guarded server and an agent on each node, and floods the
// servers from the other node.
func (n *nursery) startServers() (agents map[string]*running, all floods) {
	n.t.Helper()
	servers := map[string][]netip.Addr{}
	for i, node := range n.Nodes() {
		name := fmt.Sprintf("server-%d", i)
		servers[name] = n.addresses(node, 11)
		require.NoError(n.t, n.AddPod(node, "shop/"+name, servers[name]))
		n.api.makePod(n.t, podOf("shop", name, name, node, map[string]string{"guarded": "yes"}, servers[name]...))
	}
	agents = n.startAll()
	for i := range n.Nodes() {
		name := fmt.Sprintf("server-%d", i)
		for _, a := range servers[name] {
			from := fmt.Sprintf("shop/target-%d", 1-i)
			all = append(all, n.site.flood(from, "shop/"+name, netip.AddrPortFrom(a, openPort), true),
				n.site.flood(from, "shop/"+name, netip.AddrPortFrom(a, closedPort), false))
		}
	}
	return agents, all
}

// silence makes the API server end all watches and refuse to list anything, or ends
// that.
func (a *api) silence(on bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.silent = on
	if on {
		for _, w := range a.open {
			w.Stop()
		}
		a.open = nil
	}
}

var errSilent = errors.New("not today")

// refuse is the reaction of a server that does not want to.
func (a *api) refuse(clienttesting.Action) (bool, runtime.Object, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.silent, nil, errSilent
}

func get(t *testing.T, url string) (code int, text string) {
	t.Helper()
	c := http.Client{Timeout: patience}
	answer, err := c.Get(url)
	require.NoError(t, err)
	defer answer.Body.Close()
	b, err := io.ReadAll(answer.Body)
	require.NoError(t, err)
	return answer.StatusCode, string(b)
}
