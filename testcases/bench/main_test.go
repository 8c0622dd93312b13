package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/portcullis-netpol/portcullis/testcases/bench/report"
)

func these(list ...section) func(string) []section { return func(string) []section { return list } }

func fake(name string, err error) section {
	return section{name, func(_ context.Context, o report.Options, r *report.Report) error {
		t := report.Table{Name: name, Title: "Table of " + name, Unit: "ms"}
		t.Record("some", 1, "", 42)
		if o.Wants(name) {
			r.Add(t)
		}
		return err
	}}
}

// TestRun: what fails costs neither what was measured before nor what comes after.
func TestRun(t *testing.T) {
	failed := errors.New("failed")
	dir := t.TempDir()
	var out, progress bytes.Buffer
	args := []string{"--quick", "--json", filepath.Join(dir, "out.json"), "--svg", filepath.Join(dir, "svg")}
	err := run(t.Context(), args, these(fake("first", failed), fake("second", nil)), &out, &progress)
	require.ErrorIs(t, err, failed)
	require.Contains(t, out.String(), "quick run")
	require.Contains(t, out.String(), "Table of first")
	require.Contains(t, out.String(), "Table of second")
	require.Contains(t, progress.String(), "second: 0 seconds")
	text, err := os.ReadFile(filepath.Join(dir, "out.json"))
	require.NoError(t, err)
	require.Contains(t, string(text), `"second"`)
	for _, name := range []string{"first.svg", "second.svg"} {
		require.FileExists(t, filepath.Join(dir, "svg", name))
	}
}

// TestInterrupted: sections that have not begun do not begin; the report is written.
func TestInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	first := fake("first", nil)
	second := section{"second", func(ctx context.Context, o report.Options, r *report.Report) error {
		cancel()
		return errors.Join(first.run(ctx, o, r), ctx.Err())
	}}
	var out, progress bytes.Buffer
	err := run(ctx, nil, these(second, fake("third", nil)), &out, &progress)
	require.ErrorIs(t, err, context.Canceled)
	require.Contains(t, out.String(), "Table of first")
	require.NotContains(t, out.String(), "Table of third")
}

func TestOnly(t *testing.T) {
	var out, progress bytes.Buffer
	require.NoError(t, run(t.Context(), []string{"--only", "^f"}, these(fake("first", nil), fake("second", nil)), &out, &progress))
	require.Contains(t, out.String(), "Table of first")
	require.NotContains(t, out.String(), "Table of second")
	require.ErrorContains(t, run(t.Context(), []string{"--only", "("}, nil, &out, &progress), "--only")
	require.ErrorContains(t, run(t.Context(), []string{"more"}, nil, &out, &progress), "unexpected")
	require.NoError(t, run(t.Context(), []string{"--help"}, nil, &out, &progress))
	require.Contains(t, progress.String(), "-quick")
}
