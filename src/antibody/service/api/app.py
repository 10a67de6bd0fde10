"""The application, from its parts."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from typing import Any

from fastapi import Depends, FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.security import HTTPBearer
from sqlalchemy.exc import SQLAlchemyError
from starlette.concurrency import run_in_threadpool

from antibody.service.api import chat, files, health, jobs, models, uploads
from antibody.service.api.context import Service
from antibody.service.api.errors import add_error_handlers
from antibody.service.api.gate import Gate
from antibody.service.api.metrics import Measured, Metrics
from antibody.service.webhooks.sender import Sender

logger = logging.getLogger(__name__)

VERSION = "1.0.0"
SWEEP_EVERY = 600.0
# The gate judges the key; this only tells the OpenAPI document of it.
BEARER = Depends(HTTPBearer(auto_error=False, description="A key of `antibody keys create`."))


def create_app(service: Service) -> FastAPI:
    """The HTTP application. Started, it cleans the store and sends webhooks; ended, it stops its processes."""
    metrics = Metrics(service)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        sweeping = asyncio.create_task(_sweep(service))
        sending = asyncio.create_task(Sender(service.store.database, metrics.count_webhook).run())
        try:
            yield
        finally:
            sweeping.cancel()
            sending.cancel()
            # What it is at is sent again, by another server or the next.
            await asyncio.gather(sending, return_exceptions=True)
            await service.chat.stop()
            if service.workers is not None:
                await run_in_threadpool(service.workers.stop)
            service.store.database.close()

    app = FastAPI(title="Antibody fine-tuning service", version=VERSION, lifespan=lifespan, redoc_url=None)
    app.state.service = service
    app.state.metrics = metrics
    for router in (files.router, uploads.router, jobs.router, models.router, chat.router):
        app.include_router(router, dependencies=[BEARER])
    app.include_router(health.router)
    add_error_handlers(app)
    app.add_middleware(Gate, database=service.store.database, limits=service.policy.limits)
    app.add_middleware(Measured, metrics=metrics)
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]
    return app


def _openapi(app: FastAPI) -> dict[str, Any]:
    """Without the answer 422, which is never given: what is invalid is answered by 400, in the wire's format."""
    if app.openapi_schema is None:
        schema = get_openapi(title=app.title, version=app.version, routes=app.routes)
        for path in schema["paths"].values():
            for operation in path.values():
                operation["responses"].pop("422", None)
        for unused in ("HTTPValidationError", "ValidationError"):
            schema["components"]["schemas"].pop(unused, None)
        app.openapi_schema = schema
    return app.openapi_schema


async def _sweep(service: Service) -> None:
    while True:
        try:
            removed = await run_in_threadpool(service.store.sweep, service.policy.retention)
            if removed:
                logger.info("%d blobs that nothing named were removed.", removed)
        except (OSError, SQLAlchemyError) as error:
            logger.warning("Sweeping failed: %s", type(error).__name__)
        await asyncio.sleep(SWEEP_EVERY)
