package main

import (
	"encoding/json"
	"fmt"
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
