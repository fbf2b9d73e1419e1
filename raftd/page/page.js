// The status page: shows what `GET /events` sends, and changes nothing.
//
// Each event is whole (its shape: raftd/http/events.py), so the page remembers nothing but which
// elements stand for what. Names and texts come from operators and servers: they become text, by
// `textContent`, and never markup. Elements are kept and changed only where their text changes, so
// that nothing jumps and screen readers hear only what is new.

import { byId, list, make, makePart, part, say, sayWithCommands, set } from "./elements.js";
import { niceCeiling, Plot } from "./plot.js";
import {
  bytes, clock, count, day, duration, measure, milliseconds, names, NONE, number, silence,
} from "./words.js";

const LOST_AFTER_MS = 3000; // Three events are missing: the server, or the way to it, is gone.
const SILENT_MS_MAX = 10000; // An open connection that says nothing for so long is a dead one.
const RETRY_MS_MIN = 1000;
const RETRY_MS_MAX = 10000; // A server that is full or down is not asked more often than that.
const CLOCK_MS = 250; // Ages are shown in seconds: often enough that none is skipped.
const STATUS_PATH = "events";

const HEALTH_WORDS = { healthy: "Healthy", degraded: "Degraded", unavailable: "Unavailable" };
const SYMBOLS = { healthy: "✓", degraded: "!", unavailable: "✕", unknown: "?" };
// The most telling issue of a server names its state, in this order; as in `raftctl status`.
const STATES = [
  ["diverged", "diverged"], ["unreachable", "down"], ["wiped", "wiped"],
  ["other-cluster", "foreign"], ["cloned", "cloned"], ["blank", "blank"], ["removed", "removed"],
  ["not-a-member", "outside"], ["address", "moved"], ["no-contact", "silent"],
  ["fenced", "fenced"], ["lagging", "lagging"],
];
const BAD_STATES = ["diverged", "down", "wiped", "foreign", "cloned", "silent", "fenced"];

// --- the banner ----------------------------------------------------------------------------------

function showBanner(event) {
  const { status, viewer } = event;
  const health = HEALTH_WORDS[status.health] ? status.health : "unknown";
  const cluster = status.cluster.name ?? "no cluster yet";
  set(byId("banner"), "data-health", health);
  say(byId("cluster"), cluster);
  const own = status.servers.find((server) => server.id === viewer.id);
  const role = own && own.role !== "unknown" ? `, ${own.role}` : "";
  say(byId("view"), `seen by ${viewer.id}${role}`);
  say(byId("footer-view"), viewer.id);
  say(byId("health"), HEALTH_WORDS[health] ?? "Unknown");
  say(byId("tolerance"), toleranceWords(status));
  say(byId("leader"), status.leader ?? "none");
  say(byId("term"), number(status.term));
  say(byId("members"), memberWords(status.configuration));
  say(byId("commit"), number(status.commit_index));
  say(byId("revision"), number(status.revision));
  showProblems(problemsOf(event));
  document.title = `${SYMBOLS[health]} ${HEALTH_WORDS[health] ?? "Unknown"} · ${cluster} · ${viewer.id}`;
}

function toleranceWords(status) {
  if (!status.configuration.index) return "this server belongs to no cluster";
  if (status.health === "unavailable") {
    return status.leader === null ? "no leader: nothing can be written" : "nothing can be written";
  }
  const left = status.failure_tolerance;
  if (left > 0) return `tolerates ${count(left, "more failure")}`;
  return "tolerates no more failure";
}

function memberWords(configuration) {
  const voters = new Set([...configuration.voters, ...configuration.outgoing]);
  const learners = configuration.learners.length;
  return count(voters.size, "voter") + (learners ? `, ${count(learners, "learner")}` : "");
}

