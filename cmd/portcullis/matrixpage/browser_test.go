//go:build browser

// The page in a real browser. It needs chromium:
//
//	go test -tags browser ./cmd/portcullis/matrixpage
//
// With PORTCULLIS_SCREENSHOTS=DIR it leaves pictures there. -update takes the one of the README anew.
package matrixpage

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/portcullis-netpol/portcullis/policy/matrix"
)

const (
	rows     = `[...document.querySelectorAll('.row .name')].map(e => e.textContent)`
	columns  = `[...document.querySelectorAll('.head')].map(e => e.textContent)`
	panel    = `document.getElementById('explanation').textContent`
	setInput = `(id, v) => { const e = document.getElementById(id); e.value = v; e.dispatchEvent(new Event(e.tagName === 'SELECT' ? 'change' : 'input')); }`
)

func set(b *browser, id, value string) {
	b.t.Helper()
	eval[bool](b, `(`+setInput+`)("`+id+`", "`+value+`"), true`)
}

// TestBrowser uses the page as a person does.
func TestBrowser(t *testing.T) {
	b := startBrowser(t, 1200, 760)
	b.open(Page{Source: "shop", Matrix: shop(t), Ports: []string{"tcp/5432", "icmp"}, Notes: []string{"a note"}}, "#shop%2Fweb&shop%2Fdb")
	require.Equal(t, []string{"monitoring/scraper", "shop/db", "shop/web ×2", "outside", "own node"}, eval[[]string](b, rows))
	require.Equal(t, []string{"scraper", "db", "web ×2", "outside", "own node"}, eval[[]string](b, columns))
	require.Contains(t, eval[string](b, panel), "shop/dbspec.ingress[0] from[0] ports[0]from pods app=web of the same namespace · tcp/5432selects pods app=db")
	b.screenshot("page")

	set(b, "from", "web shop")
	require.Equal(t, []string{"shop/web ×2"}, eval[[]string](b, rows))
	set(b, "from", "")
	set(b, "namespace", "monitoring")
	require.Equal(t, []string{"monitoring/scraper", "outside", "own node"}, eval[[]string](b, rows))
	set(b, "namespace", "")
	set(b, "order", "open")
	require.Equal(t, "shop/web ×2", eval[[]string](b, rows)[0], "reaches all, itself included")
	set(b, "order", "closed")
	require.Equal(t, "shop/db", eval[[]string](b, rows)[0])
	set(b, "order", "name")
	eval[bool](b, `document.querySelector('[data-column="1"]').click(), true`)
	require.Equal(t, []string{"monitoring/scraper", "own node", "shop/web ×2", "outside", "shop/db"}, eval[[]string](b, rows), "the rows by what reaches shop/db")
	set(b, "order", "name")

	set(b, "port", "tcp/5432")
	eval[bool](b, `document.getElementById('c2-1').click(), true`)
	require.Equal(t, "shop/web to shop/db: tcp/5432 allowed", eval[string](b, `document.getElementById('c2-1').getAttribute('aria-label')`))
	set(b, "port", "tcp/70000")
	require.Contains(t, eval[string](b, `document.getElementById('problem').textContent`), "tcp/443")
	set(b, "port", "")

	eval[bool](b, `document.getElementById('grid').focus(), true`)
	for _, key := range []string{"Escape", "Home", "PageUp", "ArrowDown", "ArrowRight", "ArrowRight", "Enter"} {
		b.press(key)
	}
	require.Contains(t, eval[string](b, `document.querySelector('.chosen').getAttribute('aria-label')`), "shop/db to shop/web: nothing")
	require.Contains(t, eval[string](b, panel), "no rule allows it; isolated byshop/dbselects pods app=db")
	eval[bool](b, `document.querySelector('.reverse button').click(), true`)
	require.Contains(t, eval[string](b, `document.querySelector('.chosen').getAttribute('aria-label')`), "shop/web to shop/db: tcp/5432")

	eval[bool](b, `document.querySelectorAll('#views input')[1].click(), true`)
	require.Equal(t, []string{"monitoring", "shop", "outside", "own node"}, eval[[]string](b, rows))
	eval[bool](b, `document.getElementById('c1-1').click(), true`)
	require.Contains(t, eval[string](b, panel), "shop/db → shop/web-1")
	b.clean()
}

