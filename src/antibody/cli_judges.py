"""``antibody judges``: fit a judge of answers, and measure one against people's labels."""

from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter
from rich.console import Console
from rich.table import Table

from antibody.cli_options import Json
from antibody.files import to_json
from antibody.names import BUNDLED_NAME, Dtype

# Not `judge`, which is an option: a key of a --config file must not name a command.
judges = App(name="judges", help="Fit a judge of answers to harmful prompts, or measure one against people's labels.")


@judges.command
def fit(
    *,
    data: str,
    output: Path,
    model: str = BUNDLED_NAME,
    batch_size: int = 16,
    force: Annotated[bool, Parameter(negative="")] = False,
    dtype: Dtype = "auto",
    device: str = "auto",
    json: Json = False,
) -> None:
    """Fit a judge on labelled rows, for --judge trained:OUTPUT.

    Args:
        data: Prompts and answers, labelled by `harmful` or `is_safe`: .jsonl, .parquet or hf://datasets/OWNER/NAME.
        output: The judge's folder. It holds numbers alone, no text of the rows.
        model: The model whose hidden states are read.
        batch_size: Rows read together.
        force: Replace an earlier judge.
        dtype: auto, float32, bfloat16 or float16.
        device: auto, cpu, cuda ...
        json: Print one JSON object on standard output.
    """
    from antibody.data.sources import load_records
    from antibody.evaluation.judges.trained import fit_judge

    made = fit_judge(
        load_records(data),
        output,
        model=model,
        batch_size=batch_size,
        force=force,
        dtype=dtype,
        device=device,
    )
    if json:
        print(to_json({"judge": f"trained:{output}", **made}))
    else:
        Console(stderr=True).print(
            f"Written: {output}, fitted to {made['rows']} rows. Balanced accuracy on rows left out of the fit: "
            f"{made['balanced_accuracy']:.1f}%. Use --judge trained:{output}"
        )


@judges.command
def measure(
    *, judge: str, data: str, refusals: str | None = None, limit: int | None = None, json: Json = False
) -> None:
    """Measure a judge's agreement with people's labels: balanced accuracy, and each category.

    Args:
        judge: As in `evaluate`: embedded, trained:FOLDER, classifier:FOLDER_OR_HUB_ID, moderation:URL or judgezoo:NAME.
        data: Prompts and answers, labelled by `harmful` or `is_safe`.
        refusals: A file of refusals, a `text` a line, put in the place of the harmful rows' answers.
        limit: Judge a sample of this many rows, always the same one. All by default.
        json: Print one JSON object on standard output.
    """
    from antibody.data.sources import load_records, load_refusals
    from antibody.evaluation.agreement import measure_agreement
    from antibody.evaluation.evaluate import sample
    from antibody.evaluation.judges import make_judge

    chosen = make_judge(judge)
    found = measure_agreement(
        chosen, sample(load_records(data).records, limit), [] if refusals is None else load_refusals(refusals)
    )
    if json:
        print(to_json(found.to_json()))
        return
    kinds = [("safe", found.safe), ("harmful", found.harmful), *found.categories.items()]
    if found.refusals is not None:
        kinds.append(("refusals of harmful prompts", found.refusals))
    table = Table(
        "Rows labelled",
        "Rows",
        "Unparsable",
        "Called harmful %",
        title=f"{found.judge}: {found.balanced_accuracy:.1f}%",
    )
    for name, share in kinds:
        table.add_row(name, str(share.rows), str(share.unparsable), f"{share.called_harmful:.1f}")
    console = Console()
    console.print(table)
    console.print(
        f"{found.balanced_accuracy:.1f}% balanced accuracy. {found.refused:.1f}% of safe rows called refused."
    )
