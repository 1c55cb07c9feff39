"""What people write in YAML, as strict pydantic models; errors name the YAML path. Knows no plugin and no Ray."""

from __future__ import annotations

import re
from collections.abc import Collection, Hashable
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, cast

import yaml
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, field_validator, model_validator

from gateway.errors import ConfigError

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
"""Names travel in URLs and headers: letters, digits, `.`, `_`, `-`."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True, frozen=True)


class ResourceSpec(_Strict):
    """What one replica of a model may take. Memory is shared by all engines of a machine: give each a share."""

    cpus: float = Field(default=0.1, ge=0)
    """Share of the machine's CPUs that Ray books for placement (fractions are fine; it does not limit)."""
    gpus: float = Field(default=0, ge=0)
    """GPUs that Ray books for one replica."""
    threads: int | None = Field(default=None, ge=1)
    """Compute threads of the engine (OMP_NUM_THREADS); default: all cores of the machine."""
    memory_gb: float | None = Field(default=None, gt=0)
    """Memory the replica needs, in GiB: checked against what is free before anything starts."""


class AdaptersSpec(_Strict):
    """Fine-tuned adapters beside a model: `adapters: {}` makes room for them, leaving it out takes none."""

    max_resident: int = Field(default=8, ge=1, le=1000)
    """Adapters in memory at once; beyond them the one asked longest ago gives way."""
    max_rank: int = Field(default=16, ge=1, le=512)
    """Largest rank that is taken; engines reserve room for it."""
    preload: list[str] = []
    """Adapters loaded at start: a name, `name@alias` or `name@version`."""
    pinned: list[str] = []
    """Adapters that never give way."""
    load_within_s: float = Field(default=30, gt=0)
    """How long a request waits for its adapter to be loaded; beyond it: 503 with Retry-After."""


class ModelSpec(_Strict):
    """One model behind the gateway: a Serve application of its own."""

    backend: str
    """Name of an installed backend: `gateway plugins` lists them."""
    source: str | None = None
    """Where the weights come from: a folder, `hf:ORG/NAME`, `package:DISTRIBUTION/FILE`, or a plugin's scheme."""
    sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    """Expected hash of a single-file source; a mismatch is an error that names both."""
    dtype: Literal["float32", "bfloat16", "float16", "int4", "auto"] = "auto"
    """Precision of the weights; auto: float32 on a CPU, the checkpoint's own on a GPU."""
    max_model_len: int | None = Field(default=None, ge=16)
    """Longest prompt plus answer in tokens; default: the model's own."""
    replicas: int = Field(default=1, ge=1, le=1000)
    max_concurrent: int = Field(default=256, ge=1)
    """Requests in flight per replica; beyond them: 429 with Retry-After."""
    resources: ResourceSpec = ResourceSpec()
    tool_parser: str = "hermes"
    """How the model writes calls of tools: `hermes`, `llama3_json`; with vLLM any parser that it knows."""
    reasoning_parser: str | None = None
    """How the model marks its thoughts: `deepseek_r1`, `qwen3`, `seed_oss`; with vLLM any parser that it knows."""
    adapters: AdaptersSpec | None = None
    options: dict[str, Any] = {}
    """The backend's own settings; the backend refuses those that it does not know."""


class TargetSpec(_Strict):
    """One model a route may lead to."""

    model: Name
    weight: float = Field(default=1.0, gt=0)


class RouteSpec(_Strict):
    """A name that clients use, and the models behind it. One that fails before its first byte gives way to the next."""

    policy: str = "first"
    """`first`: in order; `weighted`: drawn by weight, the rest as fallbacks; or a plugin's policy."""
    targets: list[TargetSpec] = Field(min_length=1)

    @field_validator("targets", mode="before")
    @classmethod
    def _names_alone(cls, value: Any) -> Any:
        """`targets: [a, b]` is short for `targets: [{model: a}, {model: b}]`."""
        if not isinstance(value, list):
            return value
        return [{"model": item} if isinstance(item, str) else item for item in cast(list[Any], value)]


