"""Lists over the wire."""

from collections.abc import Callable
from typing import Annotated, Any, TypeVar

from fastapi import Query

from antibody.service.storage.paging import Rows
from antibody.service.wire.base import Page, WireModel
from antibody.service.wire.errors import ApiError

Item = TypeVar("Item", bound=WireModel)

After = Annotated[str | None, Query(max_length=100, description="The last id of the page before.")]


def wire_page(rows: Rows | None, after: str | None, convert: Callable[[Any], Item]) -> Page[Item]:
    """A page of the wire's objects.

    Raises:
        ApiError: `after` names nothing in the list.
    """
    if rows is None:
        raise ApiError(400, f"The list has no {str(after)[:100]!r}.", code="invalid_value", param="after")
    data = [convert(row) for row in rows.rows]
    ids = [getattr(item, "id", None) for item in data]
    return Page(data=data, has_more=rows.more, first_id=ids[0] if ids else None, last_id=ids[-1] if ids else None)
