package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/portcullis-netpol/portcullis/agent/admin"
)

type monitorFlags struct {
	agents     agentsFlags
	namespaces []string
	pods       []string
	direction  choice[string]
	reason     choice[admin.Reason]
	ports      []string
	since      time.Duration
	follow     bool
	leashed    bool
	output     choice[bool]

	asked []portFilter // ports, read
}

const monitorLong = `Show the packets that are denied, as they are: first those of the last minutes that the agents
remember, then those that come, until a signal ends it. The kernel passes on some hundred packets
a second for each reason; of more, only the counters of the metrics know.

Reasons:
  policy      no policy allows it, and one isolates the pod
  audit       policies in audit mode would deny it; it passed
  quarantine  no pod is known to have this address of the node yet
  cut         of a connection that a change of policies has cut

The agents of a cluster are asked by exec in their pods (as 'kubectl exec' does), so whoever may do
that may ask. If one of them ends, the others go on, and it is asked again when it is back; agents
of new nodes are asked, too. On a node, --agent asks its own.

-o json prints a line for each packet: time, node, reason, direction, source and destination (addr,
pod, labels), protocol, sourcePort, port, policies, and closest: the rule that almost allows it. A
line {"lost": n} stands where packets are missing.

Exit code 0: done, or ended by a signal; 1: no agent has answered; 2: error.`

func (a *app) monitor() *cobra.Command {
	var f monitorFlags
	directions := []string{"both", "egress", "ingress"}
	f.direction = choice[string]{words: directions, values: []string{"", "egress", "ingress"}}
	reasons := []admin.Reason{"", admin.ReasonPolicy, admin.ReasonAudit, admin.ReasonQuarantine, admin.ReasonCut}
	f.reason = choice[admin.Reason]{words: []string{"any"}, values: reasons}
	for _, r := range reasons[1:] {
		f.reason.words = append(f.reason.words, string(r))
	}
	f.output = textOrJSON()
	c := &cobra.Command{
		Use:   "monitor",
		Short: "Show the packets that are denied, and why, as they are",
		Long:  monitorLong,
		Example: fmt.Sprintf(`  %[1]s monitor -n shop                  # all agents of the cluster
  %[1]s monitor --pod shop/frontend --port tcp/5432
  %[1]s monitor --follow=false --since 5m
  %[1]s monitor --agent -o json | jq .closest`, a.name),
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return a.runMonitor(c.Context(), &f) },
	}
	flags := c.Flags()
	f.agents.add(flags)
	flags.StringArrayVarP(&f.namespaces, "namespace", "n", nil, "show packets from or to pods of this `namespace` (repeatable; default: all)")
	flags.StringArrayVar(&f.pods, "pod", nil, "show packets from or to this `pod`, as namespace/name (repeatable)")
	flags.Var(&f.direction, "direction", "show packets that were judged in this direction")
	flags.Var(&f.reason, "reason", "show packets that were denied for this reason")
	flags.StringArrayVar(&f.ports, "port", nil, "show packets to this `port`, as 5432, tcp/5432 or icmp (repeatable)")
	flags.DurationVar(&f.since, "since", 0, "show remembered packets of so long ago only (default: all that are remembered)")
	flags.BoolVar(&f.follow, "follow", true, "go on with the packets that come; false ends after the remembered ones")
	flags.VarP(&f.output, "output", "o", "how to print them")
	flags.BoolVar(&f.leashed, "until-stdin-ends", false, "end when stdin does")
	if err := flags.MarkHidden("until-stdin-ends"); err != nil {
		panic(err) // the flag is defined above
	}
	return c
}

func (f *monitorFlags) read() error {
	if err := f.agents.validate(); err != nil {
		return err
	}
	if err := checkNames(f.pods); err != nil {
		return fmt.Errorf("--pod %w", err)
	}
	for _, text := range f.ports {
		p, err := parsePortFilter(text)
		if err != nil {
			return fmt.Errorf("--port %w", err)
		}
		f.asked = append(f.asked, p)
	}
	return nil
}

// portFilter is a port that is asked for; an empty protocol is any.
type portFilter struct {
	protocol string
	port     uint16
}

