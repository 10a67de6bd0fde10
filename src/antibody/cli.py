"""The command line. Every command is thin: options in, one function called, a table or one JSON object out."""

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import yaml
from cyclopts import App, CycloptsError, Parameter
from cyclopts.config import Dict
from rich.console import Console
from rich.table import Table

from antibody.benchmarks.speed.settings import SpeedSettings
from antibody.cli_compare import compare
from antibody.cli_judges import judges
from antibody.errors import AntibodyError, UsageError
from antibody.evaluation.settings import EvaluationSettings
from antibody.failures import machine_failures
from antibody.files import to_json, write_jsonl
from antibody.names import DEFAULT_THRESHOLD, Dtype
from antibody.quiet import quieten_libraries
from antibody.screening.settings import CalibrationSettings
from antibody.service import commands as service
from antibody.training.settings import AlignmentSettings, FinetuningSettings, LaunchSettings

INTERRUPTED = 130

# Of several that `accelerate launch` or torchrun began, the first speaks for all; the others of what they alone meet.
PROCESS = int(os.environ.get("RANK", "0"))

app = App(
    name="antibody",
    help="Keep a language model safe while other people fine-tune it. Every command takes --config FILE.yaml with the "
    "names of its options; options on the command line override the file.",
    # It would end the process before we say how to go on.
    suppress_keyboard_interrupt=False,
)

for command in (service.serve, service.keys, service.review):
    app.command(command)
app.command(judges)
app.command(compare)

Flat = Parameter(name="*")
DEFAULT_SPEED = SpeedSettings()
ONE_PROCESS = LaunchSettings()
Json = Annotated[bool, Parameter(help="Print one JSON object on standard output.", negative="")]


@app.command
def align(
    settings: Annotated[AlignmentSettings, Flat],
    how: Annotated[LaunchSettings, Flat] = ONE_PROCESS,
    *,
    json: Json = False,
) -> None:
    """Make a model withstand harmful fine-tuning (stage 1)."""
    from antibody.training.launch import launch
    from antibody.training.stages import align as stage

    _show_run(launch(stage, settings, how).path, json=json)


@app.command
def finetune(
    settings: Annotated[FinetuningSettings, Flat],
    how: Annotated[LaunchSettings, Flat] = ONE_PROCESS,
    *,
    json: Json = False,
) -> None:
    """Fine-tune on a user's rows, each weighed by the model's own judgement of it (stage 2)."""
    from antibody.training.launch import launch
    from antibody.training.stages import finetune as stage

    _show_run(launch(stage, settings, how).path, json=json)


@app.command
def evaluate(settings: Annotated[EvaluationSettings, Flat], *, json: Json = False) -> None:
    """Measure a model: harmful score, refusals, refusal margin, accuracy on a task."""
    from antibody.evaluation.evaluate import evaluate as run_evaluation

    results = run_evaluation(settings)
    if json:
        print(to_json(results))
        return
    table = Table("Evaluation", "Measure", "Value")
    for name, metrics in results.items():
        for measure, value in metrics.items():
            if isinstance(value, float):
                table.add_row(name, measure, f"{value:.2f}")
    Console().print(table)


@app.command
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
        json: Print one JSON object on standard output.
    """
    from antibody.data.sources import load_records
    from antibody.models.run import load_model
    from antibody.progress import counted
    from antibody.screening.screen import screen_of
    from antibody.screening.upload import operating_point, screen_upload

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
    table = Table("Line", "Id", "Label", "Score", "Benign", "", title=f"The {len(lowest)} lowest of {len(rows)} rows")
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


@app.command
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


@app.command
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
        json: Print one JSON object on standard output.
    """
    from antibody.attacks import ATTACKS
    from antibody.data.sources import load_records
    from antibody.data.writing import write_records

    if name not in ATTACKS:
        raise UsageError(
            f"There is no attack {name!r}.", hint=f"Use one of: {', '.join(ATTACKS)}.", code="unknown_name"
        )
    if model is not None and not ATTACKS[name].uses_score:
        raise UsageError(f"{name} does not look at a model.", hint="Leave --model out.", code="conflict")
    upload = ATTACKS[name].upload(
        load_records(benign).records,
        load_records(harmful).records,
        ratio=ratio,
        rows=rows,
        seed=seed,
        score=None if model is None else _score(model, dtype=dtype, device=device),
    )
    write_records(output, upload)
    poison = sum(bool(record.harmful) for record in upload)
    if json:
        print(to_json({"attack": name, "output": output, "rows": len(upload), "harmful": poison, "seed": seed}))
    else:
        Console(stderr=True).print(f"Written: {output}, {len(upload)} rows, {poison} of them harmful")


@app.command
def chat(
    *,
    model: str,
    prompt: str | None = None,
    max_new_tokens: int = 256,
    dtype: Dtype = "auto",
    device: str = "auto",
) -> None:
    """Try a model in the terminal.

    Args:
        model: A run, smollm2-135m, a Hub id or a local folder.
        prompt: Answer this and end, instead of a conversation.
        max_new_tokens: Longest answer.
        dtype: auto, float32, bfloat16 or float16.
        device: auto, cpu, cuda ...
    """
    from antibody.data.records import Message
    from antibody.evaluation.generation import generate
    from antibody.models.run import load_model

    loaded = load_model(model, dtype=dtype, device=device)
    console = Console(stderr=True)
    turns: list[Message] = []
    if prompt is None:
        console.print("An empty line ends the conversation.")
    while True:
        text = prompt if prompt is not None else _ask(console)
        if not text:
            return
        turns.append({"role": "user", "content": text})
        [answer] = generate(loaded.model, loaded.tokenizer, [tuple(turns)], max_new_tokens=max_new_tokens, batch_size=1)
        print(answer, flush=True)
        turns.append({"role": "assistant", "content": answer})
        if prompt is not None:
            return