/** What is wrong, the worst first: {level, who, kind, words}. */
function problemsOf({ status, viewer, joint }) {
  const found = [];
  // A server without a cluster says so itself.
  if (status.health === "unavailable" && (status.configuration.index || !status.servers.length)) {
    found.push(unavailable(status));
  }
  for (const server of status.servers) {
    for (const text of server.issues) {
      const [kind, words] = split(text);
      const bad = BAD_STATES.includes(stateOf([kind]).word);
      found.push({ level: bad ? "bad" : "warn", who: server.id, kind, words });
    }
  }
  const operation = joint?.operation ?? status.operation?.id;
  const blocked = joint?.blocked_by || status.operation?.blocked_by;
  if (blocked) found.push({ level: "bad", who: operation ?? "", kind: "waits", words: blocked });
  if (status.failure_tolerance === 0 && status.health !== "unavailable" && status.fatal_sets.length) {
    const alone = status.fatal_sets.filter((set) => set.length === 1).flat();
    const words = `the cluster stops if ${alone.join(" or ")} fails`;
    const level = status.health === "healthy" ? "note" : "warn";
    if (alone.length) found.push({ level, who: "", kind: "no reserve", words });
  }
  if (!viewer.ready) {
    const words = viewer.not_ready.join("; ") || "it says so itself";
    found.push({ level: "warn", who: viewer.id, kind: "not ready", words });
  }
  for (const server of status.servers) {
    for (const text of server.warnings ?? []) {
      const [kind, words] = split(text);
      found.push({ level: "note", who: server.id, kind, words });
    }
  }
  for (const words of status.notes ?? []) found.push({ level: "note", who: "", kind: "note", words });
  const order = ["bad", "warn", "note"];
  return found.sort((one, other) => order.indexOf(one.level) - order.indexOf(other.level));
}

function unavailable(status) {
  const { voters, outgoing } = status.configuration;
  const here = new Set(status.servers.filter((server) => server.reachable).map((server) => server.id));
  const halves = [outgoing, voters].filter((half) => half.length);
  const [bad, nobody] = [{ level: "bad", who: "" }, "this server belongs to no cluster yet"];
  if (!halves.length) return { ...bad, kind: "no cluster", words: nobody };
  const answering = halves.map((half) => half.filter((name) => here.has(name)));
  const words = halves.map((half, at) => `${majorityOf(half)} of ${names(half)} are needed, ${whoAnswers(answering[at])}`);
  const enough = halves.every((half, at) => answering[at].length >= majorityOf(half));
  // With a majority there, they elect somebody within moments.
  return { ...bad, kind: enough ? "no leader" : "no quorum", words: words.join("; ") };
}

function majorityOf(half) {
  return Math.floor(half.length / 2) + 1;
}

function whoAnswers(answering) {
  if (!answering.length) return "none answers";
  return `${answering.join(", ")} ${answering.length === 1 ? "answers" : "answer"}`;
}

function split(text) {
  const at = text.indexOf(": ");
  return at < 0 ? ["", text] : [text.slice(0, at), text.slice(at + 2)];
}

function showProblems(problems) {
  byId("problems").hidden = !problems.length;
  byId("no-problems").hidden = problems.length > 0;
  say(byId("no-problems"), "Nothing is wrong.");
  list(
    byId("problems"), problems, ({ who, kind }, at) => `${who}/${kind}/${at}`,
    () => {
      const item = make("li", "problem");
      item.append(makePart("span", "mark", "mark"), makePart("strong", "who"), makePart("span", "words", "words"));
      part(item, "mark").setAttribute("aria-hidden", "true");
      return item;
    },
    (item, { level, who, kind, words }) => {
      set(item, "data-level", level);
      say(part(item, "mark"), { bad: "✕", warn: "!", note: "i" }[level]);
      say(part(item, "who"), who && kind ? `${who} ${kind}` : who || kind);
      sayWithCommands(part(item, "words"), words);
    },
  );
}

// --- servers -------------------------------------------------------------------------------------

function stateOf(kinds) {
  const found = STATES.find(([kind]) => kinds.includes(kind));
  if (found) return { word: found[1], level: BAD_STATES.includes(found[1]) ? "bad" : "warn" };
  return kinds.length ? { word: "attention", level: "warn" } : { word: "ok", level: "good" };
}

function voteOf(name, configuration) {
  const inNew = configuration.voters.includes(name);
  const inOld = configuration.outgoing.includes(name);
  if (!configuration.joint) return inNew ? "voter" : configuration.learners.includes(name) ? "learner" : "none";
  if (inNew && inOld) return "both halves";
  if (inOld) return "old half";
  if (inNew) return "new half";
  return configuration.learners.includes(name) ? "learner" : "none";
}

const COLUMNS = ["Server", "Role", "Vote", "State", "Lag", "Contact", "Version", "Address", "Issues"];

function showServers({ status, viewer, positions }) {
  list(
    byId("servers"), status.servers.map((server, at) => ({ server, position: positions[at] })),
    ({ server }, at) => `${server.id}/${server.incarnation}/${at}`,
    makeServer,
    (row, { server, position }) => updateServer(row, server, position, status, viewer),
  );
}

