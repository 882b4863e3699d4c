from __future__ import annotations

from types import SimpleNamespace

from srl_swe.training.timing import weight_sync


def test_a_server_gets_its_weights_by_trls_way() -> None:
    def sync() -> None:
        pass

    assert weight_sync(SimpleNamespace(mode="server", sync_weights=sync)) is sync
