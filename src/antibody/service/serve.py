"""`antibody serve`: the service, from its settings."""

import contextlib
import json
import os
import socket
import sys
from pathlib import Path

import uvicorn

from antibody.data.sources import load_prompts
from antibody.errors import AntibodyError, UsageError
from antibody.names import BUNDLED_NAME
from antibody.quiet import log_as_a_service
from antibody.service.api.app import create_app
from antibody.service.api.context import Service
from antibody.service.bundled import aligned_bundled_model
from antibody.service.chat.client import ChatClient
from antibody.service.jobs.local import Workers
from antibody.service.jobs.orders import Order
from antibody.service.policy import Base, Policy, read_policy
from antibody.service.settings import ServeSettings
from antibody.service.storage.keys import create_key, list_keys
from antibody.service.storage.place import place_of
from antibody.service.storage.store import Place, Store, open_store

DEFAULT_PROJECT = "default"
# Seconds that answers may still take once the server is told to stop.
GRACE_SECONDS = 10
# How much lower the priority is of threads that answer than of workers; about a third of the weight of a core.
NICER = 5


def serve(settings: ServeSettings) -> None:
    """Serves until it is told to stop.

    Raises:
        UsageError: The settings or the policy cannot be used.
    """
    log_as_a_service()
    policy = _checked(read_policy(settings.policy, settings.model))
    # Before the bundled model is aligned, which takes minutes.
    with bound(settings.host, settings.port) as listening:
        _serve(settings, policy if policy.models else _with_bundled(policy), listening)


def _serve(settings: ServeSettings, policy: Policy, listening: socket.socket) -> None:
    store = open_store(place_of(settings))
    _first_key(store)
    workers = Workers(store.database, _orders(settings, store.place, policy)) if settings.slots else None
    if workers is not None:
        yield_to_training()
    chat = ChatClient(policy.training.dtype, policy.training.device, policy.limits.chat_waiting)
    app = create_app(Service(store, policy, chat, workers))
    address = f"[{settings.host}]" if ":" in settings.host else settings.host
    print(
        f"Serving {', '.join(policy.models)} at http://{address}:{listening.getsockname()[1]}/v1\n"
        f"Jobs are kept in {store.place.folder}, the database is {store.database.shown}",
        file=sys.stderr,
        flush=True,
    )
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            # Paths name objects of users; what is counted is at /metrics.
            access_log=False,
            log_config=None,
            server_header=False,
            timeout_graceful_shutdown=GRACE_SECONDS,
        )
    )
    # Ctrl-C is how it is told to stop in a terminal.
    with contextlib.suppress(KeyboardInterrupt):
        server.run(sockets=[listening])


def bound(host: str, port: int) -> socket.socket:
    """A socket that has the address and does not listen yet, so that clients are refused until there is a service.

    Raises:
        UsageError: The address cannot be had.
    """
    kind = socket.AF_INET6 if ":" in host else socket.AF_INET
    made = socket.socket(kind, socket.SOCK_STREAM)
    # What a server that ended a moment ago left of its connections keeps no new one out.
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        made.bind((host, port))
    except (OSError, OverflowError) as error:
        made.close()
        raise UsageError(
            f"The service cannot listen at {host}, port {port}: {getattr(error, 'strerror', None) or error}.",
            hint="Choose another --port, or another --host.",
            code="address_unusable",
        ) from error
    return made


def yield_to_training() -> None:
    """Where both want a core, the workers have it: a poll can wait some milliseconds.

    On Linux this is of the thread that calls, and of those that it begins later. The thread that begins workers is
    there already, so that they keep the priority that the service was started with.
    """
    os.nice(NICER)


def _with_bundled(policy: Policy) -> Policy:
    return policy.model_copy(update={"models": {BUNDLED_NAME: Base(run=str(aligned_bundled_model()))}})


def _checked(policy: Policy) -> Policy:
    """With paths that mean the same wherever a worker runs."""
    for name, base in policy.models.items():
        # A torch-free look; the worker loads it in earnest.
        if not base.allow_unaligned and not _is_aligned(Path(base.run)):
            raise UsageError(
                f"The model {name} is no finished aligned run: {base.run}.",
                hint="Align it with `antibody align` and name that run, or say allow_unaligned: true in the policy.",
                code="not_aligned",
            )
    _refuse_bad_prompts(policy.evaluation.prompts)
    made_absolute = {
        name: base.model_copy(update={"run": str(Path(base.run).resolve()) if Path(base.run).exists() else base.run})
        for name, base in policy.models.items()
    }
    return policy.model_copy(update={"models": made_absolute})


def _refuse_bad_prompts(prompts: str) -> None:
    """They are asked after a job's last step, where it is late to find that they cannot be read."""
    if prompts == "none":
        return
    try:
        load_prompts(prompts)
    except AntibodyError as error:
        raise UsageError(
            f"The policy's evaluation.prompts cannot be used: {error.message}",
            hint="Name a file of prompts, a part of the embedded corpus such as embedded:harmful_evaluation, or none.",
            code="bad_policy",
        ) from error


def _is_aligned(run: Path) -> bool:
    """Whether a run is finished and an alignment: what a user's rows fine-tuned is no base for others."""
    try:
        manifest = json.loads((run / "manifest.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return bool(manifest.get("kind") == "alignment")


def _orders(settings: ServeSettings, place: Place, policy: Policy) -> list[Order]:
    train = Order(
        role="train",
        worker="",
        place=place,
        policy=policy,
        lease_seconds=settings.lease_seconds,
        processes=settings.processes,
        cluster=settings.cluster if settings.executor == "ray" else None,
    )
    return [train] * settings.slots + [train._replace(role="validate")]


def _first_key(store: Store) -> None:
    if list_keys(store.database):
        return
    key = create_key(store.database, project=DEFAULT_PROJECT, name="first")
    print(
        f"The first key, of the project {DEFAULT_PROJECT!r}. It is not shown again:\n  {key.secret}\n"
        "More, with the options and variables of this server: antibody keys create --project NAME",
        file=sys.stderr,
        flush=True,
    )