function makeServer() {
  const row = make("tr");
  row.setAttribute("role", "row");
  for (const label of COLUMNS) {
    const name = label.toLowerCase();
    const cell = makePart(label === "Server" ? "th" : "td", name, `cell-${name}`);
    cell.setAttribute("role", label === "Server" ? "rowheader" : "cell");
    if (label === "Server") cell.scope = "row";
    cell.dataset.label = label;
    row.append(cell);
  }
  part(row, "server").append(makePart("span", "name", "name"), makePart("span", "here", "here"));
  part(row, "role").append(makePart("span", "badge", "badge"));
  const state = part(row, "state");
  state.append(makePart("span", "symbol", "symbol"), makePart("span", "state-word"));
  part(row, "address").append(makePart("span", "host", "host"), makePart("span", "zone", "zone"));
  part(row, "symbol").setAttribute("aria-hidden", "true");
  return row;
}

function updateServer(row, server, position, status, viewer) {
  const kinds = server.issues.map((text) => split(text)[0]);
  const state = server.reachable ? stateOf(kinds) : { word: "unreachable", level: "bad" };
  set(row, "data-level", state.level);
  sayName(part(row, "name"), server, position, viewer);
  say(part(row, "here"), server.id === viewer.id ? "this view" : "");
  set(part(row, "badge"), "data-role", server.role);
  say(part(row, "badge"), server.role);
  say(part(row, "vote"), voteOf(server.id, status.configuration));
  say(part(row, "symbol"), { good: "✓", warn: "!", bad: "✕" }[state.level]);
  say(part(row, "state-word"), state.word);
  const leads = server.id === status.leader;
  say(part(row, "lag"), leads ? NONE : number(server.lag_entries));
  say(part(row, "contact"), leads ? NONE : silence(server.last_contact_ms));
  say(part(row, "version"), server.version ?? NONE);
  say(part(row, "host"), server.address ?? NONE);
  say(part(row, "zone"), server.zone ? `zone ${server.zone}` : "");
  sayWithCommands(part(row, "issues"), [...server.issues, ...(server.warnings ?? [])].join("\n") || "none");
  row.classList.toggle("no-issues", !server.issues.length && !server.warnings?.length);
}

/** A server's name, which leads to its own page where that is known. */
function sayName(element, server, position, viewer) {
  const page = server.id !== viewer.id && position?.http ? position.http : "";
  if (element.dataset.page === page && element.textContent === server.id) return;
  element.dataset.page = page;
  element.replaceChildren(page ? pageLink(server.id, page) : document.createTextNode(server.id));
}

function pageLink(id, address) {
  const link = make("a", "", id);
  link.href = `${location.protocol}//${address}/`;
  link.title = `the page of ${id}`;
  return link;
}

/** Where else to look, for the time when this server is gone. */
function showOthers({ positions, viewer }) {
  const others = positions.filter((each) => each.http && each.id !== viewer.id && each.reachable);
  byId("elsewhere").hidden = !others.length;
  list(
    byId("others"), others, (each) => `${each.id} ${each.http}`,
    (each) => pageLink(each.id, each.http), () => {},
  );
}

// --- configuration and the change that runs ------------------------------------------------------

function showConfiguration(event) {
  const { status, joint } = event;
  const configuration = status.configuration;
  say(byId("configuration-state"), configurationWords(configuration));
  const underWay = joint !== null && (configuration.joint || joint.old !== null);
  byId("stable").hidden = underWay;
  byId("joint").hidden = !underWay;
  if (underWay) showHalves(event);
  showChips("voters", configuration.voters, status);
  showChips("learners", configuration.learners, status);
  showOperation(event);
}

function configurationWords(configuration) {
  if (!configuration.index) return "none yet";
  const words = configuration.joint ? "joint" : configuration.committed ? "stable" : "not committed yet";
  return `${words}, index ${number(configuration.index)}`;
}

function showChips(id, servers, status) {
  const rows = new Map(status.servers.map((server) => [server.id, server]));
  const shown = servers.length ? servers : ["none"];
  list(byId(id), shown, (name) => name, () => make("li", "chip"), (chip, name) => {
    const server = rows.get(name);
    const down = server && !server.reachable;
    set(chip, "data-level", !server ? "none" : down ? "bad" : "good");
    say(chip, down ? `${name} unreachable` : name === status.leader ? `${name} leads` : name);
  });
}

