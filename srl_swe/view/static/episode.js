// An episode: the issue, each step, the changes, the tests.

class EpisodeView {
  constructor(episode) {
    this.episode = episode;
    this.key = episode.key;
    this.at = -1;
  }

  render(main) {
    const episode = this.episode;
    const result = episode.tests?.outcome || ({ true: "faithful", false: "not_faithful" }[episode.replay?.faithful] ?? "");
    const facts = [episode.repo, episode.model, episode.run, episode.source !== "srl-swe" && `written by ${episode.source}`, episode.seconds !== null && `${seconds(episode.seconds)} of replies`, episode.tokens !== null && `${number(episode.tokens)} tokens`].filter(Boolean);
    this.steps = episode.steps.map((step) => this.step(step));
    fill(main,
      breadcrumb(this.key),
      el("h1", { tabIndex: -1 }, episode.instance_id, " ", outcome(result)),
      el("p", { class: "facts" }, facts.join(" \u00b7 ")),
      episode.marks.length ? el("p", { class: "caveat" }, el("b", {}, "Marked as suspicious: "), episode.marks.join("; ")) : null,
      el("dl", { class: "glance" }, episode.glance.map(([heading, sentence]) => el("div", {}, el("dt", {}, heading), el("dd", {}, this.withStepLinks(sentence))))),
      this.sections());
  }

  sections() {
    const episode = this.episode;
    return [
      episode.issue ? el("section", {}, el("h2", {}, "Issue"), block("issue", episode.issue, "issue prose")) : null,
      el("section", {}, el("h2", { id: "steps" }, counted(episode.steps.length, "step")),
        episode.steps.length > 1 ? this.outline() : null,
        episode.steps.length ? el("div", { class: "steps" }, this.steps) : el("p", {}, "No steps are recorded.")),
      this.changes(),
      this.tests(),
      episode.replay ? this.replay() : null,
      this.conditions(),
    ];
  }

  /** The sentence, in which `step N` is a link to that step. */
  withStepLinks(sentence) {
    return sentence.split(/(step \d+)/).map((part) => {
      const found = /^step (\d+)$/.exec(part);
      return found && Number(found[1]) < this.episode.steps.length ? el("a", { link: this.address(Number(found[1])) }, part) : part;
    });
  }

  address(step) {
    return `key=${encodeKey(this.key)}&step=${step}`;
  }

  outline() {
    return folded("Steps at a glance", () => el("ol", { class: "outline" }, this.episode.steps.map((step) =>
      el("li", {}, el("a", { link: this.address(step.index) }, `${step.index} ${step.tool || "no action"}`), " ", el("span", { class: "what" }, this.summary(step)),
        step.replay ? el("span", { class: `match-word ${step.replay.match}` }, words(step.replay.match)) : null,
        this.episode.left_expert_at === step.index ? el("span", { class: "marked" }, " leaves the expert's way") : null))), this.episode.steps.length <= 12);
  }

  /** A step's action in one line. */
  summary(step) {
    const given = step.arguments;
    const text = given.path ? `${given.command ?? ""} ${given.path}` : given.command ?? Object.values(given)[0] ?? "";
    return clipped(text.split("\n")[0], 100);
  }

