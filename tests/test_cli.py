"""The command line as people run it: what it lists, and one clear line for everything that can go wrong at a start."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from gateway import __version__

ECHO = "models: {a: {backend: echo}}\n"


class Cli:
    """Runs `gateway` with a home of its own, so that no gateway of anybody's is found."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {**os.environ, "GATEWAY_CACHE": str(folder / "cache"), "COLUMNS": "200", "NO_COLOR": "1"}

    def __call__(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "gateway", *arguments],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=120,
        )

    def config(self, text: str) -> str:
        path = self.folder / "config.yaml"
        path.write_text(text)
        return str(path)

    def plugin(self, name: str, text: str) -> None:
        """Put a plugin on the path, as an installed distribution is."""
        site = self.folder / "site"
        info = site / f"{name}-1.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n")
        (info / "entry_points.txt").write_text(f"[gateway]\n{name} = {name}_plugin\n")
        (site / f"{name}_plugin.py").write_text(text)
        self.environment["PYTHONPATH"] = str(site)


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    return Cli(tmp_path)


def failed(done: subprocess.CompletedProcess[str], *lines: str) -> None:
    """It ended with 1, said exactly these things (each the beginning of a line), and no traceback."""
    assert done.returncode == 1, (done.stdout, done.stderr)
    told = [line for line in done.stderr.splitlines() if line.strip()]
    assert len(told) == len(lines), done.stderr
    for line, expected in zip(told, lines, strict=True):
        assert line.startswith(f"error: {expected}"), done.stderr


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_lists_every_command(cli: Cli, flag: str) -> None:
    done = cli(flag)
    assert done.returncode == 0
    for command in ("serve", "apply", "check", "render", "models", "plugins", "status", "new", "eval"):
        assert f"│ {command} " in done.stdout
    assert "OpenAI-compatible" in done.stdout
    assert done.stderr == ""


