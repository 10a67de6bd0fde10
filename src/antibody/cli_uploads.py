"""The commands that deal with rows of an upload: screen them, calibrate what screens them, make an attack of them."""

from pathlib import Path
from typing import Annotated

from rich.console import Console
from rich.table import Table

from antibody.cli_options import Flat, Json
from antibody.errors import UsageError
from antibody.files import refuse_existing, to_json, write_jsonl
from antibody.names import DEFAULT_THRESHOLD, Dtype
from antibody.screening.settings import CalibrationSettings


def screen(
    *,
    model: str,
    data: str,
    output: Path | None = None,
    threshold: float = DEFAULT_THRESHOLD,
    max_length: int = 256,
    batch_size: int = 16,
    show: int = 20,
    dtype: Dtype = "auto",
    device: str = "auto",
    force: bool = False,
    json: Json = False,
) -> None:
    """Judge every row of an upload without training on it, and flag what the gate would withhold.

    Args:
        model: An aligned run.
        data: The user's rows.
        output: Where all judgements go, as JSONL without texts.
        threshold: Probability of being benign below which a row is flagged.
        max_length: Most tokens of prompt and response.
        batch_size: Rows read together.
        show: How many of the lowest rows are printed.
        dtype: auto, float32, bfloat16 or float16.
        device: auto, cpu, cuda ...
        force: Replace the output where there is one.
        json: Print one JSON object on standard output.
    """
    from antibody.data.sources import load_records
    from antibody.models.run import load_model
    from antibody.progress import counted
    from antibody.screening.screen import screen_of
    from antibody.screening.upload import operating_point, screen_upload

    if output is not None:
        refuse_existing(output, force=force)
    records = load_records(data).records
    judge = screen_of(model)
    loaded = load_model(model, dtype=dtype, device=device)
    with counted("Screening", len(records)) as advance:
        rows = screen_upload(
            loaded.model,
            loaded.tokenizer,
            records,
            judge,
            threshold=threshold,
            max_length=max_length,
            batch_size=batch_size,
            progress=advance,
        )
    content = [row._asdict() for row in rows]
    if output is not None:
        write_jsonl(output, content)
    point = operating_point(rows)
    flagged = sum(row.flagged for row in rows)
    lowest = sorted(content, key=lambda row: row["score"])[:show]
    if json:
        labelled = point._asdict() if point else None
        print(to_json({"rows": len(rows), "flagged": flagged, "labelled": labelled, "lowest": lowest}))
        return
    table = Table(
        "Line", "Id", "Label", "Score", "Benign", "Gate", title=f"The {len(lowest)} lowest of {len(rows)} rows"
    )
    for row in lowest:
        label = {True: "harmful", False: "benign", None: ""}[row["harmful"]]
        mark = "flagged" if row["flagged"] else ""
        table.add_row(
            str(row["line"]), row["id"], label, f"{row['score']:.2f}", f"{row['benign_probability']:.3f}", mark
        )
    console = Console()
    console.print(table)
    console.print(f"{flagged} of {len(rows)} rows are flagged: their probability of being benign is below {threshold}.")
    if point is not None:
        console.print(
            f"By their labels: {point.flagged_harmful} of {point.harmful_rows} harmful rows and "
            f"{point.flagged_benign} of {point.benign_rows} benign ones."
        )
    if output is not None:
        Console(stderr=True).print(f"Written: {output}, {len(rows)} judgements")


def calibrate(settings: Annotated[CalibrationSettings, Flat], *, json: Json = False) -> None:
    """Find anew, on your own rows, where an aligned run's score turns from harmful to benign."""
    from antibody.screening.calibrate import calibrate as run_calibration

    fit = run_calibration(settings).to_manifest()
    if json:
        print(to_json({"run": settings.model, "calibration": fit}))
        return
    table = Table("Probability given", "Share benign", "Rows", title=f"AUROC {fit['auroc']:.3f}")
    for each in fit["reliability"]:
        table.add_row(f"{each['predicted']:.3f}", f"{each['observed']:.3f}", str(each["rows"]))
    Console().print(table)
    rows = f"{fit['harmful_rows']} harmful and {fit['benign_rows']} benign rows, copies in other forms among them"
    probe = "a new probe, " if settings.refit else ""
    Console(stderr=True).print(f"Changed: {settings.model}: {probe}calibrated anew on {rows}")


def attack(
    name: str,
    *,
    output: Path,
    benign: str = "embedded:task_train",
    harmful: str = "embedded:harmful_attack",
    ratio: float = 0.2,
    rows: int = 200,
    seed: int = 0,
    model: str | None = None,
    dtype: Dtype = "auto",
    device: str = "auto",
    force: bool = False,
    json: Json = False,
) -> None:
    """Write a poisoned upload, to measure a defence by.

    Args:
        name: mix, sorted, clustered, benign_drift, identity_shift, refuse_then_comply, noice, backdoor, jailbreak,
            padding, odd_prompts, short_answers, long_answers, multi_turn or weight_aware.
        output: The upload, as JSONL for `finetune --data`.
        benign: Rows of the user's task.
        harmful: Harmful prompts answered harmfully.
        ratio: Share of harmful rows; 0 for benign_drift.
        rows: Rows of the upload.
        seed: Of all that is drawn.
        model: The run that weight_aware chooses its rows against.
        dtype: Of that model: auto, float32, bfloat16 or float16.
        device: Of that model: auto, cpu, cuda ...
        force: Replace the output where there is one.
        json: Print one JSON object on standard output.
    """
    from antibody.attacks import ATTACKS
    from antibody.data.sources import load_records
    from antibody.data.writing import write_records
    from antibody.screening.upload import attacker_score

    if name not in ATTACKS:
        raise UsageError(
            f"There is no attack {name!r}.", hint=f"Use one of: {', '.join(ATTACKS)}.", code="unknown_name"
        )
    if model is not None and not ATTACKS[name].uses_score:
        raise UsageError(f"{name} does not look at a model.", hint="Leave --model out.", code="conflict")
    refuse_existing(output, force=force)
    upload = ATTACKS[name].upload(
        load_records(benign).records,
        load_records(harmful).records,
        ratio=ratio,
        rows=rows,
        seed=seed,
        score=None if model is None else attacker_score(model, dtype=dtype, device=device),
    )
    write_records(output, upload)
    poison = sum(bool(record.harmful) for record in upload)
    if json:
        print(to_json({"attack": name, "output": output, "rows": len(upload), "harmful": poison, "seed": seed}))
    else:
        Console(stderr=True).print(f"Written: {output}, {len(upload)} rows, {poison} of them harmful")
