package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/portcullis-netpol/portcullis/nft"
	"github.com/portcullis-netpol/portcullis/nft/spoof"
)

func (a *app) cleanup() *cobra.Command {
	return &cobra.Command{
		Use:   "cleanup",
		Short: "Remove the rules that the agent left in force",
		Long: "Remove Portcullis' nftables tables from this network namespace, and nothing else.\n" +
			"Every pod is open afterwards. Stop the agent first: a running one puts its rules back.",
		Example: "  portcullis cleanup",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			k, err := a.openKernel(nft.Config{})
			if err != nil {
				return fmt.Errorf("open nftables: %w", err)
			}
			defer k.Close()
			if err := errors.Join(nft.Cleanup(c.Context(), k), a.cleanDevices(c.Context())); err != nil {
				return fmt.Errorf("remove the rules: %w", err)
			}
			return nil
		},
	}
}

// cleanDevices removes the rules of the pods' interfaces.
func (a *app) cleanDevices(ctx context.Context) error {
	if a.netns < 0 {
		return nil
	}
	guard, err := spoof.Open(a.netns)
	if err != nil {
		return err
	}
	return errors.Join(guard.Cleanup(ctx), guard.Close())
}
