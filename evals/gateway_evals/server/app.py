"""The HTTP API of evaluations: suites, cases, runs and their progress. Knows no Ray; keys are the door's business."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any, cast

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator
from starlette.exceptions import HTTPException

from gateway import __version__
from gateway.apps import AppContext
from gateway.errors import BodyTooLarge, Conflict, GatewayError, InvalidRequest, MethodNotAllowed, NotFound
from gateway.ingress.auth import sent_key
from gateway.state import state_folder
from gateway.types import ASGIApp, Message, Receive, Scope, Send
from gateway_evals import catalog
from gateway_evals.client import GatewayClient
from gateway_evals.errors import EvaluationError
from gateway_evals.evaluation import choose_models
from gateway_evals.html_report import write_report
from gateway_evals.saved import find_run
from gateway_evals.server import options as evals_options
from gateway_evals.server.cases import add_case
from gateway_evals.server.runs import RunRequest, Runs

MOST_BYTES = 1024 * 1024
"""Of a request's body."""

REPORT_HEADERS = {
    # Beside the policy that the file itself has: what it shows was written by models, so it gets no origin of ours.
    "content-security-policy": "sandbox allow-scripts allow-downloads",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "cache-control": "private",
}

Text = Annotated[str, StringConstraints(min_length=1, max_length=100_000, strip_whitespace=True)]
SuiteName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]


class _Asked(BaseModel):
    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)


class NewRun(_Asked):
    """A run to start."""

    suite: SuiteName
    """A name of `GET /evals/suites`."""
    models: Annotated[list[str], Field(min_length=1, max_length=32)]
    """Served models, routes or adapters; measured one after the other."""
    limit: Annotated[float, Field(gt=0)] | None = None
    """Rows a task, or a share of them below 1."""

    @field_validator("limit")
    @classmethod
    def _whole(cls, value: float | None) -> float | None:
        if value is not None and value >= 1 and not value.is_integer():
            raise ValueError("a number of rows (10) or a share of them (0.1)")
        return value


class NewCase(_Asked):
    """A test case: a question for the chat endpoint and the answers that are right."""

    question: Text
    answers: Annotated[list[Text], Field(min_length=1, max_length=64)]


def build(context: AppContext) -> ASGIApp:
    """The API for one gateway. Raises ConfigError for options that it does not know."""
    options = evals_options.read(context.options)
    runs = Runs(
        state_folder() / "evals" / "runs", context.base_url, most=options.max_runs, concurrency=options.concurrency
    )

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
        yield
        await runs.close()

    app = FastAPI(title="Evaluations", version=__version__, docs_url=None, redoc_url=None, lifespan=lifespan)
    app.exception_handler(GatewayError)(_told)
    app.exception_handler(RequestValidationError)(_misunderstood)
    app.exception_handler(HTTPException)(_not_here)
    _add_suites(app)
    _add_runs(app, runs, context.base_url)
    return _Bounded(app)


def _add_suites(app: FastAPI) -> None:
    @app.get("/suites")
    def suites() -> dict[str, Any]:  # pyright: ignore[reportUnusedFunction]
        """The suites that can be run."""
        rows = [
            {
                "name": each.name,
                "description": each.suite.description if each.suite else "",
                "licence": each.suite.licence if each.suite else "",
                "questions": each.suite.questions if each.suite else None,
                "minutes": each.suite.minutes if each.suite else None,
                "tasks": [{"task": task.task, "title": task.shown} for task in each.suite.tasks] if each.suite else [],
                "own": each.own,
                "error": each.problem or None,
            }
            for each in catalog.listing()
        ]
        return {"object": "list", "data": rows}

    @app.post("/suites/{name}/samples", status_code=201)
    def add_sample(name: SuiteName, case: NewCase) -> dict[str, Any]:  # pyright: ignore[reportUnusedFunction]
        """Add a test case to a suite of one's own, which is made if need be."""
        return add_case(name, case.question, case.answers)


