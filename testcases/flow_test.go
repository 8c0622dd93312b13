package testcases

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// flowLine is a line of flows.txt as it stands.
type flowLine struct {
	At       string // "step-1/flows.txt:12"
	Src, Dst []string
	Ports    []protoPort
	Want     verdict
	Family   int // 4, 6, or 0 for every family that both ends have
	// NoPackets marks flows that no host could send (a broadcast address, say).
	NoPackets bool
}

// protoPort is "tcp/80"; icmp has port 0.
type protoPort struct {
	Protocol string
	Port     uint16
}

func (p protoPort) String() string {
	if p.Protocol == "icmp" {
		return p.Protocol
	}
	return fmt.Sprintf("%s/%d", p.Protocol, p.Port)
}

// verdict is what a line expects.
type verdict string

const (
	allow       verdict = "allow"
	closedPort  verdict = "closed"       // allowed, nobody listens, and the sender is told so
	deny        verdict = "deny"         // one direction or both
	denyEgress  verdict = "deny:egress"  // this one, and not the other
	denyIngress verdict = "deny:ingress" // this one, and not the other
	denyBoth    verdict = "deny:both"

	// What passes only because policies are in audit mode.
	audit        verdict = "audit"         // one direction or both would deny it
	auditEgress  verdict = "audit:egress"  // this one, and not the other
	auditIngress verdict = "audit:ingress" // this one, and not the other
	auditBoth    verdict = "audit:both"
)

// verdicts are all that a line can expect, the more exact ones first.
var verdicts = []verdict{allow, auditEgress, auditIngress, auditBoth, denyEgress, denyIngress, denyBoth, audit, deny, closedPort}

// allowed says whether packets pass.
func (v verdict) allowed() bool {
	return v == allow || v == closedPort || strings.HasPrefix(string(v), string(audit))
}

// agrees says whether the decisions of both directions are what v expects.
func (v verdict) agrees(d decision) bool {
	passes := d.Egress && d.Ingress
	switch v {
	case allow, closedPort:
		return passes && !d.AuditEgress && !d.AuditIngress
	case audit:
		return passes && (d.AuditEgress || d.AuditIngress)
	case auditEgress:
		return passes && d.AuditEgress && !d.AuditIngress
	case auditIngress:
		return passes && !d.AuditEgress && d.AuditIngress
	case auditBoth:
		return passes && d.AuditEgress && d.AuditIngress
	case deny:
		return !passes
	case denyEgress:
		return !d.Egress && d.Ingress
	case denyIngress:
		return d.Egress && !d.Ingress
	case denyBoth:
		return !d.Egress && !d.Ingress
	}
	return false
}

// verdict puts the decisions of both directions into a word.
func (d decision) verdict() verdict {
	return verdicts[slices.IndexFunc(verdicts, func(v verdict) bool { return v.agrees(d) })]
}

// parseFlows reads flows.txt; header lines are skipped.
func parseFlows(file, text string) ([]flowLine, error) {
	var out []flowLine
	var errs []error
	n := 0
	for line := range strings.Lines(text) {
		n++
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") || headerLine.MatchString(line) {
			continue
		}
		f, err := parseFlow(line)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s:%d: %w", file, n, err))
			continue
		}
		f.At = fmt.Sprintf("%s:%d", file, n)
		out = append(out, f)
	}
	return out, errors.Join(errs...)
}

func parseFlow(line string) (flowLine, error) {
	words := strings.Fields(line)
	if len(words) < 4 {
		return flowLine{}, fmt.Errorf("%q is not like \"SRC DST tcp/80 allow\"", line)
	}
	f := flowLine{Src: strings.Split(words[0], ","), Dst: strings.Split(words[1], ","), Want: verdict(words[3])}
	for _, p := range strings.Split(words[2], ",") {
		ports, err := parsePorts(p)
		if err != nil {
			return f, err
		}
		f.Ports = append(f.Ports, ports...)
	}
	if !slices.Contains(verdicts, f.Want) {
		return f, fmt.Errorf("%q is no verdict", words[3])
	}
	for _, w := range words[4:] {
		switch w {
		case "v4":
			f.Family = 4
		case "v6":
			f.Family = 6
		case "no-packets":
			f.NoPackets = true
		default:
			return f, fmt.Errorf("%q is neither v4 nor v6 nor no-packets", w)
		}
	}
	return f, nil
}

// parsePorts reads "icmp", "tcp/80" or "tcp/79-81".
func parsePorts(s string) ([]protoPort, error) {
	if s == "icmp" {
		return []protoPort{{Protocol: s}}, nil
	}
	protocol, ports, ok := strings.Cut(s, "/")
	first, last, isRange := strings.Cut(ports, "-")
	if !isRange {
		last = first
	}
	a, err1 := strconv.ParseUint(first, 10, 16)
	b, err2 := strconv.ParseUint(last, 10, 16)
	if !ok || !slices.Contains([]string{"tcp", "udp", "sctp"}, protocol) || err1 != nil || err2 != nil || a == 0 || b < a || b-a > 16 {
		return nil, fmt.Errorf("%q is not like tcp/80 or udp/79-81", s)
	}
	var out []protoPort
	for n := a; n <= b; n++ {
		out = append(out, protoPort{protocol, uint16(n)})
	}
	return out, nil
}

