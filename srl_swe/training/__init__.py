"""Training on step contexts: supervised fine-tuning and SRL, by TRL.

Start at :mod:`srl_swe.training.recipe`, then :mod:`sft` and :mod:`srl`.
"""
