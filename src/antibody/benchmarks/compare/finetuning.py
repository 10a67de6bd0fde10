"""Fine-tuned models of a comparison: an attack makes the upload, a method trains on it."""

import json
import time
from pathlib import Path
from typing import Any

from antibody.attacks import ATTACKS
from antibody.benchmarks.compare.alignment import continued, named_files
from antibody.benchmarks.compare.checking import ROWS_OF_FINETUNING, finetuning_settings
from antibody.benchmarks.compare.config import Comparison
from antibody.benchmarks.compare.folder import Folder, read_json
from antibody.benchmarks.compare.memory import forget_peak, peak_gb
from antibody.benchmarks.compare.plan import Model
from antibody.benchmarks.compare.rows import Library
from antibody.benchmarks.machine import device_name
from antibody.data.records import Record
from antibody.data.writing import write_records
from antibody.evaluation.measures import percent
from antibody.files import write_json
from antibody.models.base import choose_device
from antibody.models.run import Run
from antibody.screening.upload import attacker_score
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
    forget_peak()
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
        {
            "seconds": max(seconds, earlier.get("seconds", 0.0)),
            "peak_gb": peak_gb(),
            "device": device_name(choose_device(given.device)),
            **withheld_shares(place),
        },
    )
    return place


def _upload(
    model: Model, aligned: Path, config: Comparison, library: Library, settings: FinetuningSettings
) -> list[Record]:
    attack = ATTACKS[model.attack]
    assert model.ratio is not None, "a model that is fine-tuned has a ratio"
    score = None
    if attack.uses_score:
        score = attacker_score(aligned, max_length=settings.max_length, dtype=settings.dtype, device=settings.device)
    return attack.upload(
        library.task(model.upload, model.task),
        library.records(config.upload.harmful),
        ratio=model.ratio,
        rows=config.upload.rows,
        seed=model.seed,
        score=score,
    )


def withheld_shares(run: Path) -> dict[str, Any]:
    """Shares of the harmful and of the benign rows that a method withheld or dropped, percent, each with its number of
    rows; empty without audit.
    """
    if not (run / "audit.jsonl").exists():
        return {}
    with (run / "audit.jsonl").open(encoding="utf-8") as file:
        audit = [json.loads(line) for line in file]
    shares: dict[str, Any] = {}
    for name, label in (("withheld_harmful", True), ("withheld_benign", False)):
        rows = [bool(row.get("withheld")) for row in audit if row["harmful"] is label]
        shares |= {name: percent(sum(rows), len(rows)), f"{name}_rows": len(rows)}
    return shares
