package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/portcullis-netpol/portcullis/agent/admin"
	"github.com/portcullis-netpol/portcullis/cmd/portcullis/fleet"
	"github.com/portcullis-netpol/portcullis/policy/manifest"
)

// agentFlag names the socket of this node's agent.
type agentFlag struct{ socket string }

func (f *agentFlag) add(to *pflag.FlagSet) {
	to.StringVar(&f.socket, "agent", "", "ask the agent of this node, at its `socket` (as --agent=PATH; without a path "+admin.DefaultSocket+")")
	to.Lookup("agent").NoOptDefVal = admin.DefaultSocket
}

// objects reads what the agent knows.
func (f *agentFlag) objects(ctx context.Context, a *app) (*manifest.Objects, error) {
	body, err := admin.New(f.socket).Objects(ctx)
	if err != nil {
		return nil, localError(err)
	}
	defer body.Close()
	data, err := io.ReadAll(body)
	if err != nil {
		return nil, localError(err)
	}
	objects, err := manifest.Decode("the agent at "+f.socket, data)
	if err != nil {
		return nil, fmt.Errorf("understand what the agent knows: %w", sanitized(err))
	}
	return objects, nil
}

// localError is an error of asking this node's agent.
func localError(err error) error {
	if errors.Is(err, admin.ErrUnreachable) {
		return wrongInput(fmt.Errorf("%w (is it running, with --admin-socket? Only root may ask)", sanitized(err)))
	}
	return &failure{exitInput, sanitized(err)}
}

// agentsFlags say which agents are asked: this node's, or those of a cluster.
type agentsFlags struct {
	local     agentFlag
	cluster   clusterFlags
	namespace string
	nodes     []string
	timeout   time.Duration
}

func (f *agentsFlags) add(to *pflag.FlagSet) {
	f.local.add(to)
	f.cluster.add(to)
	to.StringVar(&f.namespace, "agent-namespace", "portcullis", "`namespace` of the agents' pods in the cluster")
	to.StringArrayVar(&f.nodes, "node", nil, "ask the agent of this `node` only (repeatable; default: all of the cluster)")
	to.DurationVar(&f.timeout, "timeout", 20*time.Second, "how long to wait for the answer of a node")
}

func (f *agentsFlags) validate() error {
	if f.local.socket != "" && (f.cluster.given() || len(f.nodes) > 0) {
		return errors.New("--agent asks this node's agent; --kubeconfig, --context and --node are for a cluster")
	}
	if f.timeout <= 0 {
		return fmt.Errorf("--timeout %v: must be more than nothing", f.timeout)
	}
	for _, reason := range validation.IsDNS1123Label(f.namespace) {
		return fmt.Errorf("--agent-namespace %q: %s", f.namespace, reason)
	}
	return nil
}

// agents are the agents of a cluster.
type agents struct {
	runner fleet.Runner
	list   []fleet.Agent
	notes  []string
	again  func(context.Context) ([]fleet.Agent, error) // lists them anew
}

// find looks for the agents of the cluster.
func (f *agentsFlags) find(ctx context.Context, a *app) (*agents, error) {
	config, client, err := f.cluster.connect()
	if errors.Is(err, errNoCluster) {
		return nil, wrongInput(errors.New("which agents? Give a cluster with --kubeconfig, or --agent on a node"))
	}
	if err != nil {
		return nil, err
	}
	list, complete, err := fleet.Find(ctx, client, f.namespace)
	if err != nil {
		return nil, &failure{exitInput, sanitized(err)}
	}
	found := &agents{list: list}
	if !complete {
		found.notes = append(found.notes, "the nodes of the cluster cannot be listed (forbidden): those on which no agent runs are not shown")
	}
	if !slices.ContainsFunc(list, func(is fleet.Agent) bool { return !is.Absent }) {
		return nil, wrongInput(fmt.Errorf("no pod of an agent (%s, container %s) is in namespace %s; is Portcullis there? See --agent-namespace",
			fleet.Selector, fleet.Container, f.namespace))
	}
	if len(f.nodes) > 0 {
		for _, name := range f.nodes {
			if !slices.ContainsFunc(list, func(is fleet.Agent) bool { return is.Node == name }) {
				return nil, wrongInput(fmt.Errorf("--node: there is no node %q, or no agent of it", name))
			}
		}
		found.list = f.chosen(list)
	}
	found.again = func(ctx context.Context) ([]fleet.Agent, error) {
		list, _, err := fleet.Find(ctx, client, f.namespace)
		return f.chosen(list), err
	}
	if found.runner, err = a.execIn(config, f.namespace); err != nil {
		return nil, &failure{exitInput, fmt.Errorf("API server: %w", sanitized(err))}
	}
	return found, nil
}

// chosen are those of the agents that are to be asked.
func (f *agentsFlags) chosen(list []fleet.Agent) []fleet.Agent {
	return slices.DeleteFunc(list, func(is fleet.Agent) bool { return len(f.nodes) > 0 && !slices.Contains(f.nodes, is.Node) })
}

// ask runs one of our own commands in every agent's pod and decodes what each prints.
// The agents that do not answer are told to failed instead.
func ask[T any](ctx context.Context, a *app, f *agentsFlags, command string, answer func(fleet.Agent, T), failed func(fleet.Agent, string)) error {
	found, err := f.find(ctx, a)
	if err != nil {
		return err
	}
	for _, n := range found.notes {
		a.warn("%s", n)
	}
	tell := a.newProgress().of("nodes have answered")
	for _, is := range fleet.Ask(ctx, found.runner, found.list, remote(command), f.timeout, tell) {
		var v T
		switch {
		case is.Err != nil:
			failed(is.Agent, oneLine(is.Err.Error()))
		case json.Unmarshal(bytes.TrimSpace(is.Out), &v) != nil:
			failed(is.Agent, fmt.Sprintf("exit code %d: %s", is.Code, oneLine(cmp.Or(is.Said, "its answer is not understood; is it of another version?"))))
		default:
			answer(is.Agent, v)
		}
	}
	if ctx.Err() != nil {
		return &failure{exitInput, ctx.Err()} // 1 would be an answer
	}
	return nil
}

// remote is the command line that asks the agent in its pod.
func remote(command ...string) []string {
	return slices.Concat([]string{"portcullis"}, command, []string{"--agent", "-o", "json"})
}

// oneLine is a text in one printable line of bounded length.
func oneLine(s string) string {
	const most = 300
	return shorten(printable(strings.Join(strings.Fields(s), " ")), most)
}
