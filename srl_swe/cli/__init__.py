"""The command line: options, one import, one call."""
