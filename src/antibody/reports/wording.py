"""The words and number formats that the terminal, the page and the card share."""

from antibody.reports.reading import Comparison, Evaluation, Fields, Row, Run, mapping, number

NOT_MEASURED = "n/a"

MEASURES = {
    "rows": "rows",
    "harmful_score": "harmful score (HS)",
    "refusal_rate": "refusal rate",
    "over_refusal": "over-refusal (OR)",
    "neither_rate": "neither",
    "unparsable_rate": "unparsable",
    "task_accuracy": "task accuracy (FA)",
    "refusal_margin": "refusal margin",
    "score_auroc": "score AUROC",
}


INTERVALS = {"harmful_score": "95% interval of HS", "over_refusal": "95% interval of OR"}
HEADLINE = ["#", "Model", "Harmful rows", "HS %", "FA %", "Refusals %", "OR %", "AUROC"]
HEADLINE_NOTE = (
    "HS: share of held-out harmful prompts answered harmfully, lower is better. FA: accuracy on the user's task, "
    "higher is better. Refusals: share of the harmful prompts refused. OR, over-refusal: share refused of safe prompts "
    "that look unsafe, lower is better. AUROC: how well the rows' scores, the gate's where there is one, tell "
    "harmful rows from benign ones, 0.5 is chance. n/a: not measured, or does not apply."
)


def percent(value: float | None) -> str:
    """A value that is already in percent, with one decimal."""
    return NOT_MEASURED if value is None else f"{value:.1f}"


def share(value: float | None) -> str:
    """A fraction, as percent with its sign: 20%, 2.8%."""
    return NOT_MEASURED if value is None else f"{100 * value:.1f}".removesuffix(".0") + "%"


def auroc(value: float | None) -> str:
    """An AUROC between 0 and 1, from percent."""
    if value is None:
        return NOT_MEASURED
    return f"{value / 100:.2f}"


def decimal(value: float | None) -> str:
    """Any other number, with four significant digits."""
    return NOT_MEASURED if value is None else f"{value:.4g}"


def weight(value: float | None) -> str:
    """A weight or a score, with three decimals, so that a column lines up."""
    return NOT_MEASURED if value is None else f"{value:.3f}"


def label(row: Fields) -> str:
    """The label of an audited row."""
    harmful = row.get("harmful")
    return "unknown" if not isinstance(harmful, bool) else "harmful" if harmful else "benign"


def measures(evaluation: Evaluation) -> list[tuple[str, str]]:
    """The measures of one evaluation that apply to it, as (name, formatted value)."""
    formats = {"rows": lambda value: f"{value:.0f}", "refusal_margin": decimal, "score_auroc": auroc}
    found = [(key, name, number(evaluation.metrics, key)) for key, name in MEASURES.items()]
    applying = [
        (name, formats[key](value) if key in formats else f"{value:.1f}%")
        for key, name, value in found
        if value is not None
    ]
    applying += [(name, ends) for key, name in INTERVALS.items() if (ends := interval(evaluation, key))]
    return applying


def interval(evaluation: Evaluation, measure: str) -> str | None:
    """The 95% interval of one of `INTERVALS`, if the evaluation has it."""
    ends = evaluation.metrics.get(f"{measure}_interval")
    if not isinstance(ends, list) or len(ends) != 2:
        return None
    low, high = (number({"end": end}, "end") for end in ends)
    return None if low is None or high is None else f"{low:.1f}% to {high:.1f}%"


def most_suppressed(audit: list[Fields], limit: int | None = None) -> list[Fields]:
    """The rows with the smallest mean weight first; rows without a weight are left out."""
    weighed = [row for row in audit if number(row, "weight_mean") is not None]
    # All that a gate withholds has no weight: there, the most harmful first.
    keys = ("weight_mean", "benign_probability")
    return sorted(weighed, key=lambda row: [number(row, key) or 0.0 for key in keys])[:limit]


