"""RLVR by episodes: the policy acts through SweEnv, turn by turn, and the tests decide.

Uses TRL's ``rollout_func`` rather than its ``environment_factory``: replies stay text in our
dialect, which suits a policy without a tool-calling template, and containers open, act and test
in parallel, one thread per container (TRL opens environments one after the other).

An episode is one sequence of tokens; the mask is 1 for the policy's own:

    prompt | reply 1 | observation 1 | reply 2 | observation 2 | ... | reply N
             1 1 1 1   0 0 0 0 0 0 0   1 1 1 1   0 0 0 0 0 0 0         1 1 1 1    mask

Replies are the sampled tokens, never tokenized again. Observations get mask 0: training reads them
as sampling did, and no gradient flows from them.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import torch
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from srl_swe.errors import SandboxError
from srl_swe.rollout.decoding import PromptCache
from srl_swe.rollout.tokens import decode_reply
from srl_swe.swe_env import StepResult, SweEnv
from srl_swe.training.grpo_trainer import TOKENS_WRITTEN
from srl_swe.training.stats import Tested
from srl_swe.types import Instance, Message, Outcome, StopReason

Reply_contra = TypeVar("Reply_contra", contravariant=True)


class Playable(Protocol[Reply_contra]):
    """An episode with its own environment. Its methods run in threads, one call at a time."""

    env: SweEnv

    @property
    def is_over(self) -> bool:
        """Whether it takes no more replies."""
        ...

    def begin(self) -> None:
        """Open the sandbox; an episode whose sandbox fails to open is over."""
        ...

    def take(self, reply: Reply_contra) -> None:
        """Carry out a reply."""
        ...


Episode = TypeVar("Episode", bound=Playable[Any])


def play_in_lockstep(
    episodes: Sequence[Episode],
    sample: Callable[[Sequence[Episode], int], Sequence[Any]],
    accelerator: Any,
    workers: int,
    most: int,
) -> None:
    """Play all episodes to their ends, ``workers`` of them at once; called by every rank.

    ``most``: the largest number of episodes on any rank.
    ``sample(running, count)`` samples ``count`` replies, as many as on every other rank, and
    returns those of the ``running`` episodes.
    """
    with ThreadPoolExecutor(workers) as pool:
        for first in range(0, most, workers):
            chunk = episodes[first : first + workers]
            try:
                list(pool.map(lambda episode: episode.begin(), chunk))
                while True:
                    running = [episode for episode in chunk if not episode.is_over]
                    counts = torch.tensor([len(running)], device=accelerator.device)
                    count = int(accelerator.gather(counts).max())
                    if count == 0:
                        break
                    replies = sample(running, count)
                    list(pool.map(lambda episode, reply: episode.take(reply), running, replies))
            finally:
                list(pool.map(lambda episode: episode.env.close(), chunk))


_MARK = "\u2042reply\u2042"
"""Placeholder for a reply in a rendered template; occurs in no template."""


@dataclass(slots=True)
class EpisodeTokens:
    """``mask`` and ``logprobs`` have one number per token of ``completion``."""

    prompt: list[int]
    completion: list[int] = field(default_factory=list)
    mask: list[int] = field(default_factory=list)
    logprobs: list[float | None] = field(default_factory=list)
    """0.0 for observations, and for replies if the sampler gives none."""

    @property
    def all(self) -> list[int]:
        """The context of the next reply."""
        return [*self.prompt, *self.completion]

    def add_reply(self, ids: Sequence[int], logprobs: Sequence[float | None] | None) -> None:
        """Append a sampled reply."""
        self.completion += ids
        self.mask += [1] * len(ids)
        self.logprobs += [0.0] * len(ids) if logprobs is None else logprobs

    def add_observation(self, ids: Sequence[int]) -> None:
        """Append an observation, with the template's tokens around it."""
        self.completion += ids
        self.mask += [0] * len(ids)
        self.logprobs += [0.0] * len(ids)

    def hide(self, end: int) -> None:
        """Mask the whole completion; an empty one gets the token ``end``.

        TRL needs at least one token per sample, even if its sandbox never opened.
        """
        if not self.completion:
            self.add_observation([end])
        self.mask = [0] * len(self.mask)


