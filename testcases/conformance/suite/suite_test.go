// Package suite is the upstream network policy suite, unmodified, as a test
// binary: its specs, the framework's flags, and a report of its progress.
package suite

import (
	"flag"
	"fmt"
	"os"
	"testing"

	"github.com/onsi/ginkgo/v2"
	"github.com/onsi/ginkgo/v2/types"
	"github.com/onsi/gomega"
	"golang.org/x/sys/unix"
	"k8s.io/component-base/logs"
	"k8s.io/kubernetes/test/e2e/framework"
	"k8s.io/kubernetes/test/e2e/framework/config"

	"github.com/portcullis-netpol/portcullis/testcases/conformance/progress"

	_ "k8s.io/client-go/plugin/pkg/client/auth"        // credentials of real clusters
	_ "k8s.io/component-base/logs/testinit"            // logging flags
	_ "k8s.io/kubernetes/test/e2e/feature"             // feature labels, defined and frozen
	_ "k8s.io/kubernetes/test/e2e/framework/node/init" // every node ready after every spec
	_ "k8s.io/kubernetes/test/e2e/network/netpol"      // the specs
)

var progressFile = flag.String("progress", "", "named `pipe` to tell about events of package progress")

func TestMain(m *testing.M) {
	config.CopyFlags(config.Flags, flag.CommandLine)
	framework.RegisterCommonFlags(flag.CommandLine)
	framework.RegisterClusterFlags(flag.CommandLine)
	flag.Parse()
	if flag.NArg() > 0 {
		fmt.Fprintf(os.Stderr, "unexpected arguments: %v\n", flag.Args())
		os.Exit(2)
	}
	// The ginkgo command that starts this may be killed.
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
		fmt.Fprintf(os.Stderr, "die with the parent: %v\n", err)
		os.Exit(2)
	}
	framework.AfterReadingAllFlags(&framework.TestContext)
	os.Exit(m.Run())
}

func TestNetworkPolicy(t *testing.T) {
	logs.InitLogs()
	defer logs.FlushLogs()
	if *progressFile != "" {
		if err := reportProgress(*progressFile); err != nil {
			t.Fatal(err)
		}
	}
	gomega.RegisterFailHandler(framework.Fail)
	suite, reporter := framework.CreateGinkgoConfig()
	ginkgo.RunSpecs(t, "Kubernetes network policy", suite, reporter)
}

// reportProgress tells when specs start and end, and what is wrong meanwhile.
func reportProgress(file string) error {
	f, err := os.OpenFile(file, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	send := func(e progress.Event) {
		e.Process = ginkgo.GinkgoParallelProcess()
		if err := progress.Send(f, e); err != nil {
			fmt.Fprintf(os.Stderr, "progress: %v\n", err)
		}
	}
	log := &progress.Log{Found: func(c progress.Cell) { send(progress.Event{State: progress.Wrong, Cell: &c}) }}
	ginkgo.GinkgoWriter.TeeTo(log)
	ginkgo.ReportBeforeEach(func(r ginkgo.SpecReport) {
		log.Reset()
		if r.State != types.SpecStateSkipped && r.State != types.SpecStatePending {
			send(progress.Event{Spec: r.FullText(), State: progress.Started})
		}
	})
	ginkgo.ReportAfterEach(func(r ginkgo.SpecReport) {
		if r.State == types.SpecStateSkipped && r.RunTime == 0 {
			return // left out by the filters
		}
		send(progress.Event{Spec: r.FullText(), State: r.State.String(), Seconds: r.RunTime.Seconds(), Failure: r.FailureMessage()})
	})
	return nil
}
