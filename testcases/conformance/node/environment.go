package node

import (
	"fmt"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/kubernetes/third_party/forked/golang/expansion"
)

// environment returns the variables of a container.
func (n *Nodes) environment(pod *corev1.Pod, c corev1.Container, box *sandbox) (map[string]string, error) {
	env := map[string]string{
		"PATH": "/usr/local/bin:/", "HOSTNAME": pod.Name,
		// What a client in the cluster finds the API server by.
		"KUBERNETES_SERVICE_HOST": n.ServiceHost, "KUBERNETES_SERVICE_PORT": "443",
	}
	if box.hostNetwork {
		env["HOSTNAME"] = pod.Spec.NodeName
	}
	for _, e := range c.Env {
		value := expansion.Expand(e.Value, expansion.MappingFuncFor(env))
		if e.ValueFrom != nil {
			var err error
			if value, err = valueFrom(e.ValueFrom, pod, box); err != nil {
				return nil, fmt.Errorf("environment variable %s: %w", e.Name, err)
			}
		}
		env[e.Name] = value
	}
	return env, nil
}

// valueFrom returns a field of the pod.
func valueFrom(source *corev1.EnvVarSource, pod *corev1.Pod, box *sandbox) (string, error) {
	if source.FieldRef == nil {
		return "", fmt.Errorf("only fieldRef is supported here")
	}
	switch field := source.FieldRef.FieldPath; field {
	case "metadata.name":
		return pod.Name, nil
	case "metadata.namespace":
		return pod.Namespace, nil
	case "spec.nodeName":
		return pod.Spec.NodeName, nil
	case "status.podIP":
		return box.addrs[0].String(), nil
	default:
		return "", fmt.Errorf("field %s is not supported here", field)
	}
}

// expand replaces $(NAME) in a command.
func expand(command []string, env map[string]string) []string {
	out := make([]string, len(command))
	for i, word := range command {
		out[i] = expansion.Expand(word, expansion.MappingFuncFor(env))
	}
	return out
}

// environ is the variables as a process gets them.
func environ(env map[string]string) []string {
	var out []string
	for _, name := range slices.Sorted(maps.Keys(env)) {
		out = append(out, name+"="+env[name])
	}
	return out
}
