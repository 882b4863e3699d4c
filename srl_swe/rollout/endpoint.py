"""The OpenAI-compatible endpoint of a served policy: its address, its model, how to ask it."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeGuard

from srl_swe.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from openai import OpenAI

Api = Literal["chat", "completions"]
KEY_VARIABLE = "OPENAI_API_KEY"
_PROBE_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An OpenAI-compatible endpoint and how to ask it.

    ``url``: the base of its paths, such as ``http://localhost:8000/v1``. ``model``: its name
    there; empty: the only one served. ``api``: ``chat`` renders prompts on the server;
    ``completions`` renders them here, with the ``tokenizer``, as in training. ``tokenizer``: a
    folder or hub name, which also gives the prompting of a trained policy; empty: tokens are
    counted by the server if it is vLLM with ``/tokenize``, else not before a reply. ``context``:
    tokens; None: as the server reports. ``attempts``: at one request.
    """

    url: str
    model: str = ""
    api: Api = "chat"
    tokenizer: str = ""
    context: int | None = None
    timeout_s: float = 600.0
    attempts: int = 8
    requests_per_minute: float | None = None
    replicas: tuple[str, ...] = ()
    """More URLs that serve the same model."""
    is_vllm: bool = False
    tokenizes: bool = False
    """It and the line above are set by :func:`find_endpoint`. A gateway may hide ``/tokenize``."""

    @property
    def decisive(self) -> dict[str, object]:
        """The settings that affect replies, besides the model."""
        return {"api": self.api, "tokenizer": self.tokenizer, "context": self.context}


def is_served(policy: str | Path | Endpoint) -> TypeGuard[str | Endpoint]:
    """Whether the policy is an endpoint or the URL of one."""
    return isinstance(policy, Endpoint) or str(policy).startswith(("http://", "https://"))


def connect(url: str, timeout_s: float) -> OpenAI:
    """A client that tries nothing again; its key is ``OPENAI_API_KEY``, or none."""
    from openai import OpenAI

    key = os.environ.get(KEY_VARIABLE) or "none"
    return OpenAI(base_url=url, api_key=key, timeout=timeout_s, max_retries=0)


def find_endpoint(endpoint: str | Endpoint) -> Endpoint:
    """Ask the endpoint for its models; fills in its name, context and abilities.

    Raises UserError if it does not answer, refuses the key or does not serve the model, and if
    prompts are to be rendered here without a tokenizer.
    """
    asked = Endpoint(endpoint) if isinstance(endpoint, str) else endpoint
    if asked.api == "completions" and not asked.tokenizer:
        raise UserError("--api completions renders prompts here: name a --tokenizer.")
    served = _models(asked)
    if not served and asked.model:  # not every gateway lists its models
        return asked
    found = [model for model in served if asked.model in {"", model.id}]
    if len(found) != 1:
        names = [str(model.id) for model in served]
        listed = f" It serves {', '.join(names[:8])}." if names else ""
        if not asked.model:
            raise UserError(f"name the model at {asked.url} by --model.{listed}")
        hint = did_you_mean(asked.model, names) or listed
        raise UserError(f"{asked.url} does not serve {asked.model!r}.{hint}")
    (model,) = found
    context = asked.context or getattr(model, "max_model_len", None)
    is_vllm = getattr(model, "owned_by", None) == "vllm"
    tokenizes = is_vllm and not asked.tokenizer and _tokenizes(asked.url, model.id)
    return replace(asked, model=model.id, context=context, is_vllm=is_vllm, tokenizes=tokenizes)


def tokenize_url(url: str) -> str:
    """The address of vLLM's ``/tokenize``, which is not below ``/v1``."""
    return f"{url.rstrip('/').removesuffix('/v1')}/tokenize"


def _tokenizes(url: str, model: str) -> bool:
    import openai

    body = {"model": model, "prompt": "."}
    try:
        answer: Any = connect(url, _PROBE_TIMEOUT_S).post(
            tokenize_url(url), cast_to=object, body=body
        )
    except (openai.OpenAIError, ValueError):
        return False
    return isinstance(answer, dict) and "count" in answer


def _models(endpoint: Endpoint) -> list[Any]:
    """The endpoint's list of models; empty if it has no list."""
    import openai

    try:
        return list(connect(endpoint.url, _PROBE_TIMEOUT_S).models.list())
    except (openai.AuthenticationError, openai.PermissionDeniedError):
        raise UserError(f"{endpoint.url} refuses the key: set {KEY_VARIABLE}.") from None
    except openai.APIConnectionError as error:
        why = error.__cause__ or error
        raise UserError(f"no endpoint answers at {endpoint.url} ({why}).") from None
    except (openai.OpenAIError, AttributeError, TypeError, ValueError):
        return []
