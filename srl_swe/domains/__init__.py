"""Domains: the fields of problems that the method works on, by name.

Step contexts, rewards, sampling, trainers and reports are the same for all domains. A domain reads
its experts' solutions, makes their steps, writes prompts, reads replies and verifies answers.
:class:`~srl_swe.domains.worked.WorkedDomain` does so for solutions that are texts; a new domain of
that kind is one file (docs/extending.md).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from srl_swe.dialects import Reply, Strictness
from srl_swe.domains.maths import MATH
from srl_swe.domains.software import SOFTWARE
from srl_swe.domains.worked import Problem, WorkedDomain, WorkedSettings
from srl_swe.errors import nearest_name
from srl_swe.instances import BENCHES
from srl_swe.plugins import find_named
from srl_swe.sandbox import OpenSandbox
from srl_swe.steps.contexts import Dropped, StepContext
from srl_swe.steps.prompt import CountTokens
from srl_swe.trajectories.fields import Reader
from srl_swe.types import Instance, Message, Trajectory, Verdict

__all__ = [
    "DOMAINS",
    "MATH",
    "SOFTWARE",
    "Domain",
    "Problem",
    "WorkedDomain",
    "WorkedSettings",
    "find_domain",
]


class Domain(Protocol):
    """One field of problems, as the method sees it."""

    @property
    def name(self) -> str:
        """Its name in configs, recipes and on the command line."""

    def reader(self, columns: Mapping[str, str]) -> Reader | None:
        """Reads a record of a source as a solution in steps.

        ``columns``: the record's columns by role. None: the format of each record is detected.
        """

    def make_steps(
        self, solution: Trajectory, settings: Any, count_tokens: CountTokens | None
    ) -> Iterator[StepContext | Dropped]:
        """One item per step: its example, or the reason why it has none."""

    def prompt(self, problem: Instance) -> list[Message]:
        """The messages that ask for a solution of the problem, before the first step."""

    def parse_reply(
        self, text: str, strictness: Strictness = "strict", *, think_opened: bool = False
    ) -> Reply:
        """The single step of a reply, or its fault. Never raises."""

    def verifier(
        self, open_sandbox: OpenSandbox, timeout_s: float
    ) -> Callable[[Instance, str], Verdict]:
        """Verifies the answer to a problem, which is a patch or a text; safe for threads.

        A broken sandbox is BROKEN_SANDBOX, never a wrong answer.
        """


DOMAINS: Mapping[str, Domain] = {"software": SOFTWARE, "math": MATH}
_MEMBERS = sorted(name for name in vars(Domain) if not name.startswith("_"))


def find_domain(name: str) -> Domain:
    """The domain of that name, or an extension (:mod:`srl_swe.plugins`).

    Raises UserError for an unknown name.
    """
    return DOMAINS.get(name) or find_named("domain", name, DOMAINS, needs=_MEMBERS)


def find_worked(name: str) -> WorkedDomain | None:
    """The domain of that name if its solutions are texts; None for ``software``.

    Raises UserError for an unknown name.
    """
    found = find_domain(name)
    return found if isinstance(found, WorkedDomain) else None


def domain_of_bench(bench: str) -> str:
    """The bundled domain whose problems the bench holds, even if misspelt; else ``software``."""
    is_near = not (bench in BENCHES or Path(bench).exists()) and nearest_name(bench, MATH.benches)
    return "math" if is_near or MATH.holds_problems(bench) else "software"