function showHalves({ status, joint }) {
  byId("old").hidden = joint.old === null;
  byId("and").hidden = joint.old === null;
  const entry = joint.old === null ? "C_new" : joint.step === "rolling-back" ? "The way back" : "C_old,new";
  const both = joint.old === null ? "" : `of ${names(joint.old.servers)} and `;
  say(byId("needs"), `${entry} at index ${number(joint.index)} needs a majority ${both}of ${names(joint.new.servers)}.`);
  if (joint.old !== null) showHalf(byId("old"), "Old half", "C_old", joint.old, status, joint);
  showHalf(byId("new"), joint.old === null ? "New voters" : "New half", "C_new", joint.new, status, joint);
}

function showHalf(element, title, symbol, half, status, joint) {
  if (!element.firstChild) {
    const head = make("h3");
    head.append(makePart("span", "title"), " ", makePart("span", "set", "set"));
    const meter = makePart("div", "meter", "meter");
    meter.setAttribute("aria-hidden", "true");
    const members = makePart("ul", "members", "members");
    members.setAttribute("role", "list");
    element.append(head, makePart("p", "count", "count"), meter, members);
  }
  const known = half.acknowledged !== null;
  const stored = known ? half.acknowledged.length : 0;
  set(element, "data-complete", known ? String(half.complete) : "unknown");
  say(part(element, "title"), title);
  say(part(element, "set"), symbol);
  const result = half.complete ? "✓ majority" : `needs ${count(half.needed - stored, "more", "more")}`;
  say(
    part(element, "count"),
    known ? `${stored} of ${half.servers.length} acknowledged, ${half.needed} needed: ${result}`
      : `${half.needed} of ${half.servers.length} needed; only the leader counts them`,
  );
  list(part(element, "meter"), half.servers, (_, at) => at, () => make("span"), (cell, _, at) => {
    set(cell, "data-filled", String(at < stored));
    set(cell, "data-needed", String(at + 1 === half.needed));
  });
  list(
    part(element, "members"), half.servers, (name) => name,
    () => {
      const item = make("li");
      item.append(makePart("span", "mark", "mark"), makePart("span", "name", "name"), makePart("span", "fate", "fate"));
      part(item, "mark").setAttribute("aria-hidden", "true");
      return item;
    },
    (item, name) => updateHalfMember(item, name, half, status, joint),
  );
}

function updateHalfMember(item, name, half, status, joint) {
  const server = status.servers.find((each) => each.id === name);
  const stored = half.acknowledged?.includes(name);
  const unreachable = server && !server.reachable;
  const waiting = half.acknowledged === null ? "none" : "warn";
  set(item, "data-level", stored ? "good" : unreachable ? "bad" : waiting);
  say(part(item, "mark"), stored ? "✓" : unreachable ? "✕" : waiting === "warn" ? "…" : "?");
  say(part(item, "name"), name);
  let fate = half.acknowledged === null ? "not known here" : stored ? "acknowledged" : "not yet";
  if (!stored && server?.match_index !== null && server?.match_index !== undefined) {
    fate += `, has ${number(server.match_index)} of ${number(joint.index)}`;
  }
  if (unreachable) fate += ", unreachable";
  say(part(item, "fate"), fate);
}

const STEPS = [
  ["joining", "Joining"], ["catching-up", "Catching up"],
  ["committing-joint", "C_old,new"], ["committing-final", "C_new"],
];

function showOperation({ status, joint, viewer }) {
  const operation = status.operation ?? status.rolling;
  byId("operation").hidden = !operation;
  if (!operation) return;
  const step = joint?.step && joint.step !== "joint" ? joint.step : operation.step;
  say(byId("operation-id"), operation.id);
  say(byId("operation-summary"), operation.summary);
  const since = operation.started_ms ? `for ${duration(Math.max(0, viewer.time_ms - operation.started_ms))}` : "";
  const reason = operation.reason ? `“${operation.reason}”` : "";
  say(byId("operation-who"), [operation.author, reason, since].filter(Boolean).join(" · "));
  showSteps(step, operation);
  const blocked = joint?.blocked_by || operation.blocked_by || "";
  byId("blocked").hidden = !blocked;
  sayWithCommands(byId("blocked"), blocked ? `Waiting: ${blocked}` : "");
  list(byId("catching-up"), operation.servers ?? [], (server) => server.id, makeCatchUp, (item, server) =>
    updateCatchUp(item, server, operation.last_index ?? 0));
}

