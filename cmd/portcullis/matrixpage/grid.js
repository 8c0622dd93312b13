// The table. Only rows and cells that can be seen are elements; they are made anew as the user scrolls.
class Grid {
  // onSelect is told the indices of both ends, onHead which header was chosen.
  constructor(root, onSelect, onHead) {
    this.root = root;
    this.onSelect = onSelect;
    this.onHead = onHead;
    this.active = [0, 0]; // position, not index
    this.chosen = null; // indices of the two ends
    root.addEventListener('scroll', () => this.soon(), { passive: true });
    root.addEventListener('click', (e) => this.click(e));
    root.addEventListener('keydown', (e) => this.key(e));
    root.addEventListener('pointerover', (e) => this.hover(e.target.closest('[data-c]')));
    root.addEventListener('pointerleave', () => this.hover(null));
    new ResizeObserver(() => this.soon()).observe(root);
  }

  // show takes a view, the ends to show as rows and columns (indices), and what cells come to.
  show(view, rows, columns, states) {
    Object.assign(this, { view, rows, columns, states });
    this.measure();
    this.active = [clamp(this.active[0], rows.length), clamp(this.active[1], columns.length)];
    this.root.setAttribute('aria-rowcount', rows.length + 1);
    this.root.setAttribute('aria-colcount', columns.length + 1);
    this.body = element('div', 'body');
    this.body.style.width = this.left + columns.length * this.cell[0] + 'px';
    this.body.style.height = this.top + rows.length * this.cell[1] + 'px';
    this.root.classList.toggle('dense', this.dense);
    this.root.replaceChildren(this.body);
    this.drawn = '';
    this.draw();
  }

  // measure finds sizes: cells of a large table are small and have no text.
  measure() {
    this.dense = this.columns.length > 40;
    const wide = Math.max(0, ...this.columns.map((c) => this.widest(c)));
    this.cell = this.dense ? [22, 22] : [Math.max(44, Math.min(76, Math.ceil(18 + wide * 6.3))), 32];
    const longest = (list, font, text) => list.reduce((most, i) => Math.max(most, textWidth(font, text(this.view.ends[i]))), 24);
    this.left = Math.min(300, Math.ceil(longest(this.rows, 14, (e) => this.label(e))) + 34);
    this.top = Math.min(200, Math.ceil(longest(this.columns, 12.5, shown)) + 46);
  }

  widest(column) {
    if (this.dense) return 0;
    let most = 0;
    for (const r of this.rows) {
      const s = this.states.of(this.view.cells[r][column]);
      if (s) most = Math.max(most, s.short.length);
    }
    return most;
  }

  label(end) { return end.kind === 'pods' ? end.namespace + '/' + shown(end) : shown(end); }

  soon() {
    if (this.waiting) return;
    this.waiting = true;
    requestAnimationFrame(() => { this.waiting = false; this.draw(); });
  }

  // draw makes what can be seen, if it is not there yet.
  draw() {
    if (!this.view) return;
    const { scrollLeft, scrollTop, clientWidth, clientHeight } = this.root;
    const [w, h] = this.cell;
    const span = (from, size, each, count) => [Math.max(0, Math.floor(from / each) - 3), Math.min(count, Math.ceil((from + size) / each) + 3)];
    const [r0, r1] = span(scrollTop, clientHeight, h, this.rows.length);
    const [c0, c1] = span(scrollLeft, clientWidth, w, this.columns.length);
    const key = [r0, r1, c0, c1].join();
    if (key === this.drawn) return;
    this.drawn = key;
    const parts = [this.heads(c0, c1)];
    for (let r = r0; r < r1; r++) parts.push(this.row(r, c0, c1));
    this.body.replaceChildren(...parts);
    this.mark();
  }

