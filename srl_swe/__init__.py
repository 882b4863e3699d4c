"""Supervised Reinforcement Learning (arXiv 2510.25992) for software-engineering agents."""

__version__ = "0.2.0"