// check is one flow with one source, one destination, one port and one family.
type check struct {
	At        string
	Src       end
	Dst       end
	Port      protoPort
	V4        bool
	Want      verdict
	NoPackets bool
}

func (c check) String() string {
	family := "v6"
	if c.V4 {
		family = "v4"
	}
	return fmt.Sprintf("%s: %s %s %s %s", c.At, c.Src.Text, c.Dst.Text, c.Port, family)
}

// checks spells flow lines out for the cluster as it is. A line replaces what an
// earlier line with a * said of the same flow; two lines that both name a flow
// are an error.
func (c *cluster) checks(lines []flowLine) ([]check, error) {
	var out []check
	var errs []error
	seen := map[string]int{}
	fromStar := map[string]bool{}
	for _, l := range lines {
		star := strings.Contains(strings.Join(append(slices.Clone(l.Src), l.Dst...), ","), "*")
		found, err := c.expand(l)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", l.At, err))
			continue
		}
		for _, ch := range found {
			key := strings.TrimPrefix(ch.String(), ch.At)
			i, again := seen[key]
			switch {
			case again && !fromStar[key]:
				errs = append(errs, fmt.Errorf("%v: %s says so too", ch, out[i].At))
			case again:
				out[i] = ch
			default:
				seen[key] = len(out)
				out = append(out, ch)
			}
			fromStar[key] = star
		}
	}
	return out, errors.Join(errs...)
}

func (c *cluster) expand(l flowLine) ([]check, error) {
	sources, err := c.ends(l.Src)
	if err != nil {
		return nil, err
	}
	destinations, err := c.ends(l.Dst)
	if err != nil {
		return nil, err
	}
	alone := len(l.Src) == 1 && len(l.Dst) == 1 && !strings.Contains(l.Src[0]+l.Dst[0], "*")
	var out []check
	for _, s := range sources {
		for _, d := range destinations {
			if s.Text == d.Text && !alone {
				continue
			}
			n := len(out)
			for _, p := range l.Ports {
				for _, v4 := range []bool{true, false} {
					if !s.addr(v4).IsValid() || !d.addr(v4).IsValid() || l.Family == 4 && !v4 || l.Family == 6 && v4 {
						continue
					}
					out = append(out, check{l.At, s, d, p, v4, l.Want, l.NoPackets})
				}
			}
			if n == len(out) && !strings.Contains(strings.Join(l.Src, ",")+strings.Join(l.Dst, ","), ",") {
				return nil, fmt.Errorf("%s and %s have no family in common", s.Text, d.Text)
			}
		}
	}
	if len(out) == 0 {
		return nil, errors.New("stands for no flow at all")
	}
	return out, nil
}

// end is one side of a flow.
type end struct {
	Text    string
	V4, V6  netip.Addr
	Service *service // set for svc/namespace/name
}

func (e end) addr(v4 bool) netip.Addr {
	if v4 {
		return e.V4
	}
	return e.V6
}

// ends resolves the words of one side.
func (c *cluster) ends(words []string) ([]end, error) {
	var out []end
	for _, w := range words {
		found, err := c.resolve(w)
		if err != nil {
			return nil, err
		}
		out = append(out, found...)
	}
	return out, nil
}

func (c *cluster) resolve(word string) ([]end, error) {
	if a, err := netip.ParseAddr(word); err == nil {
		if a.Is4() {
			return []end{{Text: word, V4: a}}, nil
		}
		return []end{{Text: word, V6: a}}, nil
	}
	if word == outside {
		return []end{{Text: word, V4: outsideAddrs[0], V6: outsideAddrs[1]}}, nil
	}
	if addrs, ok := nodeAddrs[word]; ok {
		return []end{{Text: word, V4: addrs[0], V6: addrs[1]}}, nil
	}
	if name, ok := strings.CutPrefix(word, "svc/"); ok {
		s, ok := c.service(name)
		if !ok {
			return nil, fmt.Errorf("there is no Service %s", name)
		}
		return []end{{Text: word, V4: s.IPs[0], V6: s.IPs[1], Service: s}}, nil
	}
	var out []end
	for _, p := range c.pods() {
		inNamespace := strings.HasSuffix(word, "/*") && p.Namespace == strings.TrimSuffix(word, "/*")
		if word == p.Name || (word == "*" || inNamespace) && !p.HostNetwork && (p.V4.IsValid() || p.V6.IsValid()) {
			out = append(out, end{Text: p.Name, V4: p.V4, V6: p.V6})
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("there is no %s", word)
	}
	return out, nil
}
