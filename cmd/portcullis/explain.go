package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
)

const explainLong = `Say whether the first packet of a connection from SRC to DST may pass, and which policy, rule and
selector decide. The objects come from files, from this node's agent (--agent), or from a cluster:
that of --kubeconfig, of $KUBECONFIG or of ~/.kube/config. Nothing is changed there.

SRC is namespace/pod or an IP address. DST is
  namespace/pod:PORT       a pod: a number, or the name of a container port
  ADDRESS:PORT             an IP address, as in 10.1.2.3:80 or [fd00::1]:80
  svc/namespace/name:PORT  the pods behind a Service: a number or a name, of the Service's ports
PORT is tcp if it does not say 53/udp; a Service's port says its protocol itself. It may be left
out of DST and follow as PROTOCOL/PORT: tcp/8080, udp/53, sctp/9 or icmp. A pod's port is its own,
behind any Service. Whether a pod is ready does not matter to policies.

In files, workloads stand for their pods: Deployment web has web-0, web-1 and so on. Pods without
addresses get some.

Policies in audit mode deny nothing; what they would deny is said.

Exit code 0: allowed; 1: denied (in one address family, or by one pod of a Service, at least);
2: error.`

func (a *app) explain() *cobra.Command {
	var source sourceFlags
	output := textOrJSON()
	c := &cobra.Command{
		Use:   "explain [-f PATH...] SRC DST[:PORT] [PROTOCOL/PORT]",
		Short: "Say whether a packet may pass, and which policy and rule decide",
		Long:  explainLong,
		Example: fmt.Sprintf(`  %[1]s explain shop/frontend-0 svc/shop/users:http         # of the cluster
  %[1]s explain shop/frontend-0 shop/users-0:8080
  %[1]s explain --agent shop/frontend-0 kube-system/dns-0:53/udp
  %[1]s explain -f ./manifests shop/frontend-0 shop/users-0 tcp/8080
  %[1]s explain -f ./manifests 198.51.100.7 shop/frontend-0 icmp`, a.name),
		Args: cobra.RangeArgs(2, 3),
		ValidArgsFunction: func(c *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
			if len(args) > 1 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return completePod(c, typed)
		},
		RunE: func(c *cobra.Command, args []string) error {
			return a.explainFlow(c.Context(), &source, args, output.value())
		},
	}
	source.add(c.Flags())
	c.Flags().VarP(&output, "output", "o", "how to print the answer")
	return c
}

func (a *app) explainFlow(ctx context.Context, source *sourceFlags, args []string, asJSON bool) error {
	to, err := parseDestination(args[1:])
	if err != nil {
		return wrongInput(fmt.Errorf("DST %w", err))
	}
	cluster, err := a.explained(ctx, source, to)
	if err != nil {
		var is *failure
		if !errors.As(err, &is) {
			return &failure{exitInput, err} // 1 would mean that it is denied
		}
		return err
	}
	src, err1 := cluster.end("SRC", args[0])
	targets, err2 := cluster.targets(to)
	if err := errors.Join(err1, err2); err != nil {
		return wrongInput(sanitized(err))
	}
	answer, err := cluster.answer(src, to, targets)
	if err != nil {
		return wrongInput(sanitized(err))
	}
	for _, w := range answer.Warnings {
		a.warn("%s", printable(w))
	}
	if asJSON {
		err = writeJSON(a.stdout, answer)
	} else {
		err = answer.print(a.stdout)
	}
	if err != nil {
		return &failure{exitInput, fmt.Errorf("print the answer: %w", err)}
	}
	if !answer.Allowed {
		return &failure{code: exitFailure}
	}
	return nil
}

// explained loads what a question is about.
func (a *app) explained(ctx context.Context, source *sourceFlags, to destination) (*cluster, error) {
	objects, err := source.objects(ctx, a)
	if err != nil {
		return nil, err
	}
	if source.agent.socket != "" {
		return &cluster{objects: objects, where: source.place(), partial: true}, nil
	}
	if len(source.files) == 0 {
		objects.Services, err = source.cluster.services(ctx, a.newProgress())
		if err != nil && to.service {
			return nil, err
		}
	}
	c, err := place(objects)
	if err != nil {
		return nil, wrongInput(sanitized(err))
	}
	c.where = source.place()
	return c, nil
}

// destination is DST as the user wrote it.
type destination struct {
	name     string          // "namespace/name" of a pod or a Service, or an address
	service  bool            // it is a Service
	port     string          // a number or a name, "" for a protocol without ports
	protocol corev1.Protocol // "" if nobody said
}

// String is the destination as people write it, without its port.
func (d destination) String() string {
	if d.service {
		return "svc/" + d.name
	}
	return d.name
}

// parseDestination reads DST, and PROTOCOL/PORT if it is there.
func parseDestination(args []string) (destination, error) {
	name, port := cutPort(args[0])
	d := destination{name: name}
	if rest, ok := strings.CutPrefix(name, "svc/"); ok && strings.Contains(rest, "/") {
		d.name, d.service = rest, true
	}
	switch {
	case port == "" && len(args) == 1:
		return d, fmt.Errorf("%q: which port? Write %s:8080, or tcp/8080 as a third argument", args[0], args[0])
	case port != "" && len(args) > 1:
		return d, fmt.Errorf("%q has a port already, and %q is another one", args[0], args[1])
	case port == "":
		protocol, number, err := parseService(args[1])
		d.protocol = protocol
		if number != 0 {
			d.port = strconv.Itoa(int(number))
		}
		return d, err
	}
	d.port, port, _ = strings.Cut(port, "/")
	switch d.protocol = corev1.Protocol(strings.ToUpper(port)); d.protocol {
	case "", corev1.ProtocolTCP, corev1.ProtocolUDP, corev1.ProtocolSCTP:
	default:
		return d, fmt.Errorf("%q: the protocol of a port must be tcp, udp or sctp, as in 53/udp", args[0])
	}
	if n, err := strconv.Atoi(d.port); d.port == "" || err == nil && (n < 1 || n > 65535) {
		return d, fmt.Errorf("%q: the port must be a number from 1 to 65535, or a name", args[0])
	}
	return d, nil
}

// cutPort cuts "name:port" apart. An IPv6 address has brackets if it has a port.
func cutPort(s string) (name, port string) {
	if rest, ok := strings.CutPrefix(s, "["); ok {
		if name, port, ok = strings.Cut(rest, "]:"); ok {
			return name, port
		}
		return s, ""
	}
	if strings.Count(s, ":") == 1 {
		name, port, _ = strings.Cut(s, ":")
		return name, port
	}
	return s, ""
}

// parseService reads tcp/8080, udp/53, sctp/9 or icmp.
func parseService(s string) (corev1.Protocol, int32, error) {
	name, number, hasPort := strings.Cut(s, "/")
	if p := strings.ToLower(name); p == "icmp" || p == "icmpv6" {
		if hasPort {
			return "", 0, fmt.Errorf("%q: %s has no ports", s, name)
		}
		return "ICMP", 0, nil
	}
	proto := corev1.Protocol(strings.ToUpper(name))
	switch proto {
	case corev1.ProtocolTCP, corev1.ProtocolUDP, corev1.ProtocolSCTP:
	default:
		return "", 0, fmt.Errorf("%q: the protocol must be tcp, udp, sctp or icmp", s)
	}
	port, err := strconv.ParseUint(number, 10, 16)
	if err != nil || port == 0 {
		return "", 0, fmt.Errorf("%q: the port must be a number from 1 to 65535, as in %s/8080", s, strings.ToLower(name))
	}
	return proto, int32(port), nil
}
