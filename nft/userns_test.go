package nft

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// inChildNamespace returns 1 if the process is not in the first user namespace.
func inChildNamespace(t testing.TB) int {
	t.Helper()
	b, err := os.ReadFile("/proc/self/uid_map")
	require.NoError(t, err)
	if f := strings.Fields(string(b)); len(f) == 3 && f[0] == "0" && f[1] == "0" && f[2] == "4294967295" {
		return 0
	}
	return 1
}

// TestInUserNamespace runs the heavy tests again where root has no power over the
// sizes of socket buffers.
func TestInUserNamespace(t *testing.T) {
	needKernel(t)
	if inChildNamespace(t) == 1 {
		t.Skip("the whole run is in a user namespace")
	}
	out, err := os.CreateTemp(t.TempDir(), "")
	require.NoError(t, err)
	defer out.Close()
	code := inUserNamespace(out, "-test.run=^(TestLargeLoads|TestManyRulesInOneBatch|TestApplyInKernel|TestTextAndNetlinkAgree|TestForbidInKernel|TestWatch.*)$", "-test.v")
	text, err := os.ReadFile(out.Name())
	require.NoError(t, err)
	require.Zero(t, code, string(text))
	require.Contains(t, string(text), "--- PASS: TestManyRulesInOneBatch")
}

// TestSmallBuffers loads a large state through sockets as small as Linux grants
// by default, and checks that a batch which fills the limits really fits.
func TestSmallBuffers(t *testing.T) {
	ctx := context.Background()
	for _, size := range []int{212992 / 2, 212992, 1 << 20} {
		k, err := openKernel(newNetNS(t), size)
		require.NoError(t, err)
		t.Logf("buffers of %d bytes: %+v", size, k.Limits())
		e := NewEnforcer(Config{}, k)
		require.NoError(t, e.Takeover(ctx, bigState(300, 20_000, 100)))
		require.NoError(t, Cleanup(ctx, k))

		require.NoError(t, k.Send(ctx, Batch{"portcullis-x", []Op{AddTable{}, AddSet{&Set{Name: "u_s", Type: TypeAddr4}}, AddChain{&Chain{Name: "g_c"}}}}))
		for _, make := range []func(i int) Op{
			func(i int) Op { return AddChain{&Chain{Name: fmt.Sprint("g_", i)}} },
			func(i int) Op { return AddRule{"g_c", Rule{Action: Verdict{Kind: VerdictAccept}}} },
			func(i int) Op {
				in := In{FieldPair6, "u_s"}
				in.Field = FieldSaddr4
				return AddRule{"g_c", Rule{Match: []Match{CTEstablished, in, in, in}, Action: Verdict{Kind: VerdictAccept}, Comment: strings.Repeat("x", maxComment)}}
			},
			func(i int) Op {
				return AddElements{&Set{Name: "u_s", Type: TypeAddr4}, []Element{single(string([]byte{1, byte(i >> 16), byte(i >> 8), byte(i)}))}}
			},
		} {
			b := Batch{Table: "portcullis-x"}
			var units []unit
			for i := range 40_000 {
				units = append(units, unit{make(i)})
			}
			limits := k.Limits()
			limits.Messages = 1 << 30
			b = batches(limits, b.Table, units)[0]
			require.NoError(t, k.Send(ctx, b), "%d messages", len(b.Ops))
			t.Logf("%d messages of type %T fit", len(b.Ops), b.Ops[0])
		}
		require.NoError(t, k.Close())
	}
}

// TestLostReplies overruns the receive buffer: Flush fails, the batch is
// committed, and the enforcer finds that out and goes on with smaller ones.
func TestLostReplies(t *testing.T) {
	ctx := context.Background()
	k, err := openKernel(newNetNS(t), 212992)
	require.NoError(t, err)
	defer func() { require.NoError(t, k.Close()) }()
	e := NewEnforcer(Config{}, k)
	s := bigState(400, 1000, 10)
	k.limits.Replies, k.limits.Bytes = 1<<30, 1<<30
	err = e.Takeover(ctx, s)
	require.ErrorIs(t, err, ErrUncertain)
	require.ErrorIs(t, err, unix.EMSGSIZE)
	tries := 1
	for ; err != nil && tries < 10; tries++ {
		k.limits.Replies = 1 << 30
		if k.ceiling.Replies > 0 {
			k.limits.Replies = k.ceiling.Replies
		}
		require.ErrorIs(t, err, ErrUncertain)
		err = e.Repair(ctx, s)
	}
	require.NoError(t, err)
	require.NotZero(t, k.ceiling.Replies, "replies were lost")
	require.NotZero(t, k.ceiling.Bytes)
	requireVerified(t, e, s)
	t.Logf("%d tries, then %+v", tries, k.ceiling)
}