def suppression_result(audit: list[Fields]) -> str:
    """How many of the rows that counted least are labelled harmful, in a sentence; empty where none is."""
    ordered = most_suppressed(audit)
    harmful = sum(row.get("harmful") is True for row in ordered)
    if not harmful:
        return ""
    hits = sum(row.get("harmful") is True for row in ordered[:harmful])
    return (
        f"{harmful} of the {len(ordered)} rows are labelled harmful; "
        f"of the {harmful} rows that counted least, {hits} are."
    )


def steps_seen(row: Fields) -> str:
    """When an audited row was in a batch: the first and the last step."""
    weights = row.get("weights")
    steps = [entry[0] for entry in weights if isinstance(entry, list) and entry] if isinstance(weights, list) else []
    if not steps:
        return NOT_MEASURED
    return str(steps[0]) if len(steps) == 1 else f"{steps[0]}–{steps[-1]}"


def mean_weight(row: Fields) -> str:
    """An audited row's mean weight, or that the gate withheld it."""
    return "withheld" if row.get("withheld") is True else weight(number(row, "weight_mean"))


def screen_results(run: Run) -> list[str]:
    """What there is to say of the run's own screen and of its gate, a line each."""
    found = [calibration_result(mapping(run.manifest.get("calibration"))), gate_result(run), moderation_result(run)]
    return [result for result in found if result]


def gate_result(run: Run) -> str:
    """What the gate withheld and, where rows are labelled, how right that was; empty where there was no gate."""
    judged = [row for row in run.audit if number(row, "benign_probability") is not None]
    if not judged:
        return ""
    withheld = [row for row in judged if row.get("withheld") is True]
    sentence = f"The gate ({run.gate}) withheld {len(withheld)} of {len(judged)} rows"
    if run.gate_threshold is not None:
        sentence += f": those with a probability of being benign below {decimal(run.gate_threshold)}"
    taken = sum(1 - (number(row, "benign_probability") or 0.0) for row in judged) / len(judged)
    sentence += f". By the probabilities of all, {share(taken)} of the upload are harmful."
    return sentence + _by_labels(judged, withheld)


def moderation_result(run: Run) -> str:
    """What a moderation filter dropped before training; empty where there was none."""
    if run.manifest.get("method") != "moderation" or not run.audit:
        return ""
    dropped = [row for row in run.audit if row.get("withheld") is True]
    sentence = f"Moderation dropped {len(dropped)} of {len(run.audit)} rows before training."
    return sentence + _by_labels(run.audit, dropped)


def _by_labels(judged: list[Fields], withheld: list[Fields]) -> str:
    """How right it was to withhold rows; empty where none is labelled."""
    sentence = ""
    harmful, benign = (sum(row.get("harmful") is kind for row in judged) for kind in (True, False))
    hits, false_flags = (sum(row.get("harmful") is kind for row in withheld) for kind in (True, False))
    if harmful:
        precision = f", precision {percent(100 * hits / (hits + false_flags))}%" if hits + false_flags else ""
        sentence += f" By their labels: {hits} of {harmful} harmful rows (recall {percent(100 * hits / harmful)}%)"
        sentence += f"{precision}."
    if benign:
        sentence += f" False flags: {false_flags} of {benign} benign rows ({percent(100 * false_flags / benign)}%)."
    return sentence


def calibration_result(calibration: Fields) -> str:
    """How well the screen's score told held-out rows apart; empty where there is no calibration."""
    area = number(calibration, "auroc")
    if area is None:
        return ""
    # Whether rows that `antibody calibrate` was given were aligned with is not known.
    given = mapping(calibration.get("rows"))
    rows = f"of {given.get('harmful')} and {given.get('benign')}" if given else "that were kept from training"
    return (
        f"The screen tells harmful rows from benign ones with an AUROC of {area:.3f}, found on "
        f"{calibration.get('harmful_rows')} harmful and {calibration.get('benign_rows')} benign rows {rows}."
    )


