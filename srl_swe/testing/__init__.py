"""Fakes for the seams and the contract suite for sandboxes; public, for your tests too.

``from srl_swe.testing.sandbox_contract import *`` in a test module with a fixture
``open_sandbox`` runs that suite. It needs pytest and is therefore not imported here.
"""

from __future__ import annotations

from srl_swe.testing.fakes import FakeSandbox, ScriptedPolicy

__all__ = ["FakeSandbox", "ScriptedPolicy"]
