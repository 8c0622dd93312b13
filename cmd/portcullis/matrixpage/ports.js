// Sets of ports, as the data has them: by protocol (TCP, UDP, SCTP, ICMP) a flat list of first and last ports.
const PROTOCOLS = ['tcp', 'udp', 'sctp', 'icmp'];
const LAST_PORT = 65535;

const ports = {
  none: [[], [], [], []],

  isEmpty: (set) => set.every((ranges) => ranges.length === 0),

  isAll: (set) => set.every((r, i) => r.length === 2 && (i === 3 || (r[0] === 1 && r[1] === LAST_PORT))),

  has: (set, wanted) => {
    const ranges = set[wanted.protocol];
    if (wanted.protocol === 3) return ranges.length > 0;
    for (let i = 0; i < ranges.length; i += 2) {
      if (ranges[i] <= wanted.port && wanted.port <= ranges[i + 1]) return true;
    }
    return false;
  },

  // ranges names each range of the set: "tcp/80", "udp/1-99", "sctp/*", "icmp".
  ranges: (set) => {
    const out = [];
    set.forEach((list, i) => {
      for (let j = 0; j < list.length; j += 2) out.push(ports.name(i, list[j], list[j + 1]));
    });
    return out;
  },

  name: (protocol, first, last) => {
    const name = PROTOCOLS[protocol];
    if (protocol === 3) return name;
    if (first === 1 && last === LAST_PORT) return name + '/*';
    return name + '/' + first + (last > first ? '-' + last : '');
  },

  // text names a set for people, each protocol once.
  text: (set) => {
    if (ports.isEmpty(set)) return 'nothing';
    if (ports.isAll(set)) return 'all traffic';
    let before = '';
    let out = '';
    for (const range of ports.ranges(set)) {
      const [protocol, number] = range.split('/');
      out += protocol === before ? ', ' + number : (out ? ' · ' : '') + range;
      before = protocol;
    }
    return out;
  },

  // short fits into a cell: "5432", "udp/53", "80+" for port 80 and more.
  short: (set) => {
    const list = ports.ranges(set);
    if (list.length === 0) return '';
    const [first, to] = list[0].replace('tcp/', list[0] === 'tcp/*' ? 'tcp/' : '').split('-');
    return first + (to || list.length > 1 ? '+' : '');
  },

  same: (a, b) => a.every((ranges, i) => ranges.length === b[i].length && ranges.every((n, j) => n === b[i][j])),

  // parse reads what a user types, or is null.
  parse: (text) => {
    const match = /^(?:(tcp|udp|sctp)\/)?(\d{1,5})$|^icmp$/.exec(text.trim().toLowerCase());
    if (!match) return null;
    if (match[2] === undefined) return { protocol: 3, port: 0, name: 'icmp' };
    const port = Number(match[2]);
    if (port < 1 || port > LAST_PORT) return null;
    const protocol = PROTOCOLS.indexOf(match[1] || 'tcp');
    return { protocol, port, name: PROTOCOLS[protocol] + '/' + port };
  },
};
