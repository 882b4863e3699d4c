"""Makes an attempt from a policy's name: weights, prompting and limits of a run of rollouts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from srl_swe.dialects import BUNDLED, ReplyFormat, Strictness, get_dialect
from srl_swe.errors import UserError
from srl_swe.progress import say
from srl_swe.rollout.agentless import Agentless
from srl_swe.rollout.attempts import Setting
from srl_swe.rollout.endpoint import Endpoint, VllmSettings, serve_by_vllm
from srl_swe.rollout.episode import Agent, Attempt, EpisodeLimits, Policy, Rules
from srl_swe.rollout.prompting import Prompting, differences, load_prompting, version_of_text
from srl_swe.rollout.repair import SYSTEM_PROMPT as REPAIR_PROMPT
from srl_swe.rollout.tokens import check_thought
from srl_swe.rollout.weights import find_weights
from srl_swe.steps.prompt import PAPER_WINDOW
from srl_swe.tools import find_tool

if TYPE_CHECKING:
    from srl_swe.rollout.local_policy import LocalPolicy
    from srl_swe.rollout.served_policy import ServedPolicy


Answers = Callable[[Policy], Attempt]
"""Makes the attempt of the setting ``answer`` of an opened policy."""


@dataclass(frozen=True, slots=True)
class AgentSettings:
    """Settings that turn a policy into an agent; all of them affect results.

    ``weights``: the fingerprint of the policy. ``tools``: names of the user's own tools.
    """

    weights: str
    prompting: Prompting
    max_steps: int = 40
    max_new_tokens: int = 1024
    temperature: float = 0.0
    tools: tuple[str, ...] = ()
    seed: int = 0

    def of(self, policy: str | Endpoint) -> dict[str, object]:
        """The settings with the policy, for a run's config."""
        decisive: dict[str, object] = asdict(self)
        for name in ("tools", "seed"):
            if not decisive[name]:
                del decisive[name]  # not known to folders of older versions
        if isinstance(policy, Endpoint):
            return {**decisive, "policy": policy.model, "endpoint": policy.decisive}
        return {**decisive, "policy": policy}


def agent_settings(
    policy: str | Endpoint,
    *,
    setting: Setting = Setting.AGENT,
    max_steps: int = 40,
    max_new_tokens: int | None = None,
    temperature: float = 0.0,
    pairs: int | None = None,
    observation_chars: int | None = None,
    thoughts: str | None = None,
    dialect: str | None = None,
    strictness: Strictness | None = None,
    tools: tuple[str, ...] = (),
    seed: int = 0,
    template: Mapping[str, Any] | None = None,
) -> AgentSettings:
    """Settings of a run; a policy is prompted as it was trained if an argument is None.

    ``template``: variables of the chat template, besides those of the training. ``max_new_tokens``:
    None is that of the setting. The training of a served policy is known by its tokenizer's folder;
    its weights are not, and the model's name stands for them.

    Warns if the arguments differ from that. Raises UserError for an unknown dialect or a missing
    policy, before torch is imported and anything is written.
    """
    if dialect is not None:
        get_dialect(dialect)
    for name in tools:
        find_tool(name)
    if isinstance(policy, Endpoint):
        weights, source = f"served:{policy.model}", policy.tokenizer
    else:
        weights, source = find_weights(policy).fingerprint, policy
    trained = load_prompting(source) if source else None
    if dialect is None and trained is not None and trained.dialect not in BUNDLED:
        # A name in a downloaded file must not import anything.
        raise UserError(
            f"{source} was trained in the dialect {trained.dialect!r} of an extension; give it by "
            "--dialect if you trust it."
        )
    known = trained or Prompting("xml", "lenient")
    chosen = dialect or known.dialect
    window = known.window or PAPER_WINDOW
    if pairs is not None:
        window = replace(window, pairs=None if pairs < 0 else pairs)
    if observation_chars is not None:
        window = replace(window, observation_chars=observation_chars)
    if thoughts is not None:
        window = replace(window, thoughts=thoughts == "keep")
    prompt = REPAIR_PROMPT if setting.edits_files else get_dialect(chosen).SYSTEM_PROMPT
    version = None if setting is Setting.ANSWER else version_of_text(prompt)  # else the domain's
    used = Prompting(
        chosen,
        strictness or known.strictness,
        window,
        version,
        {**known.template, **(template or {})},
    )
    if trained is not None and (differing := differences(trained, used)):
        say(f"warning: {source} is not prompted as it was trained: {differing}")
    new_tokens = max_new_tokens or setting.max_new_tokens
    return AgentSettings(weights, used, max_steps, new_tokens, temperature, tools, seed)


