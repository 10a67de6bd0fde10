"""Fine-tuned models of a comparison: an attack makes the upload, a method trains on it."""

import json
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from antibody.attacks import ATTACKS, Score
from antibody.benchmarks.compare.alignment import continued, named_files
from antibody.benchmarks.compare.checking import ROWS_OF_FINETUNING, finetuning_settings
from antibody.benchmarks.compare.config import Comparison
from antibody.benchmarks.compare.folder import Folder, read_json
from antibody.benchmarks.compare.plan import Model
from antibody.benchmarks.compare.rows import Library
from antibody.benchmarks.speed.memory import MEGABYTE, peak
from antibody.data.records import Record
from antibody.data.writing import write_records
from antibody.evaluation.measures import percent
from antibody.files import write_json
from antibody.models.base import choose_device
from antibody.models.run import Run, load_model
from antibody.names import DEFAULT_THRESHOLD
from antibody.screening.screen import screen_of
from antibody.screening.upload import screen_upload
from antibody.training.settings import FinetuningSettings
from antibody.training.stages import finetune


def tuned_run(model: Model, aligned: Path, config: Comparison, folder: Folder, library: Library) -> Path:
    """The run of a model, made or gone on with where it is missing.

    Raises:
        AntibodyError: As `finetune`, or the attack's.
    """
    place = folder.tuned(model.key)
    if Run(place).complete and folder.model(model.key).exists():
        return place
    started = time.perf_counter()
    settings = named_files(model.finetune, ROWS_OF_FINETUNING, library)
    given = finetuning_settings(
        settings,
        model=str(aligned),
        output=place,
        data=str(folder.data / f"upload-{model.key}.jsonl"),
        shuffle=not ATTACKS[model.attack].ordered,
        seed=model.seed,
        resume=True,
    )
    write_records(Path(given.data), _upload(model, aligned, config, library, given))
    continued(place, lambda: finetune(given))
    earlier = read_json(folder.model(model.key)) or {}
    seconds = round(time.perf_counter() - started, 1)
    write_json(
        folder.model(model.key),
        {"seconds": max(seconds, earlier.get("seconds", 0.0)), "peak_gb": peak_gb(), **_withheld(place)},
    )
    return place


def peak_gb() -> float | None:
    """The most memory so far, 10^9 bytes, see `antibody.benchmarks.speed.memory`; None where it is not told."""
    found = peak(choose_device())
    return None if math.isnan(found) else found * MEGABYTE / 1e9


def _upload(
    model: Model, aligned: Path, config: Comparison, library: Library, settings: FinetuningSettings
) -> list[Record]:
    attack = ATTACKS[model.attack]
    assert model.ratio is not None, "a model that is fine-tuned has a ratio"
    return attack.upload(
        library.task(model.upload, model.task),
        library.records(config.upload.harmful),
        ratio=model.ratio,
        rows=config.upload.rows,
        seed=model.seed,
        score=_score(aligned, settings) if attack.uses_score else None,
    )


def _score(aligned: Path, settings: FinetuningSettings) -> Score:
    """What an attacker with the aligned model and the code sees: the gate's score of every row."""
    loaded = load_model(aligned, dtype=settings.dtype, device=settings.device)
    screen = screen_of(aligned)

    def score(records: Sequence[Record]) -> list[float]:
        rows = screen_upload(
            loaded.model,
            loaded.tokenizer,
            records,
            screen,
            threshold=DEFAULT_THRESHOLD,
            max_length=settings.max_length,
        )
        return [row.score for row in rows]

    return score


def _withheld(run: Path) -> dict[str, Any]:
    """Shares of the harmful and of the benign rows that a method withheld or dropped, percent; empty without audit."""
    if not (run / "audit.jsonl").exists():
        return {}
    with (run / "audit.jsonl").open(encoding="utf-8") as file:
        audit = [json.loads(line) for line in file]
    shares = {}
    for name, label in (("withheld_harmful", True), ("withheld_benign", False)):
        rows = [bool(row.get("withheld")) for row in audit if row["harmful"] is label]
        shares[name] = percent(sum(rows), len(rows))
    return shares
