package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"

	"github.com/portcullis-netpol/portcullis/policy/evaluate"
	"github.com/portcullis-netpol/portcullis/policy/manifest"
)

func (a *app) explain() *cobra.Command {
	var files []string
	output := choice[bool]{words: []string{"text", "json"}, values: []bool{false, true}}
	c := &cobra.Command{
		Use:   "explain -f PATH... SRC DST PROTOCOL/PORT",
		Short: "Say whether a packet may pass, and which policy and rule decide",
		Long: "Say whether the first packet of a connection from SRC to DST may pass, and why.\n\n" +
			"SRC and DST are namespace/pod or an IP address; PROTOCOL/PORT is tcp/8080, udp/53, sctp/9\n" +
			"or icmp. DST and the port are the backend's own, behind any Service. Workloads stand\n" +
			"for their pods: Deployment web has web-0, web-1 and so on. Pods without addresses get some.\n\n" +
			"Exit code 0: allowed; 1: denied (in one address family at least); 2: error.",
		Example: "  portcullis explain -f ./manifests shop/frontend-0 shop/users-0 tcp/8080",
		Args:    cobra.ExactArgs(3),
		RunE: func(_ *cobra.Command, args []string) error {
			return a.explainFlow(files, args, output.value())
		},
	}
	addFiles(c.Flags(), &files)
	c.Flags().VarP(&output, "output", "o", "how to print the answer")
	if err := c.MarkFlagRequired("filename"); err != nil {
		panic(err) // the flag is defined above
	}
	return c
}

func (a *app) explainFlow(files, args []string, asJSON bool) error {
	proto, port, err := parseService(args[2])
	if err != nil {
		return wrongInput(err)
	}
	objects, err := manifest.Load(files...)
	if err != nil {
		return wrongInput(err)
	}
	cluster, err := place(objects)
	if err != nil {
		return wrongInput(err)
	}
	src, err1 := cluster.end("SRC", args[0])
	dst, err2 := cluster.end("DST", args[1])
	if err := errors.Join(err1, err2); err != nil {
		return wrongInput(err)
	}
	answer, err := cluster.answer(src, dst, proto, port)
	if err != nil {
		return wrongInput(err)
	}
	for _, w := range answer.Warnings {
		a.warn("%s", w)
	}
	if asJSON {
		e := json.NewEncoder(a.stdout)
		e.SetIndent("", "  ")
		err = e.Encode(answer)
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

// answer is what explain prints.
type answer struct {
	Source      string       `json:"source"`
	Destination string       `json:"destination"`
	Protocol    string       `json:"protocol"`
	Port        int32        `json:"port,omitempty"`
	Allowed     bool         `json:"allowed"`
	Flows       []flowAnswer `json:"flows"`
	Warnings    []string     `json:"warnings,omitempty"`
}

// flowAnswer is the answer for one address family.
type flowAnswer struct {
	Family      string          `json:"family"`
	Source      netip.Addr      `json:"source"`
	Destination netip.Addr      `json:"destination"`
	Allowed     bool            `json:"allowed"`
	Egress      directionAnswer `json:"egress"`
	Ingress     directionAnswer `json:"ingress"`
}

// directionAnswer is what one end of a flow decides.
type directionAnswer struct {
	Allowed    bool         `json:"allowed"`
	Pod        string       `json:"pod,omitempty"`
	IsolatedBy []string     `json:"isolatedBy,omitempty"`
	AllowedBy  []ruleAnswer `json:"allowedBy,omitempty"`
	Reason     string       `json:"reason"`
}

// ruleAnswer names a rule of a policy, as fields of the object.
type ruleAnswer struct {
	Policy string `json:"policy"`
	Rule   string `json:"rule"`
	Peer   string `json:"peer,omitempty"`
	Port   string `json:"port,omitempty"`
}

func newDirectionAnswer(d evaluate.Decision, list, peers string) directionAnswer {
	a := directionAnswer{Allowed: d.Allowed, Pod: d.Pod, IsolatedBy: d.Isolated, Reason: d.Reason}
	for _, m := range d.By {
		r := ruleAnswer{Policy: m.Policy, Rule: fmt.Sprintf("spec.%s[%d]", list, m.Rule)}
		if m.Peer >= 0 {
			r.Peer = fmt.Sprintf("%s[%d]", peers, m.Peer)
		}
		if m.Port >= 0 {
			r.Port = fmt.Sprintf("ports[%d]", m.Port)
		}
		a.AllowedBy = append(a.AllowedBy, r)
	}
	return a
}

// print writes the answer for people: once where the families agree.
func (a answer) print(w io.Writer) error {
	var b strings.Builder
	service := strings.ToLower(a.Protocol)
	if a.Port != 0 {
		service += "/" + strconv.Itoa(int(a.Port))
	}
	flows, each := a.Flows, len(a.Flows) > 1
	if each && a.agree() {
		flows, each = flows[:1], false
	}
	fmt.Fprintf(&b, "%s -> %s %s: %s\n", a.Source, a.Destination, service, a.word(each))
	for _, f := range flows {
		if each {
			fmt.Fprintf(&b, "%s %s -> %s: %s\n", f.Family, f.Source, f.Destination, verdict(f.Allowed))
		}
		f.Egress.print(&b, "egress", a.Source)
		f.Ingress.print(&b, "ingress", a.Destination)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func (a answer) word(each bool) string {
	if !each || a.Flows[0].Allowed == a.Flows[1].Allowed {
		return verdict(a.Allowed)
	}
	for _, f := range a.Flows {
		if !f.Allowed {
			return "denied in " + f.Family + " only"
		}
	}
	return ""
}

func verdict(allowed bool) string {
	if allowed {
		return "allowed"
	}
	return "denied"
}

// print writes the verdict and what decided it: rules, or a reason where no rule did.
func (d directionAnswer) print(b *strings.Builder, direction, end string) {
	why := []string{d.Reason}
	if d.Pod == "" {
		why[0] += " (" + end + ")"
	}
	if len(d.AllowedBy) > 0 {
		why = nil
	}
	for _, r := range d.AllowedBy {
		parts := []string{r.Rule, r.Peer, r.Port, "of " + r.Policy}
		why = append(why, strings.Join(slices.DeleteFunc(parts, func(p string) bool { return p == "" }), " "))
	}
	fmt.Fprintf(b, "  %-8s %-8s %s\n", direction, verdict(d.Allowed), why[0])
	for _, more := range why[1:] {
		fmt.Fprintf(b, "  %17s %s\n", "and", more)
	}
}
