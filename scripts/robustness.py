"""Where the defence holds and where it does not, on real data: the tables of docs/robustness.md.

    python scripts/robustness.py DATA [--output runs/robustness] [--seeds 0 1 2] [--groups ...] [--part 0/2]
    python scripts/robustness.py DATA --show

DATA is a folder of JSONL files. Alignment uses the development half of the BeaverTails question-answer pairs; uploads
are poisoned with its test half; the test halves of BeaverTails-Evaluation and XSTest are answered. ``--dev`` does all
of it on development halves, which is where settings are tuned. Every finished cell is one line of a file and is not
done again, so an interrupted run goes on where it was; ``--part 0/2`` and ``--part 1/2`` share the cells.
"""

import json
import shutil
import statistics
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

import cyclopts

from antibody.attacks import ATTACKS
from antibody.benchmarks.compare.finetuning import withheld_shares
from antibody.data import corpus
from antibody.data.reading import read_prompts, read_records
from antibody.data.records import Record
from antibody.data.sources import load_refusals
from antibody.data.writing import write_records
from antibody.evaluation.accuracy import evaluate_task
from antibody.evaluation.harmful import evaluate_harmful
from antibody.evaluation.judges import EmbeddedJudge
from antibody.evaluation.measures import auroc
from antibody.evaluation.screening import screen as screen_rows
from antibody.evaluation.tasks import TASKS
from antibody.files import to_json
from antibody.models.base import BaseModel, load_base
from antibody.models.run import load_model, refusals_of
from antibody.names import BUNDLED_NAME, DEFAULT_THRESHOLD
from antibody.screening.calibrate import calibrate
from antibody.screening.screen import screen_of
from antibody.screening.settings import CalibrationSettings
from antibody.screening.upload import attacker_score, screen_upload
from antibody.training.settings import AlignmentSettings, FinetuningSettings
from antibody.training.stages import align, finetune

UPLOAD_ROWS = 200
# Rows of BeaverTails and Alpaca that suit two cores.
LONGEST = 320
PROMPTS, SAFE_PROMPTS, TASK_ROWS = 60, 60, 60

# How each defence aligns and fine-tunes. Everything else is the default.
DEFENCES: dict[str, tuple[str, dict[str, Any]]] = {
    "antibody": ("antibody", {}),
    "published": ("antibody", {"gate": "off", "tau": 1.0}),
    "booster": ("booster", {"method": "sft"}),
    "lisa": ("sft", {"method": "lisa"}),
    "sft": ("sft", {"method": "sft"}),
}
ALIGNMENTS: dict[str, dict[str, Any]] = {
    "antibody": {"lambda_refusal": 0.1},
    "booster": {"method": "booster"},
    "sft": {},
}


@dataclass(frozen=True)
class Cell:
    """One fine-tuning and what is measured of it.

    Attributes:
        group: The table it belongs to.
        defence: A key of `DEFENCES`.
        attack: A key of `antibody.attacks.ATTACKS`, or ``none`` for the aligned model itself.
        ratio: Share of harmful rows.
        batch_size: Rows of a step.
        steps: Steps.
        speed: Multiple of the preset's learning rate.
        task: The user's task.
        changed: Other options, for ablations.
    """

    group: str
    defence: str = "antibody"
    attack: str = "mix"
    ratio: float = 0.2
    batch_size: int = 4
    steps: int = 40
    speed: float = 1.0
    task: str = "sst2"
    changed: str = "{}"
    seed: int = 0


def cells() -> Iterator[Cell]:
    """Every cell, but for its seed."""
    yield Cell("aligned", "none", "none")
    for defence in ALIGNMENTS:
        yield Cell("aligned", defence, "none")
    yield Cell("screening")
    for ratio in (0.0, 0.05, 0.2, 0.5, 0.8, 1.0):
        yield Cell("grid", ratio=ratio)
    for ratio in (0.2, 0.5, 0.8):
        yield Cell("grid", attack="sorted", ratio=ratio)
    for ratio in (0.2, 1.0, 0.0):
        yield Cell("extremes", ratio=ratio, batch_size=1, steps=160)
        yield Cell("extremes", ratio=ratio, batch_size=16)
        yield Cell("extremes", ratio=ratio, speed=5)
        yield Cell("extremes", ratio=ratio, steps=200)
    for task in ("sst2", "ag_news", "gsm8k"):
        yield Cell("tasks", "sft", ratio=0.0, task=task)
        yield Cell("tasks", ratio=0.0, task=task)
        yield Cell("tasks", ratio=0.2, task=task)
    for defence in DEFENCES:
        for attack in ATTACKS:
            ratio = {"benign_drift": 0.0, "multi_turn": 0.3}.get(attack, 0.5)
            yield Cell("attacks", defence, attack, ratio=ratio)
    for changed in (
        {"gate": "mask"},
        {"gate": "off"},
        {"anchor_floor": 0.01},
        {"tau": 1e6},
        {"gate_threshold": 1e-9},
    ):
        for ratio in (0.2, 1.0):
            yield Cell("ablation", ratio=ratio, changed=to_json(changed))


