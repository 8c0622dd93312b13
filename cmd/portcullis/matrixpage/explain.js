// The explanation of a cell: what both directions say, and which policies, rules and selectors decide.
class Explanation {
  // onChoose is asked to explain another cell.
  constructor(root, onChoose) {
    this.root = root;
    this.onChoose = onChoose;
    this.close();
  }

  close() {
    this.root.replaceChildren(element('p', 'hint', isDiff
      ? 'Choose a cell to see what changed, and which policies and rules decided before and decide now.'
      : 'Choose a cell to see what passes, and which policies and rules decide. Arrow keys move, Enter explains, a name orders the table.'));
  }

  show(view, from, to, states) {
    const a = view.ends[from], b = view.ends[to];
    const id = view.cells[from][to];
    const title = element('h2');
    title.append(this.endName(a), element('span', 'arrow', '→'), this.endName(b));
    const parts = [title, this.members(a, b)];
    const state = states.of(id);
    if (id < 0 || !state) parts.push(element('p', 'hint', this.nothing(a, from === to)));
    else if (isDiff) parts.push(...this.change(data.changes[id], a, b, state));
    else parts.push(this.verdict(state), ...this.variant(data.variants[id], data.tables[0], a, b));
    const back = states.of(view.cells[to][from]);
    if (back && from !== to) parts.push(this.reverse(back, from, to));
    this.root.replaceChildren(...parts);
    this.root.scrollTop = 0;
  }

  nothing(end, same) {
    if (isDiff) return 'Nothing changes here.';
    return same && end.pods ? 'This is one pod. A pod always reaches itself.' : 'These are no pods, or they were not asked for: there is nothing to say.';
  }

  endName(end) {
    const e = element('span', 'end');
    if (end.kind === 'pods') e.append(element('span', 'namespace', end.namespace + '/'));
    e.append(element('b', '', shown(end)));
    return e;
  }

  // members says what the names stand for, where that is not plain.
  members(...ends) {
    const list = element('div', 'members');
    const meaning = {
      outside: 'any address that is no pod’s and no node’s', ownNode: 'the node that a pod runs on',
      otherNode: 'the nodes that a pod does not run on',
    };
    for (const end of ends.filter((e, i) => ends.indexOf(e) === i)) {
      const pods = end.pods || [];
      if (meaning[end.kind]) list.append(element('p', '', end.name + ': ' + meaning[end.kind]));
      else if (pods.length > 1 || end.workload) {
        const more = element('details');
        const what = end.kind === 'namespace' ? 'namespace ' + end.namespace : end.workload || 'pods with the same labels';
        more.append(element('summary', '', what + ', ' + pods.length + (pods.length === 1 ? ' pod' : ' pods')), element('p', 'pods', pods.join('  ')));
        list.append(more);
      }
    }
    return list;
  }

  verdict(state) {
    const word = { all: 'Open', none: 'Closed', ports: 'Some ports', some: 'Differs' }[state.kind];
    const p = element('p', 'verdict ' + state.kind);
    p.append(element('span', 'sign'), element('b', '', word), element('span', '', state.text));
    return p;
  }

  change(c, a, b, state) {
    const p = element('p', 'verdict ' + state.kind);
    p.append(element('span', 'sign'), element('span', '', state.text));
    const out = [p];
    for (const [i, name] of ['Before', 'Now'].entries()) {
      const v = i ? c.new : c.old;
      out.push(element('h3', '', name + ': ' + sumUp(data.reaches[v.r], null).text), ...this.variant(v, data.tables[i], a, b));
    }
    return out;
  }

  reverse(state, from, to) {
    const p = element('p', 'reverse');
    const button = element('button', '', 'Show the other direction');
    button.type = 'button';
    button.addEventListener('click', () => this.onChoose(to, from));
    p.append(button, element('span', '', state.text));
    return p;
  }

  variant(v, table, a, b) {
    const out = [];
    for (const [egress, ingress, details] of v.p) {
      if (details) out.push(this.partTitle(details, a, b));
      out.push(...this.groups(table, egress, ingress).map((g, i, all) => this.group(g, table, i === all.length - 1 && all.length > 1)));
    }
    if (v.m) out.push(element('p', 'hint', 'and ' + v.m + ' more kinds of pairs; rows by pod tell them apart'));
    return out;
  }

