"""A training on a cluster: the data goes there as bytes; progress, checkpoints and the adapter's files come back.

The cluster's machines have this project installed. Knows no ray: `gateway.serve.jobs` does.
"""

from __future__ import annotations

import queue
import tempfile
import threading
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from gateway.backend import Report
from gateway.errors import GatewayError
from gateway_training.work import FILES, Job, Noted
from gateway_training.work import train as train_here

CHECKPOINT = "checkpoint.safetensors"

Event = (
    tuple[Literal["progress"], str, float]
    | tuple[Literal["bad"], int, int, str]
    | tuple[Literal["checkpoint"], bytes]
    | tuple[Literal["done"], dict[str, Any], dict[str, bytes]]
)


def train(job: Job, folder: Path, report: Report, address: str, *, noted: Noted | None = None) -> dict[str, Any]:
    """As `work.train`, on a machine of the cluster at `address`. Checkpoints are kept here too: a cluster that is lost
    costs what came after the last. Raises ConfigError where the cluster cannot be reached."""
    from gateway.serve import jobs

    data = {role: path.read_bytes() for role, path in _roles(job).items()}
    checkpoint = folder / CHECKPOINT
    begun = checkpoint.read_bytes() if checkpoint.exists() else None
    gpus = 1.0 if job.options.device == "cuda" else 0.0
    report(f"waiting for the cluster at {address}", 0.0)
    for event in jobs.stream(address, work, (job, data, begun), gpus=gpus):
        match event:
            case ("progress", what, share):
                report(what, share)
            case ("bad", count, total, listing):
                if noted is not None:
                    noted(count, total, listing)
            case ("checkpoint", content):
                from gateway_training.checkpoint import write

                write(folder, content)
            case ("done", measured, files):
                for name, content in files.items():
                    (folder / name).write_bytes(content)
                return measured
    raise GatewayError(f"the training at {address} ended without a result")


def work(job: Job, data: Mapping[str, bytes], begun: bytes | None) -> Iterator[Event]:
    """What runs on the cluster."""
    events: queue.Queue[Event | BaseException] = queue.Queue()
    with tempfile.TemporaryDirectory(prefix="gateway-training-") as name:
        folder = Path(name)
        places: dict[str, Path] = {}
        for role, path in _roles(job).items():
            places[role] = folder / role / path.name
            places[role].parent.mkdir()
            places[role].write_bytes(data[role])
        if begun is not None:
            (folder / CHECKPOINT).write_bytes(begun)
        here = replace(job, data=places["data"], validation=places.get("validation"))

        def run() -> None:
            try:
                measured = train_here(
                    here,
                    folder,
                    lambda what, share: events.put(("progress", what, share)),
                    noted=lambda count, total, listing: events.put(("bad", count, total, listing)),
                    saved=lambda content: events.put(("checkpoint", content)),
                )
                files = {each: (folder / each).read_bytes() for each in FILES}
                events.put(("done", measured, files))
            except BaseException as error:
                events.put(error)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        while True:
            event = events.get()
            if isinstance(event, BaseException):
                raise event
            yield event
            if event[0] == "done":
                thread.join()
                return


def _roles(job: Job) -> dict[str, Path]:
    """The job's files."""
    return {role: path for role, path in (("data", job.data), ("validation", job.validation)) if path is not None}