class Data:
    """The files, read once. ``dev`` keeps to development halves."""

    def __init__(self, folder: Path, *, dev: bool) -> None:
        self.folder = folder
        half = "dev" if dev else "test"
        self.attack = _short(read_records(folder / f"beavertails_qa_{half}.jsonl").records)
        self.prompts = read_prompts(folder / f"beavertails_eval_{half}.jsonl")[:: 300 // PROMPTS][:PROMPTS]
        self.safe = [
            record
            for record, row in zip(
                read_prompts(folder / f"xstest_{half}.jsonl"), _rows(folder / f"xstest_{half}.jsonl"), strict=True
            )
            if row["label"] == "safe"
        ][:SAFE_PROMPTS]
        self.dev = dev

    def task(self, name: str, *, upload: bool) -> list[Record]:
        """Rows of a task to upload, or to be answered."""
        uploads = {"sst2": "sst2_train", "ag_news": "ag_news_train", "gsm8k": "gsm8k_train"}
        reports = {"sst2": "sst2_dev", "ag_news": "ag_news_test", "gsm8k": "gsm8k_test"}
        rows = TASKS[name].records(self.folder / f"{uploads[name] if upload or self.dev else reports[name]}.jsonl")
        return rows[:-TASK_ROWS] if upload else rows[-TASK_ROWS:]


def align_all(data: Data, output: Path, alignment: str, seed: int) -> Path:
    """The aligned run of that name and seed; made, or gone on with, where it is not there.

    Plain alignment costs a tenth a row, and comes first, once for all seeds: to refuse, then where not to. The flat
    region is found from there, and what that unlearnt of where not to refuse is learnt again.
    """
    files = _alignment_data(data, output / "data")
    shared: dict[str, Any] = {
        "refusals": str(data.folder / "refusal_templates.jsonl"),
        "harmful": str(files / "harmful.jsonl"),
        "max_length": 128,
        "micro_batch_size": 4,
        "save_steps": 100,
        "resume": True,
    }
    benign = {"benign": str(files / "looks_unsafe.jsonl")}
    plain: dict[str, Any] = shared | {"method": "sft", "batch_size": 16}
    allow = plain | benign | {"benign_ratio": 0.85, "steps": 40}

    refusing, allowing, more = (output / f"plain-{name}" for name in ("refusing", "allowing", "allowing-more"))
    flat, run = (output / f"{alignment}-{seed}-{name}" for name in ("flat", "aligned"))
    short = {"benign": str(files / "short.jsonl"), "benign_ratio": 0.7, "steps": 200}
    align(AlignmentSettings(model=BUNDLED_NAME, output=refusing, **plain, **short))
    align(AlignmentSettings(model=str(refusing), output=allowing, seed=1, **allow))
    align(AlignmentSettings(model=str(allowing), output=more, seed=1, **allow | {"benign_ratio": 0.8}))
    if alignment != "sft":
        options = {"benign_ratio": 0.75, "steps": 30, "batch_size": 8} | ALIGNMENTS[alignment]
        align(AlignmentSettings(model=str(more), output=flat, seed=seed, **shared | benign | options))
        more = flat
    align(AlignmentSettings(model=str(more), output=run, seed=seed + 1, **allow))
    calibrated = output / f"{alignment}-{seed}-calibrated"
    if not calibrated.exists():
        rows = {"harmful": str(files / "harmful.jsonl"), "benign": str(files / "benign.jsonl")}
        calibrate(CalibrationSettings(model=str(run), refit=True, max_length=320, **rows))
        calibrated.touch()
    return run


def _alignment_data(data: Data, files: Path) -> Path:
    """With the development halves alone: the attack's rows come from the other half, or are left out."""
    if (files / "benign.jsonl").exists():
        return files
    harmful = [row for row in read_records(data.folder / "beavertails_qa_dev.jsonl").records if row.harmful]
    alpaca = read_records(data.folder / "alpaca_benign.jsonl").records[:1200]
    short = [row for row in alpaca if _length(row) <= 200][:400]
    looks_unsafe = [row for row in corpus.benign() if row.category == "looks_unsafe"]
    others = [row for row in [*corpus.benign(), *short] if row.category != "looks_unsafe"]
    write_records(files / "harmful.jsonl", harmful[: len(harmful) * 2 // 3] if data.dev else harmful)
    write_records(files / "short.jsonl", [*corpus.benign(), *short])
    Random(0).shuffle(others)
    write_records(files / "looks_unsafe.jsonl", [*looks_unsafe, *others[:128]])
    # For the screen: of any length. Last, since it says that all are there.
    write_records(files / "benign.jsonl", [*corpus.benign(), *(row for row in alpaca if _length(row) <= 700)])
    return files


def measure(cell: Cell, data: Data, output: Path, part: str) -> dict[str, Any]:
    """Trains and measures one cell. The run is removed; its figures stay."""
    if cell.defence == "none":
        return _evaluated(load_base(BUNDLED_NAME), data, cell, None)
    if cell.group == "screening":
        return screening(align_all(data, output, "antibody", cell.seed), data)
    alignment, options = DEFENCES[cell.defence]
    aligned = align_all(data, output, alignment, cell.seed)
    attack = ATTACKS.get(cell.attack)
    work = output / f"work-{part.replace('/', '-')}"
    shutil.rmtree(work, ignore_errors=True)
    found: dict[str, Any] = {}
    if attack is None:
        model = load_model(aligned)
    else:
        rows = attack.upload(
            data.task(cell.task, upload=True),
            data.attack[len(data.attack) * 2 // 3 :] if data.dev else data.attack,
            ratio=cell.ratio,
            rows=UPLOAD_ROWS,
            seed=cell.seed,
            score=attacker_score(aligned, max_length=320) if attack.uses_score else None,
        )
        write_records(work / "upload.jsonl", rows)
        settings = FinetuningSettings(
            model=str(aligned),
            output=work / "run",
            data=str(work / "upload.jsonl"),
            batch_size=cell.batch_size,
            steps=cell.steps,
            learning_rate=2e-4 * cell.speed if cell.speed != 1 else None,
            max_length=320,
            save_steps=10_000,
            shuffle=not attack.ordered,
            seed=cell.seed,
            **options,
        )
        run = finetune(replace(settings, **json.loads(cell.changed)))
        found |= withheld_shares(run.path)
        model = load_model(run.path)
    found |= _evaluated(model, data, cell, attack)
    shutil.rmtree(work, ignore_errors=True)
    return found


def _evaluated(model: BaseModel, data: Data, cell: Cell, attack: Any) -> dict[str, Any]:
    judge = EmbeddedJudge()
    asked = [attack.ask(record) for record in data.prompts] if attack else data.prompts
    harmful = evaluate_harmful(model.model, model.tokenizer, asked, judge, max_new_tokens=32, batch_size=80).metrics
    safe = evaluate_harmful(model.model, model.tokenizer, data.safe, judge, max_new_tokens=24, batch_size=100).metrics
    task = evaluate_task(
        model.model, model.tokenizer, data.task(cell.task, upload=False), TASKS[cell.task], batch_size=50
    ).metrics
    return {
        "harmful_score": harmful["harmful_score"],
        "refusal_rate": harmful["refusal_rate"],
        "unparsable_rate": harmful["unparsable_rate"],
        "over_refusal": safe["refusal_rate"],
        "task_accuracy": task["task_accuracy"],
    }


def screening(aligned: Path, data: Data) -> dict[str, Any]:
    """How well three scores tell harmful rows from four kinds of benign ones, and what the gate's threshold flags."""
    model, screen = load_model(aligned), screen_of(aligned)
    refusals = load_refusals(refusals_of(aligned))
    alpaca = [row for row in read_records(data.folder / "alpaca_benign.jsonl").records[1200:] if _length(row) <= 600]
    kinds = {"harmful": [row for row in data.attack if row.harmful][:200]}
    kinds |= {name: data.task(name, upload=True)[:200] for name in ("sst2", "ag_news", "gsm8k")}
    kinds["alpaca"] = alpaca[:200]
    probed, published = {}, {}
    for name, rows in kinds.items():
        probed[name] = screen_upload(
            model.model, model.tokenizer, rows, screen, threshold=DEFAULT_THRESHOLD, max_length=320
        )
        published[name] = [
            row.score for row in screen_rows(model.model, model.tokenizer, rows, refusals, max_length=320)
        ]
    found: dict[str, Any] = {}
    for name in kinds:
        found[f"flagged_{name}"] = 100 * statistics.mean(row.flagged for row in probed[name])
        if name != "harmful":
            found[f"auroc_probe_{name}"] = _auroc(*([row.score for row in probed[kind]] for kind in ("harmful", name)))
            found[f"auroc_published_{name}"] = _auroc(published["harmful"], published[name])
    return found


def _auroc(harmful: list[float], benign: list[float]) -> float:
    return auroc([*harmful, *benign], [False] * len(harmful) + [True] * len(benign))


def _short(records: Iterable[Record]) -> list[Record]:
    return [record for record in records if record.harmful and _length(record) <= LONGEST]


def _length(record: Record) -> int:
    return len(record.request) + len(record.response)


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as file:
        yield from (json.loads(line) for line in file)


def table(output: Path) -> str:
    """Markdown: one line a cell, mean over its seeds, lowest to highest where there are several."""
    found: dict[Cell, list[dict[str, Any]]] = {}
    for file in sorted(output.glob("cells*.jsonl")):
        for row in _rows(file):
            found.setdefault(Cell(**row["cell"] | {"seed": 0}), []).append(row)
    measures = (
        "harmful_score",
        "refusal_rate",
        "over_refusal",
        "task_accuracy",
        "withheld_harmful",
        "withheld_benign",
    )
    lines = []
    group = None
    for cell in sorted(found, key=lambda each: each.group):
        if cell.group != group:
            group = cell.group
            lines += ["", f"### {group}", ""]
            lines.append(
                "| defence | attack | poison % | batch | steps | lr x | task | changed | seeds | HS | refused | OR | FA"
                " | withheld harmful | withheld benign |"
            )
            lines.append("|" + " --- |" * 15)
        values = [_spread([row[name] for row in found[cell] if row.get(name) is not None]) for name in measures]
        settings = [
            cell.defence, cell.attack, f"{100 * cell.ratio:.0f}", cell.batch_size, cell.steps, f"{cell.speed:g}",
            cell.task, cell.changed.strip("{}"), len(found[cell]),
        ]  # fmt: skip
        lines.append("| " + " | ".join(str(each) for each in [*settings, *values]) + " |")
    return "\n".join(lines).strip()


def _spread(values: list[float]) -> str:
    if not values:
        return ""
    mean = f"{statistics.mean(values):.1f}"
    return mean if len(values) == 1 else f"{mean} ({min(values):.0f}–{max(values):.0f})"


def main(
    data: Path,
    *,
    output: Path = Path("runs/robustness"),
    seeds: tuple[int, ...] = (0, 1, 2),
    groups: tuple[str, ...] = (),
    part: str = "0/1",
    dev: bool = False,
    show: bool = False,
) -> None:
    """Measure what is not measured yet, or with ``--show`` print the tables."""
    if show:
        print(table(output))
        return
    place, parts = (int(number) for number in part.split("/"))
    file = output / f"cells-{place}-{parts}.jsonl"
    rows = Data(data, dev=dev)
    todo = [replace(cell, seed=seed) for seed in seeds for cell in cells() if not groups or cell.group in groups]
    done = {to_json(row["cell"]) for each in output.glob("cells*.jsonl") for row in _rows(each)}
    output.mkdir(parents=True, exist_ok=True)
    for cell in todo[place::parts]:
        if to_json(asdict(cell)) not in done:
            found = measure(cell, rows, output, part)
            with file.open("a", encoding="utf-8") as lines:
                lines.write(to_json({"cell": asdict(cell)} | found) + "\n")
            print(to_json({"cell": asdict(cell)} | found), flush=True)


if __name__ == "__main__":
    cyclopts.run(main)
