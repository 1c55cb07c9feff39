"""Opens graphs by onnxruntime: the model's own, and beside it the one with inputs for adapters once there are some.
Knows no tensor."""

from __future__ import annotations

import threading
from importlib import import_module
from pathlib import Path
from typing import Any

from gateway_onnx.lora_graph import LoraGraph


def open_session(model: str | bytes, *, threads: int, spinning: bool, weights: Path | None = None) -> Any:
    """An InferenceSession on the CPU. `weights`: the folder of those of a graph that comes as bytes. Blocks for about a
    second."""
    ort: Any = import_module("onnxruntime")
    ort.disable_telemetry_events()
    options: Any = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # Threads that spin between two operators gain a quarter; spinning on after the run would rob other engines.
    options.add_session_config_entry("session.intra_op.allow_spinning", "1" if spinning else "0")
    options.add_session_config_entry("session.force_spinning_stop", "1")
    if weights is not None:
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(weights))
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


class LoraSession:
    """The graph with inputs for adapters, opened when the first one comes.

    A session of its own, over weights of its own in memory: its few nodes more at every product would cost steps
    without adapters a tenth of their speed.
    """

    def __init__(self, graph: LoraGraph, folder: Path, *, threads: int, spinning: bool) -> None:
        """`folder`: where the graph's weights are."""
        self.graph = graph
        self._folder = folder
        self._threads, self._spinning = threads, spinning
        self._session: Any = None
        self._opening = threading.Lock()

    def open(self) -> Any:
        """The session; opened once, by whoever comes first, from any thread. Blocks for about a second then."""
        with self._opening:
            if self._session is None:
                self._session = open_session(
                    self.graph.model, threads=self._threads, spinning=self._spinning, weights=self._folder
                )
            return self._session

    def close(self) -> None:
        self._session = None
