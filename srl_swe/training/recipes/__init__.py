"""Recipes: all that a training run depends on, as records read from YAML and the command line."""
