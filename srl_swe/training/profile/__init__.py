"""Steps scored by a frozen policy before training: dynamic sampling ahead of time."""
