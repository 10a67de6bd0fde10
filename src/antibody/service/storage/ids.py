"""Identifiers. They cannot be guessed: 120 random bits."""

import secrets
from typing import Literal

Kind = Literal["file", "upload", "part", "ftjob", "ftevent", "ftckpt", "chatcmpl", "proj", "worker", "webhook"]

ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
LENGTH = 20


def new_id(kind: Kind) -> str:
    return f"{kind}-{random_text(LENGTH)}"


def random_text(length: int) -> str:
    return "".join(secrets.choice(ALPHABET) for _ in range(length))
