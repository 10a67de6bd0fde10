"""Every method of both stages by name.

A method is one file, whose objective's keyword arguments default to the published settings (or, of what we add, to what
was measured), and one line here. Every alignment combines with every fine-tuning. docs/methods.md shows how to add one.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from antibody.data.records import Record
from antibody.errors import UsageError
from antibody.names import Gate
from antibody.objectives.alignment import RULES, AntibodyAlignment
from antibody.objectives.booster import booster
from antibody.objectives.constrained_sft import ConstrainedSFT
from antibody.objectives.lisa import Lisa
from antibody.objectives.repnoise import RepNoise
from antibody.objectives.sft import PlainSFT
from antibody.objectives.step import Objective
from antibody.objectives.vaccine import Vaccine
from antibody.objectives.weights import AVERAGES, SCORES
from antibody.training.antibody_weights import antibody_weights
from antibody.training.moderation import moderated
from antibody.training.provided import Provided
from antibody.training.safeinstr import with_safety_rows

Option = float | str | None


@dataclass(frozen=True)
class Method:
    """How one method's objective is built, and what it does to an upload before training.

    Attributes:
        title: Its name in tables.
        source: Where it was published; empty for the plain baseline.
        build: Makes the objective. Its keyword arguments are options.
        rows: Takes the upload and what is `Provided`, and gives the rows to train on; its keyword arguments are options
            too. None leaves the upload as it is.
        reads_anchors: Whether ``rows`` reads the anchors.
        drops: Whether ``rows`` drops some, which an audit then names.
    """

    title: str
    source: str
    build: Callable[..., Objective]
    rows: Callable[..., list[Record]] | None = None
    reads_anchors: bool = False
    drops: bool = False

    @property
    def options(self) -> dict[str, Option]:
        """Every option by name, with its default."""
        return _keywords(self.build) | (_keywords(self.rows) if self.rows is not None else {})

    def objective(self, options: Mapping[str, Option]) -> Objective:
        """The objective by a choice of all options, as `options_of` makes it."""
        return self.build(**{name: options[name] for name in _keywords(self.build)})

    def trained_rows(self, upload: Sequence[Record], provided: Provided, options: Mapping[str, Option]) -> list[Record]:
        """The rows of an upload that are trained on.

        Raises:
            DataError: None is left, or none can be added.
        """
        if self.rows is None:
            return list(upload)
        return self.rows(upload, provided, **{name: options[name] for name in _keywords(self.rows)})


def plain_alignment() -> PlainSFT:
    return PlainSFT("align")


def plain_finetuning() -> PlainSFT:
    return PlainSFT("rows")


ALIGNMENTS: dict[str, Method] = {
    "antibody": Method("Antibody", "arXiv 2603.00498", AntibodyAlignment),
    "booster": Method("Booster", "arXiv 2409.01586", booster),
    "vaccine": Method("Vaccine", "arXiv 2402.01109", Vaccine),
    "repnoise": Method("RepNoise", "arXiv 2405.14577", RepNoise),
    "sft": Method("SFT", "", plain_alignment),
}

FINETUNINGS: dict[str, Method] = {
    "antibody": Method("Antibody", "arXiv 2603.00498", antibody_weights),
    "lisa": Method("Lisa", "arXiv 2405.18641", Lisa),
    "safeinstr": Method("SafeInstr", "arXiv 2309.07875", plain_finetuning, with_safety_rows, reads_anchors=True),
    "constrained_sft": Method("Constrained SFT", "arXiv 2406.05946", ConstrainedSFT),
    "moderation": Method("Moderation", "a frozen detector", plain_finetuning, moderated, drops=True),
    "sft": Method("SFT", "", plain_finetuning),
}

# What a word may be. Those that are not named are judged by who reads them.
CHOICES: dict[str, tuple[str, ...]] = {
    "rule": tuple(RULES),
    "score": tuple(SCORES),
    "average": tuple(AVERAGES),
    "gate": get_args(Gate),
}

_POSITIVE = ("more than 0", lambda value: value > 0)
_SHARE = ("more than 0, and at most 1", lambda value: 0 < value <= 1)
_PART = ("0 or more, and less than 1", lambda value: 0 <= value < 1)
# What a number may be. Those that are not named are 0 or more.
RANGES: dict[str, tuple[str, Callable[[float], bool]]] = {
    "tau": _POSITIVE,
    "anchor_rows": _POSITIVE,
    "gate_threshold": _SHARE,
    "anchor_floor": _SHARE,
    "anchor_tolerance": _POSITIVE,
    "momentum": _PART,
    "safety_ratio": _PART,
}
_ANY = ("0 or more", lambda value: value >= 0)


def options_of(methods: Mapping[str, Method], name: str, given: Mapping[str, Option]) -> dict[str, Option]:
    """All options of a method: those that are given and not None, else the defaults.

    Raises:
        UsageError: ``unknown_name``, ``conflict`` where the method takes no such option, or ``out_of_range``.
    """
    one_of("method", name, tuple(methods))
    options = methods[name].options
    for option, value in given.items():
        # A method without a gate has it off, and may be told so.
        if value is None or (option == "gate" and value == "off" and "gate" not in options):
            continue
        if option not in options:
            takes = f"It takes {', '.join(options)}." if options else "It takes none."
            raise UsageError(f"method={name!r} takes no {option}={value!r}.", hint=takes, code="conflict")
        options[option] = _checked(option, value, options[option])
    return options


def one_of(name: str, value: object, allowed: tuple[str, ...]) -> None:
    """Refuses a name that is not known.

    Raises:
        UsageError: ``unknown_name``.
    """
    if value not in allowed:
        raise UsageError(
            f"{name}={value!r} is not known.", hint=f"Use one of {', '.join(allowed)}.", code="unknown_name"
        )


def _checked(name: str, value: float | str, published: Option) -> float | str:
    if isinstance(published, str):
        if name in CHOICES:
            one_of(name, value, CHOICES[name])
        elif not isinstance(value, str):
            raise UsageError(f"{name}={value!r} is no name.", hint=f"{published!r} is one.", code="unknown_name")
        return value
    words, allows = RANGES.get(name, _ANY)
    if isinstance(value, str | bool) or not allows(value):
        raise UsageError(f"{name}={value!r} is out of range.", hint=f"Use a number: {words}.", code="out_of_range")
    if isinstance(published, int):
        if not float(value).is_integer():
            raise UsageError(f"{name}={value} is out of range.", hint="Use a whole number.", code="out_of_range")
        return int(value)
    return float(value)


def _keywords(function: Callable[..., Any]) -> dict[str, Option]:
    parameters = inspect.signature(function).parameters.values()
    return {each.name: each.default for each in parameters if each.kind is each.KEYWORD_ONLY}
