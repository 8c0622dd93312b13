package cluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"

	"golang.org/x/net/dns/dnsmessage"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	corelisters "k8s.io/client-go/listers/core/v1"

	"github.com/portcullis-netpol/portcullis/testcases/conformance/node"
	"github.com/portcullis-netpol/portcullis/testcases/lab"
)

// dnsNumber is that of the address of the cluster's name server, in the networks of
// Services.
const dnsNumber = 10

// serviceAddrs returns one address of each family, that of the primary family first.
func (c *Cluster) serviceAddrs(number byte) []netip.Addr {
	addrs := []netip.Addr{serviceAddr(serviceNet4, number), serviceAddr(serviceNet6, number)}
	if c.IPv6First {
		addrs[0], addrs[1] = addrs[1], addrs[0]
	}
	return addrs
}

func (c *Cluster) nameServers() []netip.Addr {
	if !c.DNS {
		return nil
	}
	return c.serviceAddrs(dnsNumber)[:1]
}

// serveNames answers, on the host outside, for the names of Services, as far as they have
// addresses of their own, and makes the Service by which pods ask.
func (c *Cluster) serveNames(ctx context.Context) error {
	factory := informers.NewSharedInformerFactory(c.Client, 0)
	names := &names{services: factory.Core().V1().Services().Lister()}
	factory.Start(ctx.Done())
	factory.WaitForCacheSync(ctx.Done())
	host := net.JoinHostPort(c.serverHost(), "53")
	var conn net.PacketConn
	err := c.lab.In(lab.Outside, func() (err error) {
		conn, err = net.ListenPacket("udp", host)
		return err
	})
	if err != nil {
		return err
	}
	context.AfterFunc(ctx, func() { _ = conn.Close() })
	go names.serve(conn)
	return await(ctx, "the cluster's name server", c.createDNS)
}

// createDNS creates the Service and what it leads to, which is no pod.
func (c *Cluster) createDNS(ctx context.Context) error {
	const namespace, name = "kube-system", "kube-dns"
	port, number, udp := "dns", int32(53), corev1.ProtocolUDP
	family := discoveryv1.AddressTypeIPv4
	if c.IPv6First {
		family = discoveryv1.AddressTypeIPv6
	}
	_, err1 := c.Client.CoreV1().Services(namespace).Create(ctx, &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: corev1.ServiceSpec{
			ClusterIP: c.nameServers()[0].String(),
			Ports:     []corev1.ServicePort{{Name: port, Protocol: udp, Port: number}},
		},
	}, metav1.CreateOptions{})
	_, err2 := c.Client.DiscoveryV1().EndpointSlices(namespace).Create(ctx, &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Name: name, Labels: map[string]string{discoveryv1.LabelServiceName: name}},
		AddressType: family,
		Endpoints:   []discoveryv1.Endpoint{{Addresses: []string{c.serverHost()}}},
		Ports:       []discoveryv1.EndpointPort{{Name: &port, Protocol: &udp, Port: &number}},
	}, metav1.CreateOptions{})
	var errs []error
	for _, err := range []error{err1, err2} {
		if !apierrors.IsAlreadyExists(err) { // an earlier attempt's
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// names knows the addresses of Services.
type names struct{ services corelisters.ServiceLister }

func (s *names) serve(conn net.PacketConn) {
	buffer := make([]byte, 1500)
	for {
		n, from, err := conn.ReadFrom(buffer)
		if err != nil {
			return
		}
		if answer, err := s.answer(buffer[:n]); err == nil {
			_, _ = conn.WriteTo(answer, from)
		}
	}
}

// answer answers a query with one question.
func (s *names) answer(query []byte) ([]byte, error) {
	var m dnsmessage.Message
	if err := m.Unpack(query); err != nil {
		return nil, err
	}
	if m.Response || len(m.Questions) != 1 {
		return nil, fmt.Errorf("not a query with one question")
	}
	m.Response, m.Authoritative, m.RecursionAvailable = true, true, true
	m.Additionals = nil
	question := m.Questions[0]
	addrs, known := s.lookup(question.Name.String())
	if !known {
		m.RCode = dnsmessage.RCodeNameError
	}
	header := dnsmessage.ResourceHeader{Name: question.Name, Class: question.Class, TTL: 5}
	for _, a := range addrs {
		switch {
		case question.Type == dnsmessage.TypeA && a.Is4():
			m.Answers = append(m.Answers, dnsmessage.Resource{Header: header, Body: &dnsmessage.AResource{A: a.As4()}})
		case question.Type == dnsmessage.TypeAAAA && a.Is6():
			m.Answers = append(m.Answers, dnsmessage.Resource{Header: header, Body: &dnsmessage.AAAAResource{AAAA: a.As16()}})
		}
	}
	return m.Pack()
}

// lookup returns the addresses of <service>.<namespace>.svc.<domain>.
func (s *names) lookup(name string) ([]netip.Addr, bool) {
	rest, ok := strings.CutSuffix(name, ".svc."+node.ClusterDomain+".")
	service, namespace, two := strings.Cut(rest, ".")
	if !ok || !two {
		return nil, false
	}
	found, err := s.services.Services(namespace).Get(service)
	if err != nil {
		return nil, false
	}
	var addrs []netip.Addr
	for _, text := range found.Spec.ClusterIPs {
		if a, err := netip.ParseAddr(text); err == nil {
			addrs = append(addrs, a)
		}
	}
	return addrs, true
}
