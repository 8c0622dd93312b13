package control

import (
	"testing"

	"github.com/portcullis-netpol/portcullis/testcases/lab"
)

// TestMain is a child where one of the tests has started it as such.
func TestMain(m *testing.M) {
	Child()
	lab.Main(m, lab.NFTables)
}