def policy_name(policy: str | Endpoint) -> str:
    """The name of the opened policy, without opening it. Raises UserError if it is missing."""
    return policy.model if isinstance(policy, Endpoint) else find_weights(policy).label


def make_agent(policy: str | Endpoint, settings: AgentSettings, batch_size: int = 1) -> Agent:
    """Load a local policy or connect to a served one, and prompt it by the settings.

    ``batch_size``: most replies that a local policy samples together.

    The window's tokens are those that the policy's context leaves beside a reply, unless training
    had fewer. Raises UserError if ``policy`` can't be loaded or reached, or if replies must hold a
    thought and its chat template leaves no room for one.
    """
    opened, prompting = _open_policy(policy, settings, batch_size), settings.prompting
    replies = ReplyFormat(
        get_dialect(prompting.dialect), prompting.strictness, opened.opening == "opened"
    )
    window, room = prompting.window or PAPER_WINDOW, _prompt_room(opened, settings)
    if room is not None:
        window = replace(window, token_budget=min(window.token_budget or room, room))
    limits = EpisodeLimits(steps=settings.max_steps)
    return Agent(opened, Rules(replies, window, limits, dict(map(find_tool, settings.tools))))


def make_attempt(
    policy: str | Endpoint,
    settings: AgentSettings,
    setting: Setting = Setting.AGENT,
    batch_size: int = 1,
    answering: Answers | None = None,
) -> Attempt:
    """The agent, or the same policy in a setting without actions: ``oracle`` or ``agentless``.

    ``answering`` makes the attempt of the setting ``answer``. The prompts of the others have all
    the tokens that the policy's context leaves beside a reply. Raises as :func:`make_agent`.
    """
    if setting is Setting.AGENT:
        return make_agent(policy, settings, batch_size)
    opened = _open_policy(policy, settings, batch_size)
    if answering is not None:
        return answering(opened)
    return Agentless(
        opened,
        settings.prompting.strictness,
        opened.opening == "opened",
        _prompt_room(opened, settings),
        oracle=setting is Setting.ORACLE,
    )


@contextmanager
def opening(
    policy: str | Endpoint,
    settings: AgentSettings,
    setting: Setting,
    batch_size: int,
    vllm: VllmSettings | None,
    logs: Path,
    answering: Answers | None = None,
) -> Iterator[Callable[[], Attempt]]:
    """Yields a function that opens the policy at its first call; it stays open inside the block.

    ``vllm``: servers of the run serve it, with their logs in ``logs``. ``answering``: as for
    :func:`make_attempt`. Raises UserError for a URL.
    """
    if vllm is not None and isinstance(policy, Endpoint):
        raise UserError("vLLM serves a folder or a hub model, not a URL.")
    with ExitStack() as stack:

        @cache
        def open_attempt() -> Attempt:
            opened = policy
            if vllm is not None and not isinstance(policy, Endpoint):
                opened = stack.enter_context(serve_by_vllm(policy, policy_name(policy), vllm, logs))
            return make_attempt(opened, settings, setting, batch_size, answering)

        yield open_attempt


def _open_policy(
    policy: str | Endpoint, settings: AgentSettings, batch_size: int
) -> ServedPolicy | LocalPolicy:
    sampling: dict[str, Any] = {
        "max_new_tokens": settings.max_new_tokens,
        "temperature": settings.temperature,
        "template": settings.prompting.template,
        "seed": settings.seed,
    }
    opened: ServedPolicy | LocalPolicy
    if isinstance(policy, Endpoint):
        from srl_swe.rollout.served_policy import ServedPolicy

        opened = ServedPolicy(policy, **sampling)
    else:
        from srl_swe.rollout.local_policy import LocalPolicy

        opened = LocalPolicy(policy, batch_size=batch_size, **sampling)
    check_thought(opened.name, opened.opening, settings.prompting.strictness)
    return opened


def _prompt_room(opened: ServedPolicy | LocalPolicy, settings: AgentSettings) -> int | None:
    """Tokens that the context leaves to a prompt; None if they are unknown or can't be counted."""
    context = opened.context_length
    if context is None or not opened.counts_tokens:
        return None
    return context - min(settings.max_new_tokens, context // 2)  # a longer reply is cut
