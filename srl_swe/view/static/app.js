// Data, addresses and keys.

const facts = JSON.parse(document.getElementById("facts").textContent);
const main = document.getElementById("main");
const byKey = new Map();
const chunks = new Map();
let list, shown;

function readRows() {
  const { names, values } = JSON.parse(document.getElementById("rows").textContent);
  return values.map((row, number) => ({ ...Object.fromEntries(names.map((name, at) => [name, row[at]])), number }));
}

/** A chunk's items, with the strings that they share in their places. */
function restore({ texts, items }) {
  const put = (value) => {
    if (Array.isArray(value)) return value.map(put);
    if (value === null || typeof value !== "object") return value;
    if (typeof value.$ === "number") return texts[value.$];
    return Object.fromEntries(Object.entries(value).map(([name, inner]) => [name.startsWith("$") ? name.slice(1) : name, put(inner)]));
  };
  return items.map(put);
}

/** Loads a chunk from the page, or from its file beside the page; a few stay in memory. */
function loadChunk(number) {
  if (!chunks.has(number)) {
    if (chunks.size > 8) chunks.delete(chunks.keys().next().value);
    const inside = document.getElementById(`chunk-${number}`);
    chunks.set(number, inside ? Promise.resolve(restore(JSON.parse(inside.textContent))) : fromFile(number));
  }
  return chunks.get(number);
}

const waiting = new Map();
window.srlViewChunk = (number, content) => waiting.get(number)?.(content);

function fromFile(number) {
  return new Promise((resolve, reject) => {
    const script = document.createElement("script");
    const end = (finish, value) => { waiting.delete(number); script.remove(); finish(value); };
    waiting.set(number, (content) => end(resolve, restore(content)));
    script.src = `${encodeURIComponent(facts.data)}/chunk-${number}.js`;
    script.onerror = () => { chunks.delete(number); end(reject, new Error(`${facts.data}/chunk-${number}.js can't be loaded. It must lie beside this page.`)); };
    document.head.append(script);
  });
}

// Addresses: #key=KEY&step=N opens an item at a step; anything else is the list with its filters.

function encodeKey(key) {
  return encodeURIComponent(key).replaceAll("%2F", "/");
}

function replaceFragment(query) {
  history.replaceState(null, "", query ? `#${query}` : location.pathname + location.search);
}

async function route() {
  const query = new URLSearchParams(location.hash.slice(1));
  const key = query.get("key");
  if (key === null) return showList(query);
  const row = byKey.get(key);
  if (!row) return showProblem(`This page holds no item ${key}.`);
  if (shown?.key === key) return shown.goTo?.(query.get("step"));
  try {
    const asked = location.hash;
    const item = (await loadChunk(row.chunk))[row.place];
    if (location.hash !== asked) return undefined;
    shown = item.kind === "episode" ? new EpisodeView(item) : new TargetView(item);
  } catch (error) {
    return showProblem(error.message);
  }
  shown.render(main);
  document.title = `${row.instance_id} \u2013 ${facts.title}`;
  list.at = Math.max(0, list.chosen.indexOf(row));
  main.querySelector("h1").focus({ preventScroll: true });
  if (query.get("step") === null) scrollTo(0, 0);
  else shown.goTo(query.get("step"));
}

function showList(query) {
  const last = shown?.key;
  shown = undefined;
  list.take(query);
  if (last) list.at = Math.max(0, list.chosen.findIndex((row) => row.key === last));
  document.title = facts.title;
  list.render(main);
  if (last) list.move(0);
}

function showProblem(text) {
  shown = { key: null };
  fill(main, el("h1", { tabIndex: -1 }, "Not found"), el("p", {}, text), el("p", {}, el("a", { link: "" }, "All items")));
}

/** The line above an item: back, previous and next. */
function breadcrumb(key) {
  const at = list.chosen.findIndex((row) => row.key === key);
  const to = (row, label) => row ? el("a", { link: `key=${encodeKey(row.key)}` }, label) : el("span", { class: "off" }, label);
  return el("nav", { class: "crumbs", "aria-label": "items" },
    el("a", { link: list.query }, "All items"), to(list.chosen[at - 1], "\u2190 previous"), to(at < 0 ? undefined : list.chosen[at + 1], "next \u2192"),
    at < 0 ? null : el("span", {}, `${number(at + 1)} of ${number(list.chosen.length)}`));
}

function pressed(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const help = document.getElementById("help");
  if (help.open) return;
  if (event.target.closest("input, select, textarea")) {
    if (event.key === "Escape" || (event.key === "Enter" && event.target.id === "search")) { event.target.blur(); if (!shown) list.move(0); }
    return;
  }
  const open = (row) => { if (row) location.hash = `key=${encodeKey(row.key)}`; };
  const inList = {
    j: () => list.move(1), ArrowDown: () => list.move(1), k: () => list.move(-1), ArrowUp: () => list.move(-1),
    Home: () => list.move(-list.chosen.length), End: () => list.move(list.chosen.length),
    PageDown: () => list.move(10), PageUp: () => list.move(-10),
    Enter: event.target.closest("a, button") ? undefined : () => list.open(),
  };
  const inItem = {
    j: () => shown.move?.(1), k: () => shown.move?.(-1),
    ArrowRight: () => open(list.beside(shown.key, 1)), ArrowLeft: () => open(list.beside(shown.key, -1)),
    Escape: () => { location.hash = list.query; },
  };
  const both = {
    "?": () => help.showModal(),
    "/": () => { if (shown) location.hash = list.query; setTimeout(() => document.getElementById("search")?.focus()); },
  };
  const does = { ...both, ...(shown ? inItem : inList) }[event.key];
  if (does) { event.preventDefault(); does(); }
}

function start() {
  const rows = readRows();
  for (const row of rows) byKey.set(row.key, row);
  list = new List(rows);
  const help = document.getElementById("help");
  document.getElementById("show-help").addEventListener("click", () => help.showModal());
  document.getElementById("close-help").addEventListener("click", () => help.close());
  addEventListener("hashchange", route);
  addEventListener("keydown", pressed);
  addEventListener("resize", () => { if (!shown) list.draw(); });
  addEventListener("beforeprint", () => document.querySelectorAll("main details:not(.not-printed)").forEach((each) => each.unfold?.()));
  route();
}

start();
