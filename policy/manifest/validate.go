package manifest

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Validate reports what the API server would refuse, as far as it has to do with who may talk to whom: names, labels,
// addresses, ports, and all of NetworkPolicy. Each error names the place, the object and the field. What only a kubelet
// would miss, such as an image, is not asked for.
func (o *Objects) Validate() error {
	var errs []error
	report := func(obj object, list field.ErrorList) {
		// Some come out of maps, in any order.
		slices.SortStableFunc(list, func(a, b *field.Error) int {
			return cmp.Or(strings.Compare(a.Field, b.Field), strings.Compare(a.Error(), b.Error()))
		})
		for _, err := range list {
			errs = append(errs, fmt.Errorf("%s%s: %w", o.place(obj), key(obj), err))
		}
	}
	for _, ns := range o.Namespaces {
		if !o.made[key(ns)] { // Who uses a namespace is told about its name.
			report(ns, validateMeta(&ns.ObjectMeta, false, apivalidation.NameIsDNSLabel))
		}
	}
	for _, node := range o.Nodes {
		report(node, validateNode(node))
	}
	for _, pod := range o.Pods {
		if !o.made[key(pod)] { // Its workload is validated, once for all of its pods.
			report(pod, validatePod(pod))
		}
	}
	for _, w := range o.workloads {
		report(w, validateWorkload(w))
	}
	for _, svc := range o.Services {
		report(svc, validateService(svc))
	}
	for _, policy := range o.Policies {
		report(policy, validatePolicy(policy))
	}
	return errors.Join(errs...)
}

// place is where an object stands, for the beginning of a message, if it is known.
func (o *Objects) place(obj object) string {
	if origin, ok := o.Origins[key(obj)]; ok {
		return origin.String() + ": "
	}
	return ""
}

func validateMeta(meta *metav1.ObjectMeta, namespaced bool, name apivalidation.ValidateNameFunc) field.ErrorList {
	return apivalidation.ValidateObjectMeta(meta, namespaced, name, field.NewPath("metadata"))
}

func validateNode(node *corev1.Node) field.ErrorList {
	errs := validateMeta(&node.ObjectMeta, false, apivalidation.NameIsDNSSubdomain)
	for i, cidr := range node.Spec.PodCIDRs {
		_, err := validateCIDR(cidr, field.NewPath("spec", "podCIDRs").Index(i))
		errs = append(errs, err...)
	}
	for i, a := range node.Status.Addresses {
		if a.Type == corev1.NodeInternalIP || a.Type == corev1.NodeExternalIP {
			errs = append(errs, validateAddr(a.Address, field.NewPath("status", "addresses").Index(i).Child("address"))...)
		}
	}
	return errs
}

func validatePod(pod *corev1.Pod) field.ErrorList {
	errs := validateMeta(&pod.ObjectMeta, true, apivalidation.NameIsDNSSubdomain)
	errs = append(errs, validatePodSpec(&pod.Spec, field.NewPath("spec"))...)
	return append(errs, validatePodStatus(&pod.Status, field.NewPath("status"))...)
}

func validatePodSpec(spec *corev1.PodSpec, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if spec.NodeName != "" {
		for _, msg := range apivalidation.NameIsDNSSubdomain(spec.NodeName, false) {
			errs = append(errs, field.Invalid(path.Child("nodeName"), spec.NodeName, msg))
		}
	}
	for i, c := range spec.Containers {
		errs = append(errs, validateContainerPorts(c.Ports, path.Child("containers").Index(i).Child("ports"))...)
	}
	for i, c := range spec.InitContainers {
		errs = append(errs, validateContainerPorts(c.Ports, path.Child("initContainers").Index(i).Child("ports"))...)
	}
	return errs
}

// validateContainerPorts looks at the ports of one container. A name is unique there; two containers may share one.
func validateContainerPorts(ports []corev1.ContainerPort, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	names := map[string]bool{}
	for i, p := range ports {
		at := path.Index(i)
		errs = append(errs, validatePort(p.ContainerPort, at.Child("containerPort"))...)
		errs = append(errs, validateProtocol(p.Protocol, at.Child("protocol"))...)
		if p.Name == "" {
			continue
		}
		errs = append(errs, validatePortName(p.Name, at.Child("name"))...)
		if names[p.Name] {
			errs = append(errs, field.Duplicate(at.Child("name"), p.Name))
		}
		names[p.Name] = true
	}
	return errs
}

func validatePodStatus(status *corev1.PodStatus, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	switch status.Phase {
	case "", corev1.PodPending, corev1.PodRunning, corev1.PodSucceeded, corev1.PodFailed, corev1.PodUnknown:
	default:
		errs = append(errs, field.NotSupported(path.Child("phase"), status.Phase, []corev1.PodPhase{corev1.PodPending,
			corev1.PodRunning, corev1.PodSucceeded, corev1.PodFailed, corev1.PodUnknown}))
	}
	if status.PodIP != "" {
		errs = append(errs, validateAddr(status.PodIP, path.Child("podIP"))...)
	}
	if len(status.PodIPs) > 0 && status.PodIP != "" && status.PodIPs[0].IP != status.PodIP {
		errs = append(errs, field.Invalid(path.Child("podIPs").Index(0).Child("ip"), status.PodIPs[0].IP, "must be the same as podIP"))
	}
	families := map[bool]bool{}
	for i, ip := range status.PodIPs {
		at := path.Child("podIPs").Index(i).Child("ip")
		bad := validateAddr(ip.IP, at)
		errs = append(errs, bad...)
		addr, _ := netip.ParseAddr(ip.IP)
		if len(bad) == 0 && families[addr.Is4()] {
			errs = append(errs, field.Invalid(at, ip.IP, "a pod has one address of each family"))
		}
		families[addr.Is4()] = families[addr.Is4()] || len(bad) == 0
	}
	return errs
}

func validateWorkload(w *workload) field.ErrorList {
	errs := validateMeta(&w.ObjectMeta, true, apivalidation.NameIsDNSSubdomain)
	path := field.NewPath(w.path)
	labels := path.Child("metadata", "labels")
	errs = append(errs, validateLabels(w.template.Labels, labels)...)
	return append(errs, validatePodSpec(&w.template.Spec, path.Child("spec"))...)
}

func validateService(svc *corev1.Service) field.ErrorList {
	errs := validateMeta(&svc.ObjectMeta, true, apivalidation.NameIsDNSLabel)
	spec := field.NewPath("spec")
	if svc.Spec.ClusterIP != "" && svc.Spec.ClusterIP != corev1.ClusterIPNone {
		errs = append(errs, validateAddr(svc.Spec.ClusterIP, spec.Child("clusterIP"))...)
	}
	for i, ip := range svc.Spec.ClusterIPs {
		if ip != corev1.ClusterIPNone {
			errs = append(errs, validateAddr(ip, spec.Child("clusterIPs").Index(i))...)
		}
	}
	errs = append(errs, validateLabels(svc.Spec.Selector, spec.Child("selector"))...)
	for i, p := range svc.Spec.Ports {
		at := spec.Child("ports").Index(i)
		errs = append(errs, validatePort(p.Port, at.Child("port"))...)
		errs = append(errs, validateProtocol(p.Protocol, at.Child("protocol"))...)
		if p.NodePort != 0 {
			errs = append(errs, validatePort(p.NodePort, at.Child("nodePort"))...)
		}
		if p.TargetPort != (intstr.IntOrString{}) {
			errs = append(errs, validatePortOrName(p.TargetPort, at.Child("targetPort"))...)
		}
	}
	return errs
}
