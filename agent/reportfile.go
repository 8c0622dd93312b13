package agent

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"

	"github.com/portcullis-netpol/portcullis/agent/cni"
)

// reportFile keeps the reported subnets from one agent to the next. It lies beside the
// CNI plugin's socket, in a directory that nobody else may write to. The zero reportFile
// keeps nothing.
type reportFile struct {
	path string
	// was is what the file holds as far as is known.
	was []byte
}

// kept is what the file says.
type kept struct {
	Version int            `json:"version"`
	Subnets []cni.Subnet   `json:"subnets,omitempty"`
	Shared  []netip.Prefix `json:"shared,omitempty"`
}

const (
	reportVersion = 1
	// reportSuffix makes the file's name of the socket's.
	reportSuffix = ".subnets"
	// maxReport is more than the longest lists take.
	maxReport = 1 << 14
)

// read returns what the file says, nothing if there is none. After an error, which
// names what is wrong, it is as if there was none.
func (f *reportFile) read() (kept, error) {
	if f.path == "" {
		return kept{}, nil
	}
	// Neither a link nor something that is not a file, which might not end or block.
	file, err := os.OpenFile(f.path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return kept{}, nil
	}
	if err != nil {
		return kept{}, err
	}
	defer file.Close()
	if info, err := file.Stat(); err != nil || !info.Mode().IsRegular() {
		return kept{}, errors.Join(err, errors.New("it is not a file"))
	}
	text, err := io.ReadAll(io.LimitReader(file, maxReport+1))
	if err != nil {
		return kept{}, err
	}
	k, err := parseReport(text)
	if err == nil {
		f.was = text
	}
	return k, err
}

// parseReport takes what write has written and nothing else.
func parseReport(text []byte) (kept, error) {
	if len(text) > maxReport {
		return kept{}, fmt.Errorf("more than %d bytes", maxReport)
	}
	var k kept
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&k); err != nil {
		return kept{}, err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return kept{}, errors.New("something follows the first value")
	}
	if k.Version != reportVersion {
		return kept{}, fmt.Errorf("version %d, not %d", k.Version, reportVersion)
	}
	if len(k.Subnets) > mostSubnets || len(k.Shared) > 2*mostSubnets {
		return kept{}, fmt.Errorf("%d subnets and %d shared ones are too many", len(k.Subnets), len(k.Shared))
	}
	for _, s := range k.Subnets {
		if err := s.Validate(); err != nil {
			return kept{}, err
		}
	}
	for _, p := range k.Shared {
		if !p.IsValid() || p != p.Masked() || p.Addr().Is4In6() {
			return kept{}, fmt.Errorf("%s is no block of addresses", p)
		}
	}
	return k, nil
}

// write replaces the file, if it says something else, by one that only its owner may
// read. A crash leaves the old one or the new one.
func (f *reportFile) write(k kept) error {
	if f.path == "" || f.was == nil && len(k.Subnets)+len(k.Shared) == 0 {
		return nil
	}
	k.Version = reportVersion
	text, err := json.Marshal(k)
	if err != nil {
		return err
	}
	if bytes.Equal(text, f.was) {
		return nil
	}
	fresh := f.path + ".new"
	if err := os.Remove(fresh); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	file, err := os.OpenFile(fresh, os.O_WRONLY|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	_, err = file.Write(text)
	err = errors.Join(err, file.Sync(), file.Close())
	if err == nil {
		err = os.Rename(fresh, f.path)
	}
	if err != nil {
		_ = os.Remove(fresh)
		return err
	}
	f.was = text
	return nil
}
