"""One backend, started for a class of tests and stopped after them. Knows no test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest
import pytest_asyncio

from gateway.backend import Backend, BackendContext, silent
from gateway.plugins import load
from gateway.testing.client import AppClient


class BackendStarted:
    """Fixtures: `context` (yours to give), `backend`, and `client` of its app."""

    @pytest.fixture(scope="class")
    @classmethod
    def context(cls) -> BackendContext:
        """What your backend is made from. Override it, with `scope="class"`, as a class method."""
        raise NotImplementedError("a BackendContract needs a fixture `context` that returns a BackendContext")

    @pytest_asyncio.fixture(scope="class", loop_scope="class")
    @classmethod
    async def backend(cls, context: BackendContext) -> AsyncGenerator[Backend]:
        """The backend of `context.spec.backend` as installed, prepared and started; stopped at the end."""
        offer = load().backend(context.spec.backend)
        if offer.prepare is not None:
            await asyncio.to_thread(offer.prepare, context, silent)
        backend = offer.factory(context)
        try:
            await backend.start()
            yield backend
        finally:
            await backend.stop()

    @pytest.fixture(scope="class")
    @classmethod
    def client(cls, backend: Backend) -> AppClient:
        return AppClient(backend.app)
