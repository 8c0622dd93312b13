package process

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/portcullis-netpol/portcullis/testcases/lab"
)

// parentVariable makes the test binary the parent of a program that it does not
// end itself.
const parentVariable = "PROCESS_TEST_PARENT"

func TestMain(m *testing.M) {
	if os.Getenv(parentVariable) != "" {
		beParent()
	}
	if err := lab.Enter(); err != nil { // capabilities, to drop them
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func beParent() {
	s, err := NewStarter()
	if err == nil {
		var p *Process
		if p, err = s.Start(Spec{Name: "sleep", Path: "sleep", Args: []string{"300"}}); err == nil {
			fmt.Println(p.cmd.Process.Pid)
			select {}
		}
	}
	fmt.Println(err)
	os.Exit(1)
}

func TestProgramsDieWithTheirParent(t *testing.T) {
	parent := exec.Command(os.Args[0])
	parent.Env = append(os.Environ(), parentVariable+"=1")
	out, err := parent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	child, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		t.Fatal(line)
	}
	if err := parent.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = parent.Wait()
	for deadline := time.Now().Add(10 * time.Second); alive(child); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("program %d lives on", child)
		}
	}
}

// alive tells whether a process runs. One that has ended may wait for whoever
// inherited it to notice.
func alive(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, state, _ := strings.Cut(string(stat), ") ")
	return !strings.HasPrefix(state, "Z") && !strings.HasPrefix(state, "X")
}

func TestExitCodes(t *testing.T) {
	s, err := NewStarter()
	if err != nil {
		t.Fatal(err)
	}
	for script, want := range map[string]int{"exit 0": 0, "exit 7": 7, "kill -9 $$": 128 + int(syscall.SIGKILL)} {
		err := s.Run(context.Background(), Spec{Name: "sh", Path: "sh", Args: []string{"-c", script}})
		if got := ExitCode(err); got != want {
			t.Errorf("%s: exit code %d, want %d", script, got, want)
		}
	}
}

func TestEndOfTheContextEndsTheProgram(t *testing.T) {
	s, err := NewStarter()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	err = s.Run(ctx, Spec{Name: "sleep", Path: "sleep", Args: []string{"300"}})
	if !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestConfined(t *testing.T) {
	s, err := NewConfinedStarter(unix.CAP_NET_ADMIN, unix.CAP_KILL)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := s.Run(t.Context(), Spec{Name: "cat", Path: "cat", Args: []string{"/proc/self/status"}, Stdout: &out}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"CapInh:\t0000000000000000\n", "CapPrm:\t0000000000001020\n", "CapEff:\t0000000000001020\n",
		"CapBnd:\t0000000000001020\n", "CapAmb:\t0000000000000000\n", "NoNewPrivs:\t1\n",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
}

// TestClose: a Starter takes its programs along, and starts no more.
func TestClose(t *testing.T) {
	s, err := NewStarter()
	if err != nil {
		t.Fatal(err)
	}
	p, err := s.Start(Spec{Name: "sleep", Path: "sleep", Args: []string{"300"}})
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	select {
	case <-p.Done():
	case <-time.After(10 * time.Second):
		t.Error("its program lives on")
	}
	if _, err := s.Start(Spec{Name: "true", Path: "true"}); err == nil {
		t.Error("it starts programs")
	}
}
