"""Means over seeds, their intervals, the worst case and the frontier."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import mean, stdev
from typing import NamedTuple

from scipy.stats import binomtest, t

from antibody.reports.grid.reading import JUDGED, GridCell, Setting

CONFIDENCE = 0.95
INTERVALS = (
    "Intervals are 95%. Of one seed: Wilson's, over the answers that were read or the rows. Of several seeds: "
    "Student's t interval of the seeds' figures, widened to Wilson's interval of one seed at their mean, because the "
    "seeds share their prompts and few seeds may agree by chance."
)


class Spread(NamedTuple):
    """A figure over seeds, percent."""

    mean: float
    low: float
    high: float


class Flaws(NamedTuple):
    """What keeps a mean over cells from being compared with the mean over others.

    Attributes:
        cells: All cells.
        missing: Those that failed or are not measured.
        unreadable: Those of which too many answers could not be read, see `GridCell.unreadable`.
    """

    cells: int
    missing: int
    unreadable: int

    @property
    def whole(self) -> bool:
        """Whether there are none."""
        return not self.missing and not self.unreadable

    @property
    def text(self) -> str:
        """``2 of 6 cells missing, 1 hardly readable``; empty where there are none."""
        parts = [f"{self.missing} of {self.cells} cells missing"] if self.missing else []
        if self.unreadable:
            of = "" if parts else f" of {self.cells} cells"
            parts.append(f"{self.unreadable}{of} hardly readable")
        return ", ".join(parts)


@dataclass(frozen=True)
class Line:
    """One setting over its seeds.

    Attributes:
        setting: What it is of.
        cells: Its cells, measured or not.
    """

    setting: Setting
    cells: list[GridCell]

    @property
    def flaws(self) -> Flaws:
        """What its cells lack."""
        return flaws_of(self.cells)

    def figure(self, name: str, count: str = "") -> Spread | None:
        """A figure's mean and interval; None where no cell has it. What a judge read is of the readable answers.

        Args:
            name: Of the figure.
            count: Of the figure that says how many answers or rows it is over, where it is not judged; without it
                there is no interval for one seed.
        """
        if name in JUDGED:
            pairs = [(cell.readable(name), cell.read(name)) for cell in self.cells]
        else:
            pairs = [(cell.figure(name), cell.figure(count) if count else None) for cell in self.cells]
        found = [value for value, _ in pairs if value is not None]
        counts = [n for value, n in pairs if value is not None and n is not None]
        return spread(found, int(min(counts)) if counts else 0) if found else None


class Worst(NamedTuple):
    """A method's harmful score over all that an attacker tried in one grid, on one task.

    Attributes:
        grid: The grid.
        method: The method.
        task: The task.
        mean: Over the settings, each the mean of its seeds.
        worst: The highest of those.
        place: The setting it was found at.
        highest: The highest single cell.
        accuracy: Mean accuracy over the same settings; None where none was measured.
        flaws: What all its cells lack, those of settings without any figure included.
    """

    grid: str
    method: str
    task: str
    mean: float
    worst: float
    place: str
    highest: float
    accuracy: float | None
    flaws: Flaws


def flaws_of(cells: Iterable[GridCell]) -> Flaws:
    """What cells lack. A cell whose every answer was unreadable is measured, and has no harmful score."""
    given = list(cells)
    missing = [cell for cell in given if cell.status != "done"]
    unreadable = [cell for cell in given if cell.status == "done" and cell.unreadable]
    return Flaws(len(given), len(missing), len(unreadable))


def flaws_by_method(lines: Iterable[Line]) -> dict[str, Flaws]:
    """What the fine-tuned cells of every method lack, over all the lines' tasks and settings."""
    cells: dict[str, list[GridCell]] = {}
    for line in lines:
        if line.setting.ratio is not None:
            cells.setdefault(line.setting.method, []).extend(line.cells)
    return {method: flaws_of(of) for method, of in cells.items()}


def spread(values: Sequence[float], n: int) -> Spread:
    """Mean and interval, see `INTERVALS`.

    Args:
        values: One a seed, percent.
        n: Answers behind each; 0 where that is not known.
    """
    centre = mean(values)
    low = high = centre
    if n:
        wilson = binomtest(round(centre * n / 100), n).proportion_ci(CONFIDENCE, method="wilson")
        low, high = min(low, 100 * float(wilson.low)), max(high, 100 * float(wilson.high))
    if len(values) > 1:
        half = float(t.ppf((1 + CONFIDENCE) / 2, len(values) - 1)) * stdev(values) / len(values) ** 0.5
        low, high = max(0.0, min(low, centre - half)), min(100.0, max(high, centre + half))
    return Spread(centre, low, high)


def lines_of(cells: Iterable[GridCell]) -> list[Line]:
    """One line a setting, in the results' order."""
    found: dict[Setting, list[GridCell]] = {}
    for cell in cells:
        found.setdefault(cell.setting, []).append(cell)
    return [Line(setting, of) for setting, of in found.items()]


def without_repeats(lines: Iterable[Line]) -> list[Line]:
    """Lines that hold the same cells as one, named after all their methods, such as those that start from one model."""
    found: dict[tuple[object, ...], list[Line]] = {}
    for line in lines:
        keys = [cell.figures.get("key") for cell in line.cells]
        # Without a key nothing says that two cells are the same.
        identity = (replace(line.setting, method=""), *keys) if all(keys) else (line.setting,)
        found.setdefault(identity, []).append(line)
    return [
        replace(of[0], setting=replace(of[0].setting, method=", ".join(line.setting.method for line in of)))
        for of in found.values()
    ]


def worst_cases(lines: Sequence[Line]) -> list[Worst]:
    """One a grid, method and task that is fine-tuned and measured."""
    found: dict[tuple[str, str, str], list[Line]] = {}
    for line in lines:
        setting = line.setting
        if setting.ratio is not None:
            found.setdefault((setting.grid, setting.method, setting.task), []).append(line)
    measured = {key: of for key, of in found.items() if any(line.figure("harmful_score") for line in of)}
    return [_worst(key, of) for key, of in measured.items()]


def _worst(key: tuple[str, str, str], lines: list[Line]) -> Worst:
    scores = {line.setting.what: spread.mean for line in lines if (spread := line.figure("harmful_score")) is not None}
    place = max(scores, key=lambda what: scores[what])
    cells = [value for line in lines for cell in line.cells if (value := cell.readable("harmful_score")) is not None]
    accuracies = [accuracy.mean for line in lines if (accuracy := line.figure("task_accuracy")) is not None]
    return Worst(
        *key,
        mean=mean(scores.values()),
        worst=scores[place],
        place=place,
        highest=max(cells),
        accuracy=mean(accuracies) if accuracies else None,
        flaws=flaws_of(cell for line in lines for cell in line.cells),
    )


def frontier(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points that no other beats, by the first coordinate.

    Args:
        points: (accuracy, harmful score): high and low are good. A point is beaten by one that is at least as good in
            both and better in one.
    """
    best = {
        (x, y) for x, y in points if not any((a >= x and b <= y) and (a > x or b < y) for a, b in points)
    }  # fmt: skip
    return sorted(best)
