package socket

import (
	"testing"

	"github.com/portcullis-netpol/portcullis/testcases/lab"
)

// The tests need to be root, if only of a user namespace of their own.
func TestMain(m *testing.M) { lab.Main(m) }