function showSteps(step, operation) {
  const steps = STEPS.map((each) => [...each]);
  let current = steps.findIndex(([name]) => name === step);
  if (step === "joint") current = 2;
  if (step === "rolling-back") {
    current = 3;
    steps[3] = ["rolling-back", "Rolling back"];
  }
  if (current < 0) steps.splice(0, steps.length, [step, operation.phase]);
  list(byId("steps"), steps, ([name]) => name, () => make("li"), (item, [, words], at) => {
    const state = current < 0 || at === current ? "now" : at < current ? "past" : "ahead";
    set(item, "data-state", state);
    if (state === "now") set(item, "aria-current", "step");
    else item.removeAttribute("aria-current");
    say(item, words);
  });
}

function percentOf(server, lastIndex) {
  if (server.caught_up) return 100;
  if (server.snapshot_bytes) {
    const done = server.snapshot_received_bytes + server.snapshot_installed_bytes;
    return Math.floor((100 * done) / (2 * server.snapshot_bytes));
  }
  const total = Math.max(lastIndex, server.match_index);
  return total ? Math.floor((100 * server.match_index) / total) : 100;
}

function makeCatchUp(server) {
  const item = make("li");
  const bar = makePart("progress", "bar");
  bar.max = 100;
  bar.setAttribute("aria-label", `how far ${server.id} has caught up`);
  item.append(makePart("span", "name", "name"), bar, makePart("span", "percent", "percent number"), makePart("span", "words", "aside"));
  return item;
}

function updateCatchUp(item, server, lastIndex) {
  const percent = percentOf(server, lastIndex);
  say(part(item, "name"), server.id);
  if (part(item, "bar").value !== percent) part(item, "bar").value = percent;
  say(part(item, "percent"), `${percent}%`);
  say(part(item, "words"), catchUpWords(server));
}

function catchUpWords(server) {
  if (!server.connected) return server.problem ? `not connected (${server.problem})` : "not connected";
  if (server.caught_up) return `caught up at ${number(server.match_index)}`;
  const words = [`${count(server.lag_entries, "entry", "entries")} behind`];
  if (server.snapshot_bytes) {
    const installing = server.part === "installing";
    const done = installing ? server.snapshot_installed_bytes : server.snapshot_received_bytes;
    words.push(`${bytes(done)} of a snapshot of ${bytes(server.snapshot_bytes)} ${installing ? "installed" : "received"}`);
  }
  if (server.bytes_per_second) words.push(`${bytes(server.bytes_per_second)}/s`);
  if (server.remaining_ms !== null) words.push(`about ${silence(server.remaining_ms)}`);
  if (server.rounds) words.push(`round ${number(server.rounds + 1)}`);
  return words.join(", ");
}

// --- log positions -------------------------------------------------------------------------------

const TICK_LETTER_WIDTH = 7; // Pixels, of the scale's letters.
const TICK_GAP = 20;
const TICKS_MAX = 6;

function showPositions({ positions }) {
  const known = positions.filter((each) => each.last_index !== null);
  const high = Math.max(1, ...known.map((each) => Math.max(each.last_index, each.commit_index ?? 0)));
  const snapshots = known.map((each) => each.snapshot_index ?? 0);
  // Some room to the left, so that what a snapshot includes is seen as well.
  const lowest = known.length ? Math.min(...snapshots) : 0;
  const low = Math.max(0, Math.floor(lowest - (high - lowest) * 0.08));
  const share = (index) => Math.max(0, Math.min(100, (100 * (index - low)) / Math.max(1, high - low)));
  list(byId("positions"), positions, (each, at) => `${each.id}/${at}`, makePosition, (item, each) =>
    updatePosition(item, each, share));
  const ticks = known.length ? ticksBetween(low, high, byId("scale").clientWidth) : [];
  list(byId("scale"), ticks, (tick) => tick, () => make("span", "number"), (mark, tick) => {
    say(mark, number(tick));
    mark.style.left = `${share(tick)}%`;
    mark.dataset.edge = share(tick) > 92 ? "end" : share(tick) < 8 ? "start" : "";
  });
}

