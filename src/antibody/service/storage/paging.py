"""Lists, a page at a time."""

from typing import Any, Literal, NamedTuple, TypeVar

from sqlalchemy import Select, select
from sqlalchemy.orm import Session

Row = TypeVar("Row")


class Rows(NamedTuple):
    """A page.

    Attributes:
        rows: In the order asked for.
        more: Whether there are further ones.
    """

    rows: list[Any]
    more: bool


def page(
    session: Session,
    query: Select[Any],
    table: Any,
    *,
    after: str | None,
    limit: int,
    order: Literal["asc", "desc"] = "desc",
) -> Rows | None:
    """The rows of `query` that follow the one called `after`; None where the query has no such row.

    Args:
        session: A session.
        query: Selects rows of `table`, all of which the caller may see.
        table: With `number` and `id`.
        after: An id, or None to begin.
        limit: Most rows.
        order: By when they were made.
    """
    if after is not None:
        start = session.scalar(query.with_only_columns(table.number).where(table.id == after))
        if start is None:
            return None
        query = query.where(table.number < start if order == "desc" else table.number > start)
    query = query.order_by(table.number.desc() if order == "desc" else table.number.asc())
    rows = list(session.scalars(query.limit(limit + 1)))
    return Rows(rows[:limit], len(rows) > limit)


def owned(table: Any, project: str) -> Select[Any]:
    """The rows of a table that are a project's."""
    return select(table).where(table.project_id == project)