def _add_runs(app: FastAPI, runs: Runs, base_url: str) -> None:
    @app.get("/runs")
    async def listed(limit: Annotated[int, Field(ge=1, le=1000)] = 100) -> dict[str, Any]:  # pyright: ignore[reportUnusedFunction]
        """Runs, the newest first."""
        return {"object": "list", "data": await asyncio.to_thread(runs.views, limit)}

    @app.post("/runs", status_code=202)
    async def start(request: Request, asked: NewRun) -> dict[str, Any]:  # pyright: ignore[reportUnusedFunction]
        """Start a run; it asks the gateway with the key that came with this request."""
        suite = catalog.everything().get(asked.suite)
        if suite is None:
            raise NotFound(f"no suite {asked.suite!r}; there are: {', '.join(catalog.everything())}")
        key = sent_key(dict(request.scope["headers"])).decode("latin-1") or None
        try:
            async with GatewayClient(base_url, key) as client:
                await choose_models(client, asked.models)
        except EvaluationError as error:
            raise InvalidRequest(error.message, param="models") from error
        models = tuple(dict.fromkeys(asked.models))
        run_id = runs.start(suite, RunRequest(asked.suite, models, asked.limit), key)
        return await asyncio.to_thread(runs.view, run_id)

    @app.get("/runs/{run_id}")
    async def one(run_id: str) -> dict[str, Any]:  # pyright: ignore[reportUnusedFunction]
        """A run: its state, how far it is, and its figures once it is done."""
        return await asyncio.to_thread(runs.view, run_id, results=True)

    @app.get("/runs/{run_id}/report", response_class=HTMLResponse)
    async def report(run_id: str) -> FileResponse:  # pyright: ignore[reportUnusedFunction]
        """The report of a run that is done, as one HTML file; made when it is first asked for."""
        path = await asyncio.to_thread(_report, runs, run_id)
        return FileResponse(path, media_type="text/html; charset=utf-8", headers=REPORT_HEADERS)

    @app.delete("/runs/{run_id}")
    async def cancel(run_id: str) -> dict[str, Any]:  # pyright: ignore[reportUnusedFunction]
        """Cancel a run that is under way; what it had finished stays in its journal."""
        await runs.cancel(run_id)
        return await asyncio.to_thread(runs.view, run_id)


def _report(runs: Runs, run_id: str) -> Path:
    """The report's file. Blocks, for seconds where samples are many. Raises Conflict for a run that has no results."""
    folder = runs.folder(run_id)
    path = folder / "report.html"
    if not path.exists():
        state = runs.view(run_id)["state"]
        if state != "done":
            raise Conflict(f"the run {run_id} has no report: it is {state}")
        write_report(find_run(str(folder / "results"), folder), path)
    return path


async def _told(_: Request, error: Exception) -> JSONResponse:
    known = error if isinstance(error, GatewayError) else GatewayError("The evaluations failed; the log says more")
    # What is wrong with a suite is the person's to put right, wherever it was found.
    status = known.status if known.status < 500 or not isinstance(known, EvaluationError) else 502
    headers = {name.decode(): value.decode() for name, value in known.headers()}
    return JSONResponse(known.body(), status, headers)


async def _misunderstood(request: Request, error: Exception) -> JSONResponse:
    problems: list[str] = []
    for problem in cast("RequestValidationError", error).errors():
        where = ".".join(str(part) for part in problem["loc"] if part != "body")
        problems.append(f"{where}: {problem['msg']}" if where else str(problem["msg"]))
    return await _told(request, InvalidRequest("; ".join(problems)))


async def _not_here(request: Request, error: Exception) -> JSONResponse:
    told = cast("HTTPException", error)
    if isinstance(told.__cause__, GatewayError):
        return await _told(request, told.__cause__)
    path = request.url.path
    if told.status_code == 404:
        return await _told(request, NotFound(f"no page {path}; see {request.scope.get('root_path', '')}/openapi.json"))
    if told.status_code == 405:
        return await _told(request, MethodNotAllowed(f"{path} does not take {request.method}"))
    return await _told(request, InvalidRequest(str(told.detail)))


class _Bounded:
    """Refuses bodies that are larger than any request here needs."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        size = 0

        async def read() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > MOST_BYTES:
                raise BodyTooLarge(f"a body here has at most {MOST_BYTES} bytes")
            return message

        await self._app(scope, read if scope["type"] == "http" else receive, send)
