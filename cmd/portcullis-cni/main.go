// Command portcullis-cni is a chained CNI plugin. It stands behind the plugin that
// gives pods their interface, and makes a pod wait until the Portcullis agent of the
// node has its policies in force, so that even its first packet is judged right.
//
// It changes nothing: the result of the plugins before it is passed on as it is. In
// the configuration of a network:
//
//	{
//	  "type": "portcullis-cni",
//	  "socket": "/run/portcullis/cni.sock",
//	  "timeout": "3s",
//	  "onAgentUnreachable": "allow"
//	}
//
// All but the type may be left out; these are the defaults. With "allow" a pod starts
// even if the agent does not answer in time; nothing reaches it, or comes from it,
// until the agent has released its address. With "fail" it does not start, and the
// kubelet tries again. If the agent answers with an error, the pod never starts.
//
//	ADD     needs prevResult and, in CNI_ARGS, K8S_POD_NAMESPACE and K8S_POD_NAME; it
//	        tells the agent the subnet and gateway of each address, too
//	DEL     tells the agent if it is there; it never fails on its account
//	CHECK   fails unless the agent says that the pod's policies are in force
//	GC      tells the agent which attachments exist
//	STATUS  fails with code 50 if the agent is away and onAgentUnreachable is "fail"
//
// It speaks the CNI specification from 0.3.0, the first one with chains, to 1.1.0.
package main

import (
	"github.com/containernetworking/cni/pkg/skel"
	specification "github.com/containernetworking/cni/pkg/version"
)

// version is set by the linker: -ldflags "-X main.version=v1.2.3".
var version = "development version"

func main() {
	skel.PluginMainFuncs(skel.CNIFuncs{
		Add:    add,
		Del:    del,
		Check:  check,
		GC:     gc,
		Status: status,
	}, specification.VersionsStartingFrom("0.3.0"), "CNI plugin portcullis-cni "+version)
}
