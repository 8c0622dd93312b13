package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"

	"github.com/portcullis-netpol/portcullis/agent/cni"
)

// podRequest says to the agent what ADD and CHECK are told about a pod.
func podRequest(command cni.Command, args *skel.CmdArgs, conf *config) (cni.Request, error) {
	pod, err := podOf(args.Args)
	if err != nil {
		return cni.Request{}, types.NewError(types.ErrInvalidEnvironmentVariables, "portcullis-cni: CNI_ARGS", err.Error())
	}
	prev, err := readResult(conf.PrevResult)
	if err != nil {
		return cni.Request{}, types.NewError(types.ErrInvalidNetworkConfig, "portcullis-cni: prevResult", err.Error())
	}
	addrs, subnets, err := prev.addrsOf(args.IfName)
	if err != nil {
		return cni.Request{}, types.NewError(types.ErrInvalidNetworkConfig, "portcullis-cni: prevResult", err.Error())
	}
	r := cni.Request{
		Command:       command,
		Attachment:    cni.Attachment{ContainerID: args.ContainerID, Interface: args.IfName},
		Namespace:     pod.namespace,
		Name:          pod.name,
		UID:           pod.uid,
		Addrs:         addrs,
		HostInterface: hostInterface(prev, driverOf),
	}
	if command == cni.Add {
		r.Subnets = subnets
	}
	// It is the agent that decides; but so the error is there without an agent, too.
	if err := r.Validate(); err != nil {
		return cni.Request{}, types.NewError(types.ErrInvalidEnvironmentVariables, "portcullis-cni: not a pod", err.Error())
	}
	return r, nil
}

// podID is what the container runtime says of the pod.
type podID struct{ namespace, name, uid string }

// podOf reads CNI_ARGS. Kubernetes' runtimes also say K8S_POD_UID since 2021, and
// arguments that are not ours, with IgnoreUnknown=1.
func podOf(text string) (podID, error) {
	var args struct {
		types.CommonArgs
		K8S_POD_NAMESPACE types.UnmarshallableString
		K8S_POD_NAME      types.UnmarshallableString
		K8S_POD_UID       types.UnmarshallableString
	}
	if err := types.LoadArgs(text, &args); err != nil {
		return podID{}, err
	}
	var errs []error
	if args.K8S_POD_NAMESPACE == "" {
		errs = append(errs, errors.New("K8S_POD_NAMESPACE is missing"))
	}
	if args.K8S_POD_NAME == "" {
		errs = append(errs, errors.New("K8S_POD_NAME is missing"))
	}
	pod := podID{string(args.K8S_POD_NAMESPACE), string(args.K8S_POD_NAME), string(args.K8S_POD_UID)}
	return pod, errors.Join(errs...)
}

// result is what matters here of a CNI result, which is the same from specification
// 0.3.0 to 1.1.0. The result itself is passed on as bytes.
type result struct {
	Interfaces []struct {
		Name    string `json:"name"`
		Sandbox string `json:"sandbox"` // empty: an interface of the node
	} `json:"interfaces"`
	IPs []struct {
		Address   string `json:"address"`   // with the length of its prefix
		Gateway   string `json:"gateway"`   // or empty
		Interface *int   `json:"interface"` // index of Interfaces
	} `json:"ips"`
}

func readResult(raw json.RawMessage) (*result, error) {
	if len(raw) == 0 || string(raw) == "null" {
		return nil, errors.New("missing: portcullis-cni must stand behind the plugin that makes the interface, in a list of plugins")
	}
	var r result
	if err := json.Unmarshal(raw, &r); err != nil {
		return nil, err
	}
	return &r, nil
}

// addrsOf returns the addresses of an interface inside of the pod, each once: those
// that the result gives to it, and those that it gives to none in particular. With them
// come the subnets of those that have a gateway.
func (r *result) addrsOf(name string) (addrs []netip.Addr, subnets []cni.Subnet, err error) {
	for i, ip := range r.IPs {
		if n := ip.Interface; n != nil {
			if *n < 0 || *n >= len(r.Interfaces) {
				return nil, nil, fmt.Errorf("ips[%d].interface: there is no interface %d", i, *n)
			}
			if of := r.Interfaces[*n]; of.Sandbox == "" || of.Name != name {
				continue
			}
		}
		p, err := netip.ParsePrefix(ip.Address)
		if err != nil {
			return nil, nil, fmt.Errorf("ips[%d].address: %w", i, err)
		}
		a := p.Addr().Unmap()
		if err := cni.CheckAddr(a); err != nil {
			return nil, nil, fmt.Errorf("ips[%d].address: %w", i, err)
		}
		if !slices.Contains(addrs, a) {
			addrs = append(addrs, a)
		}
		if s, ok := subnetOf(p, ip.Gateway); ok && !slices.Contains(subnets, s) {
			subnets = append(subnets, s)
		}
	}
	if len(addrs) == 0 {
		return nil, nil, fmt.Errorf("no address of interface %s among %d", name, len(r.IPs))
	}
	return addrs, subnets, nil
}

// subnetOf returns the subnet of an address with its gateway. What makes no sense is
// none: the agent can do without, and the pod must not fail for it.
func subnetOf(p netip.Prefix, gateway string) (cni.Subnet, bool) {
	g, err := netip.ParseAddr(gateway)
	if err != nil {
		return cni.Subnet{}, false
	}
	const mapped = 96 // bits in front of an IPv4 address in IPv6 form
	if p.Addr().Is4In6() {
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-mapped)
	}
	s := cni.Subnet{Prefix: p.Masked(), Gateway: g.Unmap()}
	return s, s.Validate() == nil
}
