"""Prometheus metrics. They count, and name no project, file or model of a user."""

import time
from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy import func, select
from sqlalchemy.exc import DBAPIError
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from antibody.service.api.context import Service
from antibody.service.api.errors import defect
from antibody.service.storage.database import database_time
from antibody.service.storage.tables import File, Job, Model
from antibody.service.webhooks.outbox import Result

# Anything may stand in a request's first line.
METHODS = {"GET", "POST", "DELETE", "HEAD", "OPTIONS", "PUT", "PATCH"}
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Metrics:
    """One server's, in a registry of its own."""

    def __init__(self, service: Service) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "antibody_http_requests_total", "Requests.", ("method", "route", "status"), registry=self.registry
        )
        self.seconds = Histogram(
            "antibody_http_request_seconds",
            "From a request's arrival to the end of its answer.",
            ("method", "route"),
            buckets=SECONDS,
            registry=self.registry,
        )
        self.webhooks = Counter(
            "antibody_webhook_attempts_total", "Attempts to send a webhook.", ("result",), registry=self.registry
        )
        self.registry.register(_Stored(service))

    def count_webhook(self, result: Result) -> None:
        self.webhooks.labels(result).inc()

    def text(self) -> bytes:
        return generate_latest(self.registry)


class _Stored(Collector):
    """What the database says at the moment. Left out while it says nothing."""

    def __init__(self, service: Service) -> None:
        self.service = service

    def collect(self) -> Iterable[Metric]:
        jobs = GaugeMetricFamily("antibody_jobs", "Jobs by status.", labels=("status",))
        leases = GaugeMetricFamily("antibody_leases", "Jobs that a worker works on.")
        files = GaugeMetricFamily("antibody_files_bytes", "Size of all files.")
        models = GaugeMetricFamily("antibody_models", "Fine-tuned models.")
        try:
            with self.service.store.database.reading() as session:
                for status, count in session.execute(select(Job.status, func.count()).group_by(Job.status)):
                    jobs.add_metric((status,), count)
                leased = Job.leased_until >= database_time(session)
                leases.add_metric((), session.scalar(select(func.count()).select_from(Job).where(leased)) or 0)
                files.add_metric((), float(session.scalar(select(func.sum(File.bytes))) or 0))
                models.add_metric((), session.scalar(select(func.count()).select_from(Model)) or 0)
        except DBAPIError:
            return
        yield from (jobs, leases, files, models)
        waiting = GaugeMetricFamily("antibody_chats_waiting", "Chats that are answered or wait.")
        waiting.add_metric((), len(self.service.chat.waiting))
        yield waiting


class Measured:
    """ASGI middleware, the outermost: counts every request, and answers for what nobody foresaw.

    Args:
        app: The application.
        metrics: Where it counts.
    """

    def __init__(self, app: ASGIApp, *, metrics: Metrics) -> None:
        self.app = app
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, status = time.perf_counter(), 0

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, noted)
        except Exception as error:
            if status:
                # The answer has begun and can only be broken off.
                raise
            await defect(error)(scope, receive, noted)
        finally:
            route = getattr(scope.get("route"), "path", "none")
            method = scope["method"] if scope["method"] in METHODS else "other"
            self.metrics.requests.labels(method, route, status).inc()
            self.metrics.seconds.labels(method, route).observe(time.perf_counter() - began)
