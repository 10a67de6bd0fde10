"""What the routes work with."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from antibody.service.chat.client import ChatClient
from antibody.service.jobs.local import Workers
from antibody.service.policy import Policy
from antibody.service.storage.keys import Caller
from antibody.service.storage.store import Store


@dataclass
class Service:
    """One server's parts.

    Attributes:
        store: Database and blobs.
        policy: The provider's.
        chat: Puts questions to models.
        workers: None where this server only answers, and others work.
    """

    store: Store
    policy: Policy
    chat: ChatClient
    workers: Workers | None = None


# Coroutines, though they wait for nothing: a plain function would be sent to a thread, for every request.
async def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


async def _caller(request: Request) -> Caller:
    # Set by the gate, which lets nobody in without a key.
    caller: Caller = request.state.caller
    return caller


ServiceDep = Annotated[Service, Depends(_service)]
CallerDep = Annotated[Caller, Depends(_caller)]
