"""Sampling attempts: a policy acts in a sandbox until it submits or reaches a limit."""
