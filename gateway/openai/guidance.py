"""Grammars over one tokenizer's vocabulary: compiles them by llguidance, away from the event loop, and gives each
sequence a matcher of its own. Knows no engine and no request; llguidance is imported when first needed."""

from __future__ import annotations

import asyncio
import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from gateway.engine import Constraint, Tokenizer
from gateway.errors import BackendFailed, InvalidRequest, Unsupported
from gateway.openai.grammar import Grammar

if TYPE_CHECKING:
    import numpy as np
    from llguidance import LLMatcher, LLParserLimits, LLTokenizer
    from numpy.typing import NDArray

KEPT_GRAMMARS = 128
"""Compiled grammars that are kept for the next request, the longest unused going first."""
MAX_COMPILE_S = 10.0
"""How long a request waits for its grammar. The library's own limits end a compilation long before."""
MAX_LEXER_STATES = 50_000
"""States of a grammar's automaton, 1 to 2 kB each."""

MakeConstraint = Callable[[], Constraint]

_NOWHERE = re.compile(r"Resource '(.*?)' is not present", re.DOTALL)


class Guidance:
    """One vocabulary's grammars. All methods may be called from any thread, `compile` from an event loop."""

    def __init__(self, vocabulary: Callable[[], LLTokenizer]) -> None:
        """`vocabulary` is called once, in a thread, for the first grammar. See `of_tokenizer_json` and `of_tokens`."""
        self._vocabulary = vocabulary
        self._tokenizer: LLTokenizer | None = None
        self._lock = threading.Lock()
        self._compiled: OrderedDict[Grammar, tuple[LLMatcher, int]] = OrderedDict()

    async def compile(self, grammar: Grammar, param: str = "response_format") -> MakeConstraint:
        """What makes constraints of this grammar, one for each sequence.

        Raises InvalidRequest, naming `param`, where the grammar is wrong, too complex, or allows no text at all;
        Unsupported where this vocabulary cannot be guided.
        """
        compiled = self._compiled.get(grammar)
        if compiled is None:
            try:
                async with asyncio.timeout(MAX_COMPILE_S):
                    compiled = await asyncio.to_thread(self._compile, grammar, param)
            except TimeoutError as error:
                raise InvalidRequest(f"`{param}` takes too long to compile", param=param) from error
            self._compiled[grammar] = compiled
            if len(self._compiled) > KEPT_GRAMMARS:
                self._compiled.popitem(last=False)
        else:
            self._compiled.move_to_end(grammar)
        return partial(Matching, *compiled)

    def _compile(self, grammar: Grammar, param: str) -> tuple[LLMatcher, int]:
        """A matcher at its beginning, only ever copied, and the size of its vocabulary."""
        from llguidance import LLMatcher

        with self._lock:
            if self._tokenizer is None:
                self._tokenizer = self._vocabulary()
        matcher = LLMatcher(self._tokenizer, _source(grammar, param), log_level=0, limits=_limits())
        if matcher.is_error():
            raise InvalidRequest(f"`{param}` cannot be enforced: {_reason(matcher.get_error())}", param=param)
        # The first mask is the dearest, and the only one of a grammar that no text fits.
        matcher.compute_bitmask()
        if matcher.is_error() or (matcher.is_stopped() and matcher.stop_reason() != "NoExtension"):
            raise InvalidRequest(f"`{param}` cannot be enforced: no text satisfies it", param=param)
        return matcher, self._tokenizer.vocab_size


