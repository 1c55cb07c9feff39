"""A model with an adapter on it, one step at a time: rows in, loss out. Knows no file of data and no terminal."""

# torch, transformers and peft are typed in parts.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from gateway.errors import ConfigError, SourceError
from gateway.importing import import_transformers
from gateway_training.checkpoint import Tensors
from gateway_training.encoding import Example
from gateway_training.options import TrainingOptions

IGNORED = -100
"""The label of what is not learned, as PyTorch's losses know it."""
WORTH_SHARING = 8
"""Tokens that rows must begin alike with for that beginning to be computed once."""


class Learner:
    """One model on one device, with its adapter and its optimizer. Everything random follows the options' seed."""

    def __init__(self, folder: Path, options: TrainingOptions) -> None:
        """Raises SourceError where the folder cannot be loaded, ConfigError where it cannot be trained as asked."""
        self.options = options
        self.device = pick_device(options.device)
        dtype = options.dtype
        if dtype == "auto":
            dtype = "float32" if self.device.type == "cpu" else "bfloat16"
        torch.manual_seed(options.seed)
        self.model = self._with_adapter(_load(folder, getattr(torch, dtype)))
        self.model.to(self.device)
        self._named = {name: each for name, each in self.model.named_parameters() if each.requires_grad}
        self._optimizer = torch.optim.AdamW(
            self._named.values(), lr=options.learning_rate, weight_decay=options.weight_decay
        )
        self._shares = True

    def _with_adapter(self, model: Any) -> Any:
        from peft import LoraConfig, get_peft_model

        options = self.options
        layers = None
        if options.last_layers is not None:
            count = int(model.config.get_text_config().num_hidden_layers)
            if options.last_layers > count:
                raise ConfigError(f"--last-layers: {options.last_layers} is more than the model's {count}")
            layers = list(range(count - options.last_layers, count))
        config = LoraConfig(
            task_type="CAUSAL_LM",
            r=options.rank,
            lora_alpha=options.scale,
            lora_dropout=options.dropout,
            target_modules=list(options.targets) or (linear_names(model) if layers else "all-linear"),
            layers_to_transform=layers,
        )
        try:
            return get_peft_model(model, config)
        except ValueError as error:
            names = ", ".join(linear_names(model))
            raise ConfigError(f"--targets: {str(error).splitlines()[0]}; linear layers are: {names}") from error

    def step(self, rows: Sequence[Example], rate: float) -> float:
        """Learn from some rows once. Gives their mean loss over the answers' tokens before it."""
        self.model.train()
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        total, count = self._loss(rows)
        loss = total / count
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self._named.values(), 1.0)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        return float(loss.detach())

    @torch.no_grad()
    def measure(self, rows: Sequence[Example]) -> float:
        """Mean loss over the answers' tokens of all rows. Changes nothing."""
        self.model.eval()
        # What rows begin with is computed once for all of them.
        size = max(self.options.batch_size, 32)
        found = [self._loss(rows[start : start + size]) for start in range(0, len(rows), size)]
        return sum(float(total) for total, _ in found) / sum(count for _, count in found)

    def _loss(self, rows: Sequence[Example]) -> tuple[torch.Tensor, int]:
        """Sum over the answers' tokens, and how many there are."""
        shared = _beginning(rows) if self._shares else 0
        cache = None
        if shared >= WORTH_SHARING and len(rows) > 1:
            cache = self._read_once(rows[0].ids[:shared], len(rows))
        if cache is None:
            shared = 0
        ids, mask, labels = (part.to(self.device) for part in _padded(rows, shared))
        # The head is the widest layer of all: only what is learned needs it.
        first = min(row.first for row in rows) - shared - 1
        logits = self.model(
            input_ids=ids,
            attention_mask=mask,
            past_key_values=cache,
            use_cache=cache is not None,
            logits_to_keep=ids.shape[1] - first,
        ).logits
        wanted = labels[:, first + 1 :]
        total = torch.nn.functional.cross_entropy(
            logits[:, :-1].flatten(0, 1).float(), wanted.flatten(), ignore_index=IGNORED, reduction="sum"
        )
        return total, int((wanted != IGNORED).sum())

    def _read_once(self, beginning: Sequence[int], rows: int) -> Any:
        """Keys and values of what all rows begin with, for each row; gradients flow through them as through any.

        None for models that keep something else than all keys and values.
        """
        from transformers import DynamicCache

        cache: Any = DynamicCache(config=self.model.config)
        if any(type(layer).__name__ != "DynamicLayer" for layer in cache.layers):
            self._shares = False
            return None
        ids = torch.tensor([beginning], device=self.device)
        self.model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
        cache.batch_repeat_interleave(rows)
        return cache

    def adapter(self) -> Tensors:
        """A copy of the trained weights."""
        return {name: each.detach().clone() for name, each in self._named.items()}

    def put(self, adapter: Mapping[str, torch.Tensor]) -> None:
        with torch.no_grad():
            for name, each in self._named.items():
                each.copy_(adapter[name])

    def state(self) -> Tensors:
        """All that the next step depends on: weights, moments, random numbers."""
        tensors: Tensors = {f"adapter.{name}": each for name, each in self._named.items()}
        for name, each in self._named.items():
            moments: Mapping[str, torch.Tensor] = self._optimizer.state[each]
            tensors |= {f"{key}.{name}": value for key, value in moments.items()}
        tensors["random.cpu"] = torch.get_rng_state()
        if self.device.type == "cuda":
            tensors["random.cuda"] = torch.cuda.get_rng_state(self.device)
        return tensors

    def restore(self, tensors: Tensors) -> None:
        """The other way. Raises ConfigError where they are of another model."""
        try:
            self.put({name: tensors[f"adapter.{name}"] for name in self._named})
            for name, each in self._named.items():
                found = {key: tensors[f"{key}.{name}"] for key in ("step", "exp_avg", "exp_avg_sq")}
                moments = {key: value if key == "step" else value.to(self.device) for key, value in found.items()}
                self._optimizer.state[each] = moments
            torch.set_rng_state(tensors["random.cpu"])
            if self.device.type == "cuda":
                torch.cuda.set_rng_state(tensors["random.cuda"], self.device)
        except (KeyError, RuntimeError) as error:
            raise ConfigError(f"the checkpoint is of another model ({error}): --restart trains anew") from error

    def save(self, folder: Path) -> None:
        """`adapter_config.json` and `adapter_model.safetensors` in PEFT's layout."""
        self.model.save_pretrained(str(folder), safe_serialization=True)


