from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from trl.trainer.utils import split_tensor_dict

from srl_swe.training.recipe import DynamicSampling

from .conftest import MakeTrainer

pytestmark = pytest.mark.train


Batch = dict[str, Tensor]
HALF_DEAD = DynamicSampling(epsilon=0.02, max_rounds=0)


def logps_of(model: Any, batch: Batch) -> Tensor:
    """Log-probability of each completion token, (rows, tokens)."""
    ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], dim=1)
    mask = torch.cat([batch["prompt_mask"], batch["completion_mask"]], dim=1)
    width = batch["completion_ids"].size(1)
    logps = model(input_ids=ids, attention_mask=mask).logits[:, :-1].log_softmax(dim=-1)
    return logps.gather(-1, ids[:, 1:].unsqueeze(-1)).squeeze(-1)[:, -width:]


def paper_loss(model: Any, batch: Batch, clip: float = 0.2) -> Tensor:
    """1/G sum_i 1/|o_i| sum_t min(r A, clip(r) A), negated; beta 0 (paper, equations 1 and 5)."""
    ratio = (logps_of(model, batch) - batch["old_per_token_logps"]).exp()
    advantage = batch["advantages"].unsqueeze(1)
    surrogate = torch.min(ratio * advantage, ratio.clamp(1 - clip, 1 + clip) * advantage)
    mask = batch["completion_mask"]
    per_reply = (surrogate * mask).sum(dim=1) / mask.sum(dim=1)
    return -per_reply.mean()


def sampled(trainer: Any) -> Batch:
    """One batch of the trainer, as if the policy had moved on since it was sampled."""
    trainer.train()
    batch: Batch = trainer.batches[0]
    with torch.no_grad():
        now = logps_of(trainer.model, batch)
    noise = torch.randn(now.shape, generator=torch.Generator().manual_seed(0))
    trainer.model.train()
    return {**batch, "old_per_token_logps": now + 0.3 * noise}


def gradient(trainer: Any, loss: Tensor) -> Tensor:
    grads = torch.autograd.grad(loss, list(trainer.model.parameters()))
    return torch.cat([grad.flatten() for grad in grads])


