"""Reinforcement learning with the tests of instances as the reward: patches and episodes."""