  heads(c0, c1) {
    const row = element('div', 'heads');
    row.setAttribute('role', 'row');
    row.style.height = this.top + 'px';
    const corner = element('div', 'corner');
    corner.setAttribute('role', 'columnheader');
    corner.style.width = this.left + 'px';
    corner.append(element('span', 'sends', 'from'), element('span', 'receives', 'to'));
    row.append(corner);
    let band = null;
    for (let c = c0; c < c1; c++) {
      const end = this.view.ends[this.columns[c]];
      const head = element('div', 'head');
      head.setAttribute('role', 'columnheader');
      head.setAttribute('aria-colindex', c + 2);
      head.dataset.column = c;
      head.title = clean(fullName(end)) + '\nClick: order the rows by this column';
      head.style.left = this.left + c * this.cell[0] + 'px';
      head.style.width = this.cell[0] + 'px';
      const name = element('span', end.kind === 'pods' || end.kind === 'namespace' ? '' : 'special', shown(end));
      head.append(name);
      row.append(head);
      if (end.kind === 'pods' && band && band.namespace === end.namespace) {
        band.count++;
      } else if (end.kind === 'pods') {
        if (band) row.append(this.band(band));
        band = { namespace: end.namespace, first: c, count: 1 };
      } else if (band) {
        row.append(this.band(band));
        band = null;
      }
    }
    if (band) row.append(this.band(band));
    return row;
  }

  // band is the name of a namespace above its columns.
  band(b) {
    const e = element('div', 'band', b.namespace);
    e.title = clean(b.namespace);
    e.style.left = this.left + b.first * this.cell[0] + 'px';
    e.style.width = b.count * this.cell[0] - 4 + 'px';
    return e;
  }

  row(r, c0, c1) {
    const from = this.rows[r], end = this.view.ends[from];
    const row = element('div', 'row');
    row.setAttribute('role', 'row');
    row.setAttribute('aria-rowindex', r + 2);
    row.style.top = this.top + r * this.cell[1] + 'px';
    row.style.height = this.cell[1] + 'px';
    const before = r > 0 && this.view.ends[this.rows[r - 1]];
    if (before && (before.namespace || '') !== (end.namespace || '')) row.classList.add('break');
    const name = element('div', 'name');
    name.setAttribute('role', 'rowheader');
    name.dataset.row = r;
    name.style.width = this.left + 'px';
    name.title = clean(fullName(end)) + '\nClick: order the columns by this row';
    if (end.kind === 'pods') name.append(element('span', 'namespace', end.namespace + '/'));
    name.append(element('span', end.kind === 'pods' || end.kind === 'namespace' ? '' : 'special', shown(end)));
    row.append(name);
    for (let c = c0; c < c1; c++) row.append(this.makeCell(r, c, end));
    return row;
  }

  makeCell(r, c, end) {
    const from = this.rows[r], to = this.columns[c], other = this.view.ends[to];
    const state = this.states.of(this.view.cells[from][to]);
    const cell = element('div', 'cell ' + (state ? state.kind : this.isItself(from, to) ? 'itself' : 'blank'));
    cell.id = 'c' + r + '-' + c;
    cell.dataset.r = r;
    cell.dataset.c = c;
    cell.setAttribute('role', 'gridcell');
    cell.setAttribute('aria-colindex', c + 2);
    cell.style.left = this.left + c * this.cell[0] + 'px';
    cell.style.width = this.cell[0] + 'px';
    const sign = document.createElement('span');
    sign.className = 'sign';
    if (state && state.short && !this.dense) sign.textContent = state.short;
    cell.append(sign);
    if (state && state.family && !this.dense) cell.append(element('sup', '', '4≠6'));
    if (c > 0 && (this.view.ends[this.columns[c - 1]].namespace || '') !== (other.namespace || '')) cell.classList.add('break');
    return cell;
  }

  isItself(from, to) { return !isDiff && from === to && this.view.cells[from][to] < 0 && Boolean(this.view.ends[from].pods); }

  // describe says in words what a cell shows. Cells are many, so it is done when one is looked at.
  describe(cell) {
    const from = this.rows[cell.dataset.r], to = this.columns[cell.dataset.c];
    const state = this.states.of(this.view.cells[from][to]);
    const text = state ? state.text : this.isItself(from, to) ? 'itself' : isDiff ? 'no change' : 'nothing to say';
    const [a, b] = [from, to].map((i) => clean(fullName(this.view.ends[i])));
    cell.setAttribute('aria-label', a + ' to ' + b + ': ' + text);
    cell.title = a + ' → ' + b + '\n' + text;
  }

