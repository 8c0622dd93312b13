package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/portcullis-netpol/portcullis/nft"
)

func (a *app) cleanup() *cobra.Command {
	return &cobra.Command{
		Use:   "cleanup",
		Short: "Remove the rules that the agent left in force",
		Long: "Remove Portcullis' nftables tables from this network namespace, and nothing else.\n" +
			"Every pod is open afterwards. Stop the agent first: a running one puts its rules back.",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			k, err := a.openKernel(nft.Config{})
			if err != nil {
				return fmt.Errorf("open nftables: %w", err)
			}
			defer k.Close()
			if err := nft.Cleanup(c.Context(), k); err != nil {
				return fmt.Errorf("remove the rules: %w", err)
			}
			return nil
		},
	}
}