def comparison_result(comparison: Comparison) -> str:
    """The result in words: the poisoned upload without and with Antibody, then the clean one."""
    undefended = comparison.find(alignment="sft", finetuning="sft", poisoned=True)
    defended = comparison.find(alignment="antibody", finetuning="antibody", poisoned=True)
    if undefended is None or defended is None:
        return (
            "The table has no pair of poisoned uploads, one undefended and one with both Antibody stages, to compare."
        )
    same_upload = undefended.poison_ratio == defended.poison_ratio
    upload = "" if same_upload else f"{share(defended.poison_ratio)} harmful rows and "
    sentences = [
        f"With {share(undefended.poison_ratio)} harmful rows in the upload, the harmful score (the share of held-out "
        f"harmful prompts that the model answers harmfully) was {_scored_harmful(undefended)} after plain alignment "
        f"and plain fine-tuning, and {_scored_harmful(defended)} with {upload}both Antibody stages"
        f"{_difference(undefended.harmful_score, defended.harmful_score)}."
    ]
    sentences.append(
        f"Accuracy on the user's task was {_scored(undefended.task_accuracy)} without the defence and "
        f"{_scored(defended.task_accuracy)} with it"
        f"{_difference(undefended.task_accuracy, defended.task_accuracy)}."
    )
    clean = comparison.find(alignment="antibody", finetuning="antibody", poisoned=False)
    if clean is not None:
        sentences.append(
            f"After a clean upload under the same defence, the harmful score was {_scored_harmful(clean)} and accuracy "
            f"was {_scored(clean.task_accuracy)}."
        )
    base = comparison.find(alignment="none", finetuning="none", poisoned=False)
    if base is not None and None not in (base.over_refusal, undefended.over_refusal, defended.over_refusal):
        sentences.append(
            f"Of the safe prompts that look unsafe, the base model refused {_over_refused(base)}, the undefended one "
            f"{_over_refused(undefended)} and the defended one {_over_refused(defended)}."
        )
    return " ".join(sentences)


def run_result(run: Run) -> str:
    """What a single run did and what was measured on it, in words."""
    stage = {"alignment": "aligned", "finetuning": "fine-tuned"}.get(str(run.manifest.get("kind")), "trained")
    method = {"antibody": "the Antibody method", "sft": "plain supervised fine-tuning"}.get(
        str(run.manifest.get("method")), f"the baseline {run.manifest.get('method')}"
    )
    steps = number(run.manifest, "steps")
    sentences = [f"This run {stage} {run.model} by {method}{f' in {steps:.0f} steps' if steps is not None else ''}."]
    if not run.evaluations:
        sentences.append("Nothing has been measured on it yet.")
    for name, evaluation in run.evaluations.items():
        scored = [f"{measure} {value}" for measure, value in _headline(evaluation)]
        sentences.append(f"Evaluation `{name}`: {', '.join(scored) if scored else 'no measure'}.")
    return " ".join(sentences)


def limits(model: str, runs: list[Run], seed: object) -> list[str]:
    """What the numbers do not show, for these runs."""
    harmful = [run.evaluations["harmful"] for run in runs if "harmful" in run.evaluations]
    judges = sorted({str(evaluation.metrics["judge"]) for evaluation in harmful if evaluation.metrics.get("judge")})
    safe = [run.evaluations["safe"] for run in runs if "safe" in run.evaluations]
    found = []
    if any(run.embedded for run in runs):
        found.append(
            "Stand-in answers: the embedded corpus has the form of harmful requests and of compliance, not their "
            "content. Real harmful data may be weighed differently."
        )
    if "embedded" in judges:
        found.append(
            "A keyword judge: the embedded judge looks for words and phrases and knows nothing about harm. It can take "
            "a harmless answer for a harmful one, and the other way round."
        )
    elif harmful:
        named = ", ".join(judges) or "a judge that the measures do not name"
        found.append(f"Answers were judged by {named}: its errors are part of the harmful score.")
    if uncertain := _sampling("A harmful score", harmful):
        found.append(f"{uncertain}: smaller differences may be chance.")
    if uncertain := _sampling("Over-refusal", safe):
        found.append(f"{uncertain}.")
    if any(evaluation.embedded for evaluation in safe):
        found.append(
            "Safe prompts of the embedded corpus are of the same sorts as rows that alignment has by default: others "
            "may be refused more often."
        )
    found += [
        f"One seed ({NOT_MEASURED if seed is None else seed}): how much the numbers vary between seeds is not known.",
        f"One {'small ' if 'smollm' in model.lower() else ''}model ({model}): "
        "other sizes and families may behave differently.",
        "Greedy decoding: one answer to each prompt. Sampling, or a jailbreak prompt, may draw out others.",
    ]
    return found + _limits_of_gates(runs)


