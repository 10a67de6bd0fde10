"""Models."""

from typing import Literal

from antibody.service.wire.base import WireModel


class Model(WireModel):
    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str


class ModelDeleted(WireModel):
    id: str
    object: Literal["model"] = "model"
    deleted: bool = True
