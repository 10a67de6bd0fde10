"""One tree of errors. Each knows its exit code, a stable name, where it happened and what to do about it."""

from pathlib import Path
from typing import Any


class AntibodyError(Exception):
    """Base of every error a user is meant to read.

    Args:
        message: What is wrong, in one sentence.
        hint: What to do about it, in one sentence.
        code: A stable name for programs, such as ``"empty_file"``.
    """

    exit_code = 1

    # Whether every process of a training raises it, so that the first may speak for all.
    by_all = False

    def __init__(self, message: str, *, hint: str, code: str) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.code = code

    def __str__(self) -> str:
        return f"{self.message} {self.hint}"

    def to_json(self) -> dict[str, object]:
        return {"error": {"code": self.code, "message": self.message, "hint": self.hint}}

    def __reduce__(self) -> tuple[Any, ...]:
        # Pickled, it crosses from a worker to who launched it; keyword arguments alone would not come along.
        return _restored, (type(self), self.args, vars(self))


def _restored(kind: type[AntibodyError], args: tuple[object, ...], state: dict[str, object]) -> AntibodyError:
    error = kind.__new__(kind, *args)
    vars(error).update(state)
    return error


class UsageError(AntibodyError, ValueError):
    """Options that contradict each other or name something that does not exist.

    Also a `ValueError`, which is what TRL raises for its own options.
    """

    exit_code = 2


class DataError(AntibodyError):
    """Data that must not be trained on. Names the file, the 1-based line and the field, where there is one."""

    exit_code = 3

    def __init__(
        self,
        message: str,
        *,
        hint: str,
        code: str,
        path: Path | str | None = None,
        line: int | None = None,
        field: str | None = None,
    ) -> None:
        where = ", ".join(
            part
            for part in (
                str(path) if path is not None else "",
                f"line {line}" if line is not None else "",
                f"field `{field}`" if field is not None else "",
            )
            if part
        )
        super().__init__(f"{where}: {message}" if where else message, hint=hint, code=code)
        self.path = str(path) if path is not None else None
        self.line = line
        self.field = field

    def to_json(self) -> dict[str, object]:
        content = super().to_json()
        content["error"] |= {"path": self.path, "line": self.line, "field": self.field}  # type: ignore[operator]
        return content


class ModelError(AntibodyError):
    """A model, tokenizer or adapter that cannot be loaded or cannot be used with the method."""

    exit_code = 4


class TrainingError(AntibodyError):
    """Training that failed: it diverged, ran out of memory, or its checkpoint cannot be continued."""

    exit_code = 5


class MachineError(AntibodyError):
    """The machine gave out outside of training: no memory, no disk space."""

    exit_code = 6
