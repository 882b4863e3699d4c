"""Pages that show runs: episodes, replays, step contexts and training samples.

:mod:`~srl_swe.view.collect` reads a file or folder into the records of
:mod:`~srl_swe.view.records`; :mod:`~srl_swe.view.page` writes them as one HTML page that needs no
server and loads nothing from elsewhere.
"""

from __future__ import annotations
