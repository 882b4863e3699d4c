from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from srl_swe.replay.normalise import RULES, Cause, apply_rules, harmless_cause


@pytest.mark.parametrize(
    ("rule", "recorded", "fresh", "cause"),
    [
        # by name of the rule: twice the same event; the first is out of the sample that is named
        ("terminal sequence", "\x1b[31mred\x1b[0m", "red", Cause.TERMINAL),
        ("carriage return", "<p>\r\n</p>", "<p>\n</p>", Cause.TERMINAL),  # swesmith_trajectories_hf
        (
            "lines about the shell",  # openhands_output_jsonl
            "ok\n[Current working directory: /app]\n[Python interpreter: /opt/venv/bin/python]"
            "\n[Command finished with exit code 0]",
            "ok\n[Command finished with exit code 0]",
            Cause.FRAME,
        ),
        (
            "prompt",  # swegym_openhands_sampled_raw
            "ok\nroot@openhands-workspace:/workspace/python__mypy__1.6 # ",
            "ok",
            Cause.FRAME,
        ),
        (
            "prompt with the open file",  # sweagent_v0_thought_action
            "ok\n(Open file: /a/src/x.py)\n(Current directory: /a)\nbash-$",
            "ok\n(Open file: n/a)\n(Current directory: /a)\nbash-$",
            Cause.FRAME,
        ),
        (
            "no output",
            "Your command ran successfully and did not produce any output.",
            "",
            Cause.FRAME,
        ),
        (
            "NeMo's line about a failed command",  # mini_v2_responses_api_nemo
            "grep: x.py: No such file or directory\nCommandExecError: 2",
            "grep: x.py: No such file or directory",
            Cause.FRAME,
        ),
        (
            "ls -l of a folder",  # mini_v1_full
            "drwxrwxrwx  1 root root  4096 Mar  2  2025 doc",
            "drwxrwxrwx. 9 me   me   16384 Nov 18 23:59 doc",
            Cause.FILE_METADATA,
        ),
        (
            "ls -l of a file",  # mini_v1_full
            "-rw-r--r--  1 root root  2984 Mar  2  2025 .appveyor.yml",
            "-rw-r--r--. 1 root root 2984 Sep 10 12:10 .appveyor.yml",
            Cause.FILE_METADATA,
        ),
        ("ls -l's total", "total 364", "total 12", Cause.FILE_METADATA),
        (
            "date and time",  # mini_v1_full, matplotlib-24637: `cat example.svg`
            "<dc:date>2025-11-19T00:02:52.423890</dc:date>",
            "<dc:date>2026-01-02T03:04:05.678901</dc:date>",
            Cause.TIME,
        ),
        (
            "date in words",
            "Date:   Tue Nov 18 23:59:01 2025 +0000",
            "Date:   Fri Jan 2 03:04:05 2026 +0000",
            Cause.TIME,
        ),
        (
            "pytest's long duration",
            "== 852 passed in 75.20s (0:01:15) ==",
            "== 852 passed in 61.80s (0:01:01) ==",
            Cause.DURATION,
        ),
        ("clock", "[12:34:34] start", "[01:02:03] start", Cause.TIME),
        ("duration in minutes", "real\t0m0.123s", "real\t1m2.004s", Cause.DURATION),
        ("duration", "Ran 60 tests in 0.733s", "Ran 60 tests in 1.2s", Cause.DURATION),
        (
            "address",  # swesmith_trajectories_hf
            "self = <moto.athena.models.AthenaBackend object at 0x716794a21520>",
            "self = <moto.athena.models.AthenaBackend object at 0x7fe41df8c370>",
            Cause.ADDRESS,
        ),
        (
            "pytest's temporary folder",  # openai_responses_other_agents
            "base tempdir: /tmp/pytest-of-root/pytest-0",
            "base tempdir: /tmp/pytest-of-root/pytest-3",
            Cause.TEMPORARY_PATH,
        ),
        (
            "temporary path",  # openai_responses_other_agents
            "The full traceback has been saved in /tmp/sphinx-err-eetn54og.log",
            "The full traceback has been saved in /tmp/sphinx-err-0k_3xqpz.log",
            Cause.TEMPORARY_PATH,
        ),
        ("temporary name", "in tmpab12cd34/x", "in tmpzz99yy88/x", Cause.TEMPORARY_PATH),
        ("job", "[1] 4711", "[1] 42", Cause.PROCESS_ID),
        ("process id", "worker pid: 4711", "worker pid: 42", Cause.PROCESS_ID),
        ("process id of valgrind", "==4711== HEAP", "==42== HEAP", Cause.PROCESS_ID),
        (
            "git's index line",  # mini_v1_full, scikit-learn-14141
            "index e5d3141bf..ecba9ec68 100644",
            "index e5d3141b..ecba9ec6 100644",
            Cause.HASH,
        ),
        ("hash of a commit made now", "[main 1a2b3c4] fix", "[main 9f8e7d6c] fix", Cause.HASH),
        (
            "marks below a line of a traceback",  # sweagent_v0, pydicom-1458, under Python 3.11
            "    arr = ds.pixel_array\nKeyError: 'PixelData'",
            "    arr = ds.pixel_array\n          ^^^^^^^^^^^^^^\nKeyError: 'PixelData'",
            Cause.VERSIONS,
        ),
        (
            "pytest's percentage",
            "tests/test_show_versions.py ...                            [100%]",
            "tests/test_show_versions.py ...   [100%]",
            Cause.TERMINAL,
        ),
        (
            "pytest's bar",  # mini_v1_full, scikit-learn-14141
            "============================== 3 passed in 0.38s ===============================",
            "======================== 3 passed in 0.38s =========================",
            Cause.TERMINAL,
        ),
        ("empty bar", "-" * 70, "-" * 60, Cause.TERMINAL),
        ("trailing space", "a  \nb", "a\nb", Cause.TERMINAL),
    ],
)
def test_a_harmless_difference_is_forgiven_and_named(
    rule: str, recorded: str, fresh: str, cause: Cause
) -> None:
    """Twice the same event, under the rule's name; the sample of the first is named."""
    then, now = apply_rules(recorded), apply_rules(fresh)
    assert then.text == now.text
    assert harmless_cause(then, now) is cause
    assert then.taken[rule] != now.taken[rule]


