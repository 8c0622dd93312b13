package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"

	"github.com/portcullis-netpol/portcullis/agent/cni"
)

// codeNotAvailable is the error code of STATUS for a plugin that cannot serve ADD.
const codeNotAvailable uint = 50

// add makes the pod wait until its policies are in force.
func add(args *skel.CmdArgs) error {
	conf, err := readConfig(args.StdinData)
	if err != nil {
		return err
	}
	r, err := podRequest(cni.Add, args, conf)
	if err != nil {
		return err
	}
	if err := conf.whenUnreachable(ask(conf.Settings, r)); err != nil {
		return err
	}
	if _, err := os.Stdout.Write(append(conf.PrevResult, '\n')); err != nil {
		return types.NewError(types.ErrIOFailure, "write the result", err.Error())
	}
	return nil
}

// check asks whether the pod's policies are in force.
func check(args *skel.CmdArgs) error {
	conf, err := readConfig(args.StdinData)
	if err != nil {
		return err
	}
	r, err := podRequest(cni.Check, args, conf)
	if err != nil {
		return err
	}
	return conf.whenUnreachable(ask(conf.Settings, r))
}

// del tells the agent that the pod is gone. A pod that cannot be deleted would be
// worse than an agent that learns it later, from the API server or the next GC. So
// whatever is wrong is only noted.
func del(args *skel.CmdArgs) error {
	conf, err := readConfig(args.StdinData)
	if err != nil {
		note("DEL: %v; the default settings are used", err)
		conf = &config{Settings: cni.Settings{}.WithDefaults()}
	}
	r := cni.Request{Command: cni.Del, Attachment: cni.Attachment{ContainerID: args.ContainerID, Interface: args.IfName}}
	if pod, err := podOf(args.Args); err == nil {
		r.Namespace, r.Name, r.UID = pod.namespace, pod.name, pod.uid
	}
	if err := ask(conf.Settings, r); err != nil {
		note("DEL: %v; it has no effect on the pod", err)
	}
	return nil
}

// gc tells the agent which attachments exist. An agent that is away forgets
// everything by itself.
func gc(args *skel.CmdArgs) error {
	conf, err := readConfig(args.StdinData)
	if err != nil {
		return err
	}
	if conf.Valid == nil {
		return types.NewError(types.ErrInvalidNetworkConfig, keyValid+" is missing",
			"GC without it would mean that no attachment exists")
	}
	r := cni.Request{Command: cni.GC}
	for _, a := range *conf.Valid {
		r.Valid = append(r.Valid, cni.Attachment{ContainerID: a.ContainerID, Interface: a.IfName})
	}
	err = ask(conf.Settings, r)
	if errors.Is(err, cni.ErrUnreachable) {
		note("GC: %v", err)
		return nil
	}
	return answered(err)
}

// status tells whether pods can be added.
func status(args *skel.CmdArgs) error {
	conf, err := readConfig(args.StdinData)
	if err != nil {
		return err
	}
	err = ask(conf.Settings, cni.Request{Command: cni.Status})
	if err == nil {
		return nil
	}
	if conf.OnAgentUnreachable == cni.Allow {
		note("STATUS: %v; pods start in quarantine", err)
		return nil
	}
	return types.NewError(codeNotAvailable, "the Portcullis agent is not available", err.Error())
}

// ask asks the agent and waits as long as the settings say.
func ask(s cni.Settings, r cni.Request) error {
	ctx, cancel := context.WithTimeout(context.Background(), s.Wait())
	defer cancel()
	return cni.Client(s.Socket).Do(ctx, r)
}

// whenUnreachable turns what came of a request about a pod into the plugin's error.
func (c *config) whenUnreachable(err error) error {
	if !errors.Is(err, cni.ErrUnreachable) {
		return answered(err)
	}
	if c.OnAgentUnreachable == cni.Allow {
		note("%v; the pod starts, in quarantine until the agent comes", err)
		return nil
	}
	return types.NewError(types.ErrTryAgainLater, "the Portcullis agent does not answer", err.Error())
}

// answered turns the agent's error, or that of a request that was not fit to be
// sent, into the plugin's.
func answered(err error) error {
	if err == nil {
		return nil
	}
	return types.NewError(types.ErrInternal, "portcullis-cni", err.Error())
}

// note writes a line to the container runtime's log.
func note(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "portcullis-cni: "+format+"\n", args...)
}
