package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestExplainGolden asks a number of questions about the shop.
func TestExplainGolden(t *testing.T) {
	var all strings.Builder
	for _, question := range []string{
		"shop/frontend shop/users tcp/8081",                 // named port, egress and ingress
		"shop/frontend shop/users tcp/8080",                 // the other pod's number
		"shop/frontend shop/auth tcp/8082",                  //
		"shop/auth shop/database tcp/3306",                  //
		"shop/auth shop/database tcp/33060",                 // egress allows, ingress does not
		"shop/users shop/database tcp/3308",                 // egress does not
		"shop/users shop/database tcp/3306",                 // IPv4 by two rules, IPv6 by one
		"reports/batch shop/database tcp/3307",              // a block of one family
		"reports/batch shop/database tcp/3311",              // of the other
		"10.244.2.77 shop/database tcp/3308",                // a block, from an address that is no pod
		"198.51.100.7 shop/frontend tcp/8080",               // from outside
		"203.0.113.7 shop/frontend tcp/8080",                // from outside, excepted
		"2001:db8::7 shop/frontend tcp/8080",                // the block says nothing of IPv6
		"monitoring/scraper shop/auth icmp",                 // no ports: ICMP as well
		"shop/auth monitoring/scraper icmp",                 //
		"monitoring/scraper shop/database udp/5353",         //
		"monitoring/scraper monitoring/scraper tcp/1",       // to itself
		"shop/frontend 198.51.100.7 tcp/443",                //
		"shop/import-0 shop/database tcp/3306",              // an address that is made up
		"monitoring/node-exporter shop/database tcp/3306",   // host network, from the own node
		"monitoring/node-exporter shop/users tcp/8081",      // host network, from another node
		"monitoring/scraper monitoring/node-exporter tcp/1", // host network
		"shop/migrated shop/users tcp/8081",                 // has ended; its address is frontend's
		"198.51.100.7 203.0.113.7 sctp/9",                   // nothing of ours
	} {
		code, stdout, stderr := run(t, append([]string{"explain", "-f", "testdata/shop"}, strings.Fields(question)...)...)
		fmt.Fprintf(&all, "$ portcullis explain %s\n%s%sexit code %d\n\n", question, stderr, stdout, code)
	}
	golden(t, "explain/shop.txt", all.String())
}

// TestExplainServices asks about the pods behind Services, and about ports in DST.
func TestExplainServices(t *testing.T) {
	var all strings.Builder
	for _, question := range []string{
		"shop/frontend svc/shop/users:web",     // a named port, and its target
		"shop/frontend svc/shop/users tcp/80",  // the same
		"monitoring/scraper svc/shop/users:80", //
		"shop/frontend svc/shop/backend:named", // pods that give the name another number
		"shop/frontend svc/shop/backend:fixed", // a number that is right for one of three
		"reports/batch svc/shop/names:53",      // tcp, if there are both
		"reports/batch svc/shop/names:53/udp",  //
		"reports/batch svc/shop/names:dns",     // the name says udp
		"reports/batch svc/shop/names:9",       // there is only one
		"shop/frontend svc/shop/users:81",      //
		"shop/frontend svc/shop/headless:3306", //
		"shop/frontend svc/shop/elsewhere:3306",
		"shop/frontend svc/shop/by-hand:3306",
		"shop/frontend svc/shop/nobody:80",
		"shop/frontend svc/shop/nowhere:80",
		"svc/shop/users shop/frontend:80",          // Services do not send
		"shop/frontend 10.96.0.20:80",              // an address of a Service
		"shop/frontend shop/users:http",            // a container port
		"reports/batch shop/database:5353/udp",     //
		"198.51.100.7 [fd00:10:244:1::2]:8080/tcp", // no family in common
		"2001:db8::7 [fd00:10:244:1::2]:8080",      //
		"shop/frontend 198.51.100.7:443",           //
		"lab/client lab/web:80",                    // an audit policy that allows
		"lab/client lab/web:81",                    // and denies nothing
		"lab/web lab/client:80",                    // an enforced one beside it
	} {
		args := []string{"explain", "-f", "testdata/shop", "-f", "testdata/services", "-f", "testdata/audited"}
		code, stdout, stderr := run(t, append(args, strings.Fields(question)...)...)
		fmt.Fprintf(&all, "$ portcullis explain %s\n%s%sexit code %d\n\n", question, stderr, stdout, code)
	}
	golden(t, "explain/services.txt", all.String())
	code, stdout, _ := run(t, "explain", "-f", "testdata/shop", "-f", "testdata/services", "-o", "json", "shop/frontend", "svc/shop/backend:fixed")
	require.Equal(t, exitFailure, code)
	golden(t, "explain/service.json", stdout)
}

// TestExplainCluster asks a cluster, and fails closed where it does not answer.
func TestExplainCluster(t *testing.T) {
	config := apiServer(t, http.StatusForbidden) // nodes
	code, stdout, stderr := run(t, "explain", "--kubeconfig", config, "shop/web", "svc/shop/db:80")
	require.Equal(t, exitFailure, code, stderr)
	require.Contains(t, stdout, "-> shop/db tcp/80: denied\n")
	require.Contains(t, stdout, "closest is spec.ingress[0] of shop/odd: from pod shop/web (10.1.0.1): it allows nothing (a malformed ipBlock)")
	code, stdout, _ = run(t, "explain", "--kubeconfig", config, "shop/db", "shop/web:80")
	require.Equal(t, exitOK, code)
	require.Contains(t, stdout, "not isolated")
	code, _, stderr = run(t, "explain", "--kubeconfig", config, "shop/db", "10.96.0.1:80")
	require.Equal(t, exitInput, code)
	require.Contains(t, stderr, "ask about svc/shop/db:PORT")
	code, _, stderr = run(t, "explain", "--kubeconfig", config, "shop/db", "shop/nowhere:80")
	require.Equal(t, exitInput, code)
	require.Contains(t, stderr, "DST: no pod shop/nowhere in the cluster; there is shop/db, shop/web")

	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	code, _, stderr = run(t, "explain", "--kubeconfig", kubeconfigOf(t, gone.URL), "shop/db", "shop/web:80")
	require.Equal(t, exitInput, code, "1 would mean that it is denied")
	require.Contains(t, stderr, "list pods")
	for _, command := range []string{"status", "audit", "monitor"} {
		code, _, _ = run(t, command, "--kubeconfig", kubeconfigOf(t, gone.URL))
		require.Equal(t, exitInput, code, command)
	}
}

// TestExplainJSON prints every family, machine-readable.
func TestExplainJSON(t *testing.T) {
	code, stdout, _ := run(t, "explain", "-f", "testdata/shop", "-o", "json", "shop/users", "shop/database", "TCP/3306")
	require.Equal(t, exitOK, code)
	golden(t, "explain/allowed.json", stdout)
	code, stdout, _ = run(t, "explain", "-f", "testdata/shop", "-o", "json", "shop/import-0", "shop/database", "icmp")
	require.Equal(t, exitFailure, code)
	golden(t, "explain/denied.json", stdout)
	require.True(t, json.Valid([]byte(stdout)))
}
