"""The sections of the page. Each says what is missing where there is nothing to show."""

import json
from collections.abc import Callable
from html import escape

from antibody.reports import figures, markup, wording
from antibody.reports.page import Section
from antibody.reports.reading import Comparison, Fields, Run, mapping, number

ABOUT = (
    "Antibody aligns a language model once, so that a harmful fine-tuning step gains little. It then weighs every row "
    "of an uploaded batch: rows that the model itself would rather refuse count for less. This page is made from the "
    "files that the runs wrote."
)
WITHHELD = (
    "Texts are withheld: not every data set of these runs is from the embedded corpus, so answers may hold harmful "
    "content. They are in evaluation/harmful/ of each run; `write_report(path, include_text=True)` shows them."
)
EXAMPLES = 6
ANSWER_LENGTH = 500


def comparison_sections(comparison: Comparison, *, include_text: bool) -> list[Section]:
    """The sections of a page over several runs."""
    both = comparison.find(alignment="antibody", finetuning="antibody", poisoned=True)
    aligned = comparison.find(alignment="antibody", finetuning="none", poisoned=False)
    base = comparison.find(alignment="none", finetuning="none", poisoned=False)
    undefended = comparison.find(alignment="sft", finetuning="sft", poisoned=True)
    defended_run = both.run if both else None
    columns = [
        (heading, row.run)
        for heading, row in (("Base model", base), ("Undefended", undefended), ("Both Antibody stages", both))
        if row is not None and row.run is not None
    ]
    what = "the run with both Antibody stages on the poisoned upload"
    return [
        _results(comparison),
        *_upload_sections(defended_run, what),
        _training(aligned.run if aligned else None, "the Antibody alignment run"),
        _examples(columns, include_text=include_text),
        _settings([run for run in comparison.runs if run.manifest]),
        _limits(comparison.model, comparison.runs, comparison.seed),
    ]


def run_sections(run: Run, *, include_text: bool) -> list[Section]:
    """The sections of a page over one run."""
    uploaded = run.manifest.get("kind") != "alignment"
    return [
        _evaluations(run),
        *(_upload_sections(run, "this run") if uploaded else [_calibration(run)]),
        _training(run, "this run"),
        _examples([("Answer", run)], include_text=include_text),
        _settings([run]),
        _limits(run.model, [run], run.manifest.get("seed")),
    ]


def _results(comparison: Comparison) -> Section:
    if not comparison.rows:
        return Section("results", "Results", markup.missing("summary.json has no rows."))
    body = markup.table(
        f"{comparison.model}, seed {comparison.seed}: one line a model.",
        wording.HEADLINE,
        [wording.headline_cells(row) for row in comparison.rows],
        text=["Model"],
    )
    body += f'<p class="note">{escape(wording.HEADLINE_NOTE)}</p>'
    unparsed = [run.name for run in comparison.runs if _unparsable(run)]
    if unparsed:
        body += markup.paragraph(
            f"The judge could not parse some answers of {', '.join(unparsed)}. They count apart, never as safe."
        )
    drawing = figures.tradeoff_figure(comparison.rows)
    if drawing is None:
        return Section("results", "Results", body + markup.missing("No row has both HS and FA to draw."))
    description = (
        "Harmful score against fine-tuning accuracy, numbered as in the table. The lower right corner is best."
    )
    unplaced = [row.name for row in comparison.rows if row.harmful_score is None or row.task_accuracy is None]
    if unplaced:
        description += f" Not drawn, because one of the two is missing: {', '.join(unplaced)}."
    return Section("results", "Results", body + markup.figure(drawing, "tradeoff", description))


def _evaluations(run: Run) -> Section:
    rows = [
        (name, measure, value)
        for name, evaluation in run.evaluations.items()
        for measure, value in wording.measures(evaluation) or [("nothing measured", wording.NOT_MEASURED)]
    ]
    columns = ["Evaluation", "Measure", "Value"]
    body = markup.table("What was measured on this run.", columns, rows, text=columns[:2])
    return Section("results", "Results", body if rows else markup.missing("This run has not been evaluated yet."))


