"""The settings of a vLLM model: what people write under `options:`, and the arguments it becomes. Imports no vLLM."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gateway.errors import ConfigError
from gateway_vllm.adapters import room_for

if TYPE_CHECKING:
    from gateway.backend import BackendContext

GIB = 1 << 30

_HERE_INSTEAD = {
    "model": "source",
    "tokenizer": "source",
    "served_model_name": "the model's key under models",
    "dtype": "dtype",
    "max_model_len": "max_model_len",
    "kv_cache_memory_bytes": "options.kv_cache_gb",
    "reasoning_parser": "reasoning_parser",
}
"""Engine arguments that the config has a place of its own for."""

_NOT_SERVED_HERE = frozenset(
    {"host", "port", "grpc_port", "uds", "root_path", "middleware", "api_key", "allowed_origins", "uvicorn_log_level"}
    | {"ssl_keyfile", "ssl_certfile", "ssl_ca_certs", "ssl_cert_reqs", "ssl_ciphers", "enable_ssl_refresh"}
)
"""Server arguments of vLLM's own HTTP server, which does not run here: the gateway listens, authenticates and logs."""


class VllmOptions(BaseModel):
    """`options:` of a model with `backend: vllm`."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, use_attribute_docstrings=True)

    kv_cache_gb: float | None = Field(default=None, gt=0)
    """Memory for the KV cache, in GiB, taken at start. Default: 1 on a CPU, vLLM's share of the memory on a GPU."""
    enforce_eager: bool | None = None
    """Run without torch.compile. Default: true on a CPU: ready in a third of the time, some 10 % slower."""
    enable_prefix_caching: bool = True
    """Keep the KV cache of shared prompt beginnings."""
    block_size: int | None = Field(default=None, ge=1)
    """Tokens of one block of the KV cache; what prompts share is kept in whole blocks. Default: 32 on a CPU, where
    vLLM's own 128 keep nothing of a short chat; vLLM's own on a GPU."""
    max_num_seqs: int | None = Field(default=None, ge=1)
    """Sequences computed together; more wait. Default: 128 on a CPU, vLLM's own on a GPU."""
    max_num_batched_tokens: int | None = Field(default=None, ge=1)
    """Tokens of one engine step: prompts longer than this are read in pieces, between which others get their tokens and
    a request can be cancelled. Default: 512 on a CPU, vLLM's own on a GPU."""
    max_logprobs: int = Field(default=20, ge=-1)
    """Most alternatives a request may ask for at each position; -1: the whole vocabulary."""
    engine_args: dict[str, Any] = {}
    """Any other field of vLLM's AsyncEngineArgs, by its name in Python: `{tensor_parallel_size: 2}`."""
    server_args: dict[str, Any] = {}
    """Any field of vLLM's FrontendArgs that shapes its answers: `{return_tokens_as_token_ids: true}`."""


def parse_options(context: BackendContext) -> VllmOptions:
    """The model's options, checked. Raises ConfigError with one line for each problem."""
    try:
        return VllmOptions.model_validate(context.spec.options)
    except ValidationError as error:
        lines: list[str] = []
        for problem in error.errors(include_url=False):
            name = ".".join(str(part) for part in problem["loc"])
            if problem["type"] == "extra_forbidden":
                lines.append(f"{_where(context)}.{name}: unknown setting{_suggestion(name, VllmOptions.model_fields)}")
            else:
                lines.append(f"{_where(context)}.{name}: {problem['msg']}")
        raise ConfigError("\n".join(lines)) from error


def engine_arguments(
    context: BackendContext, options: VllmOptions, fields: Iterable[str], *, cpu: bool
) -> dict[str, Any]:
    """Keyword arguments of AsyncEngineArgs, whose field names are `fields`. Raises ConfigError, one line a problem."""
    spec = context.spec
    _check_names(f"{_where(context)}.engine_args", options.engine_args, fields, _HERE_INSTEAD)
    if context.model_path is None:
        raise ConfigError(f"models.{context.name}.source: the vllm backend needs weights; name where they come from")
    if spec.dtype == "int4":
        raise ConfigError(
            f"models.{context.name}.dtype: vllm quantizes nothing itself; give it a quantized source and `dtype: auto`"
        )
    defaults = {
        "kv_cache_gb": 1.0,
        "enforce_eager": True,
        "block_size": 32,
        "max_num_seqs": 128,
        "max_num_batched_tokens": 512,
    }
    chosen: dict[str, Any] = {name: defaults[name] if cpu else None for name in defaults}
    chosen |= {name: value for name in defaults if (value := getattr(options, name)) is not None}
    arguments: dict[str, Any] = {
        "model": str(context.model_path),
        "served_model_name": [context.name],
        "dtype": "float32" if cpu and spec.dtype == "auto" else spec.dtype,
        "max_model_len": spec.max_model_len,
        "kv_cache_memory_bytes": round(kv * GIB) if (kv := chosen.pop("kv_cache_gb")) is not None else None,
        "enable_prefix_caching": options.enable_prefix_caching,
        "max_logprobs": options.max_logprobs,
        "reasoning_parser": spec.reasoning_parser,
        "use_tqdm_on_load": False,
        **chosen,
        **room_for(spec.adapters, context.name, options.engine_args, cpu=cpu),
    }
    return {name: value for name, value in arguments.items() if value is not None} | options.engine_args


def server_arguments(context: BackendContext, options: VllmOptions, fields: Iterable[str]) -> dict[str, Any]:
    """What differs from vLLM's FrontendArgs, whose field names are `fields`. Raises ConfigError, one line a problem."""
    where = f"{_where(context)}.server_args"
    _check_names(where, options.server_args, set(fields) - _NOT_SERVED_HERE, {"tool_call_parser": "tool_parser"})
    ours = {
        "enable_tokenizer_info_endpoint": True,
        "disable_fastapi_docs": True,
        "enable_auto_tool_choice": True,
        "tool_call_parser": context.spec.tool_parser,
    }
    return ours | options.server_args


def _where(context: BackendContext) -> str:
    return f"models.{context.name}.options"


def _check_names(where: str, given: Mapping[str, Any], known: Iterable[str], instead: Mapping[str, str]) -> None:
    known = set(known)
    problems: list[str] = []
    for name in given:
        if name in instead:
            problems.append(f"{where}.{name}: say it in `{instead[name]}`")
        elif name in VllmOptions.model_fields:
            problems.append(f"{where}.{name}: say it in `options.{name}`")
        elif name not in known:
            problems.append(f"{where}.{name}: vllm knows no such argument{_suggestion(name, known)}")
    if problems:
        raise ConfigError("\n".join(problems))


def _suggestion(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name.replace("-", "_"), list(known), n=3, cutoff=0.6)
    return f"; did you mean {' or '.join(close)}?" if close else ""