class ChatTokens:
    """Tokens of a prompt and of the turns between replies, under a tokenizer's chat template.

    Threads take turns: concurrent calls of a fast tokenizer may raise "Already borrowed".
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        template_kwargs: Mapping[str, Any],
        end_ids: Sequence[int] = (),
    ) -> None:
        """``end_ids``: the tokens that end a reply; if empty, any special token does."""
        self._tokenizer: Any = tokenizer
        self._template_kwargs = template_kwargs
        self._end_ids = end_ids
        ends = end_ids or [self._tokenizer.eos_token_id]
        tokens = tokenizer.convert_ids_to_tokens(list(ends))
        self._end = re.compile("|".join(re.escape(str(token)) for token in tokens))
        self._lock = threading.Lock()

    @property
    def eos_token_id(self) -> int:
        """The tokenizer's end of sequence."""
        return int(self._tokenizer.eos_token_id)

    def prompt(self, messages: Sequence[Message]) -> list[int]:
        """The first prompt, up to where a reply begins."""
        with self._lock:
            return list(self._render(messages, tokenize=True, return_dict=False))

    def read(self, reply: Sequence[int]) -> tuple[str, bool]:
        """The text of a reply, and whether the policy ended it."""
        with self._lock:
            return decode_reply(self._tokenizer, reply, self._end_ids)

    def between(self, observation: str) -> list[int]:
        """The tokens between the end of a reply and the start of the next."""
        turn = [{"role": "user", "content": "."}, {"role": "assistant", "content": _MARK}]
        answered = [*turn, {"role": "user", "content": observation}]
        with self._lock:
            tail = str(self._render(answered, tokenize=False)).partition(_MARK)[2]
            end = self._end.search(tail)
            if end and not tail[: end.start()].strip():  # the reply has its end already
                tail = tail[end.end() :]
            return list(self._tokenizer(tail, add_special_tokens=False)["input_ids"])

    def _render(self, messages: Sequence[Any], **options: Any) -> Any:
        return self._tokenizer.apply_chat_template(
            list(messages), add_generation_prompt=True, **options, **self._template_kwargs
        )


def episode_dataset(instances: Sequence[Instance]) -> Dataset:
    """One row per instance. TRL's prompt column holds its id; the first turn renders the prompt."""
    ids = [instance.instance_id for instance in instances]
    return Dataset.from_dict({"prompt": ids, "instance_id": ids})


@dataclass
class EpisodeRollout:
    """A ``rollout_func`` for GRPOTrainer, and the reward function of its episodes.

    An episode ends with TOKEN_LIMIT if its context outgrows ``longest_context``, which leaves room
    for one more whole reply, or if a reply is cut; a cut reply is not carried out. ``workers``
    episodes run at once; the next wave starts when all of them have ended.
    """

    __name__ = "tests"

    instances: Mapping[str, Instance]
    make_env: Callable[[Sequence[Instance]], SweEnv]
    chat: ChatTokens
    longest_context: int
    workers: int
    tested: list[Tested] = field(default_factory=list)
    """This rank's episodes; emptied by the trainer when it logs them."""

    def rollout(self, prompts: Sequence[str], trainer: Any) -> dict[str, Any]:
        """Play one episode per instance id; the ``rollout_func`` of TRL 1.16."""
        longest = self.longest_context
        environments = (self.make_env([self.instances[name]]) for name in prompts)
        attempts = [
            _Attempt(name, environment, self.chat, longest)
            for name, environment in zip(prompts, environments, strict=True)
        ]

        def sample(running: Sequence[_Attempt], count: int) -> list[_Sampled]:
            """A collective, and vLLM's server takes equally many prompts from each rank."""
            spare = [[self.chat.eos_token_id]] * (count - len(running))
            contexts = [*(attempt.tokens.all for attempt in running), *spare]
            replies, logprobs = trainer._generate_single_turn(contexts, None, {}, num_generations=1)
            return list(zip(replies, logprobs or [None] * count, strict=True))[: len(running)]

        trainer.known_prompts = PromptCache()  # a turn begins like the one before it
        try:
            play_in_lockstep(attempts, sample, trainer.accelerator, self.workers, len(prompts))
        finally:
            trainer.known_prompts = None  # the weights change
        written = [sum(attempt.tokens.mask) for attempt in attempts]
        for attempt in attempts:
            attempt.hide_untaught(masks_truncated=trainer.mask_truncated_completions)
        tested = [attempt.tested for attempt in attempts if attempt.tested]
        self.tested += tested
        return {
            "prompt_ids": [attempt.tokens.prompt for attempt in attempts],
            "completion_ids": [attempt.tokens.completion for attempt in attempts],
            "logprobs": [a.tokens.logprobs for a in attempts] if trainer.use_vllm else None,
            "env_mask": [attempt.tokens.mask for attempt in attempts],
            "tested": tested,
            TOKENS_WRITTEN: written,
        }

    def __call__(self, *, tested: Sequence[Tested], log_extra: Any, **_: Any) -> list[float | None]:
        """The reward function: the tests' reward of each episode, None if its sandbox broke."""
        for name in ("ended", "steps", "detail"):
            log_extra(name, [getattr(result, name) for result in tested])
        log_extra("outcome", [result.outcome.value for result in tested])
        return [result.reward for result in tested]


