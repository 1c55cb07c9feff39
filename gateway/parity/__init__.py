"""How alike engines are that serve one model: greedy texts, token by token, and log-probabilities. Knows no engine."""

from gateway.parity.compare import Pair, PromptPair, check_tokens, compare
from gateway.parity.reading import PromptFile, Reading, load_prompts, read, tokenize

__all__ = ["Pair", "PromptFile", "PromptPair", "Reading", "check_tokens", "compare", "load_prompts", "read", "tokenize"]
