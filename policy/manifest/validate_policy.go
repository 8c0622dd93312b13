package manifest

import (
	"fmt"
	"slices"

	networkingv1 "k8s.io/api/networking/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

func validatePolicy(policy *networkingv1.NetworkPolicy) field.ErrorList {
	errs := validateMeta(&policy.ObjectMeta, true, apivalidation.NameIsDNSSubdomain)
	spec := field.NewPath("spec")
	errs = append(errs, validateSelector(&policy.Spec.PodSelector, spec.Child("podSelector"))...)
	for i, t := range policy.Spec.PolicyTypes {
		known := []networkingv1.PolicyType{networkingv1.PolicyTypeIngress, networkingv1.PolicyTypeEgress}
		if !slices.Contains(known, t) {
			errs = append(errs, field.NotSupported(spec.Child("policyTypes").Index(i), t, known))
		}
	}
	if n := len(policy.Spec.PolicyTypes); n > 2 {
		errs = append(errs, field.TooMany(spec.Child("policyTypes"), n, 2))
	}
	for i, r := range policy.Spec.Ingress {
		at := spec.Child("ingress").Index(i)
		errs = append(errs, validatePeers(r.From, at.Child("from"))...)
		errs = append(errs, validatePolicyPorts(r.Ports, at.Child("ports"))...)
	}
	for i, r := range policy.Spec.Egress {
		at := spec.Child("egress").Index(i)
		errs = append(errs, validatePeers(r.To, at.Child("to"))...)
		errs = append(errs, validatePolicyPorts(r.Ports, at.Child("ports"))...)
	}
	return errs
}

func validatePeers(peers []networkingv1.NetworkPolicyPeer, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	for i, p := range peers {
		at := path.Index(i)
		bySelector := p.PodSelector != nil || p.NamespaceSelector != nil
		switch {
		case p.IPBlock != nil && bySelector:
			errs = append(errs, field.Forbidden(at, "ipBlock cannot stand next to a selector"))
		case p.IPBlock == nil && !bySelector:
			errs = append(errs, field.Required(at, "one of podSelector, namespaceSelector and ipBlock"))
		}
		errs = append(errs, validateSelector(p.PodSelector, at.Child("podSelector"))...)
		errs = append(errs, validateSelector(p.NamespaceSelector, at.Child("namespaceSelector"))...)
		if p.IPBlock != nil {
			errs = append(errs, validateBlock(p.IPBlock, at.Child("ipBlock"))...)
		}
	}
	return errs
}

func validateBlock(b *networkingv1.IPBlock, path *field.Path) field.ErrorList {
	block, errs := validateCIDR(b.CIDR, path.Child("cidr"))
	for i, text := range b.Except {
		at := path.Child("except").Index(i)
		except, bad := validateCIDR(text, at)
		errs = append(errs, bad...)
		if block.IsValid() && except.IsValid() && (!block.Contains(except.Addr()) || except.Bits() <= block.Bits()) {
			errs = append(errs, field.Invalid(at, text, fmt.Sprintf("must be a real part of %s", b.CIDR)))
		}
	}
	return errs
}

func validatePolicyPorts(ports []networkingv1.NetworkPolicyPort, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	for i, p := range ports {
		at := path.Index(i)
		if p.Protocol != nil {
			if *p.Protocol == "" {
				errs = append(errs, field.Required(at.Child("protocol"), "leave it out for TCP"))
			}
			errs = append(errs, validateProtocol(*p.Protocol, at.Child("protocol"))...)
		}
		if p.Port != nil {
			errs = append(errs, validatePortOrName(*p.Port, at.Child("port"))...)
		}
		if p.EndPort == nil {
			continue
		}
		end := at.Child("endPort")
		errs = append(errs, validatePort(*p.EndPort, end)...)
		switch {
		case p.Port == nil || p.Port.Type != intstr.Int:
			errs = append(errs, field.Forbidden(end, "needs a port that is a number"))
		case *p.EndPort < p.Port.IntVal:
			errs = append(errs, field.Invalid(end, *p.EndPort, "must not be less than port"))
		}
	}
	return errs
}
