package main

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
)

// readCPIO reads an archive as the kernel does, by the numbers in its headers.
func readCPIO(t *testing.T, b []byte) (list []string) {
	t.Helper()
	for {
		require.GreaterOrEqual(t, len(b), 110)
		require.Equal(t, "070701", string(b[:6]))
		field := func(i int) int {
			n, err := strconv.ParseUint(string(b[6+8*i:14+8*i]), 16, 32)
			require.NoError(t, err)
			return int(n)
		}
		mode, size, nameSize := field(1), field(6), field(11)
		name := string(b[110 : 110+nameSize-1])
		require.Zero(t, b[110+nameSize-1], "names end with a zero")
		data := (110 + nameSize + 3) &^ 3
		end := (data + size + 3) &^ 3
		require.LessOrEqual(t, end, len(b))
		list = append(list, fmt.Sprintf("%s %o %d:%d %q", name, mode, field(9), field(10), b[data:data+size]))
		b = b[end:]
		if name == "TRAILER!!!" {
			require.Empty(t, b)
			return list
		}
	}
}

func TestCPIO(t *testing.T) {
	var out bytes.Buffer
	c := newCPIO(&out)
	c.device("/dev/console", 0o600, 5, 1)
	c.file("/init", 0o755, []byte("12345"))
	c.file("a/b/c", 0o644, nil)
	c.dir("/a/b/")
	c.file("/a/x", 0o644, []byte("1234"))
	require.NoError(t, c.close())
	require.Equal(t, []string{
		`dev 40755 0:0 ""`,
		`dev/console 20600 5:1 ""`,
		`init 100755 0:0 "12345"`,
		`a 40755 0:0 ""`,
		`a/b 40755 0:0 ""`,
		`a/b/c 100644 0:0 ""`,
		`a/x 100644 0:0 "1234"`,
		`TRAILER!!! 0 0:0 ""`,
	}, readCPIO(t, out.Bytes()))
}

type fullDisk struct{ left int }

func (d *fullDisk) Write(b []byte) (int, error) {
	if d.left -= len(b); d.left < 0 {
		return 0, errors.New("no space left")
	}
	return len(b), nil
}

func TestCPIOReportsTheFirstError(t *testing.T) {
	c := newCPIO(&fullDisk{200})
	for range 3 {
		c.file("/x", 0o644, make([]byte, 100))
	}
	require.ErrorContains(t, c.close(), "no space left")
}
