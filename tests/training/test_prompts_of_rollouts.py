"""A policy reads in a rollout what it read in training, token for token, however it is served."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from datasets import load_from_disk
from transformers import AutoTokenizer
from trl import GRPOConfig

from srl_swe.dialects import get_dialect
from srl_swe.rollout import Agent, rollout
from srl_swe.rollout.agents import agent_settings, make_agent
from srl_swe.rollout.endpoint import Endpoint, find_endpoint
from srl_swe.rollout.episode import Completion
from srl_swe.rollout.prompting import FILE, dump_prompting
from srl_swe.sandbox import ExecResult
from srl_swe.steps import StepSettings, save_step_contexts
from srl_swe.steps.contexts import StepContext, make_step_contexts
from srl_swe.steps.prompt import PAPER_WINDOW, Window
from srl_swe.testing import FakeSandbox
from srl_swe.training.recipe import SrlRecipe
from srl_swe.training.run_folder import trained_prompting
from srl_swe.training.tiny_policy import make_tiny_policy
from srl_swe.types import Action, Instance, Message, Observation, Step, Trajectory

from ..openai_server import OpenAiServer, reply
from .conftest import SRL_TRAINER, RecordingTrainer

pytestmark = pytest.mark.train

Prompts = set[tuple[int, ...]]
XML = get_dialect("xml")
PRINTED = "one\ntwo " + "three " * 200
TRAJECTORY = Trajectory(
    "tiny__tests-0",
    tuple(
        Step(f"thought {number}", Action("bash", {"command": f"ls {number}"}), Observation(PRINTED))
        for number in range(4)
    ),
    "It is broken.",
)
INSTANCE = Instance(TRAJECTORY.instance_id, "a/b", "HEAD", "It is broken.", "image")
THINKS = "{% if add_generation_prompt and thinks %}<think>\n{% endif %}"
VLLM = [{"id": "m", "object": "model", "owned_by": "vllm", "max_model_len": 4096}]


@dataclass(frozen=True)
class Trained:
    """A policy, and the prompts that TRL tokenized in its training."""

    folder: Path
    prompts: Prompts


@pytest.fixture(
    scope="module",
    params=[
        (PAPER_WINDOW, {}),
        (Window(pairs=1, observation_chars=60), {"thinks": True}),
        (Window(pairs=None, thoughts=True), {"thinks": False}),
    ],
    ids=["paper", "one short pair, a thought is opened", "the whole past with thoughts"],
)
def trained(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    window, template = request.param
    contexts = [
        made
        for made in make_step_contexts(TRAJECTORY, XML, window)
        if isinstance(made, StepContext)  # the last step is not a target
    ]
    folder = tmp_path_factory.mktemp("prompts")
    settings = dataclasses.asdict(StepSettings(window=window))
    save_step_contexts(contexts, folder / "steps", "card", settings)
    texts = [message["content"] for each in contexts for message in each.prompt]
    policy = make_tiny_policy(texts, folder / "policy", vocab_size=600, hidden=64, layers=1)
    chat_template = policy / "chat_template.jinja"
    chat_template.write_text(chat_template.read_text("utf-8") + THINKS)
    trainer = {"chat_template_kwargs": template} if template else {}
    recipe = SrlRecipe(str(policy), str(folder / "steps"), str(folder / "run"), trainer=trainer)
    (policy / FILE).write_text(dump_prompting(trained_prompting(recipe)))
    return Trained(policy, trained_on(recipe, rows=len(contexts)))


def trained_on(recipe: SrlRecipe, rows: int) -> Prompts:
    """The prompts of one step on all rows, as ids."""
    size = {"per_device_train_batch_size": 4 * rows, "max_completion_length": 4, "max_steps": 1}
    trainer = RecordingTrainer(
        model=recipe.model,
        args=GRPOConfig(
            recipe.output, report_to="none", **{**SRL_TRAINER, **size, **recipe.trainer}
        ),
        reward_funcs=lambda completion_ids, **_: [float(n) for n in range(len(completion_ids))],
        train_dataset=load_from_disk(recipe.data),
        processing_class=AutoTokenizer.from_pretrained(recipe.model, padding_side="left"),
        dynamic_sampling=None,
    )
    trainer.train()
    (batch,) = trainer.batches
    found = {
        tuple(ids[mask.bool()].tolist())
        for ids, mask in zip(batch["prompt_ids"], batch["prompt_mask"], strict=True)
    }
    assert len(found) == rows
    return found


class Following:
    """Asks a policy, and follows the expert whatever it replies."""

    def __init__(self, asked: Any) -> None:
        self.name = "following"
        self._asked = asked
        self._steps = iter(TRAJECTORY.steps)

    def reply(self, messages: Sequence[Message]) -> Completion:
        self._asked.reply(messages)
        step = next(self._steps)
        assert step.action is not None
        return Completion(XML.render_reply(step.thought, step.action), 0, 0)

    def count_tokens(self, messages: Sequence[Message]) -> int:
        return int(self._asked.count_tokens(messages))


def roll_out(policy: str | Endpoint, watch: Callable[[Any], None] = lambda asked: None) -> None:
    """As many replies as the training had prompts, of the agent that `rollout` makes."""
    settings = agent_settings(policy, max_steps=len(TRAJECTORY.steps) - 1, max_new_tokens=4)
    agent = make_agent(policy, settings)
    watch(agent.policy)
    sandbox = FakeSandbox(answer=lambda command: ExecResult(PRINTED, 0))
    rollout(Agent(Following(agent.policy), agent.rules), INSTANCE, sandbox)


@pytest.fixture
def server() -> Iterator[OpenAiServer]:
    with OpenAiServer(*[reply("ls")] * 9, models=VLLM).running() as running:
        yield running


def test_of_a_policy_in_this_process(trained: Trained) -> None:
    read: Prompts = set()

    def note(module: Any, _: Any, inputs: dict[str, Any]) -> None:
        ids = inputs["input_ids"]
        if ids.size(1) > 1:  # not the token of a reply
            read.add(tuple(ids[0].tolist()))

    def watch(asked: Any) -> None:
        asked._model._model.register_forward_pre_hook(note, with_kwargs=True)

    roll_out(str(trained.folder), watch)
    assert read == trained.prompts


def test_of_completions_as_of_vllm(trained: Trained, server: OpenAiServer) -> None:
    asked = Endpoint(server.url, api="completions", tokenizer=str(trained.folder))
    roll_out(find_endpoint(asked))
    tokenizer = AutoTokenizer.from_pretrained(trained.folder)
    bodies = server.bodies()
    assert not any(body["add_special_tokens"] for body in bodies)
    texts = [body["prompt"] for body in bodies]
    read = {tuple(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in texts}
    assert read == trained.prompts


def test_of_a_chat_that_the_server_renders(trained: Trained, server: OpenAiServer) -> None:
    roll_out(find_endpoint(Endpoint(server.url, tokenizer=str(trained.folder))))
    tokenizer: Any = AutoTokenizer.from_pretrained(trained.folder)
    read = {  # as a server does
        tuple(
            tokenizer.apply_chat_template(
                body["messages"],
                add_generation_prompt=True,
                return_dict=False,
                **body["chat_template_kwargs"],
            )
        )
        for body in server.bodies()
    }
    assert read == trained.prompts
