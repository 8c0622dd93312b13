package main

import (
	_ "k8s.io/client-go/plugin/pkg/client/auth" // as in upstream's command
	"k8s.io/component-base/cli"
	"k8s.io/kubectl/pkg/cmd"
	cmdutil "k8s.io/kubectl/pkg/cmd/util"
)

// kubectl is the whole of it, with plugins. Unlike the servers it says itself what an
// error is, and what a command in a container exited with.
func kubectl() {
	if err := cli.RunNoErrOutput(cmd.NewDefaultKubectlCommand()); err != nil {
		cmdutil.CheckErr(err)
	}
}