def test_each_rule_has_an_example() -> None:
    (table,) = test_a_harmless_difference_is_forgiven_and_named.pytestmark  # type: ignore[attr-defined]
    assert [example[0] for example in table.args[1]] == [rule.name for rule in RULES]


@pytest.mark.parametrize(
    ("recorded", "fresh"),
    [
        ("2 passed in 0.1s", "3 passed in 0.1s"),
        ("-rw-r--r-- 1 root root 10 Mar  2  2025 a", "-rw-r--r-- 1 root root 11 Mar  2  2025 a"),
        ("drwxr-xr-x 1 root root 10 Mar  2  2025 a", "drwxr-xr-x 1 root root 10 Mar  2  2025 b"),
        ("date(2019, 1, 1)", "date(2020, 1, 1)"),
        ("2019-01-01", "2020-01-01"),
        ("x = 0x10", "x = 0x20"),
        ("commit 1111111111111111111111111111111111111111", "commit 2" + "1" * 39),
        ("exit 1", "exit 2"),
    ],
)
def test_other_differences_are_not(recorded: str, fresh: str) -> None:
    assert apply_rules(recorded).text != apply_rules(fresh).text


SCRAPS = ("\x1b", "[", "0x", "a1", " ", "\n", "\r", "=", "==", "1.5", "s", "/tmp/", "12:00:00", "d")
MATCHES = st.one_of(*(st.from_regex(rule.pattern) for rule in RULES))


@pytest.mark.slow
@given(st.lists(st.one_of(MATCHES, st.sampled_from(SCRAPS), st.text(max_size=5)), max_size=8))
def test_normalising_is_idempotent(pieces: list[str]) -> None:
    once = apply_rules("".join(pieces)).text
    assert apply_rules(once).text == once


def test_a_long_row_of_blanks_takes_no_longer_than_other_text() -> None:
    started = time.process_time()
    assert apply_rules(" " * 200_000 + "x" + "\t " * 100_000 + "y").text != "x y"
    assert time.process_time() - started < 10  # a rule that begins anew at each takes minutes


@given(st.text())
def test_nothing_is_taken_out_of_plain_words(text: str) -> None:
    words = " ".join(re.findall(r"[g-z]{4,8}", text)) or "words"
    if not words.startswith("tmp") and " tmp" not in words:
        assert apply_rules(words).text == words