  step(step) {
    const facts = [
      step.seconds !== null && seconds(step.seconds),
      step.prompt_tokens !== null && `${number(step.prompt_tokens)} tokens in`,
      step.completion_tokens !== null && `${number(step.completion_tokens)} out`,
      step.reply_truncated && "reply cut at its limit",
      !step.executed && "not executed",
    ].filter(Boolean);
    return el("article", { class: "step", id: `step-${step.index}`, tabIndex: -1, "aria-label": `step ${step.index}` },
      el("h3", {}, el("a", { link: this.address(step.index) }, `Step ${step.index}`), ` ${step.tool || "no usable action"}`, el("span", { class: "facts" }, facts.join(" \u00b7 "))),
      this.episode.left_expert_at === step.index ? el("p", { class: "marked" }, "Here it leaves the expert's way.") : null,
      step.same_as_expert !== null && step.same_as_expert !== step.index ? el("p", { class: "facts" }, `The same action as the expert's step ${step.same_as_expert}.`) : null,
      step.thought.trim() ? el("div", { class: "thought prose" }, step.tool ? step.thought.trim() : step.thought) : null,
      step.tool ? this.action(step) : null,
      step.edit ? this.edit(step) : null,
      this.observation(step),
      step.replay ? replayOf(step) : null,
      el("div", { class: "more" },
        step.pairing ? folded(`Beside the expert's step ${step.index}: similarity ${number(step.pairing.similarity, 3)}`, () => pairing(step.pairing)) : null,
        this.soFar(step),
        folded("Exact prompt of this step", () => step.prompt.length ? messages(step.prompt) : el("p", {}, `It can't be shown: ${step.prompt_problem || "not recorded"}.`), false, "not-printed")));
  }

