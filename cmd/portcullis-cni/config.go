package main

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/portcullis-netpol/portcullis/agent/cni"
)

const (
	keyValid      = "cni.dev/valid-attachments"
	keyPrevResult = "prevResult"
)

// config is what the plugin reads from stdin.
type config struct {
	cni.Settings
	PrevResult json.RawMessage       `json:"prevResult"`
	Valid      *[]types.GCAttachment `json:"cni.dev/valid-attachments"`
}

// knownKeys are our own keys and those that the CNI specification puts into a
// plugin's configuration or lets anybody put there.
var knownKeys = []string{
	"type", "socket", "timeout", "onAgentUnreachable",
	"cniVersion", "name", keyPrevResult, "runtimeConfig",
	"args", "capabilities", "dns", "ipMasq", "ipam",
}

// readConfig returns the plugin's valid configuration with its defaults. A key that
// nobody knows is an error: a mistyped onAgentUnreachable would otherwise be the
// opposite of what was meant. Keys with a slash belong to whoever owns the name
// before it, such as cni.dev.
func readConfig(stdin []byte) (*config, error) {
	wrong := func(err error) error {
		return types.NewError(types.ErrInvalidNetworkConfig, "portcullis-cni: configuration", err.Error())
	}
	var keys map[string]json.RawMessage
	if err := json.Unmarshal(stdin, &keys); err != nil {
		return nil, types.NewError(types.ErrDecodingFailure, "portcullis-cni: configuration", err.Error())
	}
	var unknown []string
	for key := range keys {
		if !slices.Contains(knownKeys, key) && !strings.Contains(key, "/") {
			unknown = append(unknown, fmt.Sprintf("%q", key))
		}
	}
	if len(unknown) > 0 {
		slices.Sort(unknown)
		return nil, wrong(fmt.Errorf("unknown key %s", strings.Join(unknown, ", ")))
	}
	c := &config{}
	if err := json.Unmarshal(stdin, c); err != nil {
		return nil, types.NewError(types.ErrDecodingFailure, "portcullis-cni: configuration", err.Error())
	}
	// A plugin is found by its file's name, so another type is another name of ours.
	c.Type = cni.PluginType
	c.Settings = c.WithDefaults()
	if err := c.Validate(); err != nil {
		return nil, wrong(err)
	}
	return c, nil
}
