
'use strict';
const PAGE = 50, EVERY = 2000, POINTS = 60;
const at = id => document.getElementById(id);
let offset = 0, before = null;

// Everything that is shown is text; nothing that the API says becomes markup.
function make(tag, content, kind) {
  const element = document.createElement(tag);
  if (kind) element.className = kind;
  element.append(...[content ?? ''].flat());
  return element;
}

async function get(path) {
  const answer = await fetch(path, { cache: 'no-store' });
  const text = await answer.text();
  if (!answer.ok) throw new Error(text.trim() || answer.statusText);
  return path.startsWith('/metrics') ? text : JSON.parse(text);
}

// Sums of the samples of each metric, over all labels but ip_family, of which the first counts.
function samples(text) {
  const sums = {}, first = {};
  for (const line of text.split('\n')) {
    const parts = /^([a-z_]+)(\{[^}]*\})? (\S+)$/.exec(line);
    if (!parts) continue;
    const family = /ip_family="(IPv[46])"/.exec(parts[2] ?? '');
    if (family && (first[parts[1]] ??= family[1]) !== family[1]) continue;
    sums[parts[1]] = (sums[parts[1]] ?? 0) + Number(parts[3]);
  }
  return sums;
}

const COUNTED = 'Connections /s';
const RATES = [
  ['Changes of Services /s', 'kubeproxy_sync_proxy_rules_service_changes_total'],
  ['Changes of EndpointSlices /s', 'kubeproxy_sync_proxy_rules_endpoint_changes_total'],
  [COUNTED, 'kubeproxy_service_connections_total'],
  ['Syncs /s', 'kubeproxy_sync_proxy_rules_duration_seconds_count'],
  ['Refused transactions /s', 'kubeproxy_nftables_refused_transactions_total'],
  ['CPU, % of one', 'process_cpu_seconds_total', 100],
];
const history = RATES.map(() => []);

function short(number) {
  if (!Number.isFinite(number)) return '–';
  if (number >= 100 || Number.isInteger(number)) return Math.round(number).toLocaleString('en');
  return number.toPrecision(2);
}

function draw(points) {
  const name = 'http://www.w3.org/2000/svg';
  const svg = document.createElementNS(name, 'svg');
  svg.setAttribute('viewBox', `0 0 ${POINTS - 1} 10`);
  svg.setAttribute('preserveAspectRatio', 'none');
  svg.setAttribute('aria-hidden', 'true');
  const line = document.createElementNS(name, 'polyline');
  const top = Math.max(...points, 1e-9), start = POINTS - points.length;
  line.setAttribute('points', points.map((y, x) => `${start + x},${9.5 - 9 * y / top}`).join(' '));
  svg.append(line);
  return svg;
}

