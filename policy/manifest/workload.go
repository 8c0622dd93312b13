package manifest

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
)

// maxPods bounds the pods that one workload can make: a slip of the finger in a file must not eat the memory.
const maxPods = 10_000

// workload is an object whose controller would make pods.
type workload struct {
	metav1.ObjectMeta
	kind     string
	count    *int32 // nil is 1
	perNode  bool   // one pod for each node, whatever count is
	first    int32  // number of the first pod
	template corev1.PodTemplateSpec
	path     string // field of the object that holds the template
	field    string // field of the object that holds count
	stable   bool   // pods have a name of their own that labels tell (StatefulSet)
}

func fromDeployment(d *appsv1.Deployment) *workload {
	return &workload{ObjectMeta: d.ObjectMeta, kind: "Deployment", count: d.Spec.Replicas, template: d.Spec.Template,
		path: "spec.template", field: "spec.replicas"}
}

func fromReplicaSet(r *appsv1.ReplicaSet) *workload {
	return &workload{ObjectMeta: r.ObjectMeta, kind: "ReplicaSet", count: r.Spec.Replicas, template: r.Spec.Template,
		path: "spec.template", field: "spec.replicas"}
}

func fromStatefulSet(s *appsv1.StatefulSet) *workload {
	w := &workload{ObjectMeta: s.ObjectMeta, kind: "StatefulSet", count: s.Spec.Replicas, template: s.Spec.Template,
		path: "spec.template", field: "spec.replicas", stable: true}
	if s.Spec.Ordinals != nil {
		w.first = s.Spec.Ordinals.Start
	}
	return w
}

func fromDaemonSet(d *appsv1.DaemonSet) *workload {
	return &workload{ObjectMeta: d.ObjectMeta, kind: "DaemonSet", perNode: true, template: d.Spec.Template,
		path: "spec.template"}
}

func fromReplicationController(r *corev1.ReplicationController) *workload {
	w := &workload{ObjectMeta: r.ObjectMeta, kind: "ReplicationController", count: r.Spec.Replicas,
		path: "spec.template", field: "spec.replicas"}
	if r.Spec.Template != nil {
		w.template = *r.Spec.Template
	}
	return w
}

func fromJob(j *batchv1.Job) *workload {
	return &workload{ObjectMeta: j.ObjectMeta, kind: "Job", count: j.Spec.Parallelism, template: j.Spec.Template,
		path: "spec.template", field: "spec.parallelism"}
}

func fromCronJob(c *batchv1.CronJob) *workload {
	return &workload{ObjectMeta: c.ObjectMeta, kind: "CronJob", count: c.Spec.JobTemplate.Spec.Parallelism,
		template: c.Spec.JobTemplate.Spec.Template,
		path:     "spec.jobTemplate.spec.template", field: "spec.jobTemplate.spec.parallelism"}
}

// makePods makes the pods of every workload whose pods are not given.
func (o *Objects) makePods() error {
	controlled := o.controlled()
	var errs []error
	for _, w := range o.workloads {
		if controlled[key(w)] || metav1.GetControllerOf(w) != nil && o.has(controllerKey(w)) {
			continue
		}
		errs = append(errs, o.makePodsOf(w))
	}
	return errors.Join(errs...)
}

func (o *Objects) has(key string) bool {
	_, ok := o.Origins[key]
	return ok
}

// controlled are the workloads that control a given pod, directly or through workloads between them.
func (o *Objects) controlled() map[string]bool {
	byKey := map[string]object{}
	for _, w := range o.workloads {
		byKey[key(w)] = w
	}
	out := map[string]bool{}
	for _, pod := range o.Pods {
		for k := controllerKey(pod); k != "" && !out[k]; {
			out[k] = true
			next, ok := byKey[k]
			if !ok {
				break
			}
			k = controllerKey(next)
		}
	}
	return out
}

// controllerKey names the object that controls another one, or is empty.
func controllerKey(obj object) string {
	ref := metav1.GetControllerOf(obj)
	if ref == nil {
		return ""
	}
	return ref.Kind + " " + obj.GetNamespace() + "/" + ref.Name
}

// makePodsOf makes the pods of one workload.
func (o *Objects) makePodsOf(w *workload) error {
	count := 1
	if w.count != nil {
		count = int(*w.count)
	}
	if w.perNode {
		count = max(1, len(o.Nodes))
	}
	origin := o.Origins[key(w)]
	if count < 0 || count > maxPods {
		return fmt.Errorf("%s: %s: %s: Invalid value: %d: must be from 0 to %d", origin, key(w), w.field, count, maxPods)
	}
	for i := range count {
		pod := w.pod(w.Name, int(w.first)+i)
		if o.has(key(pod)) {
			pod = w.pod(w.Name+"-"+strings.ToLower(w.kind), int(w.first)+i)
		}
		if w.perNode && len(o.Nodes) > 0 && pod.Spec.NodeName == "" {
			pod.Spec.NodeName = o.Nodes[i].Name
		}
		if err := o.add(pod, origin); err != nil {
			return err
		}
		o.made[key(pod)] = true
	}
	return nil
}

// pod is a pod as the workload's template says.
func (w *workload) pod(base string, number int) *corev1.Pod {
	suffix := "-" + strconv.Itoa(number)
	if room := validation.DNS1123SubdomainMaxLength - len(suffix); len(base) > room {
		base = strings.TrimRight(base[:room], "-.")
	}
	template := w.template.DeepCopy()
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace:   w.Namespace,
			Name:        base + suffix,
			Labels:      template.Labels,
			Annotations: template.Annotations,
		},
		Spec: template.Spec,
	}
	if w.stable {
		if pod.Labels == nil {
			pod.Labels = map[string]string{}
		}
		pod.Labels[appsv1.StatefulSetPodNameLabel] = pod.Name
		pod.Labels[appsv1.PodIndexLabel] = strconv.Itoa(number)
	}
	return pod
}
