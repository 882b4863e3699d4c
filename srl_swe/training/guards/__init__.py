"""What can be known to be wrong before the first step."""
