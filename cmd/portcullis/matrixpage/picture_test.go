//go:build browser

package matrixpage

import (
	"bytes"
	"flag"
	"fmt"
	"image"
	"image/png"
	"os"
	"os/exec"
	"testing"

	"github.com/stretchr/testify/require"
)

var update = flag.Bool("update", false, "take the README's picture anew")

// pictureFile is the picture that the README has.
const pictureFile = "testdata/matrix.png"

// shown says in words all that the page shows, a line for each thing.
const shown = `[...document.querySelectorAll('#title, #subtitle, #views label, #legend li, #notes li, .band, .head, .row .name, .row .cell, #explanation')]
	.map(e => [...e.classList, e.textContent.trim().replace(/\s+/g, ' ')].join(' ')).join('\n')`

// fonts measures texts in the page's two fonts. Machines that come to the same have the
// same fonts, and draw the page alike.
const fonts = `(() => { const c = document.createElement('canvas').getContext('2d'), s = getComputedStyle(document.documentElement);
	return ['--text', '--code'].map(f => { c.font = '200px ' + s.getPropertyValue(f); return Math.round(c.measureText('shop/frontend 8081').width); }).join(' '); })()`

// see takes a picture of what is in the window.
func (b *browser) see() *picture {
	b.t.Helper()
	eval[bool](b, `new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(true))))`)
	img, err := png.Decode(bytes.NewReader(b.capture()))
	require.NoError(b.t, err)
	return &picture{img, eval[string](b, shown), eval[string](b, fonts)}
}

// TestBrowserPicture keeps the README's picture of `matrix -o html` true: it has to show
// what the page shows. With -update it takes it anew.
func TestBrowserPicture(t *testing.T) {
	b := startBrowser(t, 1200, 660)
	b.call("Emulation.setEmulatedMedia", map[string]any{"features": []map[string]string{{"name": "prefers-color-scheme", "value": "light"}}})
	command := exec.CommandContext(t.Context(), "go", "run", ".", "matrix", "--filename=testdata/shop", "--output=html")
	command.Dir = ".."
	var html, warnings bytes.Buffer
	command.Stdout, command.Stderr = &html, &warnings
	require.NoError(t, command.Run(), warnings.String())
	b.openText(html.String(), "#shop%2Ffrontend&shop%2Fusers")
	require.Contains(t, eval[string](b, panel), "tcp/8081")
	now := b.see()
	b.clean()
	if *update {
		require.NoError(t, os.MkdirAll("testdata", 0o755))
		require.NoError(t, os.WriteFile(pictureFile, now.encode(t), 0o644))
	}
	data, err := os.ReadFile(pictureFile)
	require.NoError(t, err, "run this test with -update")
	require.Less(t, len(data), 150_000)
	kept, err := readPicture(data)
	require.NoError(t, err)
	require.NoError(t, kept.differs(now), "%s is old. Look at the page, and run this test with -update.", pictureFile)
	if kept.fonts != now.fonts {
		t.Logf("the picture was taken with other fonts: only its words and its colours at large were compared")
	}
	requireSees(t, b, kept, now)
}

// requireSees requires that other rows, other cells and other colours would be found out,
// by the words and by the pixels.
func requireSees(t *testing.T, b *browser, kept, now *picture) {
	t.Helper()
	for name, change := range map[string]func(){
		"other rows":    func() { set(b, "namespace", "monitoring") },
		"another cell":  func() { eval[bool](b, `document.getElementById('c1-3').click(), true`) },
		"nothing there": func() { eval[bool](b, `document.querySelector('main').hidden = true`) },
	} {
		b.call("Page.reload", nil)
		<-b.loaded
		change()
		old := b.see()
		require.Error(t, old.differs(now), name)
		require.ErrorContains(t, (&picture{old.img, now.words, old.fonts}).differs(now), "looks different", name)
		require.ErrorContains(t, (&picture{now.img, old.words + "\n", old.fonts}).differs(now), "words", name)
	}
	dark := image.NewGray(kept.img.Bounds())
	require.ErrorContains(t, (&picture{dark, kept.words, fmt.Sprint("not ", kept.fonts)}).differs(kept), "looks different", "with other fonts, too")
}
