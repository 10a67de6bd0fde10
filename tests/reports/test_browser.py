"""The pages in a real browser: every figure is drawn, nothing is asked of a network, no script fails."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from reports.test_grid import CELLS, written

from antibody.reports import write_report

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = [
    "--headless", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--enable-logging=stderr", "--virtual-time-budget=10000", "--dump-dom",
]  # fmt: skip
# The colour after every rule of the page, which an attribute does not tell.
AS_SHOWN = """<script>addEventListener("load", () =>
  document.querySelectorAll(".heatmap-label text, .textpoint text").forEach(
    (text) => text.setAttribute("data-shown", getComputedStyle(text).fill)))</script>"""
DRAWN = 'class="main-svg"'

pytestmark = pytest.mark.skipif(BROWSER is None, reason="there is no browser: apt-get install chromium")


def opened(page: Path, profile: Path) -> str:
    """The document after its scripts ran, which must have said nothing on the console."""
    sandbox = ["--no-sandbox"] if os.getuid() == 0 else []
    done = subprocess.run(
        [str(BROWSER), *FLAGS, *sandbox, f"--user-data-dir={profile}", page.as_uri()],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    assert [line for line in done.stderr.splitlines() if "CONSOLE" in line] == []
    return done.stdout


def figures(document: str) -> list[str]:
    return document.split("<figure>")[1:]


def shown(figure: str) -> list[tuple[str, str]]:
    """Colours and numbers."""
    return re.findall(r'data-shown="([^"]*)"[^>]*>(?:<[^>]*>)*([0-9]+)', figure)


def test_every_figure_of_a_run_is_drawn(demo: Path, tmp_path: Path) -> None:
    page = write_report(demo)
    with page.open("a") as file:
        file.write(AS_SHOWN)
    drawn = figures(opened(page, tmp_path / "profile"))
    assert len(drawn) == 4
    assert all(DRAWN in figure for figure in drawn)
    # The numbers on the points.
    assert {colour for colour, _ in shown(drawn[0])} == {"rgb(255, 255, 255)"}


def test_the_numbers_of_a_heat_map_can_be_read(tmp_path: Path) -> None:
    """Light on a dark cell, whatever colour the page's other texts have."""
    page = write_report(written(tmp_path, CELLS))
    with page.open("a") as file:
        file.write(AS_SHOWN)
    drawn = figures(opened(page, tmp_path / "profile"))
    assert len(drawn) == 3
    assert all(DRAWN in figure for figure in drawn)
    assert ("rgb(255, 255, 255)", "4") in shown(drawn[1])
