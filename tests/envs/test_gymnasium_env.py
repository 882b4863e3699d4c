from __future__ import annotations

import warnings

import pytest

from srl_swe.dialects import ReplyFormat, get_dialect
from srl_swe.instances import load_instances
from srl_swe.rollout import EpisodeLimits, Rules
from srl_swe.swe_env import SweEnv
from srl_swe.types import Action
from srl_swe_envs.local import open_local_sandbox

gymnasium = pytest.importorskip("gymnasium", reason="needs the extra `gym`")

XML = get_dialect("xml")


def make_env(**limits: int):
    from srl_swe_envs.adapters import as_gymnasium

    instances = load_instances("starter")[:2]
    return as_gymnasium(
        SweEnv(
            instances,
            open_local_sandbox,
            Rules(ReplyFormat(XML, "lenient"), limits=EpisodeLimits(**limits)),
        )
    )


@pytest.mark.slow
@pytest.mark.parametrize("limits", [{}, {"format_errors": 1}])
def test_gymnasiums_own_checker_finds_no_fault_in_it(limits: dict[str, int]) -> None:
    from gymnasium.utils.env_checker import check_env

    env = make_env(**limits)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=".*Not able to test alternative render modes.*")
        check_env(env)
    env.close()


def test_an_episode_of_text_is_played_through_gymnasiums_api() -> None:
    env = make_env()
    issue, info = env.reset(seed=3, options={"instance_id": "starter__inikit-1"})
    assert issue in env.observation_space
    assert "Ünïcode 語" in env.action_space
    assert info["instance_id"] == "starter__inikit-1"
    seen, *_ = env.step(XML.render_reply("look", Action("bash", {"command": "ls"})))
    assert seen.startswith("OBSERVATION:")
    _, reward, terminated, truncated, _ = env.step(XML.render_reply("done", Action("submit")))
    assert (reward, terminated, truncated) == (0.0, True, False)
    env.close()
