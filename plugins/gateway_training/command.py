"""`gateway adapters train`: reads arguments, prints, keeps the result. Imports nothing heavy before it runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from gateway.adapters.version import AdapterVersion
    from gateway_training.work import Job


def _option(text: str, *names: str, **kwargs: Any) -> Any:
    return typer.Option(*names, help=text, show_default=False, **kwargs)


def train(
    base: Annotated[str, _option("A model of the config, or a source: a folder, hf:…, package:….")],
    data: Annotated[Path, _option("Rows, one JSON object a line: `messages`, or `prompt` and `completion`.")],
    out: Annotated[str, _option("The adapter's name.", "--out")],
    config: Annotated[
        Path | None, _option("The config that names the base; default: as `gateway serve`.", "--config", "-c")
    ] = None,
    validation: Annotated[Path | None, _option("Rows to measure on; default: a tenth of the data.")] = None,
    folder: Annotated[Path | None, _option("Where the adapter is written; default: beside the store.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a training that was cut short.")] = False,
    restart: Annotated[bool, typer.Option("--restart", help="Forget it and begin again.")] = False,
    rank: Annotated[int | None, _option("Size of the adapter's matrices (8).")] = None,
    alpha: Annotated[int | None, _option("Its weight is alpha / rank (twice the rank).")] = None,
    dropout: Annotated[float | None, _option("Share of its inputs left out in a step (0).")] = None,
    targets: Annotated[str | None, _option("Linear layers, with commas (all but the head).")] = None,
    last_layers: Annotated[int | None, _option("Only the last so many layers: faster (all).")] = None,
    learning_rate: Annotated[float | None, _option("The highest (0.001).", "--learning-rate", "--lr")] = None,
    weight_decay: Annotated[float | None, _option("(0)")] = None,
    batch_size: Annotated[int | None, _option("Rows a step (8).")] = None,
    epochs: Annotated[float | None, _option("How often every row is seen (3).")] = None,
    max_steps: Annotated[int | None, _option("At most so many steps.")] = None,
    max_length: Annotated[int | None, _option("Longest row in tokens (1024).")] = None,
    validation_share: Annotated[float | None, _option("Share of the data to measure on (0.1).")] = None,
    evaluate_every: Annotated[int | None, _option("Steps between looks at the validation loss (a tenth).")] = None,
    patience: Annotated[int | None, _option("Looks without a better one before it ends (3).")] = None,
    checkpoint_every: Annotated[int | None, _option("Steps between checkpoints (20).")] = None,
    max_bad: Annotated[float | None, _option("Share of bad rows that is put up with (0.05).")] = None,
    as_chat: Annotated[bool, typer.Option("--as-chat", help="Prompts are a user's messages, not plain text.")] = False,
    device: Annotated[str | None, _option("cpu, cuda, mps (what is there).")] = None,
    dtype: Annotated[str | None, _option("float32, bfloat16 (float32 on a CPU).")] = None,
    seed: Annotated[int | None, _option("Same seed, data and machine: same adapter (0).")] = None,
    ray: Annotated[str | None, _option("Train on a Ray cluster at this address instead of here.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """Train an adapter on rows of yours; the best one by validation loss is registered."""
    from gateway import cli, console
    from gateway import config as configs
    from gateway.adapters.version import check_name
    from gateway_training.base import find_base
    from gateway_training.options import read_options
    from gateway_training.work import Job

    check_name(out)
    options = read_options(
        rank=rank, alpha=alpha, dropout=dropout, targets=None if targets is None else targets.split(","),
        last_layers=last_layers, learning_rate=learning_rate, weight_decay=weight_decay, batch_size=batch_size,
        epochs=epochs, max_steps=max_steps, max_length=max_length, validation_share=validation_share,
        evaluate_every=evaluate_every, patience=patience, checkpoint_every=checkpoint_every, max_bad=max_bad,
        as_chat=as_chat, device=device, dtype=dtype, seed=seed,
    )  # fmt: skip
    parsed = configs.load(config or cli.default_config())
    job = Job(find_base(base, parsed), options, data, validation, out)
    place, measured = _train(job, folder, ray, resume=resume, restart=restart)
    version = _register(job, place, measured, parsed.server.store)
    if as_json:
        return console.print_json({"adapter": version.label, "base": version.base, "folder": str(place), **measured})
    lines = console.out()
    early = f", ended early after {measured['steps']}" if measured["stopped_early"] else ""
    lines.print(
        f"[green]✓[/] {version.base}:{version.label}: validation loss {measured['validation_loss_before']:.3f} → "
        f"{measured['validation_loss']:.3f} (best after {measured['best_step']} steps{early}; "
        f"{measured['seconds']:.0f} s of training)",
        soft_wrap=True,
    )
    return lines.print(f"  {place}", soft_wrap=True, markup=False)


def _train(job: Job, folder: Path | None, ray: str | None, *, resume: bool, restart: bool) -> tuple[Path, Any]:
    """Where the finished adapter stands, and what was measured."""
    from gateway import console
    from gateway.adapters.sources import digest_of
    from gateway.state import state_folder
    from gateway_training import bench, work

    shelf = folder.absolute().parent if folder is not None else state_folder() / "adapters"
    if folder is not None and folder.exists():
        console.fail(f"{folder} exists already: name another --folder")
    with bench.occupied(shelf / f".{job.title}.training", resume=resume, restart=restart) as bench_folder:
        try:
            with console.progress() as bars:
                report = console.reporter(bars, f"training {job.title}")
                if ray is None:
                    measured = work.train(job, bench_folder, report, noted=_note)
                else:
                    from gateway_training import remote

                    measured = remote.train(job, bench_folder, report, ray, noted=_note)
        except KeyboardInterrupt:
            console.fail("stopped; the same command with --resume goes on from the last checkpoint", 130)
        place = folder.absolute() if folder is not None else shelf / f"{job.title}-{digest_of(bench_folder)[:12]}"
        bench.move(bench_folder, place)
    return place, measured


def _note(count: int, total: int, listing: str) -> None:
    from gateway import console

    lines = console.err()
    lines.print(f"[yellow]{count} of {total} rows are bad and left out:[/]")
    lines.print(listing, markup=False, soft_wrap=True)


def _register(job: Job, place: Path, measured: Any, store_url: str | None) -> AdapterVersion:
    import asyncio

    from gateway import plugins
    from gateway.adapters import intake
    from gateway.adapters.registry import Registry
    from gateway.adapters.verify import Base
    from gateway.backend import silent
    from gateway.cache import cache_root
    from gateway.state import default_url
    from gateway.store import Store
    from gateway_training.base import bring_base

    found = plugins.load()
    base = bring_base(job.base, found, silent)

    async def add() -> AdapterVersion:
        store = Store(store_url or default_url())
        try:
            return await intake.add(
                Registry(store),
                str(place),
                name=job.title,
                base=Base(job.base.name, base.digest, base.path),
                find=found.adapter_source,
                cache=cache_root(),
                metrics=measured,
            )
        finally:
            await store.close()

    return asyncio.run(add())
