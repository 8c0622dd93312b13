package main

import (
	"context"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/portcullis-netpol/portcullis/policy/manifest"
)

// kubectlCompletion is what kubectl runs to complete the words of its plugin; see
// https://kubernetes.io/docs/tasks/extend-kubectl/kubectl-plugins/.
const kubectlCompletion = `#!/bin/sh
exec kubectl portcullis __complete "$@"
`

func (a *app) completion() *cobra.Command {
	c := &cobra.Command{
		Use:   "completion",
		Short: "Print what makes a shell complete commands, flags and names",
		Long: "Print a script that makes a shell complete commands, flags and their values, and names of\n" +
			"namespaces and pods: those of -f, or those of the cluster.",
		Example: `  source <(portcullis completion bash)         # now
  portcullis completion bash > /etc/bash_completion.d/portcullis
  portcullis completion fish > ~/.config/fish/completions/portcullis.fish
  portcullis completion kubectl > /usr/local/bin/kubectl_complete-portcullis &&
    chmod +x /usr/local/bin/kubectl_complete-portcullis`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	for _, shell := range []struct {
		name, example string
		write         func(*cobra.Command, io.Writer) error
	}{
		{"bash", "source <(portcullis completion bash)", func(root *cobra.Command, w io.Writer) error { return root.GenBashCompletionV2(w, true) }},
		{"zsh", "source <(portcullis completion zsh)", (*cobra.Command).GenZshCompletion},
		{"fish", "portcullis completion fish | source", func(root *cobra.Command, w io.Writer) error { return root.GenFishCompletion(w, true) }},
		{"powershell", "portcullis completion powershell | Out-String | Invoke-Expression", (*cobra.Command).GenPowerShellCompletionWithDesc},
	} {
		c.AddCommand(&cobra.Command{
			Use: shell.name, Short: "Print the script for " + shell.name, Example: "  " + shell.example, Args: cobra.NoArgs,
			RunE: func(c *cobra.Command, _ []string) error { return shell.write(c.Root(), a.stdout) },
		})
	}
	c.AddCommand(&cobra.Command{
		Use:   "kubectl",
		Short: "Print the script for kubectl, where portcullis is its plugin",
		Long: "Print the script that completes 'kubectl portcullis'. The command is a plugin of kubectl if\n" +
			"it is found under the name kubectl-portcullis; the script has to be found, too, under the\n" +
			"name kubectl_complete-portcullis. The completion of kubectl itself does the rest.",
		Example: `  ln -s "$(command -v portcullis)" /usr/local/bin/kubectl-portcullis
  portcullis completion kubectl > /usr/local/bin/kubectl_complete-portcullis
  chmod +x /usr/local/bin/kubectl_complete-portcullis`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			_, err := io.WriteString(a.stdout, kubectlCompletion)
			return err
		},
	})
	return c
}

// completeFlags makes the flags of a tree of commands complete their values.
func (a *app) completeFlags(c *cobra.Command) {
	c.LocalNonPersistentFlags().VisitAll(func(f *pflag.Flag) {
		var complete cobra.CompletionFunc
		words, isChoice := f.Value.(interface{ all() []string })
		switch {
		case isChoice:
			complete = cobra.FixedCompletions(words.all(), cobra.ShellCompDirectiveNoFileComp)
		case f.Name == "namespace" || f.Name == "agent-namespace":
			complete = func(c *cobra.Command, _ []string, typed string) ([]string, cobra.ShellCompDirective) {
				return beginning(namesFor(c).namespaces(), typed), cobra.ShellCompDirectiveNoFileComp
			}
		case f.Name == "pod":
			complete = func(c *cobra.Command, _ []string, typed string) ([]string, cobra.ShellCompDirective) {
				return completePod(c, typed)
			}
		case f.Value.Type() == "bool" || slices.Contains([]string{"filename", "kubeconfig", "manifests", "agent", "source", "conf-dir", "bin-dir", "socket", "cni-socket", "admin-socket"}, f.Name):
			return // files, or nothing
		default:
			complete = cobra.NoFileCompletions
		}
		if err := c.RegisterFlagCompletionFunc(f.Name, complete); err != nil {
			panic(err) // the flag is there, and has none yet
		}
	})
	for _, sub := range c.Commands() {
		a.completeFlags(sub)
	}
}

// completePod completes namespace/pod, the namespace first.
func completePod(c *cobra.Command, typed string) ([]string, cobra.ShellCompDirective) {
	names := namesFor(c)
	namespace, _, both := strings.Cut(typed, "/")
	if both {
		return beginning(names.pods(namespace), typed), cobra.ShellCompDirectiveNoFileComp
	}
	var out []string
	for _, ns := range beginning(names.namespaces(), typed) {
		out = append(out, ns+"/")
	}
	return out, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
}

// beginning are the names that begin with what was typed. A shell gets none that an API
// server would not take.
func beginning(names []string, typed string) []string {
	plain := regexp.MustCompile(`^[a-z0-9./-]*$`)
	names = slices.DeleteFunc(slices.Clone(names), func(n string) bool { return !strings.HasPrefix(n, typed) || !plain.MatchString(n) })
	slices.Sort(names)
	return slices.Compact(names)
}

// names are those of the objects that a command line is about. They are completed as far
// as they can be had at once; nothing is said about errors.
type names struct {
	ctx     context.Context
	files   []string
	cluster clusterFlags
}

// namesFor reads the flags of a command line.
func namesFor(c *cobra.Command) names {
	n := names{ctx: c.Context()}
	if n.ctx == nil {
		n.ctx = context.Background()
	}
	if c.Flags().Lookup("filename") != nil {
		n.files, _ = c.Flags().GetStringArray("filename")
	}
	if f := c.Flags().Lookup("kubeconfig"); f != nil {
		n.cluster.kubeconfig = f.Value.String()
	}
	if f := c.Flags().Lookup("context"); f != nil {
		n.cluster.context = f.Value.String()
	}
	return n
}

// patience is how long somebody waits for a completion.
const patience = 3 * time.Second

func (n names) namespaces() []string {
	var out []string
	if len(n.files) > 0 {
		for _, ns := range n.read().Namespaces {
			out = append(out, ns.Name)
		}
		return out
	}
	_, client, err := n.cluster.connect()
	if err != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(n.ctx, patience)
	defer cancel()
	list, err := client.CoreV1().Namespaces().List(ctx, metav1.ListOptions{Limit: 1000})
	if err != nil {
		return nil
	}
	for _, ns := range list.Items {
		out = append(out, ns.Name)
	}
	return out
}

// pods are those of a namespace, as namespace/name.
func (n names) pods(namespace string) []string {
	var out []string
	if len(n.files) > 0 {
		for _, p := range n.read().Pods {
			if p.Namespace == namespace {
				out = append(out, p.Namespace+"/"+p.Name)
			}
		}
		return out
	}
	_, client, err := n.cluster.connect()
	if err != nil || namespace == "" {
		return nil
	}
	ctx, cancel := context.WithTimeout(n.ctx, patience)
	defer cancel()
	list, err := client.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{Limit: 500})
	if err != nil {
		return nil
	}
	for _, p := range list.Items {
		out = append(out, fmt.Sprintf("%s/%s", p.Namespace, p.Name))
	}
	return out
}

// read reads the files but never stdin, which is the shell's.
func (n names) read() *manifest.Objects {
	files := slices.DeleteFunc(slices.Clone(n.files), func(f string) bool { return f == manifest.Stdin })
	objects, _ := manifest.Read(files...) // what is right in them is enough
	return objects
}
