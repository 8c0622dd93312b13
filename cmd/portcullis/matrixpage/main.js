// Puts the page together: filters, order, and what they show.
const byId = (id) => document.getElementById(id);

const page = {
  view: 0,
  order: { kind: 'name' },
  states: new States(null),
};

const grid = new Grid(byId('grid'), (from, to) => {
  document.body.classList.add('explains');
  const view = data.views[page.view];
  explanation.show(view, from, to, page.states);
  history.replaceState(null, '', '#' + [from, to].map((i) => encodeURIComponent(fullName(view.ends[i]))).join('&'));
}, (kind, index) => {
  page.order = { kind, index };
  byId('order').selectedIndex = -1;
  refresh();
});
const explanation = new Explanation(byId('explanation'), (from, to) => grid.choose(from, to));

// wordsOf are the words of a filter; an end must have all of them.
function wordsOf(id) { return byId(id).value.toLowerCase().split(/\s+/).filter(Boolean); }

function textOf(end) {
  if (!end.text) {
    Object.defineProperty(end, 'text', { value: [fullName(end), end.workload || '', ...(end.pods || [])].join(' ').toLowerCase() });
  }
  return end.text;
}

function selected(view, id) {
  const words = wordsOf(id), namespace = byId('namespace').value;
  return view.ends.map((_, i) => i).filter((i) => {
    const end = view.ends[i];
    return words.every((w) => textOf(end).includes(w)) && (!namespace || !end.namespace || end.namespace === namespace);
  });
}

// ranked orders ends by how open they are; ends that are no pods stay last.
function ranked(view, list, sum, sign) {
  const score = new Map(list.map((i) => [i, sum(i)]));
  const last = (i) => (view.ends[i].pods ? 0 : 1);
  return list.slice().sort((a, b) => last(a) - last(b) || sign * (score.get(b) - score.get(a)) || a - b);
}

function rank(view, from, to) {
  const state = page.states.of(view.cells[from][to]);
  return state ? state.rank : -1;
}

function ordered(view, rows, columns) {
  const { kind, index } = page.order;
  const total = (list, of) => (i) => list.reduce((n, j) => n + Math.max(0, of(i, j)), 0);
  const across = total(columns, (r, c) => rank(view, r, c)), down = total(rows, (c, r) => rank(view, r, c));
  switch (kind) {
    case 'open': return [ranked(view, rows, across, 1), ranked(view, columns, down, 1)];
    case 'closed': return [ranked(view, rows, across, -1), ranked(view, columns, down, -1)];
    case 'column': return [rows.slice().sort((a, b) => rank(view, b, index) - rank(view, a, index) || a - b), columns];
    case 'row': return [rows, columns.slice().sort((a, b) => rank(view, index, b) - rank(view, index, a) || a - b)];
  }
  return [rows, columns];
}

function refresh() {
  const view = data.views[page.view];
  const text = byId('port').value;
  const wanted = text.trim() ? ports.parse(text) : null;
  byId('port').setAttribute('aria-invalid', Boolean(text.trim() && !wanted));
  byId('problem').textContent = text.trim() && !wanted ? 'The port must be like tcp/443, udp/53, sctp/9 or icmp.' : '';
  if ((page.states.wanted || {}).name !== (wanted || {}).name) page.states = new States(wanted);
  let rows = selected(view, 'from'), columns = selected(view, 'to');
  if (isDiff && byId('changed').checked) [rows, columns] = changedOnly(view, rows, columns);
  [rows, columns] = ordered(view, rows, columns);
  grid.show(view, rows, columns, page.states);
  showLegend(view, rows, columns);
  byId('subtitle').textContent = clean(data.source + ' · ' + count(rows.length, 'row') + ', ' + count(columns.length, 'column'));
  if (grid.chosen) explanation.show(view, ...grid.chosen, page.states);
}

function changedOnly(view, rows, columns) {
  const has = (r, c) => page.states.of(view.cells[r][c]);
  return [rows.filter((r) => columns.some((c) => has(r, c))), columns.filter((c) => rows.some((r) => has(r, c)))];
}

function count(n, what) { return n + ' ' + what + (n === 1 ? '' : 's'); }

