"""Training by TRL: SFT and SRL on step contexts, RLVR on instances, and curricula of them.

Start at :mod:`srl_swe.training.recipe`, then :mod:`~srl_swe.training.srl_trainer`.
"""