def test_the_loss_is_that_of_the_paper(make_trainer: MakeTrainer, scripted_reward: Any) -> None:
    trainer = make_trainer(scripted_reward, max_steps=1)
    batch = sampled(trainer)
    loss, reference = trainer.compute_loss(trainer.model, batch), paper_loss(trainer.model, batch)
    assert abs(reference.item()) > 1e-3
    torch.testing.assert_close(loss, reference, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(gradient(trainer, loss), gradient(trainer, reference))


def test_advantages_are_centred_and_scaled_within_a_group(
    make_trainer: MakeTrainer, scripted_reward: Any
) -> None:
    trainer = make_trainer(scripted_reward, max_steps=1, shuffle_dataset=False)
    trainer.train()
    names = [name for name, _, _ in scripted_reward.calls[0]][::4]
    assert names == ["tiny__tests-0", "tiny__tests-0", "tiny__tests-1", "tiny__tests-1"]
    rewards = torch.tensor(
        [sum(ids) % 101 / 101 * 0.01 for _, _, ids in scripted_reward.calls[0]][8:]
    ).view(2, 4)
    centred = rewards - rewards.mean(dim=1, keepdim=True)
    expected = centred / (rewards.std(dim=1, keepdim=True) + 1e-4)
    got = trainer.batches[0]["advantages"].view(4, 4)
    torch.testing.assert_close(got[2:], expected, rtol=1e-3, atol=1e-4)
    assert not got[:2].any()


LOSS_TYPES = ["grpo", "dr_grpo", "bnpo", "dapo", "cispo", "sapo", "vespo", "luspo"]


@pytest.mark.parametrize(("beta", "entropy_coef"), [(0.0, 0.0), (0.5, 0.0), (0.0, 0.3)])
@pytest.mark.parametrize("loss_type", LOSS_TYPES)
def test_a_dead_group_weighs_nothing_and_the_others_as_if_they_were_all(
    make_trainer: MakeTrainer,
    scripted_reward: Any,
    loss_type: str,
    beta: float,
    entropy_coef: float,
) -> None:
    trainer, batch, alone = whole_and_live(
        make_trainer, scripted_reward, loss_type, beta=beta, entropy_coef=entropy_coef
    )
    whole = trainer.compute_loss(trainer.model, batch)
    trainer.beta, trainer.entropy_coef = beta, entropy_coef
    part = trainer.compute_loss(trainer.model, alone)
    assert abs(part.item()) > 1e-4
    torch.testing.assert_close(whole, part, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("loss_type", LOSS_TYPES)
def test_so_do_dead_groups_that_fill_micro_batches_but_for_bnpo(
    make_trainer: MakeTrainer, scripted_reward: Any, loss_type: str
) -> None:
    """Eight micro-batches of two rows each, of which some have no live one."""
    trainer, batch, alone = whole_and_live(
        make_trainer,
        scripted_reward,
        loss_type,
        per_device_train_batch_size=2,
        gradient_accumulation_steps=8,
    )
    live = alone["advantages"].size(0) // 2
    whole, part = in_micro_batches(trainer, batch, 8), in_micro_batches(trainer, alone, live)
    assert live < 8
    assert abs(part.item()) > 1e-4
    diluted = live / 8 if loss_type == "bnpo" else 1.0
    torch.testing.assert_close(whole, diluted * part, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("rows", [2, 8])
@pytest.mark.parametrize("adaptive", [False, True])
def test_the_entropy_bonus_makes_up_for_dead_rows_in_micro_batches(
    make_trainer: MakeTrainer, scripted_reward: Any, rows: int, adaptive: bool
) -> None:
    """Micro-batches of two rows are live or dead as a whole, those of eight hold both kinds."""
    held = {"use_adaptive_entropy": True, "entropy_target": 99.0, "entropy_coef_delta": 0.0}
    fields: dict[str, Any] = held if adaptive else {}
    trainer, batch, alone = whole_and_live(
        make_trainer,
        scripted_reward,
        "grpo",
        entropy_coef=0.3,
        per_device_train_batch_size=rows,
        gradient_accumulation_steps=16 // rows,
        **fields,
    )
    trainer._last_world_entropy = 0.0
    in_order = torch.arange(16) if rows == 2 else torch.arange(16).view(2, 8).t().flatten()
    mixed = {key: t[in_order] if t.dim() else t for key, t in batch.items()}
    coefficient = trainer.entropy_coef
    bonus = in_micro_batches(trainer, mixed, 16 // rows)
    trainer.entropy_coef = 0.0
    bonus = bonus - in_micro_batches(trainer, mixed, 16 // rows)
    trainer.entropy_coef, trainer._filled = coefficient if adaptive else 0.3, 1.0
    live = alone["advantages"].size(0) // 2
    expected = in_micro_batches(trainer, alone, live)
    trainer.entropy_coef = 0.0
    expected = expected - in_micro_batches(trainer, alone, live)
    assert abs(expected.item()) > 1e-2
    torch.testing.assert_close(bonus, expected, rtol=2e-2, atol=1e-4)


def test_an_adaptive_entropy_bonus_moves_as_trls_does(
    make_trainer: MakeTrainer, scripted_reward: Any
) -> None:
    trainer, batch, alone = whole_and_live(
        make_trainer, scripted_reward, "grpo", entropy_coef=0.3, use_adaptive_entropy=True
    )
    for target, moved in ((99.0, 0.305), (0.0, 0.295)):
        trainer.args.entropy_target = target
        for inputs in (batch, alone):
            trainer.entropy_coef = 0.3
            trainer.compute_loss(trainer.model, inputs)
            assert trainer.entropy_coef == pytest.approx(moved)
            assert trainer._metrics["train"]["entropy_coef"][-1] == pytest.approx(moved)


def whole_and_live(
    make_trainer: MakeTrainer, reward: Any, loss_type: str, **fields: Any
) -> tuple[Any, Batch, Batch]:
    """A trainer with a batch that holds dead groups, and the same without them."""
    trainer = make_trainer(
        reward, dynamic_sampling=HALF_DEAD, max_steps=1, loss_type=loss_type, **fields
    )
    batch = sampled(trainer)
    live = batch["completion_mask"].any(dim=1)
    filled = live.double().mean().item()
    assert 0 < filled < 1
    alone = {key: t[live] if t.dim() else t for key, t in batch.items()}
    undone = filled if loss_type in {"grpo", "dr_grpo", "luspo", "sapo"} else 1.0
    return trainer, batch, {**alone, "advantages": alone["advantages"] * undone}


def in_micro_batches(trainer: Any, batch: Batch, count: int) -> Tensor:
    """The loss of an update that the rows are cut up for, in their order."""
    trainer.current_gradient_accumulation_steps = trainer.args.steps_per_generation = count
    parts = split_tensor_dict(batch, count)
    losses = [trainer.compute_loss(trainer.model, part).detach() for part in parts]
    return torch.stack(losses).sum()


def test_eight_rows_at_once_train_as_eight_times_one(
    make_trainer: MakeTrainer, scripted_reward: Any
) -> None:
    """The generation batch is the same; plain SGD, as Adam blows rounding up to whole steps."""
    sampling = DynamicSampling(epsilon=0.02, max_rounds=1)
    trained: list[tuple[Batch, list[Tensor]]] = []
    for rows, times in ((8, 1), (1, 8)):
        trainer = make_trainer(
            scripted_reward,
            dynamic_sampling=sampling,
            per_device_train_batch_size=rows,
            gradient_accumulation_steps=times,
            optim="sgd",
            learning_rate=0.5,
            max_steps=1,
        )
        before = [parameter.detach().clone() for parameter in trainer.model.parameters()]
        trainer.train()
        (batch,) = trainer.batches
        trained.append((batch, list(trainer.model.parameters())))
    (first, at_once), (second, one_by_one) = trained
    assert torch.equal(first["completion_ids"], second["completion_ids"])
    assert furthest(at_once, before) > 1e-3
    assert furthest(at_once, one_by_one) < 1e-3 * furthest(at_once, before)


def furthest(first: list[Tensor], second: list[Tensor]) -> float:
    return max((a - b).abs().max().item() for a, b in zip(first, second, strict=True))