  action(step) {
    const inDiff = step.edit && step.edit.command !== "create" ? ["old_str", "new_str", "insert_line"] : [];
    const entries = Object.entries(step.arguments).filter(([name]) => !inDiff.includes(name));
    if (entries.length === 1 && entries[0][0] === "command") return block(`action of step ${step.index}`, entries[0][1], "action");
    if (!entries.length) return null;
    return el("dl", { class: "arguments" }, entries.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value.includes("\n") || value.length > 100 ? block(`${name} of step ${step.index}`, value, "action") : el("code", {}, value)))));
  }

  edit(step) {
    const edit = step.edit;
    const state = edit.applied === null ? "its result is not recorded" : edit.applied ? "applied" : "refused";
    return edit.command === "create" ? el("p", { class: "facts" }, `${edit.path}: ${counted(edit.added, "line")} written, ${state}`)
      : el("div", {}, el("p", { class: "facts" }, `${edit.path}: +${edit.added} \u2212${edit.removed}, ${state}`), diff(`edit of step ${step.index}`, edit.diff));
  }

  observation(step) {
    const seen = step.seen;
    if (!seen) return el("p", { class: "facts" }, "No observation is recorded.");
    const facts = [seen.exit_code !== null && `exit code ${seen.exit_code}`, seen.timed_out && "ended at its time limit", (seen.truncated || seen.cuts.length > 0) && "cut"].filter(Boolean).join(" \u00b7 ");
    return el("div", { class: seen.exit_code ? "observation failed" : "observation" },
      el("h4", {}, "Observation ", el("span", { class: "facts" }, facts)),
      seen.text.trim() ? block(`observation of step ${step.index}`, terminal(seen.text, seen.cuts)) : el("p", { class: "facts" }, "Nothing was printed."));
  }

  /** The edits up to a step that were not refused. */
  soFar(step) {
    const edits = this.episode.steps.slice(0, step.index + 1).filter((each) => each.edit && each.edit.applied !== false);
    if (!step.edit || edits.length < 2) return null;
    const added = edits.reduce((sum, each) => sum + each.edit.added, 0), removed = edits.reduce((sum, each) => sum + each.edit.removed, 0);
    return folded(`Edits so far: ${edits.length}, +${number(added)} \u2212${number(removed)}`, () => edits.map((each) => [el("h5", {}, el("a", { link: this.address(each.index) }, `Step ${each.index}`), ` ${each.edit.path}`), diff(`edit of step ${each.index}`, each.edit.diff)]).flat());
  }

  changes() {
    const { patch, gold_patch: gold } = this.episode;
    if (patch === null && !gold) return null;
    const own = (patch ?? "").trim() ? diff("predicted patch", patch) : el("p", {}, patch === null ? "No patch is recorded." : "The patch is empty.");
    return el("section", {}, el("h2", { id: "changes" }, gold ? "Predicted patch beside the gold one" : "Patch"),
      el("div", { class: gold ? "beside" : "" }, el("div", {}, gold ? el("h3", {}, "Predicted") : null, own), gold ? el("div", {}, el("h3", {}, "Gold"), diff("gold patch", gold)) : null));
  }

  tests() {
    const { tests, test_log: log, fail_to_pass } = this.episode;
    if (!tests) return null;
    const wanted = new Set(fail_to_pass);
    const rows = [...tests.failed.map((name) => [name, "failed"]), ...tests.passed.map((name) => [name, "passed"])];
    rows.sort((a, b) => (a[1] === b[1] ? Number(wanted.has(b[0])) - Number(wanted.has(a[0])) : a[1] === "failed" ? -1 : 1));
    const facts = [seconds(tests.seconds), tests.network && `network ${tests.network}`, tests.log_path].filter(Boolean).join(" \u00b7 ");
    return el("section", {}, el("h2", { id: "tests" }, "Tests ", outcome(tests.outcome)),
      el("p", {}, tests.detail), el("p", { class: "facts" }, facts),
      rows.length ? el("div", { class: "scroll tests", tabIndex: 0, role: "group", "aria-label": "tests" }, el("table", {},
        el("thead", {}, el("tr", {}, ["test", "result", wanted.size ? "the fix" : null].filter(Boolean).map((name) => el("th", { scope: "col" }, name)))),
        el("tbody", {}, rows.map(([name, result]) => el("tr", {}, el("th", { scope: "row" }, name), el("td", {}, el("span", { class: result === "failed" ? "bad" : "good" }, result === "failed" ? "\u2717 failed" : "\u2713 passed")), wanted.size ? el("td", {}, wanted.has(name) ? "has to make it pass" : "must not break it") : null))))) : null,
      log ? folded("Log of the tests", () => block("log of the tests", terminal(log), "log")) : null);
  }

  replay() {
    const replay = this.episode.replay;
    const said = { true: "The replay is faithful: it had the recorded effects.", false: "The replay is not faithful.", null: `Not replayed: ${replay.reason}.` }[replay.faithful];
    const facts = [replay.image, replay.seconds ? seconds(replay.seconds) : ""].filter(Boolean).join(" \u00b7 ");
    return el("section", {}, el("h2", { id: "replay" }, "Replay"), el("p", {}, said, replay.first_drift !== null ? [" The first other output is at ", el("a", { link: this.address(replay.first_drift) }, `step ${replay.first_drift}`), "."] : null),
      el("p", { class: "facts" }, facts),
      el("p", {}, `Files edited: ${replay.files_edited.join(", ") || "none"}.`),
      Object.keys(replay.differences).length ? el("ul", {}, Object.entries(replay.differences).map(([name, paths]) => el("li", {}, `${words(name)}: ${paths.join(", ")}`))) : null,
      replay.patch ? folded("Patch that the replay left", () => diff("patch of the replay", replay.patch)) : null);
  }

  conditions() {
    const { notes, enforced } = this.episode;
    if (!notes.length && !Object.keys(enforced).length) return null;
    return el("section", {}, el("h2", {}, "Notes and conditions"),
      notes.length ? el("ul", {}, notes.map((note) => el("li", {}, note))) : null,
      Object.keys(enforced).length ? el("dl", { class: "arguments" }, Object.entries(enforced).map(([name, value]) => el("div", {}, el("dt", {}, words(name)), el("dd", {}, typeof value === "string" ? value : JSON.stringify(value))))) : null);
  }

  goTo(step) {
    goToPart(this, this.steps, step);
  }

  move(by) {
    moveToPart(this, this.steps, by);
  }
}

/** Marks a step or sample of a view as the current one, and brings it into sight. */
function goToPart(view, parts, step) {
  const at = Number(step);
  if (step === null || !parts[at]) return;
  view.at = at;
  parts.forEach((each, index) => each.classList.toggle("current", index === at));
  parts[at].scrollIntoView({ block: "start" });
  parts[at].focus({ preventScroll: true });
}

function moveToPart(view, parts, by) {
  if (!parts.length) return;
  const at = Math.max(0, Math.min(parts.length - 1, view.at + by));
  replaceFragment(view.address(at));
  goToPart(view, parts, String(at));
}
