package report

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"flag"
	"html"
	"io"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var update = flag.Bool("update", false, "write the golden files anew")

var nan = math.NaN()

// example has a slow subject and one that is flat, which failed once.
func example() *Report {
	speeds := Table{
		Name: "speeds", Title: "Speed of <things>", Unit: "things/s", XName: "policies", Better: Higher, Baseline: "plain",
		Notes: []string{"A note."},
	}
	for _, x := range []float64{1, 100, 10000} {
		for i := range 4 {
			noise := []float64{1, 2, 1, 4}[i]
			speeds.Record("plain", x, "", 1000*noise)
			speeds.Record("slow", x, "", 1000*noise/(1+x/50))
			speeds.Record("flat", x, "", []float64{900, 1800, nan, 3600}[i])
		}
	}
	speeds.AtLeast("flat at 10,000", speeds.Ratio("flat", "plain", 10000).Median, 0.88)
	speeds.AtMost("slow, 1 by 10,000", speeds.Growth("slow", 1, 10000).Median, 1.1)
	costs := Table{Name: "costs", Title: "Costs", Unit: "ms", XName: "pods", Better: Lower}
	for i := range 100 {
		costs.Record("event", 0, "", 0.5+float64(i)/100)
		costs.Record("event", 10, "", 2+float64(i)/10)
		costs.Record("event", 1000, "", 1000+float64(i)*10)
		costs.Record("event", 1100, "", 1000+float64(i)*10)
	}
	parts := Table{Name: "parts", Title: "Parts", Unit: "MB", Baseline: "all"}
	parts.Record("all", 1, "all of it", 200)
	parts.Record("half", 1, "all of it", 100)
	single := Table{Name: "single", Title: "Single", Unit: "s", XName: "pods"}
	single.Record("all", 5000, "", 2)
	kinds := Table{
		Name: "kinds", Title: "Kinds of events, with a title that is longer than what one line of a picture can hold of it, so that it takes two", XName: "kind",
		Unit: "thousand somethings a second of something else", Better: Lower,
	}
	for x, label := range []string{"added", "deleted", "relabelled, with a name that is quite long"} {
		kinds.Record("pods", float64(x+1), label, float64(10*x+5))
		kinds.Record("some other series with a long name", float64(x+1), label, float64(10*x+6))
	}
	r := &Report{
		Machine: Machine{Kernel: "6.0", CPU: "Some CPU", Cores: 2, Go: "go1", Memory: 8 << 30, Commit: "0123456789abcdef+"},
		Started: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
		Quick:   true,
	}
	for _, t := range []Table{speeds, costs, parts, single, kinds} {
		r.Add(t)
	}
	return r
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		require.NoError(t, os.MkdirAll("testdata", 0o755))
		require.NoError(t, os.WriteFile(file, got, 0o644))
	}
	want, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, string(want), string(got))
}

func TestText(t *testing.T) {
	var out bytes.Buffer
	require.NoError(t, example().WriteText(&out))
	golden(t, "example.txt", out.Bytes())
	require.ErrorIs(t, example().WriteText(brokenWriter{}), errBroken)
}

func TestSVG(t *testing.T) {
	r := example()
	for i := range r.Tables {
		var out bytes.Buffer
		require.NoError(t, r.Tables[i].WriteSVG(&out))
		golden(t, r.Tables[i].Name+".svg", out.Bytes())
		d := xml.NewDecoder(&out)
		for {
			_, err := d.Token()
			if errors.Is(err, io.EOF) {
				break
			}
			require.NoError(t, err)
		}
		require.ErrorIs(t, r.Tables[i].WriteSVG(brokenWriter{}), errBroken)
	}
}

// drawnText is a text of a picture, and about where it is.
type drawnText struct {
	text                     string
	left, right, top, bottom float64
}

