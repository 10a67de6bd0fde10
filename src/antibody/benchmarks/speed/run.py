"""Side-by-side timings: what defended training costs next to undefended training and the textbook algorithm.

`contenders` says who takes part, `rows` on what, `timing` how a step is timed, `memory` how
much memory it takes, `floor` how fast the device could be.
"""

import importlib.metadata
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import torch

from antibody.benchmarks.machine import device_name
from antibody.benchmarks.speed.contenders import CONTENDERS, STAGES, Case, build, load, rows_of
from antibody.benchmarks.speed.end_to_end import end_to_end
from antibody.benchmarks.speed.floor import Weights, matmul_rate, step_flops, weights_of
from antibody.benchmarks.speed.memory import Memory, measure
from antibody.benchmarks.speed.settings import SpeedSettings
from antibody.benchmarks.speed.tables import markdown
from antibody.benchmarks.speed.timing import TrainerContestant, interleaved, synchronize_of
from antibody.files import write_json, write_text
from antibody.models.base import BaseModel
from antibody.models.run import is_run
from antibody.progress import counted


@dataclass(frozen=True)
class Size:
    """How much is measured.

    Attributes:
        batch_size: Rows of a step.
        rounds: Timed steps of each contender, at most.
        seconds: No round of one comparison begins after that long.
        kinds: Kinds of rows that are measured.
    """

    batch_size: int = 16
    rounds: int = 5
    seconds: float = float("inf")
    kinds: tuple[str, ...] = ("short", "medium", "long")


# Chosen so that two cores without bfloat16 finish in three minutes.
QUICK = Size(batch_size=2, rounds=3, seconds=30, kinds=("short",))

OURS = {"antibody", "antibody_gate"}
BATCH_SIZES = (4, 8, 16, 32)
MICRO_BATCH_SIZE = 4
LENGTHS = ("words=20", "words=40", "words=80", "words=160")
RANKS = (8, 32, 128)


def speed(settings: SpeedSettings, size: Size | None = None) -> dict[str, Any]:
    """Measures, and writes ``speed.json`` and ``speed.md`` where an output is named.

    Args:
        settings: The command's options.
        size: How much is measured; by default as ``settings.quick`` says.

    Returns:
        ``device``, ``dtype`` and ``cases``, one for each stage, rows and contender, with ``seconds`` (the median of
        interleaved steps) and ``peak_mb``; ``scaling`` and ``end_to_end`` where they were asked for.

    Raises:
        UsageError, ModelError, TrainingError: The model cannot be loaded, or a contender failed.
    """
    size = size or (QUICK if settings.quick else Size())
    size = replace(
        size,
        batch_size=settings.batch_size or size.batch_size,
        rounds=settings.rounds or size.rounds,
        kinds=settings.rows or size.kinds,
    )
    groups = [_contenders(stage, kind, size, settings) for stage in STAGES for kind in size.kinds]
    axes = _scaling(size, settings) if settings.scaling else {}
    all_cases = [case for group in [*groups, *axes.values()] for case in group]
    weighed = list(dict.fromkeys(all_cases)) if settings.memory else []

    total = len(weighed) + len(groups) + len(axes) + (2 * len(size.kinds) if settings.end_to_end else 0)
    with counted("Measuring speed", total) as progress:
        done = 0

        def advance() -> None:
            nonlocal done
            done += 1
            progress(done)

        # Before this process holds a model of its own.
        memory = measure(weighed, settings, advance)
        whole = end_to_end(settings, size.kinds, size.batch_size, advance) if settings.end_to_end else None
        loaded = load(settings)
        cases = _timed(groups, loaded, size, settings, memory, advance)
        scaling = _timed(list(axes.values()), loaded, size, settings, memory, advance)

    result = _machine(loaded) | {"batch_size": size.batch_size, "quick": settings.quick, "cases": _compared(cases)}
    if settings.scaling:
        names = [axis for axis, group in axes.items() for _ in group]
        result["scaling"] = [{"axis": axis, **case} for axis, case in zip(names, scaling, strict=True)]
    if whole is not None:
        result["end_to_end"] = whole
    if settings.output is not None:
        write_json(settings.output / "speed.json", result)
        write_text(settings.output / "speed.md", markdown(result))
    return result


def _contenders(stage: Any, kind: str, size: Size, settings: SpeedSettings) -> list[Case]:
    ours = settings.micro_batch_size
    return [
        Case(stage, kind, name, size.batch_size, ours if name in OURS else None, settings.lora_r)
        for name in CONTENDERS[stage]
    ]


def _scaling(size: Size, settings: SpeedSettings) -> dict[str, list[Case]]:
    """Cases that differ in one thing, by that thing. A run's adapter keeps its shape."""
    axes: dict[str, list[Case]] = {}
    for stage in STAGES:
        start = Case(stage, "medium", "antibody", size.batch_size, settings.micro_batch_size, settings.lora_r)
        axes[f"{stage}: batch"] = [replace(start, batch_size=count) for count in BATCH_SIZES]
        axes[f"{stage}: batch in micro-batches"] = [
            replace(start, batch_size=count, micro_batch_size=MICRO_BATCH_SIZE) for count in BATCH_SIZES
        ]
        axes[f"{stage}: length"] = [replace(start, rows=rows) for rows in LENGTHS]
        if not is_run(settings.model):
            axes[f"{stage}: adapter"] = [replace(start, lora_r=rank) for rank in RANKS]
    return axes


