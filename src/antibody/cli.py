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
from antibody.cli_options import Flat, Json
from antibody.cli_uploads import attack, calibrate, screen
from antibody.errors import AntibodyError, UsageError
from antibody.evaluation.settings import EvaluationSettings
from antibody.failures import machine_failures
from antibody.files import to_json
from antibody.names import Dtype
from antibody.quiet import quieten_libraries
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

for command in (
    screen,
    calibrate,
    attack,
    compare,
    judges,
    service.serve,
    service.keys,
    service.review,
    service.webhooks,
):
    app.command(command)

DEFAULT_SPEED = SpeedSettings()
ONE_PROCESS = LaunchSettings()


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
    """Print what a run, a demo or a comparison showed, and write its report.html.

    Args:
        path: A run, or the output of `antibody demo` or `antibody compare`.
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