/** Both indices, and as many round numbers between them as have room on so many pixels. */
function ticksBetween(low, high, width) {
  const room = ((high - low) * (number(high).length * TICK_LETTER_WIDTH + TICK_GAP)) / Math.max(1, width);
  const step = niceCeiling(Math.max(room, (high - low) / TICKS_MAX));
  const ticks = [low];
  for (let tick = Math.ceil(low / step) * step; tick < high; tick += step) {
    if (tick - low > room && high - tick > 1.5 * room) ticks.push(tick);
  }
  return high > low ? [...ticks, high] : ticks;
}

const POSITIONS = ["snapshot", "applied", "committed", "last"];

function makePosition() {
  const item = make("li");
  const bar = makePart("div", "bar", "bar");
  bar.setAttribute("aria-hidden", "true");
  item.append(makePart("span", "name", "name"), bar);
  for (const name of POSITIONS) {
    bar.append(makePart("span", name, name));
    const value = makePart("span", `${name}-value`, "value number");
    value.dataset.label = name;
    item.append(value);
  }
  return item;
}

function updatePosition(item, each, share) {
  say(part(item, "name"), each.id);
  set(item, "data-known", String(each.last_index !== null));
  const committed = each.commit_index === null ? null : Math.min(each.commit_index, each.last_index);
  const ends = [each.snapshot_index, each.applied_index, committed, each.last_index];
  let from = 0;
  POSITIONS.forEach((name, at) => {
    const to = Math.max(from, share(ends[at] ?? 0));
    const segment = part(item, name);
    segment.style.left = `${from}%`;
    segment.style.width = `${to - from}%`;
    from = to;
    const value = part(item, `${name}-value`);
    say(value, name === "snapshot" && ends[at] === 0 ? "none" : number(ends[at]));
    set(value, "aria-label", `${name} ${value.textContent}`);
  });
}

// --- plots ---------------------------------------------------------------------------------------

const POINTS_MAX = 300;
const commitsPlot = new Plot(byId("commits-plot"), { unit: "/s", least: 10, pointsMax: POINTS_MAX });
const latencyPlot = new Plot(byId("latency-plot"), { unit: "ms", least: 5, pointsMax: POINTS_MAX });

function newest(values) {
  return values.length ? values[values.length - 1] : null;
}

/** The newest number that there is, of the last seconds: a pause of clients has no latency. */
function lately(values) {
  return values.slice(-5).reduce((found, value) => value ?? found, null);
}

function showRates({ rates, viewer, status, positions }) {
  const commits = rates.commits_per_second;
  const [p50, p99] = [rates.commit_p50_ms, rates.commit_p99_ms];
  const times = { intervalMs: rates.interval_ms, lastMs: rates.last_ms };
  const now = newest(commits);
  const known = commits.filter((value) => value !== null);
  const range = known.length ? `; lowest ${measure(Math.min(...known))}, highest ${measure(Math.max(...known))} in these minutes` : "";
  say(byId("commits-now"), now === null ? NONE : `${measure(now)}/s`);
  commitsPlot.show([{ name: "commits", values: commits, area: true }], {
    ...times, label: `commits per second: now ${measure(now)}${range}`,
  });
  say(byId("p50-now"), milliseconds(lately(p50)));
  say(byId("p99-now"), milliseconds(lately(p99)));
  latencyPlot.show([{ name: "p99", values: p99 }, { name: "p50", values: p50 }], {
    ...times, label: `commit latency: p50 ${milliseconds(lately(p50))}, p99 ${milliseconds(lately(p99))}`,
  });
  const whose = rates.is_leader ? `counted by ${rates.source}, who leads` : `as the log of ${rates.source} grew`;
  say(byId("commits-note"), whose);
  const measured = p50.some((value) => value !== null);
  const leader = positions.find((each) => each.leader);
  let note = "from appending an entry until it is committed";
  if (!rates.is_leader) note = leader && leader.id !== viewer.id ? `only the leader measures it: see the page of ${leader.id}` : "only a leader measures it";
  else if (!measured) note = "nothing was written in these minutes";
  say(byId("latency-note"), note);
}

// --- recent events -------------------------------------------------------------------------------

