"""The main job, end to end, on what ships with the project: ``srl-swe demo``."""
