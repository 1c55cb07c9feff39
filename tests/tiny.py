"""A model of two small layers with the default model's tokenizer: converts and loads in a second or two."""

from __future__ import annotations

import shutil
from pathlib import Path


def save_tiny(folder: Path, tokenizer: Path, *, width: int, spread: float) -> Path:
    """Random weights of this standard deviation in the shape of the real model; `tokenizer`: that model's folder."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=49152,
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        bos_token_id=1,
        eos_token_id=2,
        tie_word_embeddings=True,
        initializer_range=spread,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(tokenizer / name, folder)
    return folder
