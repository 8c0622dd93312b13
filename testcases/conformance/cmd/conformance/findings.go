package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/yaml"

	"github.com/portcullis-netpol/portcullis/testcases/conformance/process"
	"github.com/portcullis-netpol/portcullis/testcases/conformance/progress"
)

// findings is a folder with what can be known about a spec that went wrong: the
// objects and the rules at that moment, and what the policies say.
type findings struct {
	suite *suite
	dir   string
	cells []progress.Cell // of the last truth table that had any
}

const objectsFile = "objects.yaml"

// look writes the cluster's objects and every node's tables.
func (f *findings) look(ctx context.Context) error {
	if err := os.MkdirAll(f.dir, 0o755); err != nil {
		return err
	}
	errs := []error{f.writeObjects(ctx)}
	for _, node := range f.suite.cluster.Nodes() {
		var out bytes.Buffer
		err := f.suite.starter.Run(ctx, process.Spec{
			Name: "nft", Path: "nft", Args: []string{"list", "ruleset"}, NetNS: f.suite.cluster.NetNS(node), Stdout: &out, Stderr: &out,
		})
		errs = append(errs, err, os.WriteFile(filepath.Join(f.dir, "nft-"+node+".txt"), out.Bytes(), 0o644))
	}
	return errors.Join(errs...)
}

// writeObjects writes what explain needs.
func (f *findings) writeObjects(ctx context.Context) error {
	core, all := f.suite.cluster.Client.CoreV1(), metav1.ListOptions{}
	var objects []runtime.Object
	nodes, err1 := core.Nodes().List(ctx, all)
	namespaces, err2 := core.Namespaces().List(ctx, all)
	pods, err3 := core.Pods("").List(ctx, all)
	policies, err4 := f.suite.cluster.Client.NetworkingV1().NetworkPolicies("").List(ctx, all)
	if err := errors.Join(err1, err2, err3, err4); err != nil {
		return err
	}
	for i := range nodes.Items {
		objects = append(objects, &nodes.Items[i])
	}
	for i := range namespaces.Items {
		objects = append(objects, &namespaces.Items[i])
	}
	for i := range pods.Items {
		objects = append(objects, &pods.Items[i])
	}
	for i := range policies.Items {
		objects = append(objects, &policies.Items[i])
	}
	var out bytes.Buffer
	for _, o := range objects {
		kinds, _, err := scheme.Scheme.ObjectKinds(o)
		if err != nil {
			return err
		}
		o.GetObjectKind().SetGroupVersionKind(kinds[0])
		o.(metav1.Object).SetManagedFields(nil)
		document, err := yaml.Marshal(o)
		if err != nil {
			return err
		}
		fmt.Fprintf(&out, "---\n%s", document)
	}
	return os.WriteFile(filepath.Join(f.dir, objectsFile), out.Bytes(), 0o644)
}

// finish writes what the policies say about every wrong cell.
func (f *findings) finish(e progress.Event) error {
	var out bytes.Buffer
	fmt.Fprintf(&out, "%s\n%s\n", e.Spec, e.Failure)
	for _, c := range f.cells {
		fmt.Fprintf(&out, "\n%s -> %s %s should be %s. By the objects of that moment:\n", c.From, c.To, c.Service, c.Expected)
		cmd := exec.Command(f.suite.binaries.path("portcullis"), "explain", "-f", filepath.Join(f.dir, objectsFile), c.From, c.To, c.Service)
		cmd.Stdout, cmd.Stderr = &out, &out
		var exit *exec.ExitError
		if err := cmd.Run(); err != nil && !errors.As(err, &exit) { // 1 means denied
			return err
		}
	}
	return os.WriteFile(filepath.Join(f.dir, "explain.txt"), out.Bytes(), 0o644)
}
