package testcases

import (
	"errors"
	"flag"
	"os"
	"strconv"
	"testing"

	"github.com/portcullis-netpol/portcullis/testcases/lab"
)

// needs is what tests with packets require of the machine.
var needs = []lab.Need{lab.NFTables, lab.BridgeNetfilter}

func TestMain(m *testing.M) {
	flag.Parse()
	// Cases with packets spend their time waiting. As many at once as there are
	// laboratories, and not as there are processors.
	given := false
	flag.Visit(func(f *flag.Flag) { given = given || f.Name == "test.parallel" })
	if !given {
		if err := flag.Set("test.parallel", strconv.Itoa(2*labsPerTopology)); err != nil {
			panic(err)
		}
	}
	lab.Main(m, needs...)
}

func isTimeout(err error) bool { return errors.Is(err, os.ErrDeadlineExceeded) }