def test_help_imports_nothing_heavy(cli: Cli) -> None:
    code = (
        "import sys\nsys.argv = ['gateway', '--help']\nfrom gateway.cli import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert end.code == 0\n"
        "heavy = {'ray', 'torch', 'vllm', 'gradio', 'transformers', 'evaluate', 'pydantic', 'httpx', 'numpy',"
        " 'onnxruntime', 'rich.markdown', 'pygments', 'yaml'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], env=cli.environment, capture_output=True, text=True, timeout=60)
    assert done.stderr.strip() == "[]"


@pytest.mark.slow
def test_every_command_has_help(cli: Cli) -> None:
    for command in (
        ["serve"],
        ["apply"],
        ["check"],
        ["render"],
        ["models"],
        ["plugins"],
        ["status"],
        ["new", "plugin"],
    ):
        done = cli(*command, "--help")
        assert done.returncode == 0, command
        assert "Usage:" in done.stdout


def test_version(cli: Cli) -> None:
    assert cli("--version").stdout == f"{__version__}\n"


def test_an_unknown_command_is_a_usage_error(cli: Cli) -> None:
    done = cli("sreve")
    assert done.returncode == 2
    assert "sreve" in done.stderr


def test_check_says_what_can_be_served(cli: Cli) -> None:
    config = cli.config(ECHO)
    done = cli("check", config)
    assert (done.returncode, done.stdout) == (0, f"✓ {config} can be served\n")
    assert json.loads(cli("check", config, "--json").stdout) == {"ok": True, "errors": []}


def test_check_finds_every_error_at_once(cli: Cli) -> None:
    config = cli.config(
        "server: {prot: 1}\n"
        "models:\n  a: {backend: ecko}\n  b: {backend: echo, options: {speed: 1}}\n  c: {backend: echo, replicas: 0}\n"
        "routes:\n  r: {targets: [d]}\n"
    )
    places = [
        "server.prot",
        "models.c.replicas",
        "routes.r.targets[0].model",
        "models.a.backend",
        "models.b.options.speed",
    ]
    done = cli("check", config)
    failed(done, *(f"{config}: {place}: " for place in places))
    assert done.stdout == ""
    told = cli("check", config, "--json")
    assert told.returncode == 1
    body = json.loads(told.stdout)
    assert body["ok"] is False
    assert [line.removeprefix(f"{config}: ").split(": ")[0] for line in body["errors"]] == places


def test_check_of_no_file(cli: Cli) -> None:
    failed(cli("check", "none.yaml"), "none.yaml: cannot be read: No such file")


def test_plugins_for_people_and_programs(cli: Cli) -> None:
    cli.plugin("broken", "import no_such_module_anywhere\n")
    body = json.loads(cli("plugins", "--json").stdout)
    assert {"kind": "backend", "name": "echo", "plugin": "echo"} in body["offers"]
    assert {"kind": "app", "name": "playground", "plugin": "playground"} in body["offers"]
    assert body["broken"] == {"broken": "ModuleNotFoundError: No module named 'no_such_module_anywhere'"}
    done = cli("plugins")
    assert done.returncode == 0
    assert "weighted" in done.stdout
    assert "broken could not be loaded: ModuleNotFoundError" in done.stderr


def test_status_where_nothing_runs(cli: Cli) -> None:
    failed(cli("status"), "no gateway of yours is running on this machine: start one with `gateway serve`")
    failed(cli("status", "--port", "4711", "--json"), "no gateway of yours is running on port 4711")


def test_models_where_nothing_runs(cli: Cli) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
    failed(cli("models", "--url", url), f"nothing answers at {url}/v1/models")


def test_apply_where_nothing_runs(cli: Cli) -> None:
    failed(cli("apply", cli.config(ECHO)), "no gateway of yours is running")


def test_serve_of_no_file(cli: Cli) -> None:
    failed(cli("serve", "none.yaml"), "none.yaml: cannot be read: No such file")


def test_serve_where_the_port_is_in_use(cli: Cli) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        failed(cli("serve", cli.config(ECHO), "--port", str(port)), f"port {port} on 127.0.0.1 is in use: stop what")
        failed(cli("serve", cli.config(f"{ECHO}server: {{port: {port}}}")), f"port {port} on 127.0.0.1 is in use")


def test_serve_beyond_this_machine_without_a_key(cli: Cli) -> None:
    done = cli("serve", cli.config(ECHO), "--host", "0.0.0.0")
    failed(done, "server.host: 0.0.0.0 is reachable from other machines and no key is set. ")
    assert "GATEWAY_API_KEYS" in done.stderr


def test_serve_with_too_little_memory(cli: Cli) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    text = f"server: {{port: {port}}}\nmodels: {{a: {{backend: echo, resources: {{memory_gb: 100000}}}}}}"
    failed(cli("serve", cli.config(text)), "too little memory: 100001.2 GiB are needed and ")


def test_serve_of_an_unknown_backend(cli: Cli) -> None:
    cli.plugin("broken", "import no_such_module_anywhere\n")
    done = cli("serve", cli.config("models: {a: {backend: broken}}"))
    failed(
        done, "models.a.backend: no backend 'broken'; there are: echo, onnx, torch, vllm; could not be loaded: broken"
    )


MISSING_WHEEL = """
from gateway.backend import BackendOffer
from gateway.hookspecs import hookimpl

@hookimpl
def register_backends(register):
    register(BackendOffer("wheeled", None, requires=("no_such_wheel",)))
"""


def test_serve_with_a_missing_wheel(cli: Cli) -> None:
    cli.plugin("wheeled", MISSING_WHEEL)
    done = cli("serve", cli.config("models: {a: {backend: wheeled}}"))
    failed(done, "models.a.backend: wheeled needs no_such_wheel, which is not installed: `make serve` installs")


def test_two_plugins_of_one_name(cli: Cli) -> None:
    cli.plugin("rival", MISSING_WHEEL.replace("wheeled", "echo"))
    failed(cli("plugins"), "backend 'echo' is offered by 'echo' and by 'rival': uninstall one of them")


def test_a_failed_start_leaves_nothing(cli: Cli) -> None:
    cli("serve", cli.config("models: {a: {backend: nobody}}"))
    assert sorted(path.name for path in cli.folder.iterdir()) == ["config.yaml"]


@pytest.mark.slow
def test_render_to_a_file_holds_no_key(cli: Cli) -> None:
    cli.environment["GATEWAY_API_KEYS"] = "sk-from-the-environment"
    config = cli.config(f"{ECHO}server: {{api_keys: [sk-from-the-config]}}")
    done = cli("render", config, "-o", "serve.yaml")
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    text = (cli.folder / "serve.yaml").read_text()
    assert "import_path: gateway.serve.build:model" in text
    assert "sk-from" not in text
    shown = cli("render", config)
    assert shown.stdout == text
    failed(cli("render", cli.config("models: {a: {backend: nobody}}")), "models.a.backend: no backend 'nobody'")
