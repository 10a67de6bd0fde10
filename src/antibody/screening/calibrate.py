"""`calibrate`: finds anew where a run's score turns from harmful to benign, on a provider's own rows."""

from collections.abc import Sequence
from random import Random

from antibody.data.mixes import hold_out
from antibody.data.records import Record
from antibody.data.sources import load_labelled
from antibody.files import write_json
from antibody.models.run import load_model, run_of
from antibody.progress import counted
from antibody.reports import write_card
from antibody.screening.calibration import Fit, fit_calibration
from antibody.screening.forms import read_with_copies
from antibody.screening.probe import States
from antibody.screening.screen import Made, Screen, make_screen, save_screen, screen_of
from antibody.screening.settings import CalibrationSettings
from antibody.screening.upload import states_of

# Rows of each kind that are read at most, and the share of their prompts that a new probe is not made on.
MOST_ROWS = 1500
HELD_OUT = 0.2


def calibrate(settings: CalibrationSettings) -> Fit:
    """Replaces the run's calibration, and with ``refit`` its probe.

    Raises:
        UsageError: The model is not a run of ours.
        DataError: A file has no rows of its kind.
        ModelError: The run has no probe and none is to be made, or its score tells the rows not apart.
    """
    run = run_of(settings.model)
    manifest = run.manifest()
    screen = None if settings.refit else screen_of(settings.model)
    harmful, benign = (
        _few(load_labelled(source, harmful=label).records, settings.seed)
        for source, label in ((settings.harmful, True), (settings.benign, False))
    )
    loaded = load_model(settings.model, dtype=settings.dtype, device=settings.device)
    parted = (hold_out(rows, HELD_OUT, most=MOST_ROWS, seed=settings.seed) for rows in (harmful, benign))

    def read(records: Sequence[Record]) -> list[States]:
        with counted("Calibrating", len(records)) as advance:
            return states_of(loaded.model, loaded.tokenizer, records, max_length=settings.max_length, progress=advance)

    known_harmful, held_harmful, known_benign, held_benign = read_with_copies(
        (part for each in parted for part in each),
        settings.seed,
        loaded.tokenizer,
        settings.max_length,
        read,
    )
    if screen is None:
        made = make_screen(known_harmful, known_benign, held_harmful, held_benign)
    else:
        scores = [
            [screen.probe.score(row) for row in rows]
            for rows in ([*known_harmful, *held_harmful], [*known_benign, *held_benign])
        ]
        fit = fit_calibration(*scores)
        made = Made(Screen(screen.probe, fit.calibration), fit)
    found_on = {"rows": {"harmful": settings.harmful, "benign": settings.benign}}
    write_json(run.path / "manifest.json", manifest | {"calibration": save_screen(run, made) | found_on})
    write_card(run.path)
    return made.fit


def _few(records: list[Record], seed: int) -> list[Record]:
    return Random(seed).sample(records, min(len(records), MOST_ROWS))
