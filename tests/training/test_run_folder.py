from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from trl import GRPOConfig, SFTConfig

from srl_swe.errors import UserError
from srl_swe.files import held_alone
from srl_swe.training.recipe import DynamicSampling, SftRecipe, SrlRecipe, Validation, field_names
from srl_swe.training.run_folder import (
    NOT_DECISIVE,
    VALIDATED,
    last_checkpoint,
    open_run,
    train_to_end,
)


def make_recipe(tmp_path: Path) -> SrlRecipe:
    data = tmp_path / "data"
    data.mkdir(exist_ok=True)
    (data / "data-00000.arrow").write_bytes(b"rows")
    return SrlRecipe(
        model="org/model",
        data=str(data),
        output=str(tmp_path / "out"),
        dynamic_sampling=DynamicSampling(0.01, 4),
        trainer={"learning_rate": 5e-7, "seed": 1},
    )


def test_the_same_recipe_continues_and_another_is_refused_by_the_keys_that_differ(
    tmp_path: Path,
) -> None:
    recipe = make_recipe(tmp_path)
    open_run(recipe).claim()
    assert last_checkpoint(open_run(recipe).path) is None
    other = dataclasses.replace(
        recipe, dynamic_sampling=DynamicSampling(0.1, 4), trainer={"learning_rate": 5e-7}
    )
    with pytest.raises(UserError) as caught:
        open_run(other)
    said = str(caught.value)
    assert "(dynamic_sampling.epsilon: 0.01 -> 0.1; trainer.seed: 1 -> None)" in said
    with pytest.raises(UserError, match="method"):
        open_run(SftRecipe(recipe.model, recipe.data, recipe.output))


def test_dynamic_sampling_switched_off_is_another_recipe(tmp_path: Path) -> None:
    recipe = make_recipe(tmp_path)
    open_run(recipe).claim()
    with pytest.raises(UserError, match="dynamic_sampling"):
        open_run(dataclasses.replace(recipe, dynamic_sampling=None))


def test_sharing_prompts_is_another_recipe_and_its_absence_is_that_of_older_folders(
    tmp_path: Path,
) -> None:
    recipe = make_recipe(tmp_path)
    run = open_run(recipe)
    run.claim()
    assert "share_prompt" not in run.config
    with pytest.raises(UserError, match="share_prompt: None -> True"):
        open_run(dataclasses.replace(recipe, share_prompt=True))


def test_what_only_says_where_something_is_reported_kept_or_served_may_change(
    tmp_path: Path,
) -> None:
    recipe = make_recipe(tmp_path)
    open_run(recipe).claim()
    elsewhere = {
        "report_to": ["wandb"],
        "run_name": "again",
        "hub_token": "abc",
        "save_total_limit": 2,
        "vllm_server_base_url": "http://other:8000",
        "vllm_gpu_memory_utilization": 0.2,
        "dataloader_num_workers": 2,
    }
    open_run(dataclasses.replace(recipe, trainer={**recipe.trainer, **elsewhere}))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("save_steps", 2),
        ("save_only_model", True),
        ("vllm_mode", "colocate"),
        ("dataloader_persistent_workers", True),
    ],
)
def test_what_changes_a_resumed_run_may_not(tmp_path: Path, name: str, value: Any) -> None:
    recipe = make_recipe(tmp_path)
    open_run(recipe).claim()
    with pytest.raises(UserError, match=f"trainer.{name}: None -> "):
        open_run(dataclasses.replace(recipe, trainer={**recipe.trainer, name: value}))


def test_what_may_change_is_named_as_trl_names_it() -> None:
    assert set(field_names(GRPOConfig)) | set(field_names(SFTConfig)) >= NOT_DECISIVE


def test_other_rows_under_the_same_name_are_noticed(tmp_path: Path) -> None:
    recipe = make_recipe(tmp_path)
    open_run(recipe).claim()
    (Path(recipe.data) / "data-00000.arrow").write_bytes(b"other rows")
    with pytest.raises(UserError, match="data_sha256"):
        open_run(recipe)


def test_other_validation_rows_are_noticed_and_older_folders_lack_their_digest(
    tmp_path: Path,
) -> None:
    held_out = tmp_path / "held-out"
    held_out.mkdir()
    (held_out / "data-0.arrow").write_bytes(b"a")
    recipe = dataclasses.replace(
        make_recipe(tmp_path), validation=Validation(20, data=str(held_out))
    )
    open_run(recipe).claim()
    config = Path(recipe.output) / "config.json"
    (held_out / "data-0.arrow").write_bytes(b"b")
    with pytest.raises(UserError, match=VALIDATED):
        open_run(recipe)
    older = {k: v for k, v in json.loads(config.read_text()).items() if k != VALIDATED}
    config.write_text(json.dumps(older))
    assert VALIDATED not in open_run(recipe).config


def test_what_tokenizing_left_beside_the_rows_is_no_other_data(tmp_path: Path) -> None:
    recipe = make_recipe(tmp_path)
    open_run(recipe).claim()
    (Path(recipe.data) / "cache-1f3a.arrow").write_bytes(b"tokens")
    open_run(recipe)


def test_a_moved_folder_is_still_the_same_run(tmp_path: Path) -> None:
    recipe = make_recipe(tmp_path)
    open_run(recipe).claim()
    shutil.move(recipe.output, tmp_path / "elsewhere")
    open_run(dataclasses.replace(recipe, output=str(tmp_path / "elsewhere")))


def test_only_a_whole_checkpoint_counts_and_the_latest_of_these(tmp_path: Path) -> None:
    run = open_run(make_recipe(tmp_path))
    run.claim()
    for step, state in (
        (9, '{"global_step": 9}'),
        (10, '{"global_step": 10}'),
        (11, '{"global_st'),
        (12, None),
    ):
        folder = run.path / f"checkpoint-{step}"
        folder.mkdir()
        if state is not None:
            (folder / "trainer_state.json").write_text(state)
    assert last_checkpoint(run.path) == run.path / "checkpoint-10"


def test_checkpoints_of_an_unknown_run_are_not_continued(tmp_path: Path) -> None:
    recipe = make_recipe(tmp_path)
    (Path(recipe.output) / "checkpoint-3").mkdir(parents=True)
    with pytest.raises(UserError, match="unknown run"):
        open_run(recipe)


def test_opening_writes_nothing(tmp_path: Path) -> None:
    recipe = make_recipe(tmp_path)
    open_run(recipe)
    assert not Path(recipe.output).exists()


def test_two_processes_do_not_train_in_one_folder(tmp_path: Path) -> None:
    run = open_run(make_recipe(tmp_path))
    trainer = SimpleNamespace(accelerator=SimpleNamespace(is_main_process=True))
    with held_alone(run.path), pytest.raises(UserError, match="written by another process"):
        train_to_end(trainer, run)
    assert not run.path.exists()


PROGRAM = """
import resource, sys
from srl_swe.training.run_folder import keep_freed_memory
if sys.argv[1] == "kept":
    keep_freed_memory()
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
bytearray(2**26)
before = faults()
for _ in range(10):
    bytearray(2**26)
print(faults() - before)
"""


def faults_of_ten_blocks(argument: str) -> int:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, argument], capture_output=True, text=True, check=True
    )
    return int(done.stdout)


@pytest.mark.slow
def test_a_large_block_is_not_got_from_the_kernel_again() -> None:
    """Such a block has 16,384 pages, each a fault unless huge ones are at hand."""
    assert faults_of_ten_blocks("kept") < 100 < faults_of_ten_blocks("given back")
