package main

import (
	"fmt"
	"testing"
)

func TestEveryPairIsCovered(t *testing.T) {
	values := [4][2]string{{"routed", "bridge"}, {"4", "6"}, {"nftables", "iptables"}, {"drop", "reject"}}
	seen := map[string]bool{}
	for _, c := range everyPair {
		if err := c.validate(); err != nil {
			t.Error(err)
		}
		v := [4]string{c.topology, c.family, c.proxy, c.deny}
		for i := range v {
			for j := range i {
				seen[fmt.Sprint(i, v[i], j, v[j])] = true
			}
		}
	}
	for i := range values {
		for j := range i {
			for _, a := range values[i] {
				for _, b := range values[j] {
					if !seen[fmt.Sprint(i, a, j, b)] {
						t.Errorf("%s with %s is in no combination", a, b)
					}
				}
			}
		}
	}
}
