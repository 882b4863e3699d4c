// An expert's step, and the replies that a policy sampled for it.

class TargetView {
  constructor(target) {
    this.target = target;
    this.key = target.key;
    this.at = -1;
  }

  render(main) {
    const target = this.target;
    const facts = [target.repo, target.model, target.run, target.training_step !== null && `training step ${target.training_step}`, ...Object.entries(target.facts).map(([name, value]) => `${words(name)} ${value}`)].filter(Boolean);
    this.samples = target.samples.map((sample) => this.sample(sample));
    const kept = target.samples.some((sample) => sample.kept);
    fill(main,
      breadcrumb(this.key),
      el("h1", { tabIndex: -1 }, target.instance_id + (target.step_index === null ? "" : `, step ${target.step_index} of ${target.n_steps}`), " ", target.samples.length ? outcome(kept ? "kept" : "dropped") : ""),
      el("p", { class: "facts" }, facts.join(" \u00b7 ")),
      target.step_index === null ? "" : el("section", {}, el("h2", {}, "The expert"), this.expert()),
      target.samples.length ? el("section", {}, el("h2", {}, `Group of ${counted(target.samples.length, "sample")}`), this.table(kept), el("div", { class: "steps" }, this.samples)) : "",
      target.step_index === null ? "" : el("section", {}, el("h2", {}, "Prompt"), target.prompt.length ? folded(counted(target.prompt.length, "message"), () => messages(target.prompt), !target.samples.length) : el("p", {}, "The data set of this run is not at hand; name its folder's place in the run's config.")));
  }

  expert() {
    const { expert_reply: reply, expert_action: action } = this.target;
    return [block("action of the expert", action || "none", "action"), reply && reply !== action ? folded("Whole reply", () => block("reply of the expert", reply)) : null].filter(Boolean);
  }

  table(kept) {
    const names = Object.keys(this.target.samples[0].rewards);
    const rewards = this.target.samples.map((sample) => sample.reward);
    const mean = rewards.reduce((sum, value) => sum + value, 0) / rewards.length;
    const spread = Math.sqrt(rewards.reduce((sum, value) => sum + (value - mean) ** 2, 0) / rewards.length);
    const heads = ["sample", ...names.map((name) => `reward: ${name}`), "advantage", "similarity", "format", "tokens", "trained on"];
    return [
      el("p", {}, kept ? "The group was trained on. " : "The group was dropped: its rewards do not differ enough to teach anything. ", `Mean reward ${number(mean, 3)}, standard deviation ${number(spread, 3)}.`),
      el("div", { class: "scroll", tabIndex: 0, role: "group", "aria-label": "samples" }, el("table", {},
        el("thead", {}, el("tr", {}, heads.map((name) => el("th", { scope: "col", class: /^(reward|advantage|similarity|tokens)/.test(name) ? "number" : "" }, name)))),
        el("tbody", {}, this.target.samples.map((sample) => el("tr", {},
          el("th", { scope: "row" }, el("a", { link: this.address(sample.number) }, `sample ${sample.number}`)),
          names.map((name) => el("td", { class: "number" }, number(sample.rewards[name], 3))),
          el("td", { class: "number" }, signed(sample.advantage)),
          el("td", { class: "number" }, sample.pairing ? number(sample.pairing.similarity, 3) : ""),
          el("td", {}, sample.ended || words(sample.format)), el("td", { class: "number" }, number(sample.tokens)), el("td", {}, sample.kept ? "yes" : "no"))))))];
  }

  address(sample) {
    return `key=${encodeKey(this.key)}&step=${sample}`;
  }

  sample(sample) {
    const rewards = Object.entries(sample.rewards).map(([name, value]) => `${name} ${number(value, 3) || "none"}`).join(", ");
    return el("article", { class: "step", id: `step-${sample.number}`, tabIndex: -1, "aria-label": `sample ${sample.number}` },
      el("h3", {}, el("a", { link: this.address(sample.number) }, `Sample ${sample.number}`), el("span", { class: "facts" }, `${rewards} \u00b7 advantage ${signed(sample.advantage)}${sample.truncated ? " \u00b7 cut at its limit" : ""}`)),
      block(`sample ${sample.number}`, sample.text),
      sample.pairing ? pairing(sample.pairing) : sample.ended ? el("p", {}, `It ended: ${sample.ended}.`) : el("p", {}, sample.format && sample.format !== "ok" ? `Out of the format: ${words(sample.format)}. It earns \u22121 and has no action to compare.` : "No action to compare with the expert's."));
  }

  goTo(step) {
    goToPart(this, this.samples, step);
  }

  move(by) {
    moveToPart(this, this.samples, by);
  }
}

function signed(value) {
  return value === null || value === undefined ? "" : `${value > 0 ? "+" : value < 0 ? "\u2212" : ""}${number(Math.abs(value), 3)}`;
}
