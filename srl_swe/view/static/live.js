// A served page: asks for a newer version, and shows it without losing the place.

const ASK_MS = 2000;
let version = facts.version;

async function askForNewer() {
  try {
    const answer = await fetch("version", { cache: "no-store" });
    const found = Number(await answer.text());
    if (answer.ok && found !== version) await takeNewer(found);
    showState("");
  } catch {
    showState("The server has ended; this is its last state.");
  }
  setTimeout(askForNewer, ASK_MS);
}

async function takeNewer(found) {
  const html = await (await fetch("./", { cache: "no-store" })).text();
  const page = new DOMParser().parseFromString(html, "text/html");
  Object.assign(facts, JSON.parse(page.getElementById("facts").textContent));
  version = facts.version ?? found;
  document.getElementById("rows").textContent = page.getElementById("rows").textContent;
  const rows = readRows(), query = list.query, at = list.chosen[list.at]?.key;
  byKey.clear();
  for (const row of rows) byKey.set(row.key, row);
  chunks.clear();
  list = Object.assign(new List(rows), { body: list.body, box: list.box, table: list.table, count: list.count });
  list.take(new URLSearchParams(query));
  list.at = Math.max(0, list.chosen.findIndex((row) => row.key === at));
  if (shown) offerNewer();
  else drawAgain();
}

/** Draws the list anew where it is scrolled to, with the focus on the row that had it. */
function drawAgain() {
  const filters = main.querySelector(".filters"), inRow = list.body.contains(document.activeElement), top = list.box.scrollTop;
  if (filters.contains(document.activeElement)) return list.draw();
  list.render(main);
  list.box.scrollTop = top;
  list.draw();
  if (inRow) list.body.querySelector(".current a")?.focus({ preventScroll: true });
}

/** An open item stays as it is until its reader asks for the newer state. */
function offerNewer() {
  if (document.getElementById("newer")) return;
  main.prepend(el("p", { id: "newer", role: "status" }, "The run has written more. ",
    button("Show it", () => { shown = undefined; route(); })));
}

function showState(text) {
  let state = document.getElementById("live");
  if (!state) document.querySelector("header.bar").append(state = el("span", { id: "live", role: "status" }));
  const said = text || "live";
  if (state.textContent !== said) state.textContent = said;
}

askForNewer();
