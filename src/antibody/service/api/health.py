"""For load balancers and Prometheus. Needs no key; keep it from the outside at the proxy."""

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from antibody.service.api.context import ServiceDep

router = APIRouter(include_in_schema=False)


@router.get("/health")
def health() -> dict[str, str]:
    """Whether this process runs."""
    return {"status": "ok"}


@router.get("/ready")
def ready(service: ServiceDep) -> JSONResponse:
    """Whether it can do its work: what it needs answers."""
    parts = {
        "database": service.store.database.answers(),
        "blobs": service.store.blobs.answers(),
        "workers": service.workers is None or service.workers.alive,
    }
    return JSONResponse(parts, 200 if all(parts.values()) else 503)


@router.get("/metrics")
def metrics(request: Request) -> Response:
    """For Prometheus."""
    return Response(request.app.state.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")
