"""A YAML document that knows the line of every value, so that an error can name it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from antibody.errors import UsageError

Place = tuple[str | int, ...]


class Document:
    """A YAML file as plain values.

    Attributes:
        path: The file.
        content: Its values.
    """

    def __init__(self, path: Path) -> None:
        """Reads the file.

        Raises:
            UsageError: ``no_config``, or ``bad_config`` where it is not YAML or has a key twice.
        """
        self.path = path
        self._lines: dict[Place, int] = {}
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(
                f"The file {str(path)!r} cannot be read as text.", hint="Name a YAML file.", code="no_config"
            ) from error
        try:
            node = yaml.compose(text, Loader=yaml.SafeLoader)
            self.content: Any = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise UsageError(
                f"{path} is not YAML: {' '.join(str(error).split())}.", hint="Mend it there.", code="bad_config"
            ) from error
        if node is not None:
            self._note(node, ())

    def error(self, place: Sequence[str | int], message: str, hint: str) -> UsageError:
        """An error at a value, or at what holds it where it is missing."""
        found = tuple(place)
        while found and found not in self._lines:
            found = found[:-1]
        line = self._lines.get(found, 1)
        field = ".".join(str(part) for part in place)
        where = f"{self.path}, line {line}" + (f", field `{field}`" if field else "")
        return UsageError(f"{where}: {message}", hint=hint, code="bad_config")

    def _note(self, node: yaml.Node, place: Place) -> None:
        self._lines.setdefault(place, node.start_mark.line + 1)
        if isinstance(node, yaml.SequenceNode):
            for index, item in enumerate(node.value):
                self._note(item, (*place, index))
        elif isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                inner = (*place, key.value)
                known = inner in self._lines
                self._lines[inner] = key.start_mark.line + 1
                if known:
                    raise self.error(inner, "This key is written twice.", "Keep one of them.")
                self._note(value, inner)
