// Elements and texts. All text of runs enters the page as text nodes, here and nowhere else.

const SYMBOLS = new Map([...Array(32).keys()].map((code) => [String.fromCharCode(code), String.fromCodePoint(0x2400 + code)]));
SYMBOLS.delete("\n");
SYMBOLS.delete("\t");
SYMBOLS.set("\x7f", "\u2421");
const HIDDEN = /[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]/g;

/** Shows characters that a browser hides or that turn the direction of a text. */
function visible(text) {
  return text.replace(/\r\n/g, "\n").replace(HIDDEN, (char) => SYMBOLS.get(char) ?? `[U+${char.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}]`);
}

const PROPERTIES = new Set(["open", "value", "selected", "checked", "tabIndex", "type", "id", "name", "colSpan", "scope", "placeholder", "htmlFor", "autocomplete"]);

/** An element. `of` holds properties, aria-* attributes, `class`, `link` (a fragment) and `on` (listeners). */
function el(tag, of = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(of)) {
    if (value === undefined || value === null) continue;
    if (name === "class") made.className = value;
    else if (name === "on") for (const [event, listen] of Object.entries(value)) made.addEventListener(event, listen);
    else if (name === "link") made.setAttribute("href", `#${value}`);
    else if (name === "role" || name.startsWith("aria-")) made.setAttribute(name, value);
    else if (PROPERTIES.has(name)) made[name] = value;
    else throw new Error(`unknown property ${name}`);
  }
  made.append(...nodes(children));
  return made;
}

/** Replaces all that an element holds. */
function fill(element, ...children) {
  element.replaceChildren(...nodes(children));
}

function nodes(children) {
  return children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false && child !== "").map(asNode);
}

function asNode(child) {
  return child instanceof Node ? child : document.createTextNode(visible(String(child)));
}

function button(label, press, of = {}) {
  return el("button", { type: "button", ...of, on: { click: press } }, label);
}

/** A folded part whose content is made when it is first opened. */
function folded(title, make, open = false, kind = "") {
  const made = el("details", { class: kind }, el("summary", {}, title));
  const unfold = () => {
    if (made.open && made.childElementCount === 1) made.append(...nodes([make()]));
  };
  made.addEventListener("toggle", unfold);
  made.open = open;
  unfold();
  made.unfold = () => { made.open = true; unfold(); };
  return made;
}

/** A block of text that scrolls if it is long; its name is for screen readers. */
function block(name, content, kind = "") {
  return el("pre", { class: kind, tabIndex: 0, role: "group", "aria-label": name }, content);
}

// Terminals' colours: escape sequences become spans of a few classes; all other sequences are left out.

