"""A Transformers model and its cache: tokens of some rows in, logits out. Knows no request and no thread."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from gateway.errors import ConfigError, SourceError
from gateway.importing import import_transformers
from gateway_torch.adapters import Adapters
from gateway_torch.cache import RowCache

ATTENTION = "gateway_grouped"

DEFAULT_CONTEXT = 2048
"""For models whose config names no limit."""

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

UNSUPPORTED = ("sliding_window", "softcap", "s_aux", "position_bias")
"""What some models ask of attention beyond a mask."""


def grouped_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    **wishes: Any,
) -> tuple[torch.Tensor, None]:
    """Attention of `[rows, heads, tokens, size]` queries over fewer key heads, without repeating keys.

    Heads that share a key head are laid out as further queries of it, so that keys and values are read where the cache
    has them. The mask `[rows, 1, 1 or groups × tokens, keys]` is laid out the same way.
    """
    for wish in UNSUPPORTED:
        if wishes.get(wish) is not None:
            raise ConfigError(f"the torch backend cannot serve this model: its attention needs {wish!r}; try vllm")
    rows, heads, tokens, size = query.shape
    groups = heads // key.shape[1]
    answer = torch.nn.functional.scaled_dot_product_attention(
        query.reshape(rows, heads // groups, groups * tokens, size),
        key,
        value,
        attn_mask=attention_mask,
        scale=scaling,
    )
    return answer.reshape(rows, heads, tokens, -1).transpose(1, 2).contiguous(), None


def pick_device(wish: str) -> torch.device:
    device = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if wish == "auto" else wish)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError("options.device is cuda, and this PyTorch sees no CUDA device")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ConfigError("options.device is mps, and this PyTorch sees no such device")
    return device


class LanguageModel:
    """Weights on a device. Every call must come from one thread, under `torch.inference_mode`."""

    def __init__(self, folder: Path, device: torch.device, dtype: str, max_model_len: int | None = None) -> None:
        """Raises SourceError where the folder cannot be loaded, ConfigError where it cannot be served as asked."""
        from safetensors import SafetensorError

        library = import_transformers()
        from transformers import masking_utils
        from transformers.utils import logging

        logging.set_verbosity_error()
        logging.disable_progress_bar()
        masks: Any = masking_utils
        library.AttentionInterface.register(ATTENTION, grouped_attention)
        library.AttentionMaskInterface.register(ATTENTION, masks.sdpa_mask)
        on_cpu = device.type == "cpu"
        self.device = device
        try:
            self._model: Any = library.AutoModelForCausalLM.from_pretrained(
                folder,
                dtype=DTYPES.get(dtype, torch.float32 if on_cpu else "auto"),
                attn_implementation=ATTENTION,
                use_safetensors=True,
                trust_remote_code=False,
                local_files_only=True,
            )
        except (OSError, ValueError, SafetensorError) as error:
            raise SourceError(f"{folder}: cannot be loaded: {' '.join(str(error).split())[:300]}") from error
        self._model.to(device).eval()
        config: Any = self._model.config.get_text_config(decoder=True)
        own: int = getattr(config, "max_position_embeddings", None) or max_model_len or DEFAULT_CONTEXT
        if max_model_len is not None and max_model_len > own:
            raise ConfigError(f"max_model_len: {max_model_len} is more than the model's own {own}")
        self.max_model_len: int = max_model_len or own
        self.vocab_size: int = config.vocab_size
        self.dtype = str(self._model.dtype).removeprefix("torch.")
        self.config: Any = self._model.config
        """Transformers' own: what an adapter is read against."""
        self.adapters = Adapters(self._model, self._model.dtype, device)
        """Whoever computes plans the rows first: they all belong to the base until then."""
        self._groups: int = config.num_attention_heads // (
            getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        )

    def step(self, cache: RowCache, tokens: Sequence[int], lengths: Sequence[int]) -> torch.Tensor:
        """One token for each of the cache's first rows, the i-th at position `lengths[i]`. Logits `[rows, vocab]`."""
        longest = max(lengths)
        positions = torch.tensor(lengths, device=self.device)
        cache.plan_step(positions, longest)
        seen = torch.arange(longest + 1, device=self.device)[None] <= positions[:, None]
        logits = self._forward(
            torch.tensor(tokens, device=self.device)[:, None], positions[:, None], seen[:, None], cache
        )
        return logits[:, -1]

    def chunk(
        self,
        cache: RowCache,
        slots: Sequence[int],
        chunks: Sequence[Sequence[int]],
        starts: Sequence[int],
        *,
        every: bool,
    ) -> torch.Tensor:
        """Some tokens of some rows, each continuing at its start.

        Logits after each row's last token `[rows, 1, vocab]`, or with `every` after each token `[rows, longest chunk,
        vocab]`, where shorter chunks stand at the right end.
        """
        counts = [len(chunk) for chunk in chunks]
        width = max(counts)
        cache.plan_chunk(slots, starts, counts)
        ids = torch.tensor([[0] * (width - len(chunk)) + list(chunk) for chunk in chunks], device=self.device)
        ends = torch.tensor(starts, device=self.device) + torch.tensor(counts, device=self.device)
        # Padding is given position 0, which sees itself: a row that sees nothing would be NaN.
        positions = (ends[:, None] - torch.arange(width, 0, -1, device=self.device)[None]).clamp(min=0)
        longest = max(start + count for start, count in zip(starts, counts, strict=True))
        seen = torch.arange(longest, device=self.device)[None, None] <= positions[:, :, None]
        return self._forward(ids, positions, seen.repeat(1, self._groups, 1), cache, keep=0 if every else 1)

    def _forward(
        self, ids: torch.Tensor, positions: torch.Tensor, seen: torch.Tensor, cache: RowCache, keep: int = 1
    ) -> torch.Tensor:
        mask = torch.zeros(seen.shape, dtype=self._model.dtype, device=self.device)
        mask.masked_fill_(~seen, float("-inf"))
        answer = self._model(
            input_ids=ids,
            attention_mask=mask[:, None],
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=keep,
        )
        return answer.logits.float()
