// Two texts side by side: a policy's action and the expert's, a recorded observation and a fresh one.

/** Pieces of a text, those of a matching block marked and numbered. */
function pieces(list) {
  return list.map(([text, number]) => number < 0 ? el("span", { class: "unmatched" }, text) : el("mark", { class: `match m${number % 2}` }, text));
}

/** Both actions, the way to 2M/T, and the structural score field by field. */
function pairing(pair, names = ["policy", "expert"]) {
  const sizes = pair.candidate.filter(([, number]) => number >= 0).map(([text]) => [...text].length);
  const shown = sizes.slice(0, 12).map((size) => number(size)).join(" + ") + (sizes.length > 12 ? ` + ${sizes.length - 12} more` : "");
  const lengths = [pair.candidate, pair.expert].map((side) => side.reduce((sum, [text]) => sum + [...text].length, 0));
  return [
    el("div", { class: "beside" },
      el("div", {}, el("h5", {}, `Action of the ${names[0]}`), block(`action of the ${names[0]}`, pieces(pair.candidate), "action")),
      el("div", {}, el("h5", {}, `Action of the ${names[1]}`), block(`action of the ${names[1]}`, pieces(pair.expert), "action"))),
    el("p", { class: "formula" },
      pair.marked && sizes.length ? `M = ${shown} = ${number(pair.matched)} characters in ${counted(sizes.length, "matching block")} (underlined). ` : `M = ${number(pair.matched)} characters${pair.marked ? "" : " (too long to mark)"}. `,
      `T = ${lengths.map((length) => number(length)).join(" + ")} = ${number(pair.total)}. `,
      el("b", {}, `Similarity 2M/T = 2 \u00d7 ${number(pair.matched)} / ${number(pair.total)} = ${number(pair.similarity, 3)}`)),
    structural(pair),
  ];
}

function structural(pair) {
  if (!pair.fields.length) return el("p", {}, `Structural score ${number(pair.structural, 3)}: the actions are of different kinds.`);
  return el("div", { class: "scroll", tabIndex: 0, role: "group", "aria-label": "structural score" }, el("table", { class: "fields" },
    el("caption", {}, `Structural score ${number(pair.structural, 3)}, the product of its factors`),
    el("thead", {}, el("tr", {}, ["field", "policy", "expert", "factor"].map((name) => el("th", { scope: "col", class: name === "factor" ? "number" : "" }, name)))),
    el("tbody", {}, pair.fields.map((field) => el("tr", {},
      el("th", { scope: "row" }, words(field.name)), el("td", {}, clipped(field.candidate)), el("td", {}, clipped(field.expert)), el("td", { class: "number" }, number(field.factor, 3)))))));
}

function clipped(text, most = 400) {
  return text.length > most ? `${text.slice(0, most)}\u2026` : text;
}

const MATCHES = {
  equal: "prints the same",
  normalised: "prints the same but for harmless differences",
  not_recorded: "nothing was recorded to compare with",
  skipped: "was not executed",
  similar: "prints something similar",
  different: "prints something else",
  exit_code: "ends with another exit code",
};

/** A step's replay: the comparison in words, both texts, and the rules that forgave differences. */
function replayOf(step) {
  const replay = step.replay;
  const facts = [
    replay.cause && `Cause: ${words(replay.cause)}.`,
    replay.ratio !== null && `Ratio of the texts: ${number(replay.ratio, 2)}.`,
    `${seconds(replay.seconds)}.`,
    !replay.same_effect && "Its effect differs from the record.",
    replay.translation && `As a call of our tools: ${replay.translation}`,
  ].filter(Boolean).join(" ");
  return el("section", { class: "replay" },
    el("h4", {}, "Replay: ", el("span", { class: `match-word ${replay.match}` }, words(replay.match))),
    el("p", {}, `The step ${MATCHES[replay.match]}. ${facts}`),
    replay.diff.length ? sideBySide(replay.diff) : replay.fresh && replay.match !== "equal" ? el("div", {}, el("h5", {}, "Fresh observation"), block("fresh observation", terminal(replay.fresh.text, replay.fresh.cuts))) : null,
    replay.forgiven.length ? forgiven(replay.forgiven) : null);
}

const ROWS = { same: "", changed: "\u2260", only_recorded: "\u2212", only_fresh: "+" };

function sideBySide(rows) {
  const side = (list) => el("td", { class: "code" }, list.length === 1 && list[0][0] === "" && list[0][1] >= 0 ? el("mark", { class: "differs" }, "empty line") : list.map(([text, number]) => number < 0 ? text : el("mark", { class: "differs" }, text)));
  return el("div", { class: "scroll", tabIndex: 0, role: "group", "aria-label": "recorded and fresh observation" }, el("table", { class: "two-texts" },
    el("thead", {}, el("tr", {}, el("th", { scope: "col" }, el("span", { class: "visually-hidden" }, "difference")), el("th", { scope: "col" }, "recorded"), el("th", { scope: "col" }, "fresh"))),
    el("tbody", {}, rows.map((row) => row.kind === "skipped"
      ? el("tr", { class: "skipped-lines" }, el("td", { colSpan: 3 }, `${counted(row.count, "equal line")} left out`))
      : el("tr", { class: row.kind }, el("td", {}, el("span", { "aria-hidden": "true" }, ROWS[row.kind]), el("span", { class: "visually-hidden" }, words(row.kind))), side(row.recorded), side(row.fresh))))));
}

function forgiven(rules) {
  return el("div", { class: "scroll", tabIndex: 0, role: "group", "aria-label": "forgiven differences" }, el("table", {},
    el("caption", {}, "Differences that a rule forgives"),
    el("thead", {}, el("tr", {}, ["rule", "cause", "recorded", "fresh"].map((name) => el("th", { scope: "col" }, name)))),
    el("tbody", {}, rules.map((rule) => el("tr", {},
      el("th", { scope: "row" }, rule.rule), el("td", {}, words(rule.cause)), el("td", { class: "code" }, rule.recorded.join("\n") || "nothing"), el("td", { class: "code" }, rule.fresh.join("\n") || "nothing"))))));
}
