"""Supervised reinforcement learning: step rewards as TRL calls them, and the run around them."""