// showLegend says what the signs mean, and how many cells have them.
function showLegend(view, rows, columns) {
  const counts = {};
  let families = 0;
  for (const r of rows) {
    for (const c of columns) {
      const state = page.states.of(view.cells[r][c]);
      if (!state) continue;
      counts[state.kind] = (counts[state.kind] || 0) + 1;
      if (state.family) families++;
    }
  }
  const wanted = page.states.wanted;
  const words = isDiff
    ? { opened: 'opened', closed: 'closed', both: 'opened and closed' }
    : wanted ? { all: 'allowed', some: 'for some, or one IP family', none: 'denied' }
      : { all: 'all traffic', ports: 'some ports', some: 'differs by pod or address', none: 'nothing' };
  byId('legend').replaceChildren(...Object.entries(words).map(([kind, word]) => {
    const item = element('li', kind);
    item.append(element('span', 'sign'), element('span', '', word), element('span', 'count', (counts[kind] || 0).toLocaleString('en')));
    return item;
  }));
  if (families === 0) return;
  const item = element('li');
  item.append(element('small', '', '4≠6'), element('span', '', 'IPv4 and IPv6 differ'), element('span', 'count', families.toLocaleString('en')));
  byId('legend').append(item);
}

function option(select, value, text) {
  const o = element('option', '', text);
  o.value = value;
  select.append(o);
}

function showViews() {
  const names = { pod: 'Pods', workload: 'Workloads', namespace: 'Namespaces' };
  for (const [i, view] of data.views.entries()) {
    const label = element('label');
    const input = element('input');
    Object.assign(input, { type: 'radio', name: 'view', value: String(i), checked: i === 0 });
    input.addEventListener('change', () => {
      page.view = i;
      page.order = { kind: byId('order').value || 'name' };
      grid.chosen = null;
      document.body.classList.remove('explains');
      explanation.close();
      refresh();
    });
    label.append(input, element('span', '', names[view.by]));
    byId('views').append(label);
  }
  if (!isDiff) return;
  const label = element('label');
  const input = element('input');
  Object.assign(input, { type: 'checkbox', id: 'changed', checked: true });
  input.addEventListener('change', refresh);
  label.append(input, element('span', '', 'Changes only'));
  byId('tools').append(label);
}

function showNotes() {
  const notes = (data.notes || []).slice();
  if (data.gone) notes.push('only before: ' + data.gone.join(', '));
  if (data.added) notes.push('only now: ' + data.added.join(', '));
  byId('notes').hidden = notes.length === 0;
  const list = element('ul');
  list.append(...notes.map((n) => element('li', '', n)));
  byId('notes').append(element('summary', '', count(notes.length, 'note')), list);
}

function start() {
  const title = isDiff ? 'What a change opens and closes' : 'Who reaches whom';
  document.title = title;
  byId('title').textContent = title;
  document.body.classList.toggle('diff', isDiff);
  const namespaces = [...new Set(data.views.flatMap((v) => v.ends.map((e) => e.namespace)).filter(Boolean))].sort();
  option(byId('namespace'), '', 'all');
  for (const n of namespaces) option(byId('namespace'), n, n);
  for (const p of data.ports || []) option(byId('ports'), p, p);
  if ((data.ports || []).length === 1 && !isDiff) byId('port').value = data.ports[0];
  showViews();
  showNotes();
  for (const id of ['from', 'to', 'port']) byId(id).addEventListener('input', refresh);
  byId('namespace').addEventListener('change', refresh);
  byId('order').addEventListener('change', () => {
    page.order = { kind: byId('order').value };
    refresh();
  });
  byId('tools').addEventListener('submit', (e) => e.preventDefault());
  document.addEventListener('keydown', (e) => {
    if (e.key !== 'Escape') return;
    grid.chosen = null;
    document.body.classList.remove('explains');
    explanation.close();
    grid.mark();
    byId('grid').focus();
  });
  refresh();
  open(location.hash);
}

// open explains the cell that the address of the page names: #from&to.
function open(hash) {
  const names = hash.slice(1).split('&').map((text) => {
    try { return decodeURIComponent(text); } catch { return ''; }
  });
  const ends = data.views[page.view].ends.map(fullName);
  const [from, to] = names.map((n) => ends.indexOf(n));
  if (from >= 0 && to >= 0) grid.choose(from, to);
}

start();
