"""Figures, not tests: both doors and the engines against their peers, in one run on the same machine."""
