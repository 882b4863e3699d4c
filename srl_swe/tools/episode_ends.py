"""The tools that end an episode, or say what comes before its end: submit, finish, think."""

from __future__ import annotations

import shlex
from collections.abc import Mapping

from srl_swe.sandbox import DIFF_TIMEOUT_S, Sandbox
from srl_swe.types import Observation

_PATCH_FILE = "/tmp/.srl_swe.patch"
_REVIEW = """\
Thank you for your work on this issue. Please carefully follow the steps below to help review \
your changes.

1. If you made any changes to your code after running the reproduction script, please run the \
reproduction script again.
  If the reproduction script is failing, please revisit your changes and make sure they are \
correct.
  If you have already removed your reproduction script, please ignore this step.
2. Remove your reproduction script (if you haven't done so already).
3. If you have modified any TEST files, please revert them to the state they had before you \
started fixing the issue.
  You can do this with `git checkout -- /path/to/test/file.py`. Use below <diff> to find the \
files you need to revert.
4. Run the submit command again to confirm.

Here is a list of all of your changes:

<diff>
{diff}
</diff>
"""


def submit(arguments: Mapping[str, str], sandbox: Sandbox) -> Observation:
    """Do nothing: the caller takes the diff, and ends the episode."""
    return Observation("Submitted.")


class SubmitOfSweAgent:
    """SWE-agent's ``submit``, which answers with the patch, where asked to after a review.

    The review (``tools/review_on_submit_m``) shows the diff so far and asks to submit again.
    """

    def __init__(self, workdir: str, *, reviews: bool) -> None:
        self._workdir = workdir
        self._reviews_left = int(reviews)

    def __call__(self, arguments: Mapping[str, str], sandbox: Sandbox) -> Observation:
        """The review or the patch; all files are staged, as SWE-agent does it."""
        patch = _staged_diff(sandbox, self._workdir)
        if self._reviews_left:
            self._reviews_left -= 1
            return Observation(_REVIEW.format(diff=patch))
        return Observation(f"\n{patch}")


def _staged_diff(sandbox: Sandbox, workdir: str) -> str:
    """The text that the policy reads; the patch that counts is taken by ``take_patch``.

    It travels by file, as the output of a command may be cut. Empty if git refuses.
    """
    git = f"command git -C {shlex.quote(workdir)}"
    shown = "--cached --no-color --no-ext-diff --src-prefix=a/ --dst-prefix=b/ HEAD"
    command = f"{git} add -A && {git} diff {shown} > {_PATCH_FILE}"
    if sandbox.exec(command, DIFF_TIMEOUT_S, keep_state=False).exit_code != 0:
        return ""
    try:
        return sandbox.read_file(_PATCH_FILE).decode("utf-8", errors="replace")
    except OSError:
        return ""


def finish_of_r2e(arguments: Mapping[str, str], sandbox: Sandbox) -> Observation:
    """R2E's ``finish`` and SWE-Master's ``submit``, in the words that R2E's harness answers."""
    return Observation("<<< Finished >>>")


def finish(arguments: Mapping[str, str], sandbox: Sandbox) -> Observation:
    """OpenHands's: the message is for the user, and the episode is over."""
    return Observation("")


def think(arguments: Mapping[str, str], sandbox: Sandbox) -> Observation:
    """OpenHands's: the thought is the argument."""
    return Observation("Your thought has been logged.")


def keep_list(arguments: Mapping[str, str], sandbox: Sandbox) -> Observation:
    """OpenHands's ``task_tracker``: a list that only the policy itself reads."""
    if arguments.get("command") == "view":
        return Observation('No task list found. Use the "plan" command to create one.')
    return Observation("Task list has been updated.")