_Sampled = tuple[list[int], list[float | None] | None]
"""Token ids of a reply and their log-probabilities, if the sampler gives any."""


class _Attempt:
    """One episode and its tokens; ``tested`` once it is over."""

    def __init__(self, instance_id: str, env: SweEnv, chat: ChatTokens, longest: int) -> None:
        """``longest``: the longest context that leaves room for a reply."""
        self.env = env
        self.tokens = EpisodeTokens([])
        self.tested: Tested | None = None
        self._instance_id = instance_id
        self._chat = chat
        self._longest_context = longest

    @property
    def is_over(self) -> bool:
        return self.tested is not None

    def begin(self) -> None:
        try:
            _, info = self.env.reset(options={"instance_id": self._instance_id})
        except SandboxError as error:
            self.tokens = EpisodeTokens([self._chat.eos_token_id])
            ended = StopReason.SANDBOX_ERROR.value
            self.tested = Tested(
                self._instance_id, None, Outcome.BROKEN_SANDBOX, ended, True, 0, str(error)
            )
            return
        self.tokens = EpisodeTokens(self._chat.prompt(info["messages"]))
        self._stop_without_room(self.tokens.prompt)

    def take(self, reply: _Sampled) -> None:
        """Carry out one reply and append it and its observation to the tokens."""
        ids, logprobs = reply
        text, ended = self._chat.read(ids)
        self.tokens.add_reply(ids, logprobs)
        if not ended:
            self._end(self.env.stop(StopReason.TOKEN_LIMIT))
            return
        result = self.env.step(text)
        if result[2] or result[3]:
            self._end(result)
            return
        seen = self._chat.between(result[4]["messages"][-1]["content"])
        if not self._stop_without_room([*self.tokens.all, *seen]):
            self.tokens.add_observation(seen)

    def hide_untaught(self, *, masks_truncated: bool) -> None:
        """Mask an episode without a reward or a token, or a truncated one if asked to."""
        assert self.tested is not None, "every episode ends"
        cut = self.tested.truncated and masks_truncated
        if self.tested.reward is None or cut or not self.tokens.completion:
            self.tokens.hide(self._chat.eos_token_id)

    def _stop_without_room(self, context: Sequence[int]) -> bool:
        full = len(context) > self._longest_context
        if full:
            self._end(self.env.stop(StopReason.TOKEN_LIMIT))
        return full

    def _end(self, result: StepResult) -> None:
        _, reward, _, truncated, info = result
        broken = info.get("broken")
        self.tested = Tested(
            instance_id=self._instance_id,
            reward=None if broken is not None else reward,
            outcome=info["verdict"].outcome,
            ended=info["reason"].value,
            truncated=truncated,
            steps=len(info["trajectory"].steps),
            detail=info["verdict"].detail,
        )
