"""The bundled model, aligned once on this machine: what `antibody serve` offers where nothing else is named."""

import json
import subprocess
import sys
from pathlib import Path

from antibody.errors import ModelError
from antibody.files import cache_folder
from antibody.names import BUNDLED_NAME


def aligned_bundled_model() -> Path:
    """The aligned run in the cache; made now, with a progress bar, where it is not finished yet.

    Aligned by a process of its own, because the server holds no torch.

    Raises:
        ModelError: It could not be aligned.
    """
    run = cache_folder() / "service" / f"{BUNDLED_NAME}-aligned"
    if (run / "manifest.json").is_file():
        return run
    print(
        f"Aligning {BUNDLED_NAME} once; this takes about ten minutes. It is kept in {run}.", file=sys.stderr, flush=True
    )
    command = [
        sys.executable,
        "-m",
        "antibody",
        "align",
        "--model",
        BUNDLED_NAME,
        "--output",
        str(run),
        "--resume",
        "--json",
    ]
    done = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        said = (
            json.loads(done.stdout)["error"]["message"]
            if done.stdout.startswith("{")
            else f"exit code {done.returncode}"
        )
        raise ModelError(
            f"The bundled model could not be aligned: {said}",
            hint="Or name an aligned run: antibody serve --model NAME=RUN.",
            code="not_aligned",
        )
    return run