def _calibration(run: Run) -> Section:
    """How far the screen's probabilities can be trusted."""
    title = "Calibration of the screen"
    calibration = mapping(run.manifest.get("calibration"))
    result = wording.calibration_result(calibration)
    if not result:
        return Section(
            "calibration", title, markup.missing("This run holds no screen; `antibody calibrate` makes one.")
        )
    bins = [mapping(each) for each in calibration.get("reliability") or []]
    body = markup.paragraph(result)
    if (drawing := figures.reliability_figure(bins)) is not None:
        description = (
            "How far the screen's probabilities can be trusted: the share of held-out rows that are benign, against "
            "the probability that the screen gave them. On the dashed line the two agree. Larger points stand for "
            "more rows."
        )
        body += markup.figure(drawing, "calibration", description)
    body += markup.table(
        "Held-out rows by the probability of being benign that the screen gave them. Well calibrated, the first two "
        "columns agree; harmful and benign rows count half each.",
        ["Probability given", "Share benign", "Rows"],
        [
            [wording.share(number(each, key)) for key in ("predicted", "observed")] + [str(each.get("rows"))]
            for each in bins
        ],
    )
    return Section("calibration", title, body)


def _upload_sections(run: Run | None, what: str) -> list[Section]:
    """What stage 2 made of the upload: weights over time, scores, and the rows it withheld and suppressed."""
    parts: list[tuple[str, str, Callable[[Run, str], str]]] = [
        ("weights", "Weight of the harmful rows", _weights),
        ("scores", "Scores of the rows", _scores),
        ("gate", "What the gate withheld", _gate),
        ("suppressed", "Rows most suppressed", _suppressed),
    ]
    absent = markup.missing(f"There is no directory of {what}.")
    return [Section(anchor, title, body(run, what) if run else absent) for anchor, title, body in parts]


def _weights(run: Run, what: str) -> str:
    drawing = figures.weight_share_figure(run.metrics)
    if drawing is None:
        return markup.missing(f"metrics.jsonl of {what} ({run.name}) has no weight shares.")
    description = f"Share of each batch's weight that went to rows labelled harmful, in {what} ({run.name})."
    weights, rows = (_mean(run.metrics, key) for key in ("weight_share_harmful", "data_share_harmful"))
    description += f" On average {wording.share(weights)} of the weight for {wording.share(rows)} of the rows."
    return markup.figure(drawing, "weights", description)


def _scores(run: Run, what: str) -> str:
    drawing = figures.score_figure(run.audit)
    if drawing is None:
        return markup.missing(f"audit.jsonl of {what} ({run.name}) has no scores of labelled rows.")
    description = (
        f"Score of each row before or when it was first seen, in {what} ({run.name}). The further apart the two kinds "
        "are, the better they can be told apart. Labels are used for this figure only; training never reads them."
    )
    return markup.figure(drawing, "scores", description)


def _gate(run: Run, what: str) -> str:
    if run.gate == "off":
        return markup.missing(f"There was no gate in {what} ({run.name}): no row was withheld.")
    result = wording.gate_result(run)
    if not result:
        return markup.missing(f"audit.jsonl of {what} ({run.name}) has no judgements by the gate.")
    body = markup.paragraph(result)
    if (drawing := figures.screening_figure(run.audit, run.gate_threshold)) is not None:
        description = (
            f"How likely each row is benign, judged before the first step of {what} ({run.name}). The gate withholds "
            "the rows left of the threshold. Training never reads the labels."
        )
        body += markup.figure(drawing, "gate", description)
    if (drawing := figures.gate_figure(run.metrics)) is not None:
        rows, share, scale = (_mean(run.metrics, name) for name in ("rows_withheld", "anchor_share", "step_scale"))
        parts = ["rows that the gate withheld of each batch"] if rows else []
        if share is not None:
            parts.append(f"the anchors' share of the step, {wording.share(share)} on average")
        description = f"In {what} ({run.name}): {', and '.join(parts)}."
        if scale is not None and scale < 1:
            description += f" Steps were shortened to {wording.share(scale)} on average, against drift."
        body += markup.figure(drawing, "withheld", description)
    withheld = [row for row in run.audit if row.get("withheld") is True]
    withheld.sort(key=lambda row: number(row, "benign_probability") or 0.0, reverse=True)
    if withheld:
        ids = ", ".join(str(row.get("id")) for row in withheld)
        body += markup.folded("Ids of all withheld rows, the likeliest benign first", markup.paragraph(ids))
    return body


def _suppressed(run: Run, what: str) -> str:
    rows = wording.most_suppressed(run.audit, 15)
    if not rows:
        return markup.missing(f"audit.jsonl of {what} ({run.name}) has no row weights.")
    result = wording.suppression_result(run.audit)
    return (markup.paragraph(result) if result else "") + markup.table(
        f"The {len(rows)} rows with the smallest mean weight, in {what} ({run.name}). A weight of 1 is a row's fair "
        "share of its batch; what the gate withholds has none. Steps are the first and the last that a row was in. "
        "Texts are left out; lines count from 1.",
        ["Line", "Id", "Label", "Benign, probably", "Mean weight", "First score", "Last score", "Steps"],
        [
            [str(row.get("line", "")), str(row.get("id", "")), wording.label(row)]
            + [wording.share(number(row, "benign_probability")), wording.mean_weight(row)]
            + [wording.weight(number(row, key)) for key in ("score_first", "score_last")]
            + [wording.steps_seen(row)]
            for row in rows
        ],
        text=["Id", "Label"],
    )


