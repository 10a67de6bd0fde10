"""`/v1/models`."""

from fastapi import APIRouter
from sqlalchemy.orm import Session

from antibody.service.api.context import CallerDep, Service, ServiceDep
from antibody.service.api.errors import RESPONSES
from antibody.service.storage import tables
from antibody.service.storage.keys import Caller
from antibody.service.storage.paging import owned
from antibody.service.storage.runs import remove_directory
from antibody.service.wire.base import Page
from antibody.service.wire.errors import ApiError, not_found
from antibody.service.wire.models import Model, ModelDeleted

router = APIRouter(prefix="/v1/models", tags=["models"], responses=RESPONSES)

PROVIDER = "antibody"
# Base models are as old as the service's offer, which has no date.
BASE_CREATED = 0


@router.get("")
def list_models(service: ServiceDep, caller: CallerDep) -> Page[Model]:
    """The base models, and the project's own."""
    with service.store.database.reading() as session:
        own = session.scalars(owned(tables.Model, caller.project).order_by(tables.Model.number))
        data = [_base(name) for name in service.policy.models] + [_wire(model, caller) for model in own]
    return Page(data=data)


@router.get("/{model}")
def retrieve(service: ServiceDep, caller: CallerDep, model: str) -> Model:
    """One model."""
    if model in service.policy.models:
        return _base(model)
    with service.store.database.reading() as session:
        return _wire(_own(session, caller, model), caller)


@router.delete("/{model}")
def delete(service: ServiceDep, caller: CallerDep, model: str) -> ModelDeleted:
    """Deletes a fine-tuned model for good."""
    if model in service.policy.models:
        raise ApiError(403, f"{model!r} is a base model and cannot be deleted.", code="not_allowed", param="model")
    with service.store.database.writing() as session:
        row = _own(session, caller, model)
        session.delete(row)
    # Where that fails, the sweep goes on with it.
    remove_directory(service.store.place.runs / row.job_id)
    return ModelDeleted(id=model)


def run_of(service: Service, caller: Caller, model: str) -> str:
    """Where the model is that a chat names.

    Raises:
        ApiError: There is none of that name that the caller may use.
    """
    if model in service.policy.models:
        return service.policy.models[model].run
    with service.store.database.reading() as session:
        return _own(session, caller, model).run


def _own(session: Session, caller: Caller, model: str) -> tables.Model:
    row: tables.Model | None = session.scalar(owned(tables.Model, caller.project).where(tables.Model.id == model))
    if row is None:
        raise not_found("model", model, param="model")
    return row


def _base(name: str) -> Model:
    return Model(id=name, created=BASE_CREATED, owned_by=PROVIDER)


def _wire(model: tables.Model, caller: Caller) -> Model:
    return Model(id=model.id, created=int(model.created_at), owned_by=caller.project_name)