const ESCAPE = /\x1b(?:\[([0-9;:]*)m|\[[0-9;?<=>]*[ -/]*[@-~]|\][^\x07\x1b\n]*(?:\x07|\x1b\\)?|[()][0-9A-Z]|[=>78cDEHMNOZ])/g;

/** The text with its colours, and with the marks of cuts marked. */
function terminal(text, cuts = []) {
  const parts = document.createDocumentFragment();
  const style = { fg: null, bg: null, flags: new Set() };
  let at = 0;
  const add = (piece) => {
    if (!piece) return;
    const classes = [...style.flags, style.fg === null ? "" : `fg${style.fg}`, style.bg === null ? "" : `bg${style.bg}`].filter(Boolean);
    parts.append(classes.length ? el("span", { class: classes.join(" ") }, piece) : asNode(piece));
  };
  const addWithCuts = (piece) => {
    let from = 0;
    while (cuts.length) {
      const found = piece.indexOf(cuts[0], from);
      if (found < 0) break;
      add(piece.slice(from, found));
      parts.append(el("mark", { class: "cut" }, cuts[0]));
      from = found + cuts[0].length;
      cuts = cuts.slice(1);
    }
    add(piece.slice(from));
  };
  for (const found of text.matchAll(ESCAPE)) {
    addWithCuts(text.slice(at, found.index));
    at = found.index + found[0].length;
    if (found[1] !== undefined) setStyle(style, found[1]);
  }
  addWithCuts(text.slice(at));
  return parts;
}

const FLAGS = { 1: "bold", 2: "dim", 3: "italic", 4: "underline", 7: "inverse", 9: "struck" };
const ENDS = { 22: ["bold", "dim"], 23: ["italic"], 24: ["underline"], 27: ["inverse"], 29: ["struck"] };

function setStyle(style, codes) {
  const numbers = codes.split(/[;:]/).map(Number);
  for (let i = 0; i < numbers.length; i++) {
    const code = numbers[i];
    if (code === 0) Object.assign(style, { fg: null, bg: null, flags: new Set() });
    else if (FLAGS[code]) style.flags.add(FLAGS[code]);
    else if (ENDS[code]) ENDS[code].forEach((flag) => style.flags.delete(flag));
    else if (code === 39) style.fg = null;
    else if (code === 49) style.bg = null;
    else if (code === 38 || code === 48) {
      const which = code === 38 ? "fg" : "bg";
      if (numbers[i + 1] === 5) { style[which] = basicColour(numbers[i + 2]); i += 2; }
      else if (numbers[i + 1] === 2) { style[which] = nearest(numbers.slice(i + 2, i + 5)); i += 4; }
    } else {
      const start = [30, 40, 90, 100].find((first) => code >= first && code < first + 8);
      if (start !== undefined) style[start % 60 === 30 ? "fg" : "bg"] = code - start;
    }
  }
}

/** One of the eight colours for a number of the palette of 256. */
function basicColour(number) {
  if (!(number >= 0)) return null;
  if (number < 16) return number % 8;
  if (number >= 232) return number < 244 ? 0 : 7;
  const cube = number - 16;
  return nearest([Math.floor(cube / 36), Math.floor(cube / 6) % 6, cube % 6].map((level) => level * 51));
}

function nearest([red, green, blue]) {
  return (red > 127 ? 1 : 0) + (green > 127 ? 2 : 0) + (blue > 127 ? 4 : 0);
}

/** A unified diff; each line keeps its sign, so colour is not needed to read it. */
function diff(name, text) {
  const lines = text.replace(/\n$/, "").split("\n").map((line) => {
    const kind = /^(?:diff |index |--- |\+\+\+ |new file|deleted file|old mode|new mode)/.test(line) ? "head" : line.startsWith("@@") ? "hunk" : line.startsWith("+") ? "added" : line.startsWith("-") ? "removed" : "";
    return el("span", { class: `line ${kind}` }, line, document.createTextNode("\n"));
  });
  return block(name, lines, "diff");
}

function messages(list) {
  return el("ol", { class: "messages" }, list.map((message, number) =>
    el("li", {}, el("b", {}, message.role), block(`message ${number}, ${message.role}`, message.content))));
}

// Figures.

function number(value, digits = 0) {
  if (value === null || value === undefined) return "";
  return value.toLocaleString("en-US", { minimumFractionDigits: digits, maximumFractionDigits: digits }).replace("-", "\u2212");
}

function seconds(value) {
  if (value === null || value === undefined) return "";
  return value >= 100 ? `${number(value)} s` : `${number(value, value >= 10 ? 1 : 2)} s`;
}

function counted(count, noun, plural = `${noun}s`) {
  return `${number(count)} ${count === 1 ? noun : plural}`;
}

/** A word of the data for people: `format_errors` becomes `format errors`. */
function words(name) {
  return name.replaceAll("_", " ");
}

const GOOD = new Set(["resolved", "faithful", "kept", "equal"]);
const BAD = new Set(["unresolved", "empty_patch", "patch_failed", "timed_out", "not_faithful"]);
const SIGNS = { good: "\u2713", bad: "\u2717", doubtful: "!" };

/** An outcome with a sign, a word and a colour. */
function outcome(name) {
  if (!name) return "";
  const kind = GOOD.has(name) ? "good" : BAD.has(name) ? "bad" : "doubtful";
  return el("span", { class: `outcome ${kind}` }, el("span", { "aria-hidden": "true" }, `${SIGNS[kind]} `), words(name));
}
