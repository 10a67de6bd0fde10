"""What names the model that a comparison begins with: a local folder by its content, all else by its name."""

from pathlib import Path

from antibody.files import sha256, sha256_of
from antibody.models.run import Run, is_run
from antibody.names import BUNDLED_NAME

# What a model and its tokenizer are loaded from; a model card is not.
LOADED = {".json", ".safetensors", ".bin", ".model", ".txt", ".jinja", ".tiktoken", ".py"}


def model_identity(name: str) -> str:
    """The same for the same model, wherever its folder lies; another one once anything in the folder is changed.

    Files are read whole, 14 GB in about half a minute. A Hub id, and the bundled model, stand for themselves.

    Raises:
        ModelError: It is a run that is not complete.
    """
    folder = Path(name)
    if name == BUNDLED_NAME or not folder.is_dir():
        return name
    if is_run(folder):
        manifest = Run(folder).manifest()
        base = manifest["model"]
        return sha256_of(["run", manifest["adapter_sha256"], model_identity(base["name"]), base["revision"]])
    files = sorted(path for path in folder.iterdir() if path.suffix in LOADED and path.is_file())
    return sha256_of(["folder", [(path.name, sha256(path)) for path in files]])