def pick_device(wish: str) -> torch.device:
    """Raises ConfigError for one that is not there."""
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if wish == "auto":
        return torch.device(next(name for name, found in there.items() if found))
    if not there[wish]:
        raise ConfigError(f"--device {wish}: this PyTorch sees no such device")
    return torch.device(wish)


def linear_names(model: Any) -> list[str]:
    """Last parts of the names of all linear layers but the head."""
    head = model.get_output_embeddings()
    layers = {name.rsplit(".", 1)[-1] for name, each in model.named_modules() if _is_linear(each) and each is not head}
    return sorted(layers)


def _is_linear(module: Any) -> bool:
    return isinstance(module, torch.nn.Linear)


def _load(folder: Path, dtype: torch.dtype) -> Any:
    from safetensors import SafetensorError

    transformers = import_transformers()
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        return transformers.AutoModelForCausalLM.from_pretrained(
            folder, dtype=dtype, use_safetensors=True, local_files_only=True, trust_remote_code=False
        )
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise SourceError(f"{folder}: cannot be loaded: {' '.join(str(error).split())[:300]}") from error


def _beginning(rows: Sequence[Example]) -> int:
    """How many tokens all rows begin alike with, before anything that is learned and the token that foretells it."""
    longest = min(row.first for row in rows) - 1
    first, last = min(row.ids for row in rows), max(row.ids for row in rows)
    # Between the least and the greatest lie all others.
    for place in range(longest):
        if first[place] != last[place]:
            return place
    return max(0, longest)


def _padded(rows: Sequence[Example], shared: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Ids and labels `[rows, tokens after the shared ones]`, and the mask over all tokens, padded at the end."""
    width = max(len(row.ids) for row in rows)
    ids = torch.zeros(len(rows), width - shared, dtype=torch.long)
    labels = torch.full((len(rows), width - shared), IGNORED, dtype=torch.long)
    mask = torch.zeros(len(rows), width, dtype=torch.long)
    for place, row in enumerate(rows):
        end = len(row.ids)
        ids[place, : end - shared] = torch.tensor(row.ids[shared:])
        wanted = [token if learned else IGNORED for token, learned in zip(row.ids, row.learned, strict=True)]
        labels[place, : end - shared] = torch.tensor(wanted[shared:])
        mask[place, :end] = 1
    return ids, mask, labels
