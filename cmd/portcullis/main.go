// Command portcullis enforces Kubernetes NetworkPolicies with nftables, and answers
// questions about them without a cluster. `portcullis --help` lists its commands.
//
// Exit codes: 0 is success, 1 a failure at run time (or "denied" from explain,
// differences from matrix diff, or a mismatch in demo), 2 a mistake in flags, arguments or input files.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := newApp(os.Stdout, os.Stderr).run(ctx, os.Args[1:])
	stop()
	os.Exit(code)
}
