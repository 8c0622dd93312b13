package main

import (
	"errors"

	"github.com/spf13/cobra"

	"github.com/portcullis-netpol/portcullis/cmd/portcullis/demo"
	"github.com/portcullis-netpol/portcullis/testcases/lab"
)

func (a *app) demo() *cobra.Command {
	topology := choice[lab.Topology]{words: []string{"routed", "bridge"}, values: []lab.Topology{lab.Routed, lab.Bridged}}
	family := choice[string]{words: []string{"dual", "4", "6"}, values: []string{"dual", "4", "6"}}
	var options demo.Options
	c := &cobra.Command{
		Use:   "demo",
		Short: "Watch real policies decide real packets, in a network of its own",
		Long: "Build two nodes, their pods and a host outside in network namespaces, run the agent on\n" +
			"each node, and walk through a story of policies. After each step every connection is\n" +
			"tried, and compared with what the policies mean. Nothing outside of these namespaces is\n" +
			"touched, and nothing is left behind.\n\n" +
			"Exit code 0: every packet was judged right; 1: one was not, or something failed.",
		Example: "  portcullis demo\n" +
			"  portcullis demo --topology bridge --ip-family 6\n" +
			"  portcullis demo -f ./manifests",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			options.Topology, options.IPFamily = topology.value(), family.value()
			if err := options.Validate(); err != nil {
				return wrongInput(err)
			}
			err := demo.Run(c.Context(), options, a.stdout, a.stderr)
			var input *demo.InputError
			if errors.As(err, &input) {
				return wrongInput(err)
			}
			return err
		},
	}
	flags := c.Flags()
	flags.Var(&topology, "topology", "how pods are attached to their node")
	flags.Var(&family, "ip-family", "addresses of the pods")
	flags.StringVarP(&options.Manifests, "filename", "f", "", "`path` of your own Kubernetes YAML, instead of the story")
	flags.BoolVar(&options.Keep, "keep", false, "leave everything up at the end, to look around, until a signal comes")
	flags.BoolVar(&options.JSON, "json", false, "print JSON instead of tables")
	return c
}