function showRecent({ recent, viewer }) {
  const newestFirst = [...recent].reverse();
  byId("no-recent").hidden = newestFirst.length > 0;
  list(
    byId("recent"), newestFirst, (each) => `${each.time_ms}/${each.server}/${each.text}`,
    (each) => {
      const item = make("li");
      const time = makePart("time", "time", "number");
      const date = new Date(each.time_ms);
      time.dateTime = date.toISOString();
      time.title = date.toString();
      item.append(time, makePart("span", "ago", "ago number"), make("span", "kind", each.kind), make("span", "server", each.server), makePart("span", "words", "words"));
      item.dataset.kind = each.kind;
      sayWithCommands(part(item, "words"), each.text);
      return item;
    },
    (item, each) => {
      const old = viewer.time_ms - each.time_ms > 86400000;
      say(part(item, "time"), `${old ? `${day.format(each.time_ms)} ` : ""}${clock.format(each.time_ms)}`);
      say(part(item, "ago"), `${duration(Math.max(0, viewer.time_ms - each.time_ms))} ago`);
    },
  );
}

// --- the live connection -------------------------------------------------------------------------

const SECTIONS = [showBanner, showServers, showOthers, showConfiguration, showPositions, showRates, showRecent];

const link = {
  source: null,
  startedAt: performance.now(),
  openedAt: 0, // The connection that there is, or was tried last.
  lastEventAt: 0, // 0: none yet.
  retryMs: RETRY_MS_MIN,
  retryTimer: 0,
  release: "",
  failure: "",
};

function show(event) {
  if (!event.format.startsWith("1.")) throw new Error(`events of format ${event.format}: load the page again`);
  // A server of another release may have another page.
  if (link.release && link.release !== event.viewer.version) return location.reload();
  link.release = event.viewer.version;
  for (const section of SECTIONS) section(event);
  document.body.classList.remove("waiting");
}

function onStatus(message) {
  link.lastEventAt = performance.now();
  link.retryMs = RETRY_MS_MIN;
  try {
    show(JSON.parse(message.data));
    link.failure = "";
  } catch (error) {
    // What is shown is no longer what is: nobody must take it for that.
    link.failure = error instanceof Error ? error.message : String(error);
    console.error(error);
  }
  showLink();
}

function connect() {
  clearTimeout(link.retryTimer);
  link.source?.close();
  link.openedAt = performance.now();
  link.source = new EventSource(STATUS_PATH);
  link.source.addEventListener("status", onStatus);
  link.source.addEventListener("error", retryLater);
}

function retryLater() {
  link.source.close();
  clearTimeout(link.retryTimer);
  link.retryTimer = setTimeout(connect, link.retryMs);
  link.retryMs = Math.min(2 * link.retryMs, RETRY_MS_MAX);
}

function showLink() {
  const ageMs = performance.now() - (link.lastEventAt || link.startedAt);
  const lost = ageMs > LOST_AFTER_MS || link.failure !== "";
  const state = lost ? "lost" : link.lastEventAt ? "live" : "waiting";
  set(byId("link"), "data-state", state);
  say(byId("link-word"), { lost: "lost", live: "live", waiting: "connecting" }[state]);
  document.body.classList.toggle("stale", lost);
  if (byId("lost").hidden === lost) byId("lost").hidden = !lost;
  if (!lost) return;
  const banner = byId("banner");
  if (banner.dataset.health !== "unknown") {
    say(byId("tolerance"), `was ${banner.dataset.health} when last seen`);
    say(byId("health"), "Unknown");
    say(byId("no-problems"), "Nothing was wrong then.");
    document.title = `${SYMBOLS.unknown} Connection lost · ${byId("cluster").textContent}`;
    banner.dataset.health = "unknown";
  }
  say(byId("lost-what"), link.failure ? "This page has failed." : "Connection lost.");
  const seen = link.lastEventAt ? "What follows is how it was then. Trying again." : "Nothing has been heard yet. Trying again.";
  say(byId("lost-fate"), link.failure || seen);
  say(byId("lost-age"), link.lastEventAt ? `last seen ${duration(ageMs)} ago` : `tried for ${duration(ageMs)}`);
}

function watchLink() {
  showLink();
  const silentMs = performance.now() - Math.max(link.lastEventAt, link.openedAt);
  if (link.source?.readyState !== EventSource.CLOSED && silentMs > SILENT_MS_MAX) connect();
}

document.addEventListener("visibilitychange", () => {
  // Somebody looks again: no reason to wait for the next try.
  if (!document.hidden && link.source?.readyState === EventSource.CLOSED) connect();
});
setInterval(watchLink, CLOCK_MS);
connect();
