// Command portcullis enforces Kubernetes NetworkPolicies with nftables, and answers
// questions about them without a cluster. `portcullis --help` lists its commands.
//
// Exit codes: 0 is success, 1 a failure at run time (or "denied" from explain,
// differences from matrix diff, "not in force" from status, "would be denied" from
// audit, or a mismatch in demo), 2 a mistake in flags, arguments or input files, or a
// question that cannot be answered.
package main

import (
	"context"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"k8s.io/klog/v2"
)

func main() {
	// What client-go has to say besides its errors is for the agent's log alone: it may
	// quote servers, and a terminal would obey them.
	klog.SetSlogLogger(slog.New(slog.DiscardHandler))
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := newApp(os.Stdout, os.Stderr).run(ctx, os.Args[1:])
	stop()
	os.Exit(code)
}
