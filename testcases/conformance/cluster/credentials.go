package cluster

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net"
	"net/netip"
	"os"

	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"k8s.io/client-go/util/cert"
)

// credentials are made anew for every cluster.
type credentials struct {
	cert                   []byte // of the API server and the nodes, with its authority
	adminToken, proxyToken string
}

// writeCredentials makes the certificate, the keys and the tokens, and the
// kubeconfig of the administrator.
func (c *Cluster) writeCredentials() error {
	addrs := c.lab.OutsideAddrs()
	if c.IPv6First {
		addrs[0], addrs[1] = addrs[1], addrs[0]
	}
	c.address = netip.AddrPortFrom(addrs[0], 6443).String()
	addrs = append(addrs, serviceAddr(serviceNet4, 1), serviceAddr(serviceNet6, 1))
	for _, n := range c.lab.Nodes() {
		addrs = append(addrs, c.lab.NodeAddrs(n)...)
	}
	var ips []net.IP
	for _, a := range addrs {
		ips = append(ips, a.AsSlice())
	}
	crt, key, err := cert.GenerateSelfSignedCertKey("localhost", ips, nil)
	if err != nil {
		return fmt.Errorf("make certificate: %w", err)
	}
	signer, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return fmt.Errorf("make service account key: %w", err)
	}
	signerPEM := pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(signer)})
	c.secrets = credentials{cert: crt, adminToken: rand.Text(), proxyToken: rand.Text()}
	tokens := c.secrets.adminToken + ",admin,admin,system:masters\n" +
		c.secrets.proxyToken + ",system:kube-proxy,system:kube-proxy\n"
	for name, data := range map[string][]byte{
		"server.crt": crt, "server.key": key, "service-accounts.key": signerPEM, "tokens.csv": []byte(tokens),
	} {
		if err := os.WriteFile(c.path(name), data, 0o600); err != nil {
			return err
		}
	}
	c.Kubeconfig, err = c.writeKubeconfig("admin", c.secrets.adminToken)
	return err
}

// writeKubeconfig writes the file that lets the bearer of a token talk to the
// API server.
func (c *Cluster) writeKubeconfig(name, token string) (string, error) {
	config := clientcmdapi.NewConfig()
	config.Clusters["lab"] = &clientcmdapi.Cluster{Server: "https://" + c.address, CertificateAuthorityData: c.secrets.cert}
	config.AuthInfos[name] = &clientcmdapi.AuthInfo{Token: token}
	config.Contexts["lab"] = &clientcmdapi.Context{Cluster: "lab", AuthInfo: name}
	config.CurrentContext = "lab"
	file := c.path(name + ".kubeconfig")
	if err := clientcmd.WriteToFile(*config, file); err != nil {
		return "", fmt.Errorf("write kubeconfig: %w", err)
	}
	return file, nil
}

// serverHost is the address of the API server.
func (c *Cluster) serverHost() string {
	return netip.MustParseAddrPort(c.address).Addr().String()
}

// serviceAddr returns an address of a network of Services by its number. The first one is
// the API server's.
func serviceAddr(network string, number byte) netip.Addr {
	b := netip.MustParsePrefix(network).Addr().AsSlice()
	b[len(b)-1] = number
	a, _ := netip.AddrFromSlice(b)
	return a
}

// families joins a value per family, that of the primary family first.
func (c *Cluster) families(v4, v6 string) string {
	if c.IPv6First {
		return v6 + "," + v4
	}
	return v4 + "," + v6
}
