// The list: search, filters, sorting, and a table of which only the rows in sight exist.

const ROW_PX = 56;
const SPARE_ROWS = 8;

// `wide` columns are left out on narrow screens, and others than the first two if no row has a value.
const COLUMNS = [
  { name: "instance", label: "Instance", sort: (row) => row.instance_id },
  { name: "outcome", label: "Outcome", sort: (row) => row.rank, cell: (row) => outcome(row.outcome) },
  { name: "stop", label: "Ended by", sort: (row) => row.stop, cell: (row) => words(row.stop), wide: true },
  { name: "steps", label: "Steps", sort: (row) => row.kind === "episode" ? row.steps : null, cell: (row) => row.kind === "episode" ? number(row.steps) : "", number: true },
  { name: "seconds", label: "Seconds", sort: (row) => row.seconds, cell: (row) => number(row.seconds, 1), number: true, wide: true },
  { name: "tokens", label: "Tokens", sort: (row) => row.tokens, cell: (row) => number(row.tokens), number: true, wide: true },
  { name: "score", label: "Score", sort: (row) => row.score, cell: (row) => number(row.score, 3), number: true, wide: true },
  { name: "run", label: "Run", sort: (row) => row.run, cell: (row) => row.run, wide: true },
];

const FILTERS = [
  { name: "run", label: "Run", values: (row) => [row.run] },
  { name: "outcome", label: "Outcome", values: (row) => [row.outcome] },
  { name: "stop", label: "Ended by", values: (row) => [row.stop] },
  { name: "tool", label: "Tool", values: (row) => row.tools },
  { name: "repo", label: "Repository", values: (row) => [row.repo] },
  { name: "model", label: "Model", values: (row) => [row.model] },
];

class List {
  constructor(rows) {
    this.rows = rows;
    for (const row of rows) row.text = [row.instance_id, row.title, row.model, row.run, row.outcome, row.stop, ...row.tools].join("\n").toLowerCase();
    this.columns = COLUMNS.filter((column, at) => at < 2 || rows.some((row) => ![null, ""].includes(column.sort(row))));
    this.asked = { q: "", marked: "", sort: "outcome", down: "" };
    this.at = 0;
    this.choose();
  }

  /** Takes the search and the filters of an address. */
  take(query) {
    const names = ["q", "marked", "sort", "down", ...FILTERS.map((filter) => filter.name)];
    this.asked = { sort: "outcome", ...Object.fromEntries(names.map((name) => [name, query.get(name) ?? ""]).filter(([, value]) => value)) };
    this.choose();
  }

  get query() {
    const given = Object.entries(this.asked).filter(([name, value]) => value && !(name === "sort" && value === "outcome"));
    return new URLSearchParams(given).toString();
  }

  choose() {
    const search = (this.asked.q ?? "").toLowerCase().split(/\s+/).filter(Boolean);
    const filters = FILTERS.filter((filter) => this.asked[filter.name]);
    const column = COLUMNS.find((each) => each.name === this.asked.sort) ?? COLUMNS[1];
    const sign = this.asked.down ? -1 : 1;
    this.chosen = this.rows.filter((row) =>
      search.every((word) => row.text.includes(word)) &&
      filters.every((filter) => filter.values(row).includes(this.asked[filter.name])) &&
      (!this.asked.marked || row.marked));
    const order = (a, b) => a === b ? 0 : a === null || a === "" ? 1 : b === null || b === "" ? -1 : a < b ? -sign : sign;
    this.chosen.sort((a, b) => order(column.sort(a), column.sort(b)) || a.number - b.number);
    this.at = Math.min(this.at, Math.max(0, this.chosen.length - 1));
  }

  render(main) {
    const search = el("input", { type: "search", id: "search", value: this.asked.q ?? "", autocomplete: "off", placeholder: "id, model, issue, tool", on: { input: (event) => this.ask("q", event.target.value) } });
    this.count = el("p", { class: "count", role: "status" });
    this.body = el("tbody", {});
    this.table = el("table", { class: "list" }, el("thead", {}, this.head()), this.body);
    this.box = el("div", { class: "list-box", tabIndex: 0, role: "group", "aria-label": "items", on: { scroll: () => this.draw() } }, this.table);
    fill(main,
      el("h1", { class: "visually-hidden" }, facts.title),
      el("form", { class: "filters", role: "search", on: { submit: (event) => event.preventDefault() } },
        field("Search", search), ...FILTERS.map((filter) => this.select(filter)),
        this.rows.some((row) => row.marked) ? el("label", { class: "check" }, el("input", { type: "checkbox", id: "marked", checked: Boolean(this.asked.marked), on: { change: (event) => this.ask("marked", event.target.checked ? "1" : "") } }), "marked as suspicious") : null,
        button("Clear", () => { this.asked = { sort: "outcome" }; this.choose(); this.render(main); this.changed(); })),
      this.count, this.box);
    this.draw();
    this.show();
  }

