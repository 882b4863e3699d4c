"""GRPO with dynamic sampling: what SRL and RLVR share, over TRL's trainer."""
