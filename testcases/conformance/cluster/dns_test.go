package cluster

import (
	"net/netip"
	"slices"
	"testing"

	"golang.org/x/net/dns/dnsmessage"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
)

func TestNames(t *testing.T) {
	index := cache.NewIndexer(cache.MetaNamespaceKeyFunc, cache.Indexers{})
	for name, addrs := range map[string][]string{"web": {"10.96.1.2", "fd00::2"}, "headless": {corev1.ClusterIPNone}} {
		if err := index.Add(&corev1.Service{
			ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name}, Spec: corev1.ServiceSpec{ClusterIPs: addrs},
		}); err != nil {
			t.Fatal(err)
		}
	}
	n := &names{services: corelisters.NewServiceLister(index)}
	for _, c := range []struct {
		name  string
		kind  dnsmessage.Type
		code  dnsmessage.RCode
		addrs []string
	}{
		{"web.shop.svc.cluster.local.", dnsmessage.TypeA, dnsmessage.RCodeSuccess, []string{"10.96.1.2"}},
		{"web.shop.svc.cluster.local.", dnsmessage.TypeAAAA, dnsmessage.RCodeSuccess, []string{"fd00::2"}},
		{"web.shop.svc.cluster.local.", dnsmessage.TypeMX, dnsmessage.RCodeSuccess, nil},
		{"headless.shop.svc.cluster.local.", dnsmessage.TypeA, dnsmessage.RCodeSuccess, nil},
		{"web.other.svc.cluster.local.", dnsmessage.TypeA, dnsmessage.RCodeNameError, nil},
		{"a.web.shop.svc.cluster.local.", dnsmessage.TypeA, dnsmessage.RCodeNameError, nil},
		{"shop.svc.cluster.local.", dnsmessage.TypeA, dnsmessage.RCodeNameError, nil},
		{"web.", dnsmessage.TypeA, dnsmessage.RCodeNameError, nil},
	} {
		query := dnsmessage.Message{Header: dnsmessage.Header{ID: 7}, Questions: []dnsmessage.Question{
			{Name: dnsmessage.MustNewName(c.name), Type: c.kind, Class: dnsmessage.ClassINET},
		}}
		packed, err := query.Pack()
		if err != nil {
			t.Fatal(err)
		}
		packed, err = n.answer(packed)
		var m dnsmessage.Message
		if err == nil {
			err = m.Unpack(packed)
		}
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		var addrs []string
		for _, a := range m.Answers {
			switch body := a.Body.(type) {
			case *dnsmessage.AResource:
				addrs = append(addrs, netip.AddrFrom4(body.A).String())
			case *dnsmessage.AAAAResource:
				addrs = append(addrs, netip.AddrFrom16(body.AAAA).String())
			}
		}
		if !m.Response || m.ID != 7 || m.RCode != c.code || !slices.Equal(addrs, c.addrs) {
			t.Errorf("%s %v: %+v", c.name, c.kind, m)
		}
	}
	if _, err := n.answer([]byte("no query at all")); err == nil {
		t.Error("it answers anything")
	}
}
