// The data, and what cells come to.
const data = JSON.parse(document.getElementById('data').textContent);
const isDiff = data.kind === 'diff';

// clean shows characters that are not seen, or that change the order of others, as their numbers.
function clean(text) {
  return String(text).replace(/[\u0000-\u001f\u007f-\u009f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]/g,
    (c) => '\\u' + c.charCodeAt(0).toString(16).padStart(4, '0'));
}

// element makes an element with a class and with text; names go nowhere else.
function element(tag, className, text) {
  const e = document.createElement(tag);
  if (className) e.className = className;
  if (text !== undefined) e.textContent = clean(text);
  return e;
}

function fullName(end) {
  if (end.kind === 'pods') return end.namespace + '/' + end.name;
  return end.kind === 'namespace' ? end.namespace : end.name;
}

// shown is the name of an end below its namespace.
function shown(end) {
  if (end.kind === 'namespace') return end.namespace;
  const count = (end.pods || []).length;
  return count > 1 && !end.name.includes(' +') ? end.name + ' ×' + count : end.name;
}

// everyOf and someOf are what passes between every pair and between some, in one family of a reach.
const everyOf = (family) => family.e;
const someOf = (family) => family.s || family.e;

// sumUp says what a reach comes to: its kind, a short text and a long one. If a port is wanted, only that counts.
function sumUp(reach, wanted) {
  const families = reach.map((f, i) => f && { name: i ? 'IPv6' : 'IPv4', ...familyState(f, wanted) }).filter(Boolean);
  if (families.length === 0) return { kind: 'none', short: '', text: 'no address family in common', rank: 0 };
  const [a, b] = families;
  if (!b || (a.kind === b.kind && a.text === b.text)) return a;
  const kinds = families.map((f) => f.kind);
  const kind = kinds.includes('some') || (wanted && kinds.includes('none')) ? 'some' : 'ports';
  return {
    kind, family: true, rank: Math.max(a.rank, b.rank) - 0.1,
    short: kind === 'ports' ? (a.kind === 'none' ? b : a).short || 'all' : '',
    text: a.name + ' ' + a.text + '; ' + b.name + ' ' + b.text,
  };
}

function familyState(family, wanted) {
  const every = everyOf(family), some = someOf(family);
  if (wanted) {
    if (ports.has(every, wanted)) return { kind: 'all', short: '', text: wanted.name + ' allowed', rank: 4 };
    if (ports.has(some, wanted)) return { kind: 'some', short: '', text: wanted.name + ' for some', rank: 2 };
    return { kind: 'none', short: '', text: wanted.name + ' denied', rank: 0 };
  }
  if (ports.isEmpty(some)) return { kind: 'none', short: '', text: 'nothing', rank: 0 };
  if (!ports.same(every, some)) {
    const text = ports.isEmpty(every) ? '' : ports.text(every) + '; ';
    return { kind: 'some', short: '', text: text + 'for some: ' + ports.text(some), rank: 2 };
  }
  if (ports.isAll(every)) return { kind: 'all', short: '', text: 'all traffic', rank: 4 };
  return { kind: 'ports', short: ports.short(every), text: ports.text(every), rank: 3 };
}

// states remembers what every variant comes to, for one port or for all.
class States {
  constructor(wanted) {
    this.wanted = wanted;
    this.byReach = data.reaches.map((r) => sumUp(r, wanted));
    this.changes = (data.changes || []).map((c) => this.change(c));
  }

  // of is the state of a cell, or null if there is nothing to say.
  of(id) {
    if (id < 0) return null;
    return isDiff ? this.changes[id] : this.byReach[data.variants[id].r];
  }

  change(c) {
    const opened = this.byReach[c.o], closed = this.byReach[c.c];
    const opens = opened.kind !== 'none', closes = closed.kind !== 'none';
    if (!opens && !closes) return null;
    const word = (s) => s.text.replace(' allowed', '');
    return {
      kind: opens && closes ? 'both' : opens ? 'opened' : 'closed', short: '', rank: opens ? 3 : 1, opened, closed,
      text: [opens && 'opened: ' + word(opened), closes && 'closed: ' + word(closed)].filter(Boolean).join('; '),
    };
  }
}
