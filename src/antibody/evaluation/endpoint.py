"""An OpenAI-compatible service that judges ask, through the `openai` client.

The key comes from one environment variable alone, is sent to the named host only and written nowhere. A call is tried
again after a timeout, a lost connection and the statuses 408, 409, 429 and 5xx.
"""

import os
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from antibody.errors import UsageError

TIMEOUT_SECONDS = 30.0
# Waits grow from 0.5 to 8 seconds, or are what the service asks for.
RETRIES = 4
# Calls under way at a time.
CALLS = 4


class NoAnswerError(Exception):
    """A call failed in a way that says nothing of the next. Its text, a few words, quotes nothing that was sent."""


class Endpoint:
    """One service.

    Args:
        kind: The judge's name, for errors and before the address.
        address: The service's URL, with or without ``/v1`` and the path; ``#MODEL`` asks for a model.
        path: What is called, such as ``moderations``.
        key_variable: The environment variable that holds the key.
        timeout: Seconds until a call counts as lost.
        retries: Calls after the first one.

    Attributes:
        name: The judge with its address.
        model: What is asked for; None leaves it to the service.
        client: An `openai.OpenAI`.

    Raises:
        UsageError: The address is no URL, or the package `openai` is missing.
    """

    def __init__(
        self,
        kind: str,
        address: str,
        *,
        path: str,
        key_variable: str,
        timeout: float = TIMEOUT_SECONDS,
        retries: int = RETRIES,
    ) -> None:
        parts = urlsplit(address)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.query:
            raise UsageError(
                f"The judge `{kind}` needs a plain URL, without a user name or a query.",
                hint=f"Use {kind}:https://HOST[#MODEL], with the key in ${key_variable}.",
                code="bad_url",
            )
        try:
            # Imported here because it is optional and takes a second.
            import openai  # noqa: PLC0415
        except ImportError as error:
            raise UsageError(
                f"The judge `{kind}` needs the package openai.",
                hint="pip install 'antibody-ft[moderation]'.",
                code="package_missing",
            ) from error
        self.name = f"{kind}:{address}"
        self.model = parts.fragment or None
        self._errors = openai
        self._path, self._key_variable = path, key_variable
        root = parts.path.rstrip("/").removesuffix(f"/{path}").removesuffix("/v1")
        # A key has to be given; a service without keys ignores it. Nothing of $OPENAI_* may go to another host.
        self.client: Any = openai.OpenAI(
            api_key=os.environ.get(key_variable) or "none",
            organization="",
            project="",
            base_url=f"{parts.scheme}://{parts.netloc}{root}/v1",
            timeout=timeout,
            max_retries=retries,
        )

    def body(self, create: Callable[..., Any], **content: Any) -> str:
        """The text of the service's answer, unread: the client's own models take anything for a result.

        Args:
            create: A ``with_raw_response.create`` of `client`.
            content: What is sent, next to the model.

        Raises:
            UsageError: The service refuses the key, or has no such path or model.
            NoAnswerError: The call failed otherwise.
        """
        model = {"model": self.model} if self.model else {}
        try:
            text: str = create(**content, **model).http_response.text
        except (self._errors.AuthenticationError, self._errors.PermissionDeniedError) as error:
            raise UsageError(
                f"{self.name} refuses the key (status {error.status_code}).",
                hint=f"Set ${self._key_variable} to a key of this service.",
                code="bad_key",
            ) from None
        except self._errors.NotFoundError:
            raise UsageError(
                f"{self.name} has no /v1/{self._path}, or not this model.",
                hint="Check the address and the model after `#`.",
                code="bad_url",
            ) from None
        except self._errors.OpenAIError as error:
            # Its message may quote the answer.
            status = getattr(error, "status_code", None)
            raise NoAnswerError(f"{type(error).__name__}{f' {status}' if status else ''}") from None
        return text
