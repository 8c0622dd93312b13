//go:build browser

package matrixpage

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"image"
	"image/color"
	"image/png"
	"maps"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// picture is what the page looked like. What it showed in words, and in which fonts, is
// kept in its file, in chunks that viewers ignore: fonts differ between machines, and with
// them where things are, so pixels alone could not tell an old picture from a new one.
type picture struct {
	img          image.Image
	words, fonts string
}

// The keywords of the two chunks.
const (
	wordsKey = "Shown"
	fontsKey = "Fonts"
)

// differs says in what a picture is not like another one.
func (p *picture) differs(other *picture) error {
	if p.img.Bounds() != other.img.Bounds() {
		return fmt.Errorf("sizes are %v and %v", p.img.Bounds(), other.img.Bounds())
	}
	a, b := strings.Split(p.words, "\n"), strings.Split(other.words, "\n")
	for i := range max(len(a), len(b)) {
		if i >= len(a) || i >= len(b) || a[i] != b[i] {
			return fmt.Errorf("the words differ from line %d on:\n%q\n%q", i+1, a[min(i, len(a)):min(i+3, len(a))], b[min(i, len(b)):min(i+3, len(b))])
		}
	}
	// In the same fonts a cell that is marked and explained instead of another one makes
	// 2 to 4, and a browser's smoothing far less than 1; other fonts make up to 9, and
	// another ground 200.
	most := 1.0
	if p.fonts != other.fonts {
		most = 16
	}
	if d := distance(p.img, other.img); d > most {
		return fmt.Errorf("it looks different: the mean distance is %.1f of 255, the most is %.0f", d, most)
	}
	return nil
}

// distance is the mean difference of two pictures of one size, in squares of ten pixels, of
// 255.
func distance(a, b image.Image) float64 {
	r := a.Bounds()
	const side = 10
	var sum float64
	count := 0
	for y := r.Min.Y; y+side <= r.Max.Y; y += side {
		for x := r.Min.X; x+side <= r.Max.X; x += side {
			var d [3]float64
			for i := range side * side {
				ar, ag, ab, _ := a.At(x+i%side, y+i/side).RGBA()
				br, bg, bb, _ := b.At(x+i%side, y+i/side).RGBA()
				d[0] += float64(ar) - float64(br)
				d[1] += float64(ag) - float64(bg)
				d[2] += float64(ab) - float64(bb)
			}
			for _, of := range d {
				sum += math.Abs(of) / (side * side) / 257
				count++
			}
		}
	}
	return sum / float64(count)
}

// encode makes a file of it, with the 256 colours that are most of it.
func (p *picture) encode(t *testing.T) []byte {
	t.Helper()
	r := p.img.Bounds()
	uses := map[color.RGBA]int{}
	at := func(x, y int) color.RGBA { return color.RGBAModel.Convert(p.img.At(x, y)).(color.RGBA) }
	for y := r.Min.Y; y < r.Max.Y; y++ {
		for x := r.Min.X; x < r.Max.X; x++ {
			uses[at(x, y)]++
		}
	}
	most := slices.SortedFunc(maps.Keys(uses), func(a, b color.RGBA) int {
		return cmp.Or(cmp.Compare(uses[b], uses[a]), cmp.Compare(a.R, b.R), cmp.Compare(a.G, b.G), cmp.Compare(a.B, b.B))
	})
	var palette color.Palette
	for _, c := range most[:min(256, len(most))] {
		palette = append(palette, c)
	}
	nearest := map[color.RGBA]uint8{}
	for c := range uses {
		nearest[c] = uint8(palette.Index(c))
	}
	out := image.NewPaletted(r, palette)
	for y := r.Min.Y; y < r.Max.Y; y++ {
		for x := r.Min.X; x < r.Max.X; x++ {
			out.SetColorIndex(x, y, nearest[at(x, y)])
		}
	}
	var file bytes.Buffer
	require.NoError(t, (&png.Encoder{CompressionLevel: png.BestCompression}).Encode(&file, out))
	head := file.Next(8 + 12 + 13) // signature and IHDR
	return slices.Concat(head, textChunk(wordsKey, p.words), textChunk(fontsKey, p.fonts), file.Bytes())
}

// textChunk is an iTXt chunk: a keyword, not compressed, without languages, and the text.
func textChunk(key, text string) []byte {
	body := []byte("iTXt" + key + "\x00\x00\x00\x00\x00" + text)
	out := binary.BigEndian.AppendUint32(nil, uint32(len(body)-4))
	out = append(out, body...)
	return binary.BigEndian.AppendUint32(out, crc32.ChecksumIEEE(body))
}

// readPicture reads what encode wrote.
func readPicture(data []byte) (*picture, error) {
	img, err := png.Decode(bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	p := &picture{img: img}
	for rest := data[8:]; len(rest) >= 12; {
		size := int(binary.BigEndian.Uint32(rest))
		if body := rest[8 : 8+size]; string(rest[4:8]) == "iTXt" {
			key, text, _ := strings.Cut(string(body), "\x00\x00\x00\x00\x00")
			switch key {
			case wordsKey:
				p.words = text
			case fontsKey:
				p.fonts = text
			}
		}
		rest = rest[12+size:]
	}
	if p.words == "" || p.fonts == "" {
		return nil, fmt.Errorf("it does not say what it shows")
	}
	return p, nil
}