class Matching:
    """A `gateway.engine.Constraint`: one sequence's place in its grammar. Once the text is complete and nothing can
    follow, end tokens alone are allowed, however often one is accepted."""

    __slots__ = ("_matcher", "_scratch", "_size")

    def __init__(self, prototype: LLMatcher, vocab_size: int) -> None:
        self._matcher = prototype.deep_copy()
        self._size = (vocab_size + 31) // 32 * 4
        self._scratch: NDArray[np.int32] | None = None

    def allow(self, mask: NDArray[np.int32]) -> None:
        """Raises BackendFailed where the grammar's limits were met: no mask could be told."""
        matcher = self._matcher
        size = self._size
        if mask.nbytes == size and mask.flags.c_contiguous:
            matcher.unsafe_compute_mask_ptr(mask.ctypes.data, size)
        else:
            # A model may have more rows than its tokenizer has tokens, or fewer.
            if self._scratch is None:
                import numpy as np

                self._scratch = np.zeros(size // 4, np.int32)
            matcher.unsafe_compute_mask_ptr(self._scratch.ctypes.data, size)
            shared = min(len(mask), size // 4)
            mask[:shared] = self._scratch[:shared]
            mask[shared:] = 0
        if matcher.is_error():
            raise BackendFailed(f"the grammar became too complex: {_reason(matcher.get_error())}")

    def accept(self, token_id: int) -> None:
        """Raises BackendFailed for a token that was not allowed."""
        if not self._matcher.consume_token(token_id):
            raise BackendFailed(f"token {token_id} does not follow the grammar")


def of_tokenizer_json(content: Callable[[], str], end_ids: Sequence[int]) -> Guidance:
    """Of a Hugging Face tokenizer, as its `tokenizer.json` says it; `end_ids`: every token that ends a text."""

    def vocabulary() -> LLTokenizer:
        from llguidance import LLTokenizer

        try:
            return LLTokenizer(content(), eos_token=list(end_ids) or None)
        except Exception as error:  # the library raises bare ValueErrors, and others for what it does not know
            raise Unsupported(f"this model's tokenizer cannot be guided by a grammar: {error}") from error

    return Guidance(vocabulary)


def of_tokens(tokenizer: Tokenizer, special: Sequence[int]) -> Guidance:
    """Of any tokenizer, by the bytes of each of its tokens; `special`: those that are no text."""

    def vocabulary() -> LLTokenizer:
        from llguidance import LLTokenizer

        return LLTokenizer(_Wrapped(tokenizer, special), eos_token=sorted(tokenizer.eos_token_ids))  # pyright: ignore[reportArgumentType]

    return Guidance(vocabulary)


def of_bytes() -> Guidance:
    """Of the 256 bytes alone: tells whether a grammar can be enforced, where another engine is to enforce it."""

    def vocabulary() -> LLTokenizer:
        from llguidance import LLTokenizer

        return LLTokenizer("byte")

    return Guidance(vocabulary)


def as_lark(grammar: Grammar) -> str:
    """Any grammar as text in llguidance's own dialect of Lark, which no other library takes for its own."""
    from llguidance import regex_to_lark
    from llguidance.gbnf_to_lark import any_to_lark

    if grammar.kind == "json":
        return f"%llguidance {{}}\nstart: %json {grammar.text}"
    if grammar.kind == "regex":
        return f"%llguidance {{}}\nstart: /{regex_to_lark(grammar.text)}/"
    text = any_to_lark(grammar.text)
    return text if "%llguidance" in text else f"%llguidance {{}}\n{text}"


class _Wrapped:
    """A tokenizer as llguidance's `TokenizerWrapper` has it."""

    is_tokenizer_wrapper = True
    bos_token_id = None

    def __init__(self, tokenizer: Tokenizer, special: Sequence[int]) -> None:
        self.eos_token_id = min(tokenizer.eos_token_ids)
        self.tokens = [tokenizer.token_bytes(token_id) for token_id in range(tokenizer.vocab_size)]
        self.special_token_ids = list(special)
        self._tokenizer = tokenizer

    def __call__(self, text: str) -> list[int]:
        return self._tokenizer.encode(text, add_special_tokens=False)


def _source(grammar: Grammar, param: str) -> str:
    """The grammar in llguidance's own notation."""
    if grammar.kind == "json":
        return f'{{"grammars":[{{"json_schema":{grammar.text}}}]}}'
    from llguidance import LLMatcher
    from llguidance.gbnf_to_lark import any_to_lark

    if grammar.kind == "regex":
        return LLMatcher.grammar_from_regex(grammar.text)
    try:
        return LLMatcher.grammar_from_lark(any_to_lark(grammar.text))
    except Exception as error:  # what a translation of somebody's text may raise
        raise InvalidRequest(f"`{param}` is neither Lark nor GBNF: {error}", param=param) from error


def _limits() -> LLParserLimits:
    from llguidance import LLParserLimits

    return LLParserLimits(max_lexer_states=MAX_LEXER_STATES, verbose_errors=False)


def _reason(error: str) -> str:
    """The library's error, short and in words that mean something to whoever wrote the grammar."""
    if remote := _NOWHERE.match(error):
        return f"`$ref` to {remote[1][:200]!r} is not in the schema, and none is ever fetched"
    if error.startswith("Unimplemented keys:"):
        return f"these keywords are not supported: {error.removeprefix('Unimplemented keys:').strip()}"
    return error.partition("\n<state>")[0].strip()[:500]
