"""The shipped deployment as a person starts it: when it is ready, when its page is seen, what its processes hold."""

from __future__ import annotations

import psutil

from tests.bench import paint
from tests.bench.engines import SHIPPED
from tests.bench.figures import Figure, Figures
from tests.bench.processes import named, pss_mb
from tests.running import Gateway, free_port, serving

READY_S = 60.0


def measure(figures: Figures) -> None:
    """Starts `deployments/local.yaml`; the first time on a machine its cache is cold, so it is started until warm."""
    with serving(SHIPPED, free_port(), within_s=600) as gateway:
        cold = gateway.seconds
        if cold <= READY_S:
            return _tell(figures, cold, gateway)
    with serving(SHIPPED, free_port(), within_s=600) as gateway:
        return _tell(figures, gateway.seconds, gateway)


def _tell(figures: Figures, seconds: float, gateway: Gateway) -> None:
    processes = gateway.descendants()
    figures.add(Figure("start", "three engines, from a warm cache", "s", seconds, how="ours", target=READY_S))
    names = {"playground": ("ServeReplica:app-playground",), "ingress replica": ("ServeReplica:gateway:Gateway",)}
    figures.add(
        Figure("memory", "the CLI that serves (PSS)", "MB", pss_mb(psutil.Process(gateway.process.pid)), how="ours")
    )
    for what, words in names.items():
        found = named(processes, *words)
        figures.add(Figure("memory", f"{what} (PSS)", "MB", sum(map(pss_mb, found)), how="ours"))
    everything = sum(pss_mb(process) for process in processes if process.is_running())
    figures.add(Figure("memory", "everything that was started (PSS)", "MB", everything, how="ours"))
    paint.measure(figures, f"{gateway.url}/playground")
