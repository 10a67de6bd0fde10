"""The frame of every page: one file that opens without a network."""

from collections.abc import Sequence
from html import escape
from importlib.resources import files
from string import Template
from typing import NamedTuple

from plotly.offline import get_plotlyjs


class Section(NamedTuple):
    """A titled part of the page; `body` is HTML."""

    anchor: str
    title: str
    body: str


def page(title: str, about: str, result: str, sections: Sequence[Section]) -> str:
    """The page as text.

    Args:
        title: Its title.
        about: What it is.
        result: What it shows, in a sentence.
        sections: Its parts.
    """
    body = "".join(
        f'<section aria-labelledby="{part.anchor}">'
        f'<h2 id="{part.anchor}">{escape(part.title)}</h2>{part.body}</section>'
        for part in sections
    )
    template = Template(files("antibody.reports").joinpath("page.html").read_text(encoding="utf-8"))
    return template.substitute(
        title=escape(title),
        about=escape(about),
        result=escape(result),
        contents="".join(f'<li><a href="#{part.anchor}">{escape(part.title)}</a></li>' for part in sections),
        sections=body,
        # The library is most of the page's size, so a page without figures goes without it.
        plotly=f"<script>{get_plotlyjs()}</script>" if "<figure>" in body else "",
    )
