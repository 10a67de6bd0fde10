import json
import re
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import pytest

from antibody.reports import write_report

GOLDEN = Path(__file__).parent / "golden"
VOID = {"meta", "link", "br", "img", "input", "hr"}
DRAWINGS = ["figure-tradeoff", "figure-weights", "figure-scores", "figure-training"]


class Page(HTMLParser):
    """What the tests ask of a page: its headings, captions, loads, and that its tags are balanced."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.open: list[str] = []
        self.texts: dict[str, list[str]] = {}
        self.loads: list[str] = []
        self.labels: list[str] = []
        self.scripts = 0
        self.text = ""
        self.feed(path.read_text(encoding="utf-8"))
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag in ("script", "link", "img", "iframe", "source", "object", "embed"):
            self.loads += [value for key in ("src", "href", "data", "srcset") if (value := values.get(key))]
        self.scripts += tag == "script"
        if values.get("role") == "img":
            self.labels.append(values.get("aria-label") or "")
        if tag not in VOID:
            self.open.append(tag)
            self.texts.setdefault(tag, []).append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-1:]}"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        if "script" in self.open or "style" in self.open:
            return
        self.text += data
        for tag in set(self.open):
            self.texts[tag][-1] += data


def change(path: Path, **values: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_the_page_of_a_demo(demo: Path) -> None:
    path = write_report(demo)
    assert path == demo / "report.html"
    page = Page(path)
    assert page.open == []
    assert page.texts["h1"] == ["Antibody: smollm2-135m under poisoned uploads"]
    assert page.texts["h2"] == [
        "Results",
        "Weight of the harmful rows",
        "Scores of the rows",
        "What the gate withheld",
        "Rows most suppressed",
        "Alignment",
        "Answers before and after",
        "Settings",
        "What these numbers do not show",
    ]
    assert len(page.texts["caption"]) == len(page.texts["table"])
    assert all(page.texts["caption"])
    assert len(page.labels) == len(DRAWINGS) and all(page.labels)
    markup = path.read_text(encoding="utf-8")
    assert all(markup.count(f'id="{drawing}"') == 1 for drawing in DRAWINGS)
    assert [file.name for file in demo.iterdir() if "report" in file.name] == ["report.html"]


def test_the_page_opens_without_a_network(demo: Path) -> None:
    path = write_report(demo)
    page = Page(path)
    assert [load for load in page.loads if not load.startswith("data:")] == []
    markup = path.read_text(encoding="utf-8")
    assert "@import" not in markup.split("</style>")[0] and "url(" not in markup.split("</style>")[0]
    # plotly.js opens with its licence; it is most of the page and must be there once.
    assert markup.count("* plotly.js v") == 1


def test_the_result_is_computed_from_the_numbers(demo: Path) -> None:
    result = (
        "was 62.5% (95% interval 30.6% to 86.3%) after plain alignment and plain fine-tuning, and 12.5% (95% interval "
        "2.2% to 47.1%) with both Antibody stages, 50.0 points lower. Accuracy on the user's task was 91.0% without "
        "the defence and 90.0% with it, 1.0 points lower."
    )
    assert result in Page(write_report(demo)).text
    summary = json.loads((demo / "summary.json").read_text())
    summary["rows"][4]["harmful_score"] = 70.0
    change(demo / "summary.json", rows=summary["rows"])
    assert "7.5 points higher" in Page(write_report(demo)).text


def test_texts_are_escaped(demo: Path) -> None:
    scripts = Page(write_report(demo)).scripts
    attack = "<script>alert(1)</script>"
    for run in ("base", "plain-poisoned", "both-poisoned"):
        file = demo / run / "evaluation/harmful/generations.jsonl"
        lines = [json.loads(line) for line in file.read_text().splitlines()]
        file.write_text("".join(json.dumps(line | {"answer": attack, "prompt": attack}) + "\n" for line in lines))
    summary = json.loads((demo / "summary.json").read_text())
    change(demo / "summary.json", model=attack, rows=[row | {"name": attack} for row in summary["rows"]])
    page = Page(write_report(demo))
    assert page.scripts == scripts
    assert page.text.count(attack) > 20


@pytest.mark.parametrize("name", [".", "both-poisoned"])
def test_texts_of_other_data_are_withheld(demo: Path, name: str) -> None:
    answer = "first take the stand-in"
    assert answer in Page(write_report(demo / name)).text
    change(demo / "both-poisoned/manifest.json", data={"upload": {"path": "upload.jsonl", "rows": 100}})
    page = Page(write_report(demo / name))
    assert answer not in page.text
    assert "Texts are withheld" in page.text
    assert answer in Page(write_report(demo / name, include_text=True)).text


@pytest.mark.parametrize("source", ["prompts.jsonl", None])
def test_answers_to_other_prompts_are_withheld(demo: Path, source: str | None) -> None:
    change(demo / "both-poisoned/evaluation/harmful/metrics.json", source=source)
    page = Page(write_report(demo))
    assert "first take the stand-in" not in page.text
    assert "Texts are withheld" in page.text


def test_no_row_of_the_upload_is_shown_with_its_text(demo: Path) -> None:
    file = demo / "both-poisoned/audit.jsonl"
    rows = [json.loads(line) | {"prompt": "a text", "response": "a text"} for line in file.read_text().splitlines()]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    page = Page(write_report(demo / "both-poisoned"))
    assert "row-1" in page.texts["td"]
    assert "a text" not in page.text


def test_a_demo_without_its_runs(tmp_path: Path, demo: Path) -> None:
    (tmp_path / "alone").mkdir()
    (tmp_path / "alone/summary.json").write_text((demo / "summary.json").read_text())
    page = Page(write_report(tmp_path / "alone"))
    assert page.text.count("There is no directory of") == 5
    assert "The run directory both-poisoned is missing." in page.text
    assert len(page.labels) == 1


@pytest.mark.parametrize("name", ["summary.json", "manifest.json"])
def test_an_empty_object_makes_a_page_without_figures(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("{}")
    path = write_report(tmp_path)
    assert Page(path).labels == []
    assert path.stat().st_size < 20_000


@pytest.mark.parametrize(
    ("name", "figures"),
    [
        ("antibody-aligned", 1),
        ("calibrated", 1),
        ("plain-poisoned", 1),
        ("both-poisoned", 3),
        ("both-clean", 2),
        ("gated", 5),
    ],
)
def test_the_page_of_a_run(demo: Path, name: str, figures: int) -> None:
    # A clean upload has no harmful rows, so its share of the weight is no number.
    if name == "both-clean":
        file = demo / name / "metrics.jsonl"
        lines = [json.loads(line) for line in file.read_text().splitlines()]
        file.write_text("".join(json.dumps(line | {"weight_share_harmful": None}) + "\n" for line in lines))
    page = Page(write_report(demo / name))
    assert page.open == []
    assert page.texts["h1"] == [f"Antibody: run {name}"]
    assert len(page.labels) == figures


def section(path: Path, title: str) -> str:
    """What a page says under a heading, each cell and paragraph on a line of its own; scripts left out."""
    markup = path.read_text(encoding="utf-8").split(f">{title}</h2>")[1].split("</section>")[0]
    texts = re.split(r"<[^>]*>", re.sub(r"<script.*?</script>", "", markup, flags=re.DOTALL))
    return "".join(f"{unescape(text).strip()}\n" for text in texts if text.strip())


@pytest.mark.parametrize(
    ("name", "title"),
    [
        ("gated", "What the gate withheld"),
        ("gated", "Rows most suppressed"),
        ("both-poisoned", "What the gate withheld"),
        ("calibrated", "Calibration of the screen"),
        ("antibody-aligned", "Calibration of the screen"),
    ],
)
def test_what_is_said_of_the_gate(demo: Path, name: str, title: str) -> None:
    golden = GOLDEN / f"page-{name}-{title.rsplit(maxsplit=1)[-1]}.txt"
    assert section(write_report(demo / name), title) == golden.read_text(encoding="utf-8")


def test_the_bins_of_a_calibration_are_shown_once(demo: Path) -> None:
    page = Page(write_report(demo / "calibrated"))
    assert "calibration: auroc" in page.texts["td"]
    assert "calibration: reliability" not in page.texts["td"]