  // mark shows which cell is active and which one is explained.
  mark() {
    this.root.querySelectorAll('.active, .chosen').forEach((e) => e.classList.remove('active', 'chosen'));
    const active = document.getElementById('c' + this.active.join('-'));
    if (active) {
      active.classList.add('active');
      this.describe(active);
      this.root.setAttribute('aria-activedescendant', active.id);
    }
    if (!this.chosen) return;
    const at = [this.rows.indexOf(this.chosen[0]), this.columns.indexOf(this.chosen[1])];
    const chosen = document.getElementById('c' + at.join('-'));
    if (chosen) chosen.classList.add('chosen');
  }

  hover(cell) {
    this.root.querySelectorAll('.lit').forEach((e) => e.classList.remove('lit'));
    if (!cell) return;
    this.describe(cell);
    for (const e of this.root.querySelectorAll('[data-column="' + cell.dataset.c + '"], [data-row="' + cell.dataset.r + '"]')) e.classList.add('lit');
  }

  click(event) {
    const cell = event.target.closest('[data-c]');
    if (cell) {
      this.move([Number(cell.dataset.r), Number(cell.dataset.c)], true);
      return;
    }
    const head = event.target.closest('[data-column], [data-row]');
    if (head && head.dataset.column !== undefined) this.onHead('column', this.columns[Number(head.dataset.column)]);
    else if (head) this.onHead('row', this.rows[Number(head.dataset.row)]);
  }

  key(event) {
    const [r, c] = this.active;
    const page = Math.max(1, Math.floor((this.root.clientHeight - this.top) / this.cell[1]) - 1);
    const all = event.ctrlKey || event.metaKey;
    const to = {
      ArrowUp: [r - 1, c], ArrowDown: [r + 1, c], ArrowLeft: [r, c - 1], ArrowRight: [r, c + 1],
      PageUp: [r - page, c], PageDown: [r + page, c], Home: [all ? 0 : r, 0], End: [all ? Infinity : r, Infinity],
      Enter: [r, c], ' ': [r, c],
    }[event.key];
    if (!to || event.altKey) return;
    event.preventDefault();
    this.move([clamp(to[0], this.rows.length), clamp(to[1], this.columns.length)], event.key === 'Enter' || event.key === ' ' || this.chosen);
  }

  // move makes a cell active, brings it into sight, and explains it if asked.
  move(to, choose) {
    if (this.rows.length === 0 || this.columns.length === 0) return;
    this.active = to;
    const [w, h] = this.cell;
    const x = to[1] * w, y = to[0] * h, g = this.root;
    const fit = (at, size, from, seen) => (at < from ? at : at + size > from + seen ? at + size - seen : from);
    g.scrollLeft = fit(x, w, g.scrollLeft, g.clientWidth - this.left);
    g.scrollTop = fit(y, h, g.scrollTop, g.clientHeight - this.top);
    this.draw();
    if (choose) this.choose(this.rows[to[0]], this.columns[to[1]]);
    else this.mark();
  }

  // choose explains the cell of two ends.
  choose(from, to) {
    this.chosen = [from, to];
    const at = [this.rows.indexOf(from), this.columns.indexOf(to)];
    if (at[0] >= 0 && at[1] >= 0) this.active = at;
    this.mark();
    this.onSelect(from, to);
  }
}

// textWidth is the width of a text in the page's font, in pixels.
function textWidth(size, text) {
  if (!textWidth.context) textWidth.context = document.createElement('canvas').getContext('2d');
  textWidth.context.font = size + 'px ' + getComputedStyle(document.body).fontFamily;
  return textWidth.context.measureText(clean(text)).width;
}

function clamp(i, count) { return Math.max(0, Math.min(count - 1, i)); }
