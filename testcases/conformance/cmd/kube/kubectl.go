package main

import (
	"os"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"k8s.io/kubectl/pkg/cmd/apply"
	"k8s.io/kubectl/pkg/cmd/describe"
	"k8s.io/kubectl/pkg/cmd/events"
	cmdutil "k8s.io/kubectl/pkg/cmd/util"
)

// kubectl is the commands of kubectl with which a person installs something and looks at
// Events.
func kubectl() *cobra.Command {
	root := &cobra.Command{Use: "kubectl", SilenceUsage: true}
	config := genericclioptions.NewConfigFlags(true)
	config.AddFlags(root.PersistentFlags())
	streams := genericiooptions.IOStreams{In: os.Stdin, Out: os.Stdout, ErrOut: os.Stderr}
	factory := cmdutil.NewFactory(config)
	root.AddCommand(
		apply.NewCmdApply("kubectl", factory, streams),
		describe.NewCmdDescribe("kubectl", factory, streams),
		events.NewCmdEvents(config, streams),
	)
	return root
}
