"""The expert in states that it reached itself, and in states that somebody else made."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from srl_swe.experts import Expert, find_leak
from srl_swe.experts.gold import read_tree
from srl_swe.tools.translation import edit_call
from srl_swe.types import Action, Step

from .conftest import INSTANCES, Begin, Play

pytestmark = pytest.mark.slow
READER, WRITER = "/testbed/inikit/reader.py", "/testbed/inikit/writer.py"


def bash(command: str) -> Action:
    return Action("bash", {"command": command})


def replace_in(path: str, old: str, new: str) -> Action:
    return edit_call("str_replace", path, old_str=old, new_str=new)


def commands(steps: list[Step]) -> list[str]:
    return [step.action.arguments.get("command", "submit") for step in steps if step.action]


@pytest.mark.parametrize("name", ["inikit-1", "intervals-1", "minirouter-1", "lrucache-2"])
@pytest.mark.parametrize("seed", [3, 4])
def test_the_expert_searches_views_edits_tests_and_submits(
    begin: Begin, name: str, seed: int
) -> None:
    episode = begin(name)
    made = commands(episode.finish(Expert(seed)))
    edits = [number for number, command in enumerate(made) if command == "str_replace"]
    assert episode.is_gold
    assert "view" in made[: edits[0]]
    assert any("pytest" in command for command in made[edits[-1] :])
    assert find_leak(episode.trajectory(), episode.instance.gold_patch) is None
    assert all(step.thought for step in episode.steps)


@pytest.mark.parametrize("name", ["inikit-1", "minirouter-1"])
def test_a_brief_expert_takes_the_same_necessary_steps_under_every_seed(
    begin: Begin, name: str
) -> None:
    first, second = begin(name), begin(name)
    made = commands(first.finish(Expert(3, brief=True)))
    second.finish(Expert(4, brief=True))
    assert first.is_gold
    assert [step.thought for step in first.steps] == [step.thought for step in second.steps]
    assert made == commands(second.steps)
    assert made[0].startswith(("grep", "git ls-files"))
    assert [command for command in made if "reproduce" in command or "git diff" in command] == []
    assert made[-2] == "python -m pytest -q 2>&1 | tail -n 1"


def half(episode: Play) -> None:
    episode.act(
        replace_in(
            READER,
            'text.replace("\\\\n", "\\n")',
            r"""re.sub(r"\\(.)", lambda m: "\n" if m[1] == "n" else m[1], text)""",
        )
    )


def wrong(episode: Play) -> None:
    episode.act(replace_in(WRITER, 'text.replace("\\n", "\\\\n")', "text.strip()"))


def wrong_by_sed(episode: Play) -> None:
    episode.act(bash("sed -i 's/def _escape/def _escaped/' inikit/writer.py"))


def elsewhere(episode: Play) -> None:
    episode.act(replace_in("/testbed/inikit/document.py", "class Document", "class Documents"))


def gone(episode: Play) -> None:
    episode.act(bash("rm inikit/reader.py"))


def emptied(episode: Play) -> None:
    episode.act(bash("echo 'x = 1' > inikit/reader.py"))


def junk(episode: Play) -> None:
    episode.act(edit_call("create", "/testbed/try.py", file_text="print(1)"))
    episode.act(bash("touch inikit/forgotten.py"))


def in_another_folder(episode: Play) -> None:
    episode.act(bash("cd tests"))


def unusable(episode: Play) -> None:
    episode.reply("no call at all")
    episode.act(Action("str_replace_editor", {"command": "view", "path": "/testbed/none.py"}))


def searched(episode: Play) -> None:
    episode.act(bash("grep -rn escape inikit"))
    episode.act(edit_call("view", READER))


STATES: list[Callable[[Play], None]] = [
    half,
    wrong,
    wrong_by_sed,
    elsewhere,
    gone,
    emptied,
    junk,
    in_another_folder,
    unusable,
    searched,
]


@pytest.mark.parametrize("reach", STATES, ids=[state.__name__ for state in STATES])
def test_the_expert_continues_from_any_state_to_the_gold_patch(
    begin: Begin, reach: Callable[[Play], None]
) -> None:
    episode = begin("inikit-2")
    reach(episode)
    episode.finish(Expert(1))
    assert episode.is_gold, episode.patch


def test_an_applied_edit_is_not_made_again_and_a_known_file_is_not_searched(begin: Begin) -> None:
    episode = begin("inikit-2")
    searched(episode)
    half(episode)
    made = episode.finish(Expert(0))
    edited = [s.action.arguments["path"] for s in made if s.action and "old_str" in s.action.text]
    assert edited == [WRITER]
    assert not any("grep" in command for command in commands(made))


def test_a_wrong_edit_is_looked_at_before_it_is_undone(begin: Begin) -> None:
    episode = begin("inikit-2")
    wrong_by_sed(episode)
    made = commands(episode.finish(Expert(2)))
    assert made[0] == "git diff"
    assert "str_replace" in made[1]


def test_tests_that_ran_since_the_last_edit_are_not_run_again(begin: Begin) -> None:
    episode = begin("texttable-1")
    fix = replace_in("/testbed/texttable/width.py", "room = width", "room = width - 1")
    episode.act(fix)
    episode.act(
        replace_in("/testbed/texttable/width.py", "width - 1", "width - display_width(ELLIPSIS)")
    )
    before = Expert(5).act(episode.instance, episode.steps, episode.sandbox)
    episode.act(bash("python reproduce.py"))
    episode.act(bash("python -m pytest -q"))
    after = Expert(5).act(episode.instance, episode.steps, episode.sandbox)
    assert before.action.tool == "bash"
    assert after.action.tool == "submit" or after.action == bash("git diff")


def test_equal_seeds_act_equally_and_others_differ(begin: Begin) -> None:
    def run(seed: int) -> list[tuple[str, str]]:
        steps = begin("minirouter-2").finish(Expert(seed))
        return [(step.thought, step.action.text if step.action else "") for step in steps]

    first, again, other = run(0), run(0), run(1)
    assert first == again
    assert [call for _, call in first] != [call for _, call in other]


def test_asking_the_expert_leaves_the_sandbox_as_it_is(begin: Begin) -> None:
    episode = begin("inikit-1")
    episode.act(bash("cd inikit && export A=1 && touch new.py"))
    shown = "pwd; echo $A; git -C /testbed status --short; ls -a /testbed /tmp; cat .git/index"
    before = episode.sandbox.exec(shown).output
    answer = Expert(0).act(episode.instance, episode.steps, episode.sandbox)
    assert episode.sandbox.exec(shown).output == before
    assert answer == Expert(0).act(episode.instance, episode.steps, episode.sandbox)


def test_the_state_is_read_from_the_sandbox_whatever_the_history_shows(begin: Begin) -> None:
    episode, expert = begin("intervals-2"), Expert(0)
    gold = INSTANCES["intervals-2"].gold_patch
    expert.act(episode.instance, [], episode.sandbox)
    episode.sandbox.write_file("/tmp/gold.diff", gold.encode())
    episode.sandbox.exec("git apply /tmp/gold.diff")
    (held,) = expert._golds.values()
    assert read_tree(held, episode.instance, episode.sandbox).is_fixed
    made = episode.finish(expert)
    assert "str_replace" not in commands(made)
    assert made[-1].action == Action("submit")
