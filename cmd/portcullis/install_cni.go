package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/portcullis-netpol/portcullis/agent/cni"
	"github.com/portcullis-netpol/portcullis/cmd/portcullis/installcni"
)

// installCNIFlags are the flags of install-cni.
type installCNIFlags struct {
	config        installcni.Config
	timeout       time.Duration
	unreachable   choice[string]
	remove, watch bool
	log           logFlags
}

func (a *app) installCNI() *cobra.Command {
	var f installCNIFlags
	c := &cobra.Command{
		Use:   "install-cni [--watch | --remove]",
		Short: "Make pods wait for their policies before they start",
		Long: "Put the plugin portcullis-cni behind the node's CNI plugin. A new pod then starts when its\n" +
			"policies are in force, so that even its first packet is judged by them. Without it, a pod's\n" +
			"first packets may be lost: until its policies are in force it is in quarantine.\n\n" +
			"The active CNI configuration (the first valid one by name) is edited in place; everything\n" +
			"else in it stays as it is. Doing it again changes nothing.\n\n" +
			"--remove takes out what was put in, and deletes the plugin. With CRI-O, pods that run\n" +
			"already need it when they end: use --keep-binary, and delete it when they are gone.",
		Example: "  portcullis install-cni --watch\n" +
			"  portcullis install-cni --remove",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return a.runInstallCNI(c, &f) },
	}
	flags := c.Flags()
	flags.StringVar(&f.config.ConfDir, "conf-dir", installcni.DefaultConfDir, "`directory` of the CNI configuration")
	flags.StringVar(&f.config.BinDir, "bin-dir", installcni.DefaultBinDir, "`directory` of the CNI plugins")
	flags.StringVar(&f.config.Source, "source", "", "`directory` to copy portcullis-cni from (default: that of this command)")
	flags.StringVar(&f.config.Settings.Socket, "socket", cni.DefaultSocket, "`path` of the agent's socket")
	flags.DurationVar(&f.timeout, "timeout", cni.DefaultTimeout, "how long a pod waits for the agent")
	f.unreachable = choice[string]{words: []string{cni.Allow, cni.Fail}, values: []string{cni.Allow, cni.Fail}}
	flags.Var(&f.unreachable, "on-agent-unreachable", "what becomes of a pod that has waited in vain: it starts in quarantine, or fails and is tried again")
	flags.BoolVar(&f.watch, "watch", false, "stay, and put the plugin in again when another program writes the configuration")
	flags.BoolVar(&f.remove, "remove", false, "take the plugin out and delete it")
	flags.BoolVar(&f.config.KeepBinary, "keep-binary", false, "with --remove, do not delete it")
	f.log.add(flags)
	c.MarkFlagsMutuallyExclusive("watch", "remove")
	return c
}

func (a *app) runInstallCNI(c *cobra.Command, f *installCNIFlags) error {
	config := f.config
	config.Logger = f.log.logger(a.stderr)
	if config.KeepBinary && !f.remove {
		return wrongInput(errors.New("--keep-binary is for --remove"))
	}
	if f.remove {
		return config.Remove()
	}
	config.Settings.Timeout = f.timeout.String()
	config.Settings.OnAgentUnreachable = f.unreachable.value()
	config.Settings = config.Settings.WithDefaults()
	if err := config.Settings.Validate(); err != nil {
		return wrongInput(err)
	}
	if config.Source == "" {
		self, err := os.Executable()
		if err != nil {
			return fmt.Errorf("where is %s? --source is needed: %w", cni.PluginType, err)
		}
		config.Source = filepath.Dir(self)
	}
	if f.watch {
		return config.Watch(c.Context())
	}
	return config.Install()
}
