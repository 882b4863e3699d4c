"""``python -m srl_swe`` is ``srl-swe``."""

from srl_swe.cli.main import main

main()
