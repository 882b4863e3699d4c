"""Training on step contexts: supervised fine-tuning and SRL, by TRL.

Start at :mod:`srl_swe.training.recipes.records`, then :mod:`sft` and :mod:`srl`.
"""
