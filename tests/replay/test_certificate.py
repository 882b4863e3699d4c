from __future__ import annotations

import json
from pathlib import Path

from srl_swe.replay import Ending, certify_all, summarise
from srl_swe.replay.batch import Attempt
from srl_swe.replay.certificate import Certificate, Summary, load_certificates, save_results
from srl_swe.replay.normalise import Cause, Match
from srl_swe.replay.patches import PatchComparison
from srl_swe.replay.run import Replay, ReplayedStep
from srl_swe.types import Action, Instance, Observation, Outcome, Step, Trajectory, Verdict

from ..html_page import HtmlPage

INSTANCES = {"a__b-1": Instance("a__b-1", "a/b", "HEAD", "issue", "image:1")}
STEPS = tuple(Step("t", Action(tool), Observation("x")) for tool in ("bash", "<i>", "submit"))
PATCH = "diff --git a/src/x.py b/src/x.py\n--- a/src/x.py\n+++ b/src/x.py\n@@ -1 +1 @@\n-a\n+b\n"
PRINTED = Observation("fresh")
REPLAYED = Replay(
    "a__b-1",
    (
        ReplayedStep(PRINTED, Match.NORMALISED, 0.5, None, Cause.DURATION),
        ReplayedStep(PRINTED, Match.SIMILAR, 0.25, 0.9, Cause.VERSIONS),
        ReplayedStep(PRINTED, Match.EQUAL, 0.0),
    ),
    PATCH,
    PatchComparison(left_over=("<script>",)),
    {"image_digest": "sha256:1"},
)
OTHER_PATCH = Replay("a__b-1", (), PATCH, PatchComparison(differing=("src/x.py",)))
VERDICT = Verdict("a__b-1", Outcome.RESOLVED, passed=("t",))
GRADED_LATER = "the repository was ruined"


def attempt(key: str, family: str, replay: Replay | None) -> Attempt:
    trajectory = Trajectory("a__b-1", STEPS, source=family, model="<b>model</b>")
    if replay is None:
        return Attempt(key, trajectory, Ending.BROKEN_SANDBOX, reason="killed & gone")
    return Attempt(key, trajectory, Ending.REPLAYED, replay, seconds=1.5)


def certificates() -> list[Certificate]:
    attempts = [
        attempt("1", "swe-agent", REPLAYED),
        attempt("2", "swe-agent", OTHER_PATCH),
        attempt("3", "openhands", None),
    ]
    return certify_all(attempts, INSTANCES, {"1": VERDICT}, {"2": GRADED_LATER})


def summary() -> Summary:
    return summarise(certificates())


def test_a_certificate_says_what_ran_where_and_what_drifted() -> None:
    one, other, broken = certificates()
    assert (one.image, one.image_digest, one.family) == ("image:1", "sha256:1", "swe-agent")
    assert (one.faithful, one.patch_equal, one.first_drift) == (True, True, 1)
    assert [(step.tool, step.match, step.cause) for step in one.steps][:2] == [
        ("bash", Match.NORMALISED, Cause.DURATION),
        ("<i>", Match.SIMILAR, Cause.VERSIONS),
    ]
    assert one.files_edited == ("src/x.py",)
    assert one.verdict == VERDICT
    assert (other.faithful, other.n_steps, other.not_graded) == (False, 3, GRADED_LATER)
    assert (broken.faithful, broken.ending, broken.reason) == (
        None,
        "broken_sandbox",
        "killed & gone",
    )


def test_certificates_hold_no_text_and_are_read_back(tmp_path: Path) -> None:
    path = tmp_path / "certificates.jsonl"
    save_results(summary(), certificates(), tmp_path)
    assert load_certificates(path) == certificates()
    assert b"fresh" not in path.read_bytes()
    first = json.loads(path.read_text().splitlines()[0])
    assert (first["schema"], first["verdict"]["outcome"]) == (2, "resolved")


def test_the_summary_counts_by_family_and_by_cause(tmp_path: Path) -> None:
    openhands, swe_agent = summary().families
    assert (openhands.trajectories, openhands.not_replayed, openhands.faithful) == (1, 1, 0)
    assert (swe_agent.faithful, swe_agent.unfaithful, swe_agent.graded) == (1, 1, {"resolved": 1})
    assert swe_agent.matches == {Match.EQUAL: 1, Match.NORMALISED: 1, Match.SIMILAR: 1}
    assert summary().causes == {
        Cause.VERSIONS: {Match.SIMILAR: 1},
        Cause.DURATION: {Match.NORMALISED: 1},
    }
    assert not summary().all_faithful
    save_results(summary(), certificates(), tmp_path)
    assert json.loads((tmp_path / "summary.json").read_text())["causes"]["versions"] == {
        "similar": 1
    }


def test_all_are_faithful_only_if_all_were_replayed() -> None:
    assert summarise(certificates()[:1]).all_faithful
    assert not summarise(certificates()[::2]).all_faithful


def test_the_page_shows_a_cell_a_step_and_escapes_what_others_wrote(tmp_path: Path) -> None:
    save_results(summary(), certificates(), tmp_path)
    html = (tmp_path / "report.html").read_text()
    assert "1 of 3 replays are faithful" in html
    assert html.count('title="step ') == 3
    assert "similar, versions, ratio 0.90" in html
    assert "broken_sandbox" in html
    assert "killed & gone" in HtmlPage(html).text
    for hostile in ("<script>", "<b>model</b>", "step 1: <i>"):
        assert hostile not in html