@app.command
def report(path: Path, *, json: Json = False) -> None:
    """Print what a run, or a directory of runs, showed, and write its report.html.

    Args:
        path: A run, or the output of `antibody demo`.
        json: Print one JSON object on standard output.
    """
    from antibody.reports import print_report, write_report

    page = write_report(path)
    if json:
        print(to_json({"report": page}))
    else:
        print_report(path, Console())
        Console(stderr=True).print(f"Written: {page}")


@app.command
def demo(
    *,
    output: Path = Path("runs/demo"),
    quick: Annotated[bool, Parameter(negative="")] = False,
    seed: int = 0,
    resume: Annotated[bool, Parameter(negative="")] = False,
    force: Annotated[bool, Parameter(negative="")] = False,
    json: Json = False,
) -> None:
    """The whole story on the bundled model: align, fine-tune under attack, measure, report.

    Args:
        output: Where the runs, summary.json and report.html go.
        quick: A shorter version, whose figures say less.
        seed: Of adapters and the order of rows.
        resume: Continue an interrupted demo.
        force: Replace an earlier one.
        json: Print one JSON object on standard output.
    """
    from antibody.benchmarks.demo import demo as run_demo
    from antibody.reports import print_report

    summary = run_demo(output, quick=quick, seed=seed, resume=resume, force=force)
    if json:
        print(to_json(summary))
    else:
        print_report(output, Console())
        Console(stderr=True).print(f"Written: {output / 'summary.json'} and {output / 'report.html'}")


@app.command
def speed(settings: Annotated[SpeedSettings, Flat] = DEFAULT_SPEED, *, json: Json = False) -> None:
    """Time both stages against Transformers, TRL and the textbook algorithm, on the same rows."""
    from antibody.benchmarks.speed.run import speed as run_speed
    from antibody.benchmarks.speed.tables import print_speed

    result = run_speed(settings)
    if json:
        print(to_json(result))
        return
    print_speed(result, Console())
    if settings.output is not None:
        Console(stderr=True).print(f"Written: {settings.output / 'speed.json'} and {settings.output / 'speed.md'}")


def _score(model: str, *, dtype: Dtype, device: str) -> Any:
    """What an attacker with our model and code sees: the gate's score of every row."""
    from antibody.models.run import load_model
    from antibody.progress import counted
    from antibody.screening.screen import screen_of
    from antibody.screening.upload import screen_upload

    judge = screen_of(model)
    loaded = load_model(model, dtype=dtype, device=device)

    def score(records: Any) -> list[float]:
        with counted("Scoring", len(records)) as advance:
            rows = screen_upload(
                loaded.model, loaded.tokenizer, records, judge, threshold=DEFAULT_THRESHOLD, progress=advance
            )
        return [row.score for row in rows]

    return score


def _ask(console: Console) -> str:
    try:
        return console.input("> ")
    except EOFError:
        return ""


def _show_run(path: Path, *, json: bool) -> None:
    from antibody.models.run import Run
    from antibody.reports import print_report

    if PROCESS > 0:
        return
    if json:
        print(to_json({"run": path, "manifest": Run(path).manifest()}))
    else:
        print_report(path, Console())


def _take_config(arguments: list[str]) -> tuple[list[str], list[Dict]]:
    """Takes ``--config FILE`` out of the arguments."""
    rest: list[str] = []
    config: list[Dict] = []
    tokens = iter(arguments)
    for token in tokens:
        if token == "--config" or token.startswith("--config="):
            config = [_read_config(Path(token.partition("=")[2] or next(tokens, "")))]
        else:
            rest.append(token)
    return rest, config


def _read_config(path: Path) -> Dict:
    if not path.is_file():
        raise UsageError(f"There is no file {str(path)!r}.", hint="Give --config FILE.yaml.", code="no_config")
    try:
        with path.open("rb") as file:
            content = yaml.safe_load(file) or {}
    except yaml.YAMLError as error:
        # Names the file, the line and the column, over several lines.
        raise UsageError(
            f"This is not YAML: {' '.join(str(error).split())}.", hint="Mend it there.", code="bad_config"
        ) from error
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise UsageError(f"{path} does not map names to values.", hint="Write `name: value` lines.", code="bad_config")
    return Dict(content, source=str(path), use_commands_as_keys=False)


def _run_command(arguments: list[str]) -> None:
    rest, app.config = _take_config(arguments)
    with machine_failures():
        app(rest, exit_on_error=False, print_error=True, result_action="return_value")


def run(arguments: list[str]) -> int:
    """Runs one command and returns its exit code."""
    as_json = "--json" in arguments
    try:
        quieten_libraries()
        _run_command(arguments)
    except CycloptsError as error:
        if as_json and PROCESS == 0:
            print(to_json({"error": {"code": "usage", "message": str(error), "hint": "See antibody --help."}}))
        return UsageError.exit_code
    except AntibodyError as error:
        if PROCESS > 0 and error.by_all:
            return error.exit_code
        if as_json and PROCESS == 0:
            print(to_json(error.to_json()))
        where = f" in process {PROCESS}" if PROCESS > 0 else ""
        Console(stderr=True, highlight=False).print(f"[bold red]error[/]{where} ({error.code}): ", end="")
        print(f"{error.message}\n{error.hint}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("Interrupted. align, finetune and demo go on with --resume, compare by itself.", file=sys.stderr)
        return INTERRUPTED
    return 0


def main() -> Any:
    sys.exit(run(sys.argv[1:]))
