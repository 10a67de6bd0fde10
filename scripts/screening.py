"""What an aligned model's screen tells apart, on real data: docs/robustness.md, "How rows are told apart".

    python scripts/screening.py RUN DATA

RUN is an aligned run with a screen, such as those that `antibody compare experiments/robustness.yaml` makes; DATA is a
folder of JSONL files. Harmful rows are of the test half of the BeaverTails question-answer pairs. Next to the run's own
screen stands one made of as many rows of the development half without copies in other forms
(`antibody.screening.forms`). Ten minutes on one core.
"""

import statistics
from collections.abc import Sequence
from pathlib import Path
from random import Random

import cyclopts

from antibody.attacks import ATTACKS
from antibody.data import corpus
from antibody.data.mixes import hold_out
from antibody.data.reading import read_records
from antibody.data.records import Record
from antibody.data.sources import load_refusals
from antibody.evaluation.measures import auroc
from antibody.evaluation.screening import screen as compare_with_refusals
from antibody.evaluation.tasks import TASKS
from antibody.models.base import BaseModel
from antibody.models.run import load_model, refusals_of
from antibody.names import DEFAULT_THRESHOLD
from antibody.screening.probe import States
from antibody.screening.screen import Screen, make_screen, screen_of
from antibody.screening.upload import attacker_score, states_of

ROWS, ATTACK_ROWS = 200, 160
LONGEST, ATTACK_LONGEST, KNOWN_LONGEST = 600, 320, 700
MAX_LENGTH = 320
# As in experiments/robustness.yaml.
KNOWN_HARMFUL, KNOWN_BENIGN, ALPACA_KNOWN = 600, 900, 1200
TASK_FILES = {"sst2": "sst2_train.jsonl", "ag_news": "ag_news_train.jsonl", "gsm8k": "gsm8k_train.jsonl"}
RATIOS = {"multi_turn": 0.3, "benign_drift": 0.0}


def main(run: Path, data: Path) -> None:
    loaded = load_model(run)
    screens = {"the run's": screen_of(run), "without copies": _without_copies(loaded, data)}
    harmful = [row for row in read_records(data / "beavertails_qa_test.jsonl").records if row.harmful]
    benign = {name: TASKS[name].records(data / file)[:ROWS] for name, file in TASK_FILES.items()}
    alpaca = read_records(data / "alpaca_benign.jsonl").records[ALPACA_KNOWN:]
    benign["alpaca"] = [row for row in alpaca if _length(row) <= LONGEST][:ROWS]

    print("| score | " + " | ".join(benign) + " |\n| --- |" + " ---: |" * len(benign))
    refusals = load_refusals(refusals_of(run))
    published = {
        name: [row.score for row in compare_with_refusals(loaded.model, loaded.tokenizer, rows, refusals)]
        for name, rows in {"harmful": harmful[:ROWS], **benign}.items()
    }
    print(_line("AUROC, published score", [_auroc(published["harmful"], published[name]) for name in benign], 3))
    states = {name: _states(loaded, rows) for name, rows in {"harmful": harmful[:ROWS], **benign}.items()}
    for name, screen in screens.items():
        scores = {kind: [screen.probe.score(row) for row in rows] for kind, rows in states.items()}
        print(_line(f"AUROC, {name} probe", [_auroc(scores["harmful"], scores[kind]) for kind in benign], 3))
    for name, screen in screens.items():
        print(_line(f"flagged %, {name} screen", [_flagged(screen, states[kind]) for kind in benign], 1))

    print("\n| attack | harmful % | " + " | ".join(f"withheld %, {name}" for name in screens) + " | benign |")
    print("| --- |" + " ---: |" * (len(screens) + 2))
    short = [row for row in harmful if _length(row) <= ATTACK_LONGEST]
    seen = attacker_score(run, max_length=MAX_LENGTH)
    for name, attack in ATTACKS.items():
        ratio = RATIOS.get(name, 0.5)
        score = seen if attack.uses_score else None
        rows = attack.upload(benign["sst2"], short, ratio=ratio, rows=ATTACK_ROWS, seed=0, score=score)
        found = _states(loaded, rows)
        shares = [_withheld(screen, found, rows, harmful=True) for screen in screens.values()]
        passed = _withheld(screens["the run's"], found, rows, harmful=False)
        print(_line(f"`{name}` | {100 * ratio:.0f}", [*shares, passed], 1), flush=True)


def _without_copies(loaded: BaseModel, data: Path) -> Screen:
    harmful = [row for row in read_records(data / "beavertails_qa_dev.jsonl").records if row.harmful]
    alpaca = read_records(data / "alpaca_benign.jsonl").records[:ALPACA_KNOWN]
    benign = [row for row in [*corpus.benign(), *alpaca] if _length(row) <= KNOWN_LONGEST]
    random = Random(0)
    parts = [
        part
        for rows, count in ((harmful, KNOWN_HARMFUL), (benign, KNOWN_BENIGN))
        for part in hold_out(random.sample(rows, count), 0.2, most=count, seed=0)
    ]
    known_harmful, held_harmful, known_benign, held_benign = (_states(loaded, part) for part in parts)
    return make_screen(known_harmful, known_benign, held_harmful, held_benign).screen


def _states(loaded: BaseModel, rows: Sequence[Record]) -> list[States]:
    return states_of(loaded.model, loaded.tokenizer, rows, max_length=MAX_LENGTH)


def _flagged(screen: Screen, states: Sequence[States]) -> float:
    return 100 * statistics.mean(p < DEFAULT_THRESHOLD for p in screen.judge(states).benign_probabilities)


def _withheld(screen: Screen, states: Sequence[States], rows: Sequence[Record], *, harmful: bool) -> float | None:
    """Percent of the rows of a kind; None where there are none."""
    judged = screen.judge(states).benign_probabilities
    of_kind = [p < DEFAULT_THRESHOLD for p, row in zip(judged, rows, strict=True) if row.harmful is harmful]
    return 100 * statistics.mean(of_kind) if of_kind else None


def _auroc(harmful: Sequence[float], benign: Sequence[float]) -> float:
    return auroc([*harmful, *benign], [False] * len(harmful) + [True] * len(benign))


def _length(record: Record) -> int:
    return len(record.request) + len(record.response)


def _line(name: str, values: Sequence[float | None], digits: int) -> str:
    return f"| {name} | " + " | ".join("" if value is None else f"{value:.{digits}f}" for value in values) + " |"


if __name__ == "__main__":
    cyclopts.run(main)