class AppSpec(_Strict):
    """A Serve application of its own under a route prefix; the playground is one."""

    app: str
    """Name of an installed app: `gateway plugins` lists them."""
    route_prefix: str | None = Field(default=None, pattern=r"^/[a-z0-9/_-]*[a-z0-9_-]$")
    """Default: `/` and the app's key in the config."""
    options: dict[str, Any] = {}


class LimitSpec(_Strict):
    """What the doors turn away."""

    max_body_mb: float = Field(default=32, gt=0)
    """Largest request body, in MiB; beyond it: 413."""
    max_concurrent: int = Field(default=4096, ge=1)
    """Requests in flight per ingress replica; beyond them: 429."""
    body_timeout_s: float = Field(default=30, gt=0)
    """How long a client may take to send its body."""


class ServerSpec(_Strict):
    """Where the gateway listens and who may come."""

    host: str = "127.0.0.1"
    """Without keys only a loopback address is accepted."""
    port: int = Field(default=8000, ge=1, le=65535)
    api_keys: list[str] = []
    """Keys, or `sha256:` and a key's hex digest. `GATEWAY_API_KEYS` (comma-separated) adds to them."""
    ingress_replicas: int = Field(default=1, ge=1, le=1000)
    limits: LimitSpec = LimitSpec()
    store: str | None = None
    """Where files, batches and responses are kept, as an SQLAlchemy URL; default: an SQLite file below
    `~/.local/state`."""
    drain_s: float = Field(default=1.0, ge=0)
    """How long a replica that is taken away goes on answering what it has, at least."""


class GatewayConfig(_Strict):
    """The whole file."""

    server: ServerSpec = ServerSpec()
    default_model: str | None = None
    """Model or route for requests that name none (`/tokenize`); default: the first model."""
    models: dict[Name, ModelSpec] = Field(min_length=1)
    routes: dict[Name, RouteSpec] = {}
    apps: dict[Name, AppSpec] = {}

    @model_validator(mode="after")
    def _names_meet(self) -> GatewayConfig:
        problems = _clashes(self, self.models)
        if problems:
            raise ValueError("\n".join(problems))
        return self

    @property
    def default_target(self) -> str:
        return self.default_model or next(iter(self.models))

    def prefix_of(self, app: str) -> str:
        """The route prefix of one of `apps`."""
        return self.apps[app].route_prefix or f"/{app}"


def load(path: Path) -> GatewayConfig:
    """Read a config file. Raises ConfigError with every problem at once, one a line, each with its YAML path."""
    return parse(read(path), str(path))


