"""A policy that an OpenAI-compatible endpoint serves: a vLLM server, a gateway, a hosted model.

Requests are tried again while a fault may pass (connection, time-out, 408, 409, 425, 429, 5xx),
after an exponential back-off or the server's ``Retry-After``.
"""

from __future__ import annotations

import json
import re
import threading
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

import openai
from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_attempt
from tenacity.wait import wait_exponential_jitter

from srl_swe.errors import PolicyError
from srl_swe.rollout.endpoint import Endpoint, connect, tokenize_url
from srl_swe.rollout.episode import Completion, PromptTooLong, room_for_reply
from srl_swe.rollout.tokens import Opening, TokenCounter, thought_opening, token_counter
from srl_swe.types import Message

Result = TypeVar("Result")
_THOUGHT_CUT = re.compile(r"(?!.*<think>.*</think>).*</think>", re.DOTALL)
"""A reply that ends a thought without having begun it."""
_OVERFLOW = re.compile(
    r"context_length_exceeded|(context|model).{0,20} length|context window|prompt is too long"
    r"|input.{0,20} too long|max_model_len",
    re.IGNORECASE,
)
"""Words of servers' answers to a prompt that exceeds the context, with status 400 or 413."""
_LIMITS = ("max_tokens", "max_completion_tokens")
_PASSING = frozenset({408, 409, 425, 429})
_BACK_OFF = wait_exponential_jitter(initial=1.0, max=60.0, jitter=1.0)
_MOST_WAIT_S = 600.0
_VLLM_PLAIN = {"top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0}
"""The model's own distribution: vLLM fills in a checkpoint's ``generation_config.json``."""


class ServedPolicy:
    """Asks an endpoint for replies; any number of threads at once.

    Replies are seeded by prompt and ``seed``, as far as the server honours seeds.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        max_new_tokens: int = 1024,
        temperature: float = 0.0,
        seed: int = 0,
        template: Mapping[str, Any] | None = None,
    ) -> None:
        """``endpoint``: from :func:`srl_swe.rollout.endpoint.find_endpoint`.

        ``template``: variables of the chat template, such as ``enable_thinking``.
        """
        self.name, self.context_length = endpoint.model, endpoint.context
        self._endpoint = endpoint
        self._sampling = {"temperature": temperature, "top_p": 1.0}
        self._max_new_tokens, self._seed = max_new_tokens, seed
        self._template = dict(template or {})
        self._clients: list[Any] = [
            connect(url, endpoint.timeout_s) for url in (endpoint.url, *endpoint.replicas)
        ]
        self._retrying = Retrying(
            retry=retry_if_exception(_may_pass),
            wait=_wait,
            stop=stop_after_attempt(endpoint.attempts),
            reraise=True,
        )
        self._pace = _Pace(endpoint.requests_per_minute)
        self._limit = _LIMITS[0]
        self._lock = threading.Lock()
        self._counter: TokenCounter | None = None
        if endpoint.tokenizer:
            tokenizer = token_counter(endpoint.tokenizer).tokenizer
            self._counter = TokenCounter(tokenizer, self._template)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled as its settings; its copies in a process share clients and one rate limit.

        The key is not among them: each machine takes it from its own environment.
        """
        temperature, template = self._sampling["temperature"], json.dumps(self._template)
        settings = (self._endpoint, self._max_new_tokens, temperature, template)
        return _policy_of_this_process, (settings, self._seed)

    @property
    def opening(self) -> Opening:
        """The thought in the generation prompt; ``none`` without a tokenizer."""
        if self._counter is None:
            return "none"
        return thought_opening(self._counter.tokenizer, self._template)

    @property
    def counts_tokens(self) -> bool:
        """Whether prompts can be counted before they are sent."""
        return self._counter is not None or self._endpoint.tokenizes

    def count_tokens(self, messages: Sequence[Message]) -> int:
        """Tokens of the prompt, by the tokenizer or the server. Raises PolicyError."""
        if self._counter is not None:
            with self._lock:
                return self._counter(messages)
        body = {
            "model": self.name,
            "messages": list(messages),
            "add_generation_prompt": True,
            "chat_template_kwargs": self._template,
        }
        url = tokenize_url(self._endpoint.url)
        answer: Any = self._ask(lambda: self._clients[0].post(url, cast_to=object, body=body))
        try:
            return int(answer["count"])
        except (LookupError, TypeError, ValueError):
            raise PolicyError(f"{url} answered without a count") from None

    def reply(self, messages: Sequence[Message]) -> Completion:
        """Sample one reply. A thought that the server returns apart is put before it.

        Raises PromptTooLong if the prompt exceeds the context, and PolicyError if the endpoint
        fails for good.
        """
        room = self._max_new_tokens
        if self.context_length is not None and self.counts_tokens:
            room = room_for_reply(self.count_tokens(messages), self.context_length, room)
        options = {
            **self._sampling,
            "model": self.name,
            "seed": zlib.crc32(repr((self._seed, list(messages))).encode()),
            **self._extras(),
        }
        answer = self._ask(lambda: self._send(messages, room, options))
        try:
            choice, used = answer["choices"][0], answer.get("usage") or {}
            is_chat = self._endpoint.api == "chat"
            return Completion(
                _text(choice["message"]) if is_chat else choice["text"] or "",
                int(used.get("prompt_tokens") or 0),
                int(used.get("completion_tokens") or 0),
                truncated=choice.get("finish_reason") == "length",
            )
        except (AttributeError, LookupError, TypeError, ValueError):
            raise PolicyError(f"{self._endpoint.url} answered without a reply") from None

    def with_seed(self, seed: int) -> ServedPolicy:
        """The same clients and rate limit with another seed."""
        other = object.__new__(ServedPolicy)
        other.__dict__.update(self.__dict__, _seed=seed)
        return other

    def _send(self, messages: Sequence[Message], room: int, options: Mapping[str, Any]) -> Any:
        """The answer's JSON.

        Posted as it is: the typed calls of the package walk through every message of a prompt,
        which takes three times as long as the request.
        """
        episode = zlib.crc32(repr(messages[:2]).encode())
        client = self._clients[episode % len(self._clients)]  # the replica that caches its prefix
        if self._endpoint.api == "completions":
            assert self._counter is not None
            with self._lock:
                prompt = self._counter.render(messages)
            body = {"prompt": prompt, "max_tokens": room, **options}
            return client.post("/completions", cast_to=object, body=body)
        limit = self._limit  # another thread may change it meanwhile
        body = {"messages": list(messages), limit: room, **options}
        try:
            return client.post("/chat/completions", cast_to=object, body=body)
        except openai.BadRequestError as error:
            if limit in _LIMITS[1:] or _LIMITS[1] not in str(error):
                raise
            self._limit = _LIMITS[1]  # OpenAI's reasoning models refuse the older name
            return self._send(messages, room, options)

    def _extras(self) -> dict[str, Any]:
        """Fields that not every server knows: those of vLLM, and the chat template's variables."""
        is_chat = self._endpoint.api == "chat"
        if not self._endpoint.is_vllm:
            return {"chat_template_kwargs": self._template} if is_chat and self._template else {}
        own = {"chat_template_kwargs": self._template} if is_chat else {"add_special_tokens": False}
        return {**_VLLM_PLAIN, **own}

    def _ask(self, send: Callable[[], Result]) -> Result:
        def paced() -> Result:
            self._pace.wait()
            return send()

        try:
            return self._retrying.copy()(paced)
        except openai.APIStatusError as error:
            if error.status_code in {400, 413} and _OVERFLOW.search(f"{error.code} {error}"):
                raise PromptTooLong(_line(error)) from None
            raise PolicyError(_line(error)) from None
        except (openai.OpenAIError, ValueError) as error:
            raise PolicyError(_line(error)) from None


_Settings = tuple[Endpoint, int, float, str]
_made: dict[_Settings, ServedPolicy] = {}
_making = threading.Lock()


def _policy_of_this_process(settings: _Settings, seed: int) -> ServedPolicy:
    with _making:
        if settings not in _made:
            endpoint, most, temperature, template = settings
            _made[settings] = ServedPolicy(
                endpoint,
                max_new_tokens=most,
                temperature=temperature,
                template=json.loads(template),
            )
    return _made[settings].with_seed(seed)


def _text(message: Mapping[str, Any]) -> str:
    """The reply in one text. A server with a reasoning parser returns the thought apart.

    Without a parser, a chat template that opens the thought leaves only its end in the reply.
    """
    content = message.get("content") or ""
    thought = message.get("reasoning_content") or message.get("reasoning")
    if thought:
        return f"<think>\n{thought.strip()}\n</think>\n\n{content.strip()}"
    return f"<think>{content}" if _THOUGHT_CUT.match(content) else content


def _may_pass(error: BaseException) -> bool:
    """Whether the same request may succeed later."""
    if isinstance(error, openai.APIStatusError):
        is_spent = getattr(error, "code", None) == "insufficient_quota"
        return not is_spent and (error.status_code in _PASSING or error.status_code >= 500)
    return isinstance(error, openai.APIConnectionError)


def _wait(state: RetryCallState) -> float:
    """Seconds before the next attempt: the server's ``Retry-After``, or an exponential back-off."""
    error: Any = state.outcome.exception() if state.outcome else None
    asked = error.response.headers.get("retry-after") if hasattr(error, "response") else None
    with suppress(TypeError, ValueError):
        return min(max(_seconds(asked), 0.0), _MOST_WAIT_S)
    return float(_BACK_OFF(state))


def _seconds(retry_after: Any) -> float:
    """Seconds of a ``Retry-After``, a number or a date. Raises TypeError or ValueError."""
    try:
        return float(retry_after)
    except ValueError:
        return (parsedate_to_datetime(retry_after) - datetime.now(UTC)).total_seconds()


def _line(error: Exception) -> str:
    """The error in one line, with the status and without the request."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:500]}"


class _Pace:
    """Spreads requests evenly over each minute; without a limit it does nothing."""

    def __init__(self, per_minute: float | None) -> None:
        self._gap_s = 60.0 / per_minute if per_minute else 0.0
        self._next = 0.0
        self._lock = threading.Lock()

    def wait(self) -> None:
        """Sleep until the next free slot."""
        with self._lock:
            now = time.monotonic()
            slot = max(self._next, now)
            self._next = slot + self._gap_s
        time.sleep(slot - now)
