"""One decoder graph, run by onnxruntime over memory that we own. Knows tensors and rows; knows no request."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gateway.errors import ConfigError
from gateway_onnx.adapters import Adapters
from gateway_onnx.cache import RowCache
from gateway_onnx.lora_graph import with_adapters
from gateway_onnx.session import LoraSession, open_session

Logits = NDArray[np.float32]
"""[rows, positions, vocabulary] or a slice of it; the model's own scores before any temperature."""


_Key = tuple[int, int, int, bool, bool]
"""(cache, first row, rows, with logits, with adapters) of a binding."""


class DecoderGraph:
    """A decoder with past keys and values as inputs, written in place (GroupQueryAttention's shared buffer).

    Not safe for two threads at once: every call belongs to the thread that steps.
    """

    def __init__(self, folder: Path, *, threads: int, spinning: bool, lora: LoraSession | None = None) -> None:
        """Blocks for about a second. `lora`: the same graph with room for adapters, for steps that have some. Raises
        ConfigError where the graph is of another kind."""
        config: Any = json.loads((folder / "genai_config.json").read_text(encoding="utf-8"))["model"]
        decoder: Any = config["decoder"]
        self._lora = lora
        self.adapters = Adapters(lora.graph) if lora is not None else None
        """Whoever runs plans the rows first."""
        self._session: Any = open_session(str(folder / decoder["filename"]), threads=threads, spinning=spinning)
        self._whole: Any = import_module("onnxruntime").RunOptions()
        # Prompt positions whose logits nobody reads need no vocabulary-sized product.
        self._without_logits: Any = import_module("onnxruntime").RunOptions()
        self._without_logits.only_execute_path_to_fetches = True

        self.layers = int(decoder["num_hidden_layers"])
        self.kv_heads = int(decoder["num_key_value_heads"])
        self.head_size = int(decoder["head_size"])
        self.vocab_size = int(config["vocab_size"])
        self.context_length = int(config["context_length"])
        self._past = [
            (f"past_key_values.{n}.{part}", f"present.{n}.{part}")
            for n in range(self.layers)
            for part in ("key", "value")
        ]
        self._bindings: dict[_Key, Any] = {}
        self._bound: dict[_Key, object] = {}
        """Which matrices of adapters each of them holds."""
        self._require_known_inputs(folder)

    def _require_known_inputs(self, folder: Path) -> None:
        inputs: Any = self._session.get_inputs()
        types: dict[str, str] = {each.name: each.type for each in inputs}
        known = {"input_ids", "attention_mask", *(past for past, _ in self._past)}
        if set(types) != known or any(types[past] != "tensor(float)" for past, _ in self._past):
            strange = sorted(set(types) ^ known)[:4] or ["keys and values that are not float32"]
            raise ConfigError(
                f"{folder}: this model's graph cannot be batched by rows ({', '.join(strange)}); "
                "set `options.batching: genai` for it"
            )

    def cache(self, rows: int, length: int) -> RowCache:
        """Memory for the keys and values of `rows` sequences of `length` tokens; pages come as they are used."""
        return RowCache(2 * self.layers, rows, self.kv_heads, length, self.head_size)

    def plan(self, adapters: Sequence[str | None]) -> None:
        """Which adapter computes each row of the next run. Ids must be loaded."""
        if self.adapters is not None:
            self.adapters.plan(adapters)

    def extend(self, cache: RowCache, row: int, tokens: Sequence[int], past: int) -> None:
        """Compute one row's tokens at positions `past…`, for their keys and values alone."""
        ids = np.asarray([tokens], np.int64)
        mask = np.ones((1, past + len(tokens)), np.int64)
        self._run(cache, row, ids, mask, None)

    def extend_with_logits(self, cache: RowCache, row: int, tokens: Sequence[int], past: int, into: Logits) -> Logits:
        """The same, with logits of each position: a view of `into` [at least len(tokens), vocabulary]."""
        ids = np.asarray([tokens], np.int64)
        mask = np.ones((1, past + len(tokens)), np.int64)
        self._run(cache, row, ids, mask, into)
        return into[: len(tokens)]

    def decode(self, cache: RowCache, tokens: Sequence[int], lengths: Sequence[int], into: Logits) -> Logits:
        """One token for each of the first rows. `lengths`: tokens of each sequence, this one included.

        Returns logits [rows, vocabulary], a view of `into`.
        """
        ids = np.asarray(tokens, np.int64).reshape(-1, 1)
        lengths_ = np.asarray(lengths, np.int64)
        places: NDArray[np.int64] = np.arange(int(lengths_.max()), dtype=np.int64)
        mask = np.less(places[None, :], lengths_[:, None]).astype(np.int64)
        self._run(cache, 0, ids, mask, into)
        return into[: len(tokens)]

    def _run(
        self, cache: RowCache, row: int, ids: NDArray[np.int64], mask: NDArray[np.int64], into: Logits | None
    ) -> None:
        rows = int(ids.shape[0])
        session, key = self._session, (id(cache), row, rows, into is not None, False)
        if self.adapters is not None and self.adapters.used and self._lora is not None:
            session, key = self._lora.open(), (*key[:4], True)
        binding = self._binding(session, key, cache)
        if self.adapters is not None and key[4]:
            self._bound[key] = self.adapters.bind(binding, self._bound.get(key))
        binding.bind_input("input_ids", "cpu", 0, np.int64, ids.shape, ids.ctypes.data)
        binding.bind_input("attention_mask", "cpu", 0, np.int64, mask.shape, mask.ctypes.data)
        if into is not None:
            shape = (rows, int(ids.shape[1]), self.vocab_size)
            if into.size < shape[0] * shape[1] * shape[2]:
                raise ValueError(f"{into.shape} cannot hold logits of shape {shape}")
            binding.bind_output("logits", "cpu", 0, np.float32, shape, into.ctypes.data)
        session.run_with_iobinding(binding, self._whole if into is not None else self._without_logits)

    def _binding(self, session: Any, key: _Key, cache: RowCache) -> Any:
        """Past and present of some rows bound to one address, made once for each combination."""
        if (found := self._bindings.get(key)) is not None:
            return found
        _, row, rows, _, _ = key
        binding = session.io_binding()
        shape = (rows, cache.heads, cache.length, cache.head_size)
        for plane, (past, present) in enumerate(self._past):
            address = cache.address(plane, row)
            binding.bind_input(past, "cpu", 0, np.float32, shape, address)
            binding.bind_output(present, "cpu", 0, np.float32, shape, address)
        self._bindings[key] = binding
        return binding

    def close(self) -> None:
        self._bindings.clear()
        self._bound.clear()
        self._session = None
        if self._lora is not None:
            self._lora.close()


def lora_session(folder: Path, *, threads: int, spinning: bool) -> LoraSession:
    """A decoder's graph with room for adapters, not opened yet. Raises ConfigError where it has none for any."""
    config: Any = json.loads((folder / "genai_config.json").read_text(encoding="utf-8"))["model"]
    decoder: Any = config["decoder"]
    heads, keys, size = (int(decoder[name]) for name in ("num_attention_heads", "num_key_value_heads", "head_size"))
    graph = with_adapters(folder / decoder["filename"], heads * size, keys * size)
    return LoraSession(graph, folder, threads=threads, spinning=spinning)