def _timed(
    groups: Sequence[Sequence[Case]],
    loaded: BaseModel,
    size: Size,
    settings: SpeedSettings,
    memory: dict[Case, Memory],
    advance: Callable[[], None],
) -> list[dict[str, Any]]:
    """Each group's cases against each other."""
    found = []
    for group in groups:
        found += _race(group, loaded, size, settings, memory)
        advance()
    return found


def _race(
    group: Sequence[Case], loaded: BaseModel, size: Size, settings: SpeedSettings, memory: dict[Case, Memory]
) -> list[dict[str, Any]]:
    synchronize = synchronize_of(loaded.model.device)
    # Contenders train on the same rows: they are drawn and tokenised once.
    alike = {(case.stage, case.rows, case.batch_size): case for case in group}
    drawn = {key: rows_of(case, loaded.tokenizer, size.rounds + 1, settings) for key, case in alike.items()}
    rows = {case: drawn[case.stage, case.rows, case.batch_size] for case in group}
    rates: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        trainers = [
            build(case, loaded, rows[case], steps=1, output=Path(folder) / str(index), settings=settings)
            for index, case in enumerate(group)
        ]
        laps = interleaved(
            [TrainerContestant(trainer, synchronize) for trainer in trainers],
            size.rounds,
            seconds=size.seconds,
            before_round=lambda: rates.append(matmul_rate(loaded.model, synchronize, seconds=0.1)),
        )
        weights = [weights_of(trainer.model) for trainer in trainers]
    entries = []
    for case, seconds, weight, trainer in zip(group, laps, weights, trainers, strict=True):
        data = rows[case]
        pieces = [
            slice(start, start + case.batch_size)
            # The first batch went to the warm-up.
            for start in range(case.batch_size, case.batch_size * (len(seconds) + 1), case.batch_size)
        ]
        all_rows = data.rows.to_list()
        flops = [
            step_flops(
                weight,
                all_rows[piece],
                data.harmful[piece] if data.harmful is not None else None,
                defended=case.contender in {"textbook", *OURS},
            )
            for piece in pieces
        ]
        if case.contender == "antibody_gate":
            flops = [of + _anchor_flops(weight, trainer, step) for step, of in enumerate(flops, start=1)]
        tokens = [sum(len(row["prompt_ids"]) + len(row["response_ids"]) for row in all_rows[piece]) for piece in pieces]
        entries.append(_entry(case, seconds, median(tokens), median(flops), median(rates), weight, memory.get(case)))
    return entries


def _anchor_flops(weights: Weights, trainer: Any, step: int) -> float:
    """Of plain cross-entropy on a step's anchors."""
    size = trainer.args.anchor_rows
    return step_flops(weights, trainer.anchors.batch(step * size, size), None, defended=False)


def _entry(
    case: Case, seconds: list[float], tokens: float, flops: float, rate: float, weights: Any, memory: Memory | None
) -> dict[str, Any]:
    middle = median(seconds)
    quarters = quantiles(seconds, n=4, method="inclusive") if len(seconds) > 1 else [middle] * 3
    return {
        "stage": case.stage,
        "rows": case.rows,
        "contender": case.contender,
        "seconds": middle,
        "peak_mb": memory.peak_mb if memory else None,
        "loaded_mb": memory.loaded_mb if memory else None,
        "seconds_min": min(seconds),
        "seconds_max": max(seconds),
        "seconds_iqr": quarters[2] - quarters[0],
        "timed_steps": len(seconds),
        "tokens_per_step": tokens,
        "tokens_per_second": tokens / middle,
        "floor_seconds": flops / rate,
        "floor_flops": flops,
        "matmul_flops_per_second": rate,
        "batch_size": case.batch_size,
        "micro_batch_size": case.micro_batch_size,
        "trainable_parameters": weights.adapter,
    }


def _compared(cases: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each case with its seconds and peak over those of the others on the same rows."""
    of = {(case["stage"], case["rows"], case["contender"]): case for case in cases}

    def over(case: dict[str, Any], other: str, key: str) -> float | None:
        mine, theirs = case[key], of[case["stage"], case["rows"], other][key]
        return None if mine is None or theirs is None else mine / theirs

    return [
        case
        | {f"seconds_over_{other}": over(case, other, "seconds") for other in CONTENDERS[case["stage"]]}
        | {"peak_over_trl": over(case, "trl", "peak_mb")}
        for case in cases
    ]


def _machine(loaded: BaseModel) -> dict[str, Any]:
    device = loaded.model.device
    return {
        "device": str(device),
        "device_name": device_name(device),
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "dtype": str(loaded.model.dtype).removeprefix("torch."),
        "model": loaded.name,
        "versions": {name: importlib.metadata.version(name) for name in ("torch", "transformers", "trl", "peft")},
    }
