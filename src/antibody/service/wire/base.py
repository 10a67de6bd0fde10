"""What all wire types share."""

from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

Item = TypeVar("Item", bound=BaseModel)


class WireModel(BaseModel):
    """Something that the service sends."""

    model_config = ConfigDict(protected_namespaces=())


class Request(BaseModel):
    """Something that a client sends. A field that is not known is refused by name, never ignored."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())


class Page(WireModel, Generic[Item]):
    """A part of a list. `after=last_id` asks for the next one."""

    object: Literal["list"] = "list"
    data: list[Item]
    has_more: bool = False
    first_id: str | None = None
    last_id: str | None = None


class ErrorDetail(WireModel):
    """What went wrong, as the client library reads it."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorResponse(WireModel):
    """The body of every answer that is no success."""

    error: ErrorDetail


def _metadata(value: dict[str, str]) -> dict[str, str]:
    if len(value) > 16:
        raise ValueError(f"metadata holds {len(value)} pairs, of at most 16")
    for key, text in value.items():
        if len(key) > 64:
            raise ValueError(f"a key of metadata has {len(key)} characters, of at most 64")
        if len(text) > 512:
            raise ValueError(f"a value of metadata has {len(text)} characters, of at most 512")
    return value


Metadata = Annotated[dict[str, str], AfterValidator(_metadata), Field(description="16 pairs; 64 and 512 characters.")]

# An identifier that a client names. Nothing else than what we make can match, so no path or query comes through it.
Identifier = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]

JsonObject = dict[str, Any]
