"""Keeping the libraries' own bars, notices and telemetry from burying ours and from standard output."""

import logging
import os
import sys
import warnings


def quieten_libraries() -> None:
    """For a process that speaks to a user. Log messages of ours go to standard error."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"(transformers|trl|peft)\.")
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    names = ("transformers", "trl", "peft", "datasets", "accelerate", "httpx", "httpx2", "huggingface_hub", "alembic")
    for name in names:
        logging.getLogger(name).setLevel(logging.ERROR)


def log_as_a_service() -> None:
    """For a process that nobody watches: each message with its time, its level and its process."""
    timed = logging.Formatter("%(asctime)s %(levelname)s [%(process)d] %(message)s")
    for handler in logging.getLogger().handlers:
        handler.setFormatter(timed)
