"""Two experiments on a suite of instances, and their common machinery.

The demo runs the main job once on the bundled suite; the study trains one policy in several ways at
equal budgets.
"""
