"""The self-contained page: one file that opens without a network."""

from pathlib import Path

from antibody.files import write_text
from antibody.reports import markup
from antibody.reports.grid import is_grid, write_grid
from antibody.reports.page import Section, page
from antibody.reports.reading import Comparison, Run, read
from antibody.reports.sections import ABOUT, comparison_sections, run_sections
from antibody.reports.wording import comparison_result, run_result


def write_report(path: Path, *, include_text: bool = False) -> Path:
    """Writes `report.html` into a run, or into a directory of runs.

    Args:
        path: A directory with `manifest.json`, `summary.json` or `results.json`.
        include_text: Shows prompts and answers even where the data is not from the embedded corpus.

    Returns:
        The path of the page.

    Raises:
        UsageError: `not_a_run`, when the path is neither.
        DataError: `bad_json`, when `summary.json` or `manifest.json` cannot be read.
    """
    if is_grid(path):
        return write_grid(path)
    write_text(path / "report.html", render(read(path), include_text=include_text))
    return path / "report.html"


def render(content: Run | Comparison, *, include_text: bool = False) -> str:
    """The page as text."""
    if isinstance(content, Comparison):
        title, result = f"Antibody: {content.model} under poisoned uploads", comparison_result(content)
        sections = comparison_sections(content, include_text=include_text)
    else:
        title, result = f"Antibody: run {content.name}", run_result(content)
        sections = run_sections(content, include_text=include_text)
    if content.problems:
        sections.append(Section("problems", "What could not be read", markup.bullets(content.problems)))
    return page(title, ABOUT, result, sections)
