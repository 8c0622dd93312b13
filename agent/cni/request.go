package cni

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
)

// protocol is the version of the messages. The plugin and the agent come from one
// release, but for a moment during an update they may not.
const protocol = 1

// MaxMessage is how many bytes a message on the socket may have, its newline
// included. A GC with 5,000 attachments fits.
const MaxMessage = 1 << 20

// Command is what a request is about.
type Command string

// The commands. They are the CNI's own, without VERSION.
const (
	Add    Command = "add"
	Del    Command = "del"
	Check  Command = "check"
	GC     Command = "gc"
	Status Command = "status" // is the agent there? The Server answers it itself
)

// Attachment is one interface of one container, as the container runtime names them.
type Attachment struct {
	ContainerID string `json:"containerID"` // the pod's sandbox
	Interface   string `json:"interface"`   // inside of the pod, such as eth0
}

// Subnet is a network that a pod has an address of. Whether it is the node's alone,
// or shared by nodes, it does not say.
type Subnet struct {
	Prefix  netip.Prefix `json:"prefix"`  // masked; IPv4 in its own form
	Gateway netip.Addr   `json:"gateway"` // of the same family, and no more is known of it
}

// Request is what the plugin tells the agent.
type Request struct {
	Command Command `json:"command"`
	// Attachment is set for Add, Del and Check. It identifies the pod's sandbox: a
	// pod that is made again has another one.
	Attachment
	// Namespace and Name are the pod's. They are set for Add and Check, and for Del
	// as far as the container runtime says them.
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name,omitempty"`
	// UID is the pod's as the kubelet knows it, or empty if the container runtime
	// does not say it. A static pod has another UID at the API server; this one is
	// the value of its annotation kubernetes.io/config.hash there.
	UID string `json:"uid,omitempty"`
	// Addrs are the addresses of the interface, at least one for Add and Check.
	// They are unmapped unicast addresses without zones, each once.
	Addrs []netip.Addr `json:"addrs,omitempty"`
	// HostInterface is the interface's other end on the node, or empty if the chain
	// of plugins did not say it so that it could be recognised for sure.
	HostInterface string `json:"hostInterface,omitempty"`
	// Subnets are the networks that the interface's addresses are from, where the
	// chain of plugins names a gateway, each once. They are for Add. An agent of an
	// earlier release refuses a request with subnets; Client asks it without them.
	Subnets []Subnet `json:"subnets,omitempty"`
	// Valid are the attachments that exist. It is for GC; empty means none.
	Valid []Attachment `json:"valid,omitempty"`
}

// envelope is a Request on the socket.
type envelope struct {
	Protocol int `json:"protocol"`
	Request
}

// answer is what the Server says. An empty Error means that it is done.
type answer struct {
	Protocol int    `json:"protocol"`
	Error    string `json:"error,omitempty"`
}

// Validate reports everything that is wrong with the values of the request, joined.
// A request without an error can be used as it is in logs, map keys and rules.
func (r Request) Validate() error {
	var errs []error
	wrong := func(field string, err error) {
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", field, err))
		}
	}
	switch r.Command {
	case Add, Check:
		wrong("containerID", checkContainerID(r.ContainerID))
		wrong("interface", checkInterface(r.Interface))
		wrong("namespace", checkNamespace(r.Namespace))
		wrong("name", checkName(r.Name))
		wrong("uid", optional(checkUID, r.UID))
		wrong("addrs", checkAddrs(r.Addrs))
		wrong("hostInterface", optional(checkInterface, r.HostInterface))
		if r.Command == Add {
			wrong("subnets", checkSubnets(r.Subnets))
		} else {
			wrong("subnets", absent(len(r.Subnets) == 0, r.Command))
		}
		wrong("valid", absent(len(r.Valid) == 0, r.Command))
	case Del:
		wrong("containerID", checkContainerID(r.ContainerID))
		wrong("interface", checkInterface(r.Interface))
		wrong("namespace", optional(checkNamespace, r.Namespace))
		wrong("name", optional(checkName, r.Name))
		wrong("uid", optional(checkUID, r.UID))
		wrong("addrs", absent(len(r.Addrs) == 0, r.Command))
		wrong("hostInterface", absent(r.HostInterface == "", r.Command))
		wrong("subnets", absent(len(r.Subnets) == 0, r.Command))
		wrong("valid", absent(len(r.Valid) == 0, r.Command))
	case GC, Status:
		wrong("pod", absent(r.Attachment == Attachment{} && r.Namespace == "" && r.Name == "" && r.UID == "" &&
			len(r.Addrs) == 0 && r.HostInterface == "" && len(r.Subnets) == 0, r.Command))
		wrong("valid", absent(r.Command == GC || len(r.Valid) == 0, r.Command))
		for i, a := range r.Valid {
			wrong(fmt.Sprintf("valid[%d].containerID", i), checkContainerID(a.ContainerID))
			wrong(fmt.Sprintf("valid[%d].interface", i), checkInterface(a.Interface))
		}
	default:
		wrong("command", fmt.Errorf("%q is none of add, del, check, gc and status", r.Command))
	}
	return errors.Join(errs...)
}

// encode returns the line that carries the request.
func encode(r Request) ([]byte, error) {
	line, err := json.Marshal(envelope{protocol, r})
	if err != nil {
		return nil, fmt.Errorf("encode the request: %w", err)
	}
	if len(line)+1 > MaxMessage {
		return nil, fmt.Errorf("the request has %d bytes, more than %d", len(line)+1, MaxMessage)
	}
	return append(line, '\n'), nil
}

// decode returns the request of a line. What it returns without an error is valid.
func decode(line []byte) (Request, error) {
	var e envelope
	if err := decodeStrictly(line, &e); err != nil {
		return Request{}, err
	}
	if e.Protocol != protocol {
		return Request{}, fmt.Errorf("version %d of the protocol, not %d: the plugin and the agent are of different releases", e.Protocol, protocol)
	}
	if err := e.Validate(); err != nil {
		return Request{}, err
	}
	return e.Request, nil
}

// decodeStrictly decodes exactly one JSON value, without fields that it does not know.
func decodeStrictly(line []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(line))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return fmt.Errorf("not a message of this protocol: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("not a message of this protocol: something follows the first value")
	}
	return nil
}

// readLine reads up to the first newline, which it leaves out.
func readLine(r io.Reader) ([]byte, error) {
	var line []byte
	chunk := make([]byte, 4096)
	for {
		n, err := r.Read(chunk)
		text, rest, whole := bytes.Cut(chunk[:n], []byte{'\n'})
		line = append(line, text...)
		switch {
		case len(line)+1 > MaxMessage:
			return nil, fmt.Errorf("more than %d bytes", MaxMessage)
		case len(rest) > 0:
			return nil, errors.New("more than one line")
		case whole:
			return line, nil
		case errors.Is(err, io.EOF):
			return nil, io.ErrUnexpectedEOF
		case err != nil:
			return nil, err
		}
	}
}

func optional(check func(string) error, value string) error {
	if value == "" {
		return nil
	}
	return check(value)
}

func absent(is bool, c Command) error {
	if is {
		return nil
	}
	return fmt.Errorf("not for command %s", c)
}