func parsePortFilter(text string) (portFilter, error) {
	if n, err := strconv.ParseUint(text, 10, 16); err == nil && n > 0 {
		return portFilter{port: uint16(n)}, nil
	}
	protocol, port, err := parseService(text)
	return portFilter{strings.ToLower(string(protocol)), uint16(port)}, err
}

func (p portFilter) is(d *admin.Denial) bool {
	if p.protocol == "icmp" {
		return d.Protocol == "icmp" || d.Protocol == "icmpv6"
	}
	return p.port == d.Port && (p.protocol == "" || p.protocol == d.Protocol)
}

// wants tells whether a packet is to be shown.
func (f *monitorFlags) wants(d *admin.Denial, now time.Time) bool {
	ends := []string{d.Source.Pod, d.Destination.Pod}
	in := func(pod string) bool {
		namespace, _, is := strings.Cut(pod, "/")
		return is && slices.Contains(f.namespaces, namespace)
	}
	named := func(pod string) bool { return slices.Contains(f.pods, pod) }
	return (len(f.namespaces) == 0 || slices.ContainsFunc(ends, in)) &&
		(len(f.pods) == 0 || slices.ContainsFunc(ends, named)) &&
		(f.direction.value() == "" || f.direction.value() == d.Direction) &&
		(f.reason.value() == "" || f.reason.value() == d.Reason) &&
		(len(f.asked) == 0 || slices.ContainsFunc(f.asked, func(p portFilter) bool { return p.is(d) })) &&
		(f.since <= 0 || d.Time.After(now.Add(-f.since)))
}

func (a *app) runMonitor(ctx context.Context, f *monitorFlags) error {
	if err := f.read(); err != nil {
		return wrongInput(err)
	}
	if f.leashed {
		held, end := context.WithCancel(ctx)
		defer end()
		go func() {
			_, _ = io.Copy(io.Discard, a.stdin)
			end()
		}()
		ctx = held
	}
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	out := &denials{flags: f, to: a.stdout, style: styleOf(a.stdout), since: a.now(), end: end, warn: a.warn, shown: map[string]*shown{}}
	var err error
	if f.agents.local.socket != "" {
		err = a.monitorLocal(ctx, f, out)
	} else {
		err = a.monitorCluster(ctx, f, out)
	}
	if out.failed != nil {
		return &failure{exitInput, fmt.Errorf("print the packets: %w", out.failed)}
	}
	if ctx.Err() != nil {
		return nil // a signal, which is the way to end it
	}
	return err
}

// denials prints packets.
type denials struct {
	flags  *monitorFlags
	to     io.Writer
	style  textStyle
	since  time.Time // when the command began
	hold   bool      // print at the end, in the order of time
	held   []admin.Denial
	shown  map[string]*shown // by node, for when one is listened to again
	end    func(error)
	failed error
	warn   func(string, ...any)
}

// show prints a packet if it is asked for. The name of a node from a cluster is the one
// that it was asked under.
func (o *denials) show(node string, d admin.Denial) {
	d.Node = cmp.Or(node, d.Node)
	switch {
	case !o.flags.wants(&d, o.since):
	case o.flags.follow && o.before(node, &d):
	case o.hold:
		o.held = append(o.held, d)
	case o.flags.output.value():
		o.json(d)
	default:
		o.print(denialText(&d, o.style, o.since.Location()))
	}
}

// flush prints what was held back.
func (o *denials) flush() {
	o.hold = false
	slices.SortStableFunc(o.held, func(a, b admin.Denial) int { return a.Time.Compare(b.Time) })
	for _, d := range o.held {
		o.show(d.Node, d)
	}
	o.held = nil
}

// missing says that packets are missing.
func (o *denials) missing(node string, n uint64) {
	if o.flags.output.value() {
		o.json(struct {
			Node string `json:"node,omitempty"`
			Lost uint64 `json:"lost"`
		}{node, n})
		return
	}
	where := ""
	if node != "" {
		where = "node " + printable(node) + ": "
	}
	o.warn("%s%v", where, admin.Lost(n))
}

func (o *denials) json(v any) {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err) // plain data
	}
	o.print(string(asciiJSON(text)))
}

func (o *denials) print(line string) {
	if o.failed != nil {
		return
	}
	if _, err := io.WriteString(o.to, line+"\n"); err != nil {
		o.failed = err
		o.end(err)
	}
}
