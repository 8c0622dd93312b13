package cni

import (
	"errors"
	"fmt"
	"time"

	"github.com/portcullis-netpol/portcullis/agent/socket"
)

// PluginType is the plugin's type in a CNI configuration, and its file's name.
const PluginType = "portcullis-cni"

// The values of [Settings.OnAgentUnreachable].
const (
	Allow = "allow" // the pod starts; it is in quarantine until the agent comes
	Fail  = "fail"  // the pod does not start; the kubelet tries again
)

// The settings that hold where a configuration says nothing else.
const (
	DefaultSocket  = "/run/portcullis/cni.sock"
	DefaultTimeout = 3 * time.Second
)

// MaxTimeout is the longest that the plugin may be told to wait, and the longest
// that the Server lets a Handler work. The kubelet gives up after two minutes.
const MaxTimeout = time.Minute

// Settings are the plugin's own fields of its CNI configuration.
type Settings struct {
	Type string `json:"type"` // PluginType
	// Socket is the path of the agent's socket.
	Socket string `json:"socket,omitempty"`
	// Timeout is how long one call of the plugin waits for the agent, in the form of
	// time.ParseDuration.
	Timeout string `json:"timeout,omitempty"`
	// OnAgentUnreachable is what becomes of a pod if the agent does not answer in
	// time: Allow or Fail. An agent that answers with an error always fails the pod.
	OnAgentUnreachable string `json:"onAgentUnreachable,omitempty"`
}

// WithDefaults returns the settings with their defaults where they say nothing.
func (s Settings) WithDefaults() Settings {
	if s.Type == "" {
		s.Type = PluginType
	}
	if s.Socket == "" {
		s.Socket = DefaultSocket
	}
	if s.Timeout == "" {
		s.Timeout = DefaultTimeout.String()
	}
	if s.OnAgentUnreachable == "" {
		s.OnAgentUnreachable = Allow
	}
	return s
}

// Validate reports everything that is wrong with settings that have their defaults,
// joined, each error with the name of its field.
func (s Settings) Validate() error {
	var errs []error
	if s.Type != PluginType {
		errs = append(errs, fmt.Errorf("type: %q is not %s", s.Type, PluginType))
	}
	if err := socket.Check(s.Socket); err != nil {
		errs = append(errs, fmt.Errorf("socket: %w", err))
	}
	d, err := time.ParseDuration(s.Timeout)
	if err != nil {
		errs = append(errs, fmt.Errorf("timeout: %q is no duration such as 3s", s.Timeout))
	} else if d <= 0 || d > MaxTimeout {
		errs = append(errs, fmt.Errorf("timeout: %s is not more than 0 and at most %s", s.Timeout, MaxTimeout))
	}
	if s.OnAgentUnreachable != Allow && s.OnAgentUnreachable != Fail {
		errs = append(errs, fmt.Errorf("onAgentUnreachable: %q is neither %s nor %s", s.OnAgentUnreachable, Allow, Fail))
	}
	return errors.Join(errs...)
}

// Wait returns the timeout of valid settings.
func (s Settings) Wait() time.Duration {
	d, err := time.ParseDuration(s.Timeout)
	if err != nil {
		return DefaultTimeout
	}
	return d
}