function ago(time) {
  const seconds = Math.max(0, (Date.now() - Date.parse(time)) / 1000);
  if (seconds < 90) return `${Math.round(seconds)} s ago`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min ago`;
  return `${Math.round(seconds / 3600)} h ago`;
}

async function update() {
  try {
    const [status, text] = await Promise.all([get('/api/status'), get('/metrics')]);
    const now = samples(text), time = performance.now();
    at('node').textContent = `on ${status.node}, version ${status.version}`;
    at('health').className = status.healthy ? 'good' : 'bad';
    at('health').textContent = (status.healthy ? 'Healthy' : 'Not healthy') +
      (status.pending.length ? `: waiting for ${status.pending.join(', ')}` : '') +
      (status.lastCommit ? ` · last commit ${ago(status.lastCommit)}` : ' · nothing is in the kernel yet');
    const numbers = [
      ['Services', now.kubeproxy_services],
      ['Endpoints', now.kubeproxy_endpoints],
      ['Refused by the kernel', now.kubeproxy_quarantined_services, true],
      ['Addresses wanted twice', now.kubeproxy_duplicate_frontends, true],
      ['Memory, MiB', now.process_resident_memory_bytes / 1048576],
    ];
    at('numbers').replaceChildren(...numbers.map(([name, number, isBad]) =>
      make('div', [make('b', short(number), isBad && number > 0 ? 'bad' : ''), make('span', name, 'faint')])));
    if (before) {
      at('charts').replaceChildren(...RATES.flatMap(([name, metric, factor], index) => {
        if (name === COUNTED && !(metric in now)) return [];
        const rate = ((now[metric] ?? 0) - (before.now[metric] ?? 0)) * 1000 / (time - before.time) * (factor ?? 1);
        history[index].push(Math.max(0, rate));
        history[index].splice(0, history[index].length - POINTS);
        return make('div', [make('span', `${name}: ${short(Math.max(0, rate))}`, 'faint'), draw(history[index])]);
      }));
    }
    before = { now, time };
  } catch (error) {
    at('health').className = 'bad';
    at('health').textContent = `kube-proxy does not answer: ${error.message}`;
    before = null;
  }
}

let asked = 0, counted = false;
async function list() {
  const mine = ++asked;
  const parameters = new URLSearchParams({ offset, limit: PAGE, search: at('query').value.trim() });
  if (at('problems').checked) parameters.set('problems', 'true');
  try {
    const found = await get(`/api/services?${parameters}`);
    if (mine !== asked) return;
    at('matched').textContent = `${found.matched} of ${found.total}`;
    counted = found.services.some(service => service.connections !== null);
    for (const column of document.getElementsByClassName('counted')) column.hidden = !counted;
    at('services').replaceChildren(...found.services.map(row));
    at('previous').disabled = offset === 0;
    at('next').disabled = offset + PAGE >= found.matched;
  } catch (error) {
    if (mine === asked) at('matched').textContent = error.message;
  }
}

function row(service) {
  const name = `${service.namespace}/${service.name}`;
  const open = make('button', name);
  open.type = 'button';
  open.addEventListener('click', () => explain(name));
  const frontends = service.frontends.map(one => {
    const host = one.address === null ? '' : one.address.includes(':') ? `[${one.address}]:` : `${one.address}:`;
    return make('div', [make('span', `${one.kind} `, 'faint'), `${host}${one.port}/${one.protocol}`]);
  });
  const outside = service.externalTrafficPolicy;
  const policy = !outside || outside === service.internalTrafficPolicy ? service.internalTrafficPolicy
    : `${service.internalTrafficPolicy} inside, ${outside} outside`;
  const line = make('tr', [
    make('td', [open, ...service.problems.map(text => make('div', text, 'bad'))]),
    make('td', service.type),
    make('td', frontends),
    make('td', `${service.endpointsInUse} of ${service.endpoints}`),
    ...(counted ? [make('td', short(service.connections)),
      make('td', short(service.refused), service.refused > 0 ? 'bad' : '')] : []),
    make('td', policy + (service.affinitySeconds === null ? '' : ', ClientIP')),
  ]);
  if (service.problems.length) line.className = 'broken';
  return line;
}

const FATES = { endpoint: 'goes to an endpoint', refused: 'is refused', dropped: 'is dropped', untouched: 'goes where it was sent to' };
const SOURCES = { kept: 'its source is kept', node: 'its source becomes an address of this node' };

function explained(one) {
  const parts = [make('h2', `${one.destination}/${one.protocol}`)];
  if (one.frontend) {
    parts.push(make('div', `${one.frontend.kind}, port ${one.frontend.port}, ${one.frontend.policy}: ${one.frontend.policyValue}` +
      (one.frontend.balancing === 'random' ? '' : `, balancing: ${one.frontend.balancing}`)));
    parts.push(...one.frontend.others.map(other =>
      make('div', `wanted by Service ${other.service} as well (${other.kind}), which does not get it`, 'bad')));
  }
  parts.push(...one.notes.map(note => make('div', note, 'bad')));
  parts.push(make('ul', one.endpoints.slice(0, 100).map(endpoint => make('li',
    `${endpoint.address}${endpoint.node ? ` on ${endpoint.node}` : ''}: ${endpoint.reasons.join('; ')}`,
    endpoint.inUse ? 'good' : 'bad'))));
  for (const client of one.clients) {
    const reasons = client.reasons.join('; ');
    parts.push(make('div', [make('b', `From ${client.who}`), ` ${FATES[client.fate]}` +
      (client.fate === 'endpoint' ? `, one of ${client.endpoints.length}; ${SOURCES[client.source]}: ${reasons}` : `: ${reasons}`)]));
    parts.push(...client.exceptions.map(one => make('div',
      `but ${one.endpoint} sees ${one.source === 'kept' ? "the client's address" : 'an address of this node'}: ${one.reason}`)));
    parts.push(make('pre', client.rules.join('\n')));
  }
  if (one.kernel) {
    const { differences, errors, connections, elsewhere } = one.kernel;
    parts.push(...errors.map(error => make('div', error, 'bad')));
    parts.push(differences.length
      ? make('pre', `The kernel has something else (-) than is planned (+):\n${differences.join('\n')}`, 'bad')
      : make('div', 'The kernel has it as it is planned.', 'good'));
    parts.push(make('div', `Connections in conntrack: ${connections}` +
      elsewhere.map(([to, count]) => `; ${count} to ${to}, which is no endpoint in use`).join('')));
  }
  return parts;
}

async function explain(name) {
  at('explanation').replaceChildren(make('p', `${name}…`));
  at('dialog').showModal();
  try {
    const all = await get(`/api/explain?${new URLSearchParams({ service: name })}`);
    at('explanation').replaceChildren(make('h1', name), ...all.flatMap(explained),
      ...(all.length ? [] : [make('p', 'Clients can connect to nothing of it.', 'bad')]));
  } catch (error) {
    at('explanation').replaceChildren(make('p', error.message, 'bad'));
  }
}

let typing;
at('query').addEventListener('input', () => {
  clearTimeout(typing);
  typing = setTimeout(() => { offset = 0; list(); }, 150);
});
at('search').addEventListener('submit', event => { event.preventDefault(); offset = 0; list(); });
at('problems').addEventListener('change', () => { offset = 0; list(); });
at('previous').addEventListener('click', () => { offset = Math.max(0, offset - PAGE); list(); });
at('next').addEventListener('click', () => { offset += PAGE; list(); });
async function refresh() {
  // Nobody looks: nothing is asked.
  if (!document.hidden) await Promise.all([update(), list()]);
  setTimeout(refresh, EVERY);
}
refresh();