func drawnTexts(t *testing.T, picture string) (out []drawnText) {
	t.Helper()
	find := regexp.MustCompile(`<text x="([0-9.-]+)" y="([0-9.-]+)" text-anchor="(\w+)"([^>]*)>([^<]*)</text>`)
	for _, m := range find.FindAllStringSubmatch(picture, -1) {
		x, err := strconv.ParseFloat(m[1], 64)
		require.NoError(t, err)
		y, err := strconv.ParseFloat(m[2], 64)
		require.NoError(t, err)
		glyph, high := 6.5, 9.0
		if strings.Contains(m[4], "bold") {
			glyph, high = 8.5, 12
		}
		wide := glyph * float64(len([]rune(html.UnescapeString(m[5]))))
		left := x - map[string]float64{"start": 0, "middle": wide / 2, "end": wide}[m[3]]
		out = append(out, drawnText{m[5], left, left + wide, y - high, y + 2})
	}
	return out
}

// TestInside: nothing is drawn outside of the picture, and no text over another.
func TestInside(t *testing.T) {
	number := regexp.MustCompile(` (c?[xy])[12]?="(-?[0-9.]+)"`)
	box := regexp.MustCompile(`viewBox="0 0 (\d+) (\d+)"`)
	r := example()
	for i := range r.Tables {
		var out bytes.Buffer
		require.NoError(t, r.Tables[i].WriteSVG(&out))
		size := box.FindStringSubmatch(out.String())
		width, err := strconv.ParseFloat(size[1], 64)
		require.NoError(t, err)
		height, err := strconv.ParseFloat(size[2], 64)
		require.NoError(t, err)
		found := number.FindAllStringSubmatch(out.String(), -1)
		require.NotEmpty(t, found)
		for _, m := range found {
			v, err := strconv.ParseFloat(m[2], 64)
			require.NoError(t, err)
			most := width
			if strings.HasSuffix(m[1], "y") {
				most = height
			}
			require.GreaterOrEqual(t, v, 0.0, "%s: %s", r.Tables[i].Name, m[0])
			require.LessOrEqual(t, v, most, "%s: %s", r.Tables[i].Name, m[0])
		}
		texts := drawnTexts(t, out.String())
		for k, a := range texts {
			require.GreaterOrEqual(t, a.left, 0.0, a.text)
			require.LessOrEqual(t, a.right, width, a.text)
			for _, b := range texts[:k] {
				apart := a.left >= b.right || b.left >= a.right || a.top >= b.bottom || b.top >= a.bottom
				require.True(t, apart, "%s: %q lies over %q", r.Tables[i].Name, a.text, b.text)
			}
		}
	}
}

// TestCurvesGoForward: points are connected in the order of their sizes, not in that in
// which they were measured.
func TestCurvesGoForward(t *testing.T) {
	table := Table{Name: "t", Title: "T", Unit: "ms", XName: "pods"}
	for _, x := range []float64{100, 1, 10} {
		table.Record("a", x, "", 5)
	}
	var out bytes.Buffer
	require.NoError(t, table.WriteSVG(&out))
	path := regexp.MustCompile(`d="M([0-9.]+) [0-9.]+L([0-9.]+) [0-9.]+L([0-9.]+) [0-9.]+"`).FindStringSubmatch(out.String())
	require.Len(t, path, 4)
	var xs []float64
	for _, s := range path[1:] {
		x, err := strconv.ParseFloat(s, 64)
		require.NoError(t, err)
		xs = append(xs, x)
	}
	require.IsIncreasing(t, xs)
}

func TestJSON(t *testing.T) {
	var out bytes.Buffer
	require.NoError(t, example().WriteJSON(&out))
	var back struct {
		Machine Machine
		Quick   bool
		Tables  []struct {
			Name   string
			Better string
			Series []struct {
				Name   string
				Points []struct {
					X       float64
					Median  *float64
					P99     *float64
					Samples []*float64
				}
			}
			Goals []struct {
				Text string
				Met  bool
			}
		}
	}
	require.NoError(t, json.Unmarshal(out.Bytes(), &back))
	require.Equal(t, example().Machine, back.Machine)
	require.True(t, back.Quick)
	speeds := back.Tables[0]
	require.Equal(t, "higher", speeds.Better)
	flat := speeds.Series[2]
	require.Equal(t, "flat", flat.Name)
	require.Len(t, flat.Points, 3)
	require.Nil(t, flat.Points[0].Samples[2], "a failed round")
	require.Equal(t, 1800.0, *flat.Points[0].Median)
	require.True(t, speeds.Goals[0].Met)
	require.False(t, speeds.Goals[1].Met)
	require.ErrorIs(t, example().WriteJSON(brokenWriter{}), errBroken)
}