  partTitle(details, a, b) {
    const pairs = details.n === 1 ? '' : details.n + ' pairs, such as ';
    if (!details.b) return element('h4', '', pairs + details.f + ' → ' + details.t);
    const names = details.b.map((x) => (x === '0.0.0.0/0' ? 'other IPv4 addresses' : x === '::/0' ? 'other IPv6 addresses' : x));
    const pod = a.kind === 'outside' ? details.t : details.f;
    const several = (a.kind === 'outside' ? b : a).pods.length > 1 && pod;
    return element('h4', '', (a.kind === 'outside' ? 'From ' : 'To ') + names.join(', ') + (several ? ' (pods like ' + pod + ')' : ''));
  }

  // groups puts together the traffic that is judged alike: what is allowed first, and last what is most.
  groups(table, egress, ingress) {
    const found = new Map();
    for (const family of [0, 1]) {
      const e = table.profiles[egress][family], i = table.profiles[ingress][family];
      if (!e || !i) continue;
      // Both lists cover all traffic in the same order, so that they can be gone through side by side.
      for (let x = 0, y = 0; x < e.length && y < i.length;) {
        const last = Math.min(e[x + 2], i[y + 2]);
        const key = e[x + 3] + ' ' + i[y + 3];
        if (!found.has(key)) found.set(key, { egress: e[x + 3], ingress: i[y + 3], sets: [null, null] });
        const sets = found.get(key).sets;
        if (!sets[family]) sets[family] = [[], [], [], []];
        add(sets[family][e[x]], Math.max(e[x + 1], i[y + 1]), last);
        const step = [e[x + 2] === last ? 4 : 0, i[y + 2] === last ? 4 : 0];
        x += step[0];
        y += step[1];
      }
    }
    const both = [0, 1].filter((f) => table.profiles[egress][f] && table.profiles[ingress][f]);
    const out = [...found.values()].map((g) => {
      const d = { egress: table.decisions[g.egress], ingress: table.decisions[g.ingress] };
      const [four, six] = g.sets;
      const sameInBoth = both.length === 2 && four && six && ports.same(four, six);
      const only = both.length === 2 && !sameInBoth;
      const texts = both.filter((f) => g.sets[f]).map((f) => (only ? (f ? 'IPv6 ' : 'IPv4 ') : '') + ports.text(g.sets[f]));
      const size = (g.sets[0] || g.sets[1]).reduce((n, r) => n + r.reduce((m, x, i) => (i % 2 ? m + x : m - x + 1), 0), 0);
      return { ...d, allowed: d.egress.allowed && d.ingress.allowed, text: sameInBoth ? texts[0] : texts.join('; '), size };
    });
    return out.sort((p, q) => q.allowed - p.allowed || p.size - q.size);
  }

  group(g, table, last) {
    const card = element('section', 'group ' + (g.allowed ? 'allowed' : 'denied'));
    const head = element('h5');
    const rest = last && !g.allowed && g.size > 100000;
    const text = element('span', 'ports', rest ? 'everything else' : g.text);
    if (rest) text.title = g.text;
    head.append(text, element('span', 'word', g.allowed ? 'allowed' : 'denied'));
    card.append(head, this.direction('egress', g.egress), this.direction('ingress', g.ingress));
    return card;
  }

  direction(name, d) {
    const box = element('div', 'direction ' + (d.allowed ? 'allowed' : 'denied'));
    box.append(element('span', 'label', name));
    const list = element('ul');
    for (const r of d.allowedBy || []) {
      const item = element('li');
      item.append(element('b', '', r.policy), element('code', '', [r.rule, r.peer, r.port].filter(Boolean).join(' ')));
      item.append(element('span', 'words', (name === 'egress' ? 'to ' : 'from ') + r.whom + ' · ' + r.what));
      list.append(item);
    }
    if (!d.allowedBy && !d.allowed) {
      const item = element('li', '', 'no rule allows it; isolated by');
      for (const p of d.isolatedBy || []) {
        const line = element('span', 'policy');
        line.append(element('b', '', p.policy), element('span', 'words', 'selects ' + p.selects));
        item.append(line);
      }
      list.append(item);
    } else if (!d.allowedBy) {
      list.append(element('li', '', d.reason));
    } else if (d.isolatedBy) {
      list.title = clean('isolated by ' + d.isolatedBy.map((p) => p.policy + ' (selects ' + p.selects + ')').join(', '));
      for (const [i, r] of d.allowedBy.entries()) {
        const policy = d.isolatedBy.find((p) => p.policy === r.policy);
        if (policy) list.children[i].append(element('span', 'words', 'selects ' + policy.selects));
      }
    }
    box.append(list);
    return box;
  }
}

// add puts a range behind others of a flat list.
function add(list, first, last) {
  const n = list.length;
  if (n > 0 && list[n - 1] + 1 >= first) list[n - 1] = last;
  else list.push(first, last);
}