// TestBrowserDark has readable colours on a dark ground, too.
func TestBrowserDark(t *testing.T) {
	b := startBrowser(t, 1200, 760)
	b.call("Emulation.setEmulatedMedia", map[string]any{"features": []map[string]string{{"name": "prefers-color-scheme", "value": "dark"}}})
	b.open(Page{Source: "shop", Matrix: shop(t)}, "#outside&shop%2Fdb")
	require.Equal(t, "rgb(20, 24, 29)", eval[string](b, `getComputedStyle(document.body).backgroundColor`))
	b.screenshot("dark")
	b.clean()
}

// TestBrowserDiff shows what changes, before and now.
func TestBrowserDiff(t *testing.T) {
	b := startBrowser(t, 1200, 760)
	before, after := shopInput(t), shopInput(t)
	after.Cluster.Policies = after.Cluster.Policies[:1]
	d, err := matrix.Compare(t.Context(), before, after, matrix.Options{})
	require.NoError(t, err)
	b.open(Page{Source: "old → new", Diff: d}, "#monitoring%2Fscraper&shop%2Fdb")
	require.Contains(t, eval[string](b, panel), "Now: nothing")
	require.Equal(t, []string{"monitoring/scraper"}, eval[[]string](b, rows))
	eval[bool](b, `document.getElementById('changed').click(), true`)
	require.Len(t, eval[[]string](b, rows), 5)
	b.screenshot("diff")
	b.clean()
}

// TestBrowserHostile puts names on the page that want to be more than text.
func TestBrowserHostile(t *testing.T) {
	b := startBrowser(t, 1200, 760)
	m, d := hostile(t)
	for _, p := range []Page{{Matrix: m, Source: evil, Notes: []string{evil}, Ports: []string{evil}}, {Diff: d, Source: evil}} {
		b.open(p, "")
		eval[bool](b, `document.querySelector('.cell').click(), document.querySelectorAll('.cell').forEach(c => c.click()), true`)
		require.Zero(t, eval[int](b, `document.querySelectorAll('img, iframe, object, embed, link, body script:not(#data):not(:last-of-type)').length`))
		require.True(t, eval[bool](b, `window.pwned === undefined`))
		require.Contains(t, eval[[]string](b, rows)[0], `</script><img src=x onerror=pwned=1>\u001b[2J\u202e`)
		b.clean()
	}
	// The policy of the page holds: even a script that is there does not run.
	eval[bool](b, `(() => { const s = document.createElement('script'); s.textContent = 'window.pwned = 1'; document.body.append(s); return true; })()`)
	require.True(t, eval[bool](b, `window.pwned === undefined`))
}

// TestBrowserLarge measures a page of 300 rows and columns; it asks for no speed.
func TestBrowserLarge(t *testing.T) {
	b := startBrowser(t, 1200, 760)
	m, err := matrix.Compute(t.Context(), large(t, 300), matrix.Options{Views: []matrix.By{matrix.ByPod, matrix.ByNamespace}})
	require.NoError(t, err)
	b.open(Page{Source: "300 workloads", Matrix: m}, "")
	type times struct{ Load, Scroll, Worst, Order, Filter, Port, Choose float64 }
	took := eval[times](b, `(async () => {
		const timed = async (f) => { const t = performance.now(); await f(); document.getElementById('grid').getBoundingClientRect(); return performance.now() - t; };
		const frame = () => new Promise((r) => requestAnimationFrame(() => setTimeout(r)));
		const g = document.getElementById('grid'), set = `+setInput+`;
		let worst = 0;
		const steps = 60;
		const scroll = await timed(async () => {
			for (let i = 1; i <= steps; i++) {
				const t = performance.now();
				g.scrollTop = g.scrollHeight * i / steps; g.scrollLeft = g.scrollWidth * i / steps;
				await frame();
				worst = Math.max(worst, performance.now() - t);
			}
		});
		return {
			Load: performance.getEntriesByType('navigation')[0].loadEventStart, Scroll: scroll / steps, Worst: worst,
			Order: await timed(() => set('order', 'open')), Filter: await timed(() => set('from', 'app-1')),
			Port: await timed(() => set('port', 'tcp/8000')), Choose: await timed(() => document.querySelector('.cell').click()),
		};
	})()`)
	t.Logf("milliseconds: %+v", took)
	require.Less(t, eval[int](b, `document.querySelectorAll('#grid *').length`), 20_000, "elements, of 90,000 cells")
	b.screenshot("large")
	b.clean()
}