  select(filter) {
    const counts = new Map();
    for (const row of this.rows) for (const value of filter.values(row)) if (value) counts.set(value, (counts.get(value) ?? 0) + 1);
    if (counts.size < 2) return null;
    const options = [...counts].sort(([a], [b]) => a < b ? -1 : 1);
    const chosen = this.asked[filter.name] ?? "";
    return field(filter.label, el("select", { id: `filter-${filter.name}`, on: { change: (event) => this.ask(filter.name, event.target.value) } },
      el("option", { value: "" }, "all"),
      options.map(([value, count]) => el("option", { value, selected: value === chosen }, `${words(value)} (${number(count)})`))));
  }

  head() {
    const sorted = this.asked.sort ?? "outcome";
    return el("tr", {}, this.columns.map((column) => el("th", { scope: "col", class: columnClass(column), "aria-sort": column.name === sorted ? (this.asked.down ? "descending" : "ascending") : undefined },
      button([column.label, column.name === sorted ? el("span", { "aria-hidden": "true" }, this.asked.down ? " \u25bc" : " \u25b2") : null], () => this.sortBy(column.name)))));
  }

  sortBy(name) {
    this.asked.down = name === this.asked.sort && !this.asked.down ? "1" : "";
    this.asked.sort = name;
    this.choose();
    this.table.tHead.replaceChildren(this.head());
    this.table.tHead.querySelector("[aria-sort] button").focus();
    this.draw();
    this.changed();
  }

  ask(name, value) {
    this.asked[name] = value;
    this.at = 0;
    this.box.scrollTop = 0;
    this.choose();
    this.draw();
    this.changed();
  }

  changed() {
    replaceFragment(this.query);
  }

  /** Makes the rows in sight. */
  draw() {
    const total = this.chosen.length;
    const first = Math.max(0, Math.floor(this.box.scrollTop / ROW_PX) - SPARE_ROWS);
    const last = Math.min(total, first + Math.ceil((this.box.clientHeight || 800) / ROW_PX) + 2 * SPARE_ROWS);
    if (this.table.tHead.rows[0].cells.length !== this.columns.length) this.table.tHead.replaceChildren(this.head());
    this.table.setAttribute("aria-rowcount", String(total + 1));
    const focused = this.body.contains(document.activeElement) ? document.activeElement.closest("tr").getAttribute("aria-rowindex") : null;
    this.body.replaceChildren(spacer(first), ...this.chosen.slice(first, last).map((row, index) => this.row(row, first + index)), spacer(total - last));
    if (focused) this.body.querySelector(`[aria-rowindex="${focused}"] a`)?.focus({ preventScroll: true });
    if (!total) this.body.replaceChildren(el("tr", {}, el("td", { colSpan: this.columns.length, class: "empty" }, "No item fits the search and the filters.")));
    const all = this.rows.length;
    this.count.textContent = total === all ? `${counted(all, "item")}${this.asked.sort === "outcome" && !this.asked.down ? ", failures first" : ""}.` : `${number(total)} of ${counted(all, "item")}.`;
    if (facts.data && !facts.version) this.count.textContent += ` The data lies beside this page, in ${facts.data}/: keep both together.`;
  }

  row(row, place) {
    const open = `key=${encodeKey(row.key)}`;
    const made = el("tr", { class: place === this.at ? "current" : "", "aria-rowindex": String(place + 2), "aria-current": place === this.at ? "true" : undefined, on: { click: (event) => { if (!event.target.closest("a")) { this.at = place; location.hash = open; } } } },
      el("th", { scope: "row" }, el("a", { link: open }, row.instance_id), row.marked ? el("span", { class: "marked" }, " marked") : null, el("span", { class: "title" }, row.title)),
      this.columns.slice(1).map((column) => el("td", { class: columnClass(column) }, column.cell(row))));
    return made;
  }

  move(by) {
    this.at = Math.max(0, Math.min(this.chosen.length - 1, this.at + by));
    this.show();
    this.draw();
    this.body.querySelector(".current a")?.focus({ preventScroll: true });
  }

  /** Scrolls the current row into sight. */
  show() {
    const top = this.at * ROW_PX, head = this.table.tHead.offsetHeight;
    if (top < this.box.scrollTop) this.box.scrollTop = top;
    else if (top + ROW_PX + head > this.box.scrollTop + this.box.clientHeight) this.box.scrollTop = top + ROW_PX + head - this.box.clientHeight;
  }

  open() {
    const row = this.chosen[this.at];
    if (row) location.hash = `key=${encodeKey(row.key)}`;
  }

  /** The item before or after the one with that key, in the order of the list. */
  beside(key, by) {
    const at = this.chosen.findIndex((row) => row.key === key);
    return at < 0 ? undefined : this.chosen[at + by];
  }
}

function columnClass(column) {
  return [column.number ? "number" : "", column.wide ? "wide" : "", `col-${column.name}`].filter(Boolean).join(" ");
}

function field(label, control) {
  return el("div", { class: "field" }, el("label", { htmlFor: control.id }, label), control);
}

function spacer(rows) {
  const made = el("tr", { "aria-hidden": "true", class: "spacer" });
  made.style.height = `${rows * ROW_PX}px`;
  return made;
}
