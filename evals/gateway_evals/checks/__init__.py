"""Scorers that look at what a text is rather than what it says: instructions, code, secrets. Each knows one check."""
