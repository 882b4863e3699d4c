"""What training runs left behind, read back: their records, curves, and how two of them differ.

Reads files alone, of a run that is finished or under way, and needs no torch.
"""
