package node

import (
	"context"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/portcullis-netpol/portcullis/testcases/conformance/process"
)

// probe keeps a container's readiness up to date until its process has ended. Until it is
// ready it is asked every second, which is more often than a kubelet would.
func (n *Nodes) probe(node string, box *sandbox, c *program, running *process.Process, changed func()) {
	p, failures := *c.spec.ReadinessProbe, int32(0)
	for {
		ok := p.HTTPGet != nil && n.askHTTP(node, box, c.spec, *p.HTTPGet, time.Duration(p.TimeoutSeconds)*time.Second)
		if failures++; ok {
			failures = 0
		}
		box.mu.Lock()
		if c.process != running {
			box.mu.Unlock()
			return // it is another one's readiness by now
		}
		was := c.ready
		if ok || failures >= p.FailureThreshold {
			c.ready = ok
		}
		now := c.ready
		box.mu.Unlock()
		if now != was {
			changed()
		}
		pause := time.Second
		if now {
			pause = time.Duration(p.PeriodSeconds) * time.Second
		}
		select {
		case <-running.Done():
			return
		case <-time.After(pause):
		}
	}
}

// askHTTP asks from the node, as its kubelet would.
func (n *Nodes) askHTTP(node string, box *sandbox, c corev1.Container, get corev1.HTTPGetAction, timeout time.Duration) bool {
	host, port := get.Host, get.Port.IntValue()
	if host == "" {
		host = box.addrs[0].String()
	}
	for _, p := range c.Ports {
		if get.Port.Type == intstr.String && p.Name == get.Port.StrVal {
			port = int(p.ContainerPort)
		}
	}
	target := url.URL{Scheme: "http", Host: net.JoinHostPort(host, strconv.Itoa(port)), Path: get.Path}
	client := http.Client{Timeout: timeout, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, address string) (conn net.Conn, err error) {
			err = n.Lab.In(node, func() error {
				conn, err = new(net.Dialer).DialContext(ctx, network, address)
				return err
			})
			return conn, err
		},
	}}
	response, err := client.Get(target.String())
	if err != nil {
		return false
	}
	response.Body.Close()
	return response.StatusCode >= 200 && response.StatusCode < 400
}
