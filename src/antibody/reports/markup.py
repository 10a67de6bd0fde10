"""The few pieces of HTML that the page is made of. Every text passes through `html.escape` here."""

from collections.abc import Iterable, Sequence
from html import escape
from string import Template

from plotly import graph_objects as go

_TABLE = Template(
    '<div class="scroll"><table><caption>$caption</caption>'
    "<thead><tr>$header</tr></thead><tbody>$rows</tbody></table></div>"
)
_FIGURE = Template(
    '<figure><div role="img" aria-label="$description">$drawing</div><figcaption>$description</figcaption></figure>'
)


def paragraph(text: str) -> str:
    return f"<p>{escape(text)}</p>"


def missing(text: str) -> str:
    """Says that something is not there."""
    return f'<p class="missing">{escape(text)}</p>'


def bullets(items: Iterable[str]) -> str:
    return f"<ul>{''.join(f'<li>{escape(item)}</li>' for item in items)}</ul>"


def folded(summary: str, body: str) -> str:
    """A part that opens on a click; `body` is HTML."""
    return f"<details><summary>{escape(summary)}</summary>{body}</details>"


def table(
    caption: str, header: Sequence[str], rows: Iterable[Sequence[str]], *, text: Sequence[str] = (), wide: bool = False
) -> str:
    """A table with a caption.

    Args:
        caption: What the table shows.
        header: The column names.
        rows: The cells, one sequence a row.
        text: The columns that hold text; the others are numbers and are aligned to the right.
        wide: The cells hold long text whose line breaks count.
    """
    kinds = ["long" if wide else "text" if name in text else "number" for name in header]
    return _TABLE.substitute(
        caption=escape(caption),
        header="".join(
            f'<th scope="col" class="{kind}">{escape(name)}</th>' for name, kind in zip(header, kinds, strict=True)
        ),
        rows="".join(
            "<tr>"
            + "".join(f'<td class="{kind}">{escape(cell)}</td>' for cell, kind in zip(row, kinds, strict=True))
            + "</tr>"
            for row in rows
        ),
    )


def figure(drawing: go.Figure, anchor: str, description: str) -> str:
    """A drawing whose description is both its caption and its text alternative. The page brings plotly.js once."""
    markup = drawing.to_html(
        full_html=False,
        include_plotlyjs=False,
        div_id=f"figure-{anchor}",
        config={"displayModeBar": False, "responsive": True},
    )
    return _FIGURE.substitute(description=escape(description), drawing=markup)
