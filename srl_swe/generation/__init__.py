"""Makes benchmark instances from repositories with tests: sources, bugs, splits."""