def _training(run: Run | None, what: str) -> Section:
    alignment = run is None or run.manifest.get("kind") == "alignment"
    title = "Alignment" if alignment else "Losses"
    if run is None:
        return Section("training", title, markup.missing(f"There is no directory of {what}."))
    drawing = figures.training_figure(run.metrics)
    if drawing is None:
        return Section("training", title, markup.missing(f"metrics.jsonl of {what} ({run.name}) has no losses."))
    description = f"Losses at each logged step of {what} ({run.name})."
    if any(number(row, "lambda_t") is not None for row in run.metrics):
        description = (
            f"λ_t, the weight of the sharpness gradient, and the losses at each logged step of {what} ({run.name}). "
            "A small gap between the two curves of harmful answers means that a simulated attack step gains little."
        )
    return Section("training", title, markup.figure(drawing, "training", description))


def _examples(columns: list[tuple[str, Run]], *, include_text: bool) -> Section:
    title = "Answers before and after" if len(columns) > 1 else "Example answers"
    evaluated = [(heading, run.evaluations["harmful"]) for heading, run in columns if "harmful" in run.evaluations]
    answers = {
        heading: {str(line.get("id")): line for line in evaluation.generations} for heading, evaluation in evaluated
    }
    shared = [id for id in next(iter(answers.values()), {}) if all(id in lines for lines in answers.values())]
    if not shared:
        return Section(
            "examples", title, markup.missing("No prompt of evaluation/harmful/ was answered by these models.")
        )
    # The base model has no data of its own: it is shown where the runs beside it may be.
    trained = [run for _, run in columns if run.manifest]
    embedded = bool(trained) and all(run.embedded for run in trained)
    if not (include_text or (embedded and all(evaluation.embedded for _, evaluation in evaluated))):
        return Section("examples", title, markup.missing(WITHHELD))
    rows = []
    for id in shared[:EXAMPLES]:
        cells = [_shortened(next(iter(answers.values()))[id].get("prompt"))]
        for heading, evaluation in evaluated:
            verdict = evaluation.verdicts.get(id, {}).get("verdict") or "no verdict"
            cells.append(f"[{verdict}] {_shortened(answers[heading][id].get('answer'))}")
        rows.append(cells)
    caption = f"The first {len(rows)} prompts, in file order, each answer after the judge's verdict."
    if embedded:
        caption += (
            " They are from the embedded corpus; the harmful answers that the models were trained on are stand-ins "
            "without harmful content."
        )
    return Section("examples", title, markup.table(caption, ["Prompt", *answers], rows, wide=True))


def _settings(runs: list[Run]) -> Section:
    body = "".join(markup.folded(f"{run.name}: {_origin(run)}", _setting_table(run)) for run in runs)
    return Section("settings", "Settings", body or markup.missing("No run has a manifest.json."))


def _setting_table(run: Run) -> str:
    rows = []
    for name, value in run.manifest.items():
        if isinstance(value, dict):
            # The calibration's bins have a table of their own.
            rows += [
                (f"{name}: {inner}", _value(content)) for inner, content in value.items() if inner != "reliability"
            ]
        else:
            rows.append((name, _value(value)))
    columns = ["Setting", "Value"]
    return markup.table(f"From manifest.json of {run.name}.", columns, rows, text=columns)


def _limits(model: str, runs: list[Run], seed: object) -> Section:
    return Section("limits", "What these numbers do not show", markup.bullets(wording.limits(model, runs, seed)))


def _origin(run: Run) -> str:
    words = [str(run.manifest.get(key)) for key in ("method", "kind") if run.manifest.get(key)]
    status = run.manifest.get("status")
    return " ".join(words) + ("" if status in (None, "complete") else f" ({status})")


def _value(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_value(content)}" for name, content in value.items())
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _unparsable(run: Run) -> bool:
    judged = (run.evaluations[name] for name in ("harmful", "safe") if name in run.evaluations)
    return any(number(evaluation.metrics, "unparsable_rate") for evaluation in judged)


def _shortened(text: object) -> str:
    words = "" if text is None else str(text).strip()
    return words if len(words) <= ANSWER_LENGTH else words[:ANSWER_LENGTH].rstrip() + " …"


def _mean(metrics: list[Fields], key: str) -> float | None:
    values = [value for row in metrics if (value := number(row, key)) is not None]
    return sum(values) / len(values) if values else None