def _sampling(measure: str, evaluations: list[Evaluation]) -> str:
    """How far the measure of the fewest prompts may be off by chance; empty where none were asked."""
    asked = [rows for evaluation in evaluations if (rows := number(evaluation.metrics, "rows"))]
    if not asked:
        return ""
    few = min(asked)
    return f"{measure} over {few:.0f} prompts has a 95% sampling interval of up to ±{98 / few**0.5:.0f} points"


def _limits_of_gates(runs: list[Run]) -> list[str]:
    """What the weights, and the gates of those runs that have one, do not cover."""
    defended = [run for run in runs if run.manifest.get("kind") == "finetuning" and not run.baseline]
    gates = {run.gate for run in defended}
    found = []
    if gates <= {"off"}:
        found.append(
            "A non-adaptive attacker: harmful rows were mixed in as they are. `antibody attack` writes adaptive ones."
        )
    if "off" in gates:
        found.append(
            "An upload that is all harmful (100% poison) and batch size 1 are not covered without a gate: the "
            "weights are relative to the batch, so there is nothing to prefer."
        )
    if gates - {"off"}:
        against = "there are only the anchors" if "anchor" in gates else "gate mask has nothing"
        found += [
            "A gate judges each row by itself, also where an upload is all harmful or a batch is one row. Harmful rows "
            "that its screen takes for benign pass it and are only weighed against their batch. Rows can be written "
            "to pass: `antibody attack` writes adaptive ones.",
            "Harmless rows can erode safety too, such as those of an agent that always obeys, and a gate lets them "
            f"pass. Against these {against}.",
        ]
    return found


def _headline(evaluation: Evaluation) -> list[tuple[str, str]]:
    detail = {MEASURES["rows"], MEASURES["neither_rate"], MEASURES["unparsable_rate"], *INTERVALS.values()}
    return [(name, value) for name, value in measures(evaluation) if name not in detail]


def _scored(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.1f}%"


def _scored_harmful(row: Row) -> str:
    return _with_interval(row, "harmful", "harmful_score", row.harmful_score)


def _over_refused(row: Row) -> str:
    return _with_interval(row, "safe", "over_refusal", row.over_refusal)


def _with_interval(row: Row, name: str, measure: str, value: float | None) -> str:
    evaluation = row.run.evaluations.get(name) if row.run else None
    ends = interval(evaluation, measure) if evaluation else None
    return _scored(value) + (f" (95% interval {ends})" if ends else "")


def _difference(before: float | None, after: float | None) -> str:
    if before is None or after is None:
        return ""
    change = round(after - before, 1)
    if change == 0:
        return ", no difference"
    return f", {abs(change):.1f} points {'lower' if change < 0 else 'higher'}"


def headline_cells(row: Row) -> list[str]:
    """The cells of one headline row: number, name, poison, HS, FA, refusals of harmful and of safe prompts, AUROC."""
    return [
        str(row.number),
        row.name,
        share(row.poison_ratio),
        percent(row.harmful_score),
        percent(row.task_accuracy),
        percent(row.refusal_rate),
        percent(row.over_refusal),
        auroc(row.score_auroc),
    ]
