"""The arena: which of two answers people found better, and how strong that makes models. Knows no HTTP, no page."""
