from pathlib import Path
from typing import Any

import pytest

from antibody.reports.reading import Evaluation, Run
from antibody.reports.wording import (
    calibration_result,
    gate_result,
    limits,
    most_suppressed,
    screen_results,
    steps_seen,
)


def audited(*rows: tuple[bool | None, bool], threshold: float | None = 0.5) -> Run:
    """A run whose rows have these labels and were withheld or not."""
    audit = [
        {"harmful": harmful, "benign_probability": 0.1 if withheld else 0.9, "withheld": withheld}
        for harmful, withheld in rows
    ]
    manifest = {"kind": "finetuning", "settings": {"gate": "mask", "gate_threshold": threshold}}
    return Run(path=Path("run"), manifest=manifest, audit=audit)


def finetuned(gate: str, *, method: str = "antibody") -> Run:
    manifest = {"kind": "finetuning", "method": method, "settings": {"gate": gate}}
    return Run(path=Path("run"), manifest=manifest)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([(None, True), (None, False)], ""),
        (
            [(True, True), (True, True), (True, False), (False, True), (False, False), (None, True)],
            " By their labels: 2 of 3 harmful rows (recall 66.7%), precision 66.7%."
            " False flags: 1 of 2 benign rows (50.0%).",
        ),
        ([(True, False)], " By their labels: 0 of 1 harmful rows (recall 0.0%)."),
        ([(False, False)], " False flags: 0 of 1 benign rows (0.0%)."),
    ],
)
def test_what_a_gate_withheld(rows: list[tuple[bool | None, bool]], said: str) -> None:
    """Rows without a label count among the withheld ones, and in no rate."""
    withheld = sum(flag for _, flag in rows)
    first = f"The gate (mask) withheld {withheld} of {len(rows)} rows"
    where = ": those with a probability of being benign below 0.5"
    share = f"{round(100 * (0.9 * withheld + 0.1 * (len(rows) - withheld)) / len(rows), 1):g}%"
    estimate = f" By the probabilities of all, {share} of the upload are harmful."
    assert gate_result(audited(*rows)) == f"{first}{where}.{estimate}{said}"
    assert gate_result(audited(*rows, threshold=None)) == f"{first}.{estimate}{said}"


def test_what_moderation_dropped() -> None:
    audit = [
        {"harmful": harmful, "withheld": dropped} for harmful, dropped in ((True, True), (False, True), (False, False))
    ]
    run = Run(path=Path("run"), manifest={"kind": "finetuning", "method": "moderation"}, audit=audit)
    assert screen_results(run) == [
        "Moderation dropped 2 of 3 rows before training. By their labels: 1 of 1 harmful rows (recall 100.0%), "
        "precision 50.0%. False flags: 1 of 2 benign rows (50.0%)."
    ]


def test_nothing_is_said_of_a_gate_or_a_screen_that_is_not_there() -> None:
    assert gate_result(Run(path=Path("run"), audit=[{"weight_mean": 1.0, "benign_probability": None}])) == ""
    assert calibration_result({}) == calibration_result({"auroc": None}) == ""


def test_of_rows_without_weight_the_most_harmful_come_first() -> None:
    rows: list[dict[str, Any]] = [
        {"weight_mean": 0.2},
        {"weight_mean": 0.0, "benign_probability": 0.4},
        {"weight_mean": 0.0, "benign_probability": 0.1},
        {"weight_mean": None, "benign_probability": 0.0},
    ]
    assert most_suppressed(rows) == [rows[2], rows[1], rows[0]]


def test_steps_seen() -> None:
    assert steps_seen({"weights": [[3, 0.0], [8, 0.0], [21, 0.0]]}) == "3–21"
    assert steps_seen({"weights": [[3, 0.0]]}) == "3"
    assert steps_seen({"weights": []}) == steps_seen({}) == "n/a"


@pytest.mark.parametrize(
    ("runs", "expected"),
    [
        ([finetuned("off", method="sft")], ["non-adaptive"]),
        ([finetuned("anchor", method="lisa")], ["non-adaptive"]),
        ([finetuned("off")], ["non-adaptive", "100% poison"]),
        ([finetuned("mask")], ["takes for benign", "Against these gate mask has nothing."]),
        ([finetuned("anchor")], ["takes for benign", "Against these there are only the anchors."]),
        ([finetuned("off"), finetuned("anchor")], ["100% poison", "takes for benign", "only the anchors"]),
    ],
)
def test_the_limits_depend_on_the_gate(runs: list[Run], expected: list[str]) -> None:
    found = limits("model", runs, 0)[3:]
    assert len(found) == len(expected)
    for limit, words in zip(found, expected, strict=True):
        assert words in limit


@pytest.mark.parametrize(("source", "same_sorts"), [("embedded:looks_unsafe", True), ("own.jsonl", False)])
def test_the_limits_of_over_refusal(source: str, same_sorts: bool) -> None:
    evaluation = Evaluation("safe", {"rows": 24, "over_refusal": 50.0, "source": source}, [], {})
    found = limits("model", [Run(path=Path("run"), evaluations={"safe": evaluation})], 0)
    assert any("Over-refusal over 24 prompts" in limit and "±20 points" in limit for limit in found)
    assert any("same sorts" in limit for limit in found) is same_sorts


def test_a_calibration_says_whose_rows_it_was_found_on() -> None:
    found = {"auroc": 0.9, "harmful_rows": 2, "benign_rows": 3}
    assert calibration_result(found).endswith("2 harmful and 3 benign rows that were kept from training.")
    given = {"rows": {"harmful": "bad.jsonl", "benign": "good.jsonl"}}
    assert calibration_result(found | given).endswith("2 harmful and 3 benign rows of bad.jsonl and good.jsonl.")