def read(path: Path) -> dict[Any, Any]:
    """A config file's YAML as it stands. Raises ConfigError where it cannot be read; never repeats the file's text."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is not UTF-8 text ({error.reason} at byte {error.start})") from error
    try:
        data: Any = yaml.load(text, Loader=_NoDuplicates)  # noqa: S506 (a SafeLoader)
    except yaml.MarkedYAMLError as error:
        # PyYAML's own message quotes the line, which may hold a key.
        mark = error.problem_mark or error.context_mark
        where = f" in line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise ConfigError(f"{path}: is not YAML: {error.problem or error.context}{where}") from None
    except yaml.reader.ReaderError as error:
        raise ConfigError(f"{path}: is not YAML: {error.reason} at position {error.position}") from None
    except RecursionError:
        raise ConfigError(f"{path}: is nested too deeply") from None
    except ValueError as error:
        raise ConfigError(f"{path}: is not YAML: {error}") from None
    if not isinstance(data, dict):
        kind = "nothing" if data is None else type(data).__name__
        raise ConfigError(f"{path}: expected a mapping with `models:`, found {kind}")
    return cast(dict[Any, Any], data)


def parse(data: Any, origin: str = "config") -> GatewayConfig:
    """Check a config that was read already. `origin` stands before each problem."""
    config, problems = examine(data)
    if problems:
        raise ConfigError("\n".join(f"{origin}: {problem}" for problem in problems))
    return config


def examine(data: Any) -> tuple[GatewayConfig, list[str]]:
    """Every problem, each with its YAML path, and the config; with problems, only its sound models, routes and apps."""
    try:
        return GatewayConfig.model_validate(data), []
    except ValidationError as error:
        problems = _lines(error)
        places: set[tuple[int | str, ...]] = {problem["loc"] for problem in error.errors(include_url=False)}
    written: dict[str, Any] = cast(dict[str, Any], data) if isinstance(data, dict) else {}
    broken = {place[:2] for place in places}
    config = GatewayConfig.model_construct(
        server=ServerSpec(),
        default_model=None if ("default_model",) in broken else written.get("default_model"),
        models=_sound(written, "models", ModelSpec, broken),
        routes=_sound(written, "routes", RouteSpec, broken),
        apps=_sound(written, "apps", AppSpec, broken),
    )
    if () not in places:
        # Names are compared last by pydantic, and not at all where anything else is wrong.
        models: Any = written.get("models")
        names = cast(dict[Any, Any], models) if isinstance(models, dict) else {}
        problems += _clashes(config, [str(name) for name in names])
    return config, problems


_Spec = TypeVar("_Spec", bound=_Strict)


def _sound(written: dict[str, Any], section: str, kind: type[_Spec], broken: Collection[Any]) -> dict[str, _Spec]:
    if (section,) in broken:
        return {}
    entries: dict[str, Any] = written.get(section, {})
    return {name: kind.model_validate(entry) for name, entry in entries.items() if (section, name) not in broken}


def _clashes(config: GatewayConfig, models: Collection[str]) -> list[str]:
    """Names that lead nowhere or are given twice. `models`: every model's name, also of those with other problems."""
    problems: list[str] = []
    for name, route in config.routes.items():
        if name in models:
            problems.append(f"routes.{name}: a model has this name already; choose another")
        for index, target in enumerate(route.targets):
            if target.model not in models:
                problems.append(
                    f"routes.{name}.targets[{index}].model: no model {target.model!r}; models: {', '.join(models)}"
                )
    if config.default_model is not None and config.default_model not in {*models, *config.routes}:
        problems.append(f"default_model: no model or route {config.default_model!r}")
    prefixes: dict[str, str] = {}
    for name in config.apps:
        prefix = config.prefix_of(name)
        if re.match(r"^/(v1|m|v2|health|metrics|tokenize|detokenize|tokenizer_info)(/|$)", prefix):
            problems.append(f"apps.{name}.route_prefix: {prefix} belongs to the gateway; choose another")
        elif prefix in prefixes:
            problems.append(f"apps.{name}.route_prefix: {prefix} is taken by apps.{prefixes[prefix]}")
        prefixes[prefix] = name
    return problems


def _lines(error: ValidationError) -> list[str]:
    lines: list[str] = []
    for problem in error.errors(include_url=False):
        path = ""
        for part in problem["loc"]:
            if part != "[key]":
                path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else str(part)
        if problem["type"] == "value_error":
            context = problem.get("ctx", {}).get("error", problem["msg"])
            lines += [f"{path}: {line}" if path else line for line in str(context).splitlines()]
        elif problem["type"] == "extra_forbidden":
            lines.append(f"{path}: unknown setting")
        elif problem["loc"][-1:] == ("[key]",):
            lines.append(f"{path}: a name is letters, digits, `.`, `_`, `-`, at most 64, the first a letter or digit")
        else:
            # A value may be a secret (api_keys): only its shape is told, never itself.
            lines.append(f"{path}: {problem['msg']}")
    return lines


class _NoDuplicates(yaml.SafeLoader):
    """YAML lets a later key silently replace an earlier one; a config must not lose a model that way."""


def _construct(loader: _NoDuplicates, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[Any] = set()
    for key_node, _ in node.value:
        # `<<` is no key: what it brings may be replaced by the mapping's own.
        if key_node.tag == "tag:yaml.org,2002:merge":
            continue
        key: Any = loader.construct_object(key_node, deep=True)  # pyright: ignore[reportUnknownMemberType]
        if isinstance(key, Hashable):
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{key!r} stands twice", key_node.start_mark)
            seen.add(key)
    return yaml.SafeLoader.construct_mapping(loader, node, deep=True)


_NoDuplicates.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _construct)