// TestRatios: a machine that is four times as fast in one round changes no ratio.
func TestRatios(t *testing.T) {
	r := example()
	speeds := &r.Tables[0]
	require.Equal(t, Spread{0.9, 0.9, 0.9}, speeds.Ratio("flat", "plain", 100))
	require.InDelta(t, 1.0/3, speeds.Ratio("slow", "plain", 100).Median, 1e-9)
	require.InDelta(t, 201/1.02, speeds.Growth("slow", 1, 10000).Median, 1e-9)
	require.True(t, math.IsNaN(speeds.Ratio("flat", "nothing", 100).Median))
	require.True(t, math.IsNaN(speeds.Ratio("flat", "plain", 7).Median))
	got := Ratios([]float64{1, 2, 3, 4}, []float64{2, 0, nan})
	require.Len(t, got, 3)
	require.Equal(t, 0.5, got[0])
	require.True(t, math.IsNaN(got[1]) && math.IsNaN(got[2]))
}

func TestQuantile(t *testing.T) {
	for _, c := range []struct {
		values []float64
		q      float64
		want   float64
	}{
		{[]float64{3, 1, 2}, 0.5, 2},
		{[]float64{4, 1, 3, 2}, 0.5, 2.5},
		{[]float64{1, 2, 3, 4, 5}, 0.25, 2},
		{[]float64{1, nan, 2}, 1, 2},
		{[]float64{1, 2}, 0, 1},
		{[]float64{7}, 0.99, 7},
	} {
		require.InDelta(t, c.want, Quantile(c.values, c.q), 1e-9, "%v of %v", c.q, c.values)
	}
	require.True(t, math.IsNaN(Quantile([]float64{nan}, 0.5)))
	values := []float64{3, 1}
	Quantile(values, 0.5)
	require.Equal(t, []float64{3, 1}, values, "the samples stay in the order of the rounds")
}

func TestGoals(t *testing.T) {
	require.True(t, Goal{Value: 1.1, Bound: 1.1, AtMost: true}.Met())
	require.False(t, Goal{Value: 1.2, Bound: 1.1, AtMost: true}.Met())
	require.True(t, Goal{Value: 0.9, Bound: 0.88}.Met())
	require.False(t, Goal{Value: 0.8, Bound: 0.88}.Met())
	require.False(t, Goal{Value: nan, AtMost: true}.Met())
	require.False(t, Goal{Value: nan}.Met())
	missed := example().Missed()
	require.Len(t, missed, 1)
	require.Equal(t, "slow, 1 by 10,000", missed[0].Text)
}

func TestAxis(t *testing.T) {
	a := axis{low: 1, high: 10000, log: true}
	require.InDelta(t, 0.5, a.at(100), 1e-9)
	require.Equal(t, []float64{1, 10, 100, 1000, 10000}, a.ticks())
	require.Zero(t, a.at(0))
	require.Equal(t, []float64{0, 200, 400, 600, 800, 1000}, axis{high: 1050}.ticks())
	require.Equal(t, 0.5, axis{low: 3, high: 3}.at(3))
	tenths := Table{Series: []Series{{Name: "a", Points: []Point{{X: 2}, {X: 0}, {X: 1}}}}}
	place, even := tenths.xAxis()
	require.False(t, even)
	require.Equal(t, 0.5, place(1), "evenly spaced")
	flat := Table{Series: []Series{{Name: "a", Points: []Point{{X: 5, Samples: []float64{0}}}}}}
	require.Equal(t, axis{high: 1}, flat.yAxis())
}

func TestOptions(t *testing.T) {
	require.True(t, Options{}.Wants("x"))
	o := Options{Only: regexp.MustCompile("^a")}
	require.True(t, o.Wants("abc"))
	require.False(t, o.Wants("bac"))
	o.Say("nobody listens")
	o.Progress = func(line string) { o.Quick = line == "done" }
	o.Say("done")
	require.True(t, o.Quick)
}

func TestThisMachine(t *testing.T) {
	m := ThisMachine()
	require.NotEmpty(t, m.Kernel)
	require.NotEmpty(t, m.Go)
	require.Positive(t, m.Cores)
	require.Positive(t, m.Memory)
}

var errBroken = errors.New("broken")

type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { return 0, errBroken }
