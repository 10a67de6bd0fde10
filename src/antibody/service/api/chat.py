"""`/v1/chat/completions`."""

import time
from collections.abc import AsyncIterator
from typing import Any

from fastapi import APIRouter
from fastapi.responses import StreamingResponse
from starlette.concurrency import run_in_threadpool

from antibody.service.api.context import CallerDep, Service, ServiceDep
from antibody.service.api.errors import RESPONSES
from antibody.service.api.models import run_of
from antibody.service.chat.protocol import Question, Reply
from antibody.service.storage.ids import new_id
from antibody.service.storage.keys import Caller
from antibody.service.wire.chat import (
    Answer,
    ChatCompletion,
    ChatCompletionChunk,
    ChatRequest,
    Choice,
    ChunkChoice,
    Delta,
    Usage,
)
from antibody.service.wire.errors import ApiError

LEAST_TEMPERATURE = 1e-3

router = APIRouter(prefix="/v1/chat", tags=["chat"], responses=RESPONSES)

EVENT_STREAM: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/event-stream": {}}, "description": "An answer, or with `stream` its pieces."}
}


@router.post("/completions", response_model=ChatCompletion, responses=EVENT_STREAM)
async def complete(service: ServiceDep, caller: CallerDep, request: ChatRequest) -> ChatCompletion | StreamingResponse:
    """Answers a chat."""
    run = await run_in_threadpool(run_of, service, caller, request.model)
    question = _question(service, caller, request, run)
    replies = service.chat.ask(question)
    # What is wrong is found before the first piece, while it can still be said by a status.
    first = await anext(replies)
    created = int(time.time())
    if request.stream:
        return StreamingResponse(_events(request, question.id, created, first, replies), media_type="text/event-stream")
    text, last = first.text, first
    async for reply in replies:
        text += reply.text
        last = reply
    assert last.finish_reason is not None, "the last reply has one"
    return ChatCompletion(
        id=question.id,
        created=created,
        model=request.model,
        choices=[Choice(message=Answer(content=text), finish_reason=last.finish_reason)],
        usage=_usage(last),
    )


async def _events(
    request: ChatRequest, answer: str, created: int, first: Reply, replies: AsyncIterator[Reply]
) -> AsyncIterator[str]:
    def event(*choices: ChunkChoice, usage: Usage | None = None) -> str:
        chunk = ChatCompletionChunk(id=answer, created=created, model=request.model, choices=list(choices), usage=usage)
        return f"data: {chunk.model_dump_json(exclude={'usage'} if usage is None else None)}\n\n"

    def piece(reply: Reply) -> str:
        return event(ChunkChoice(delta=Delta(content=reply.text), finish_reason=reply.finish_reason))

    yield event(ChunkChoice(delta=Delta(role="assistant", content="")))
    yield piece(first)
    last = first
    try:
        async for reply in replies:
            last = reply
            yield piece(reply)
    except ApiError as error:
        yield f"data: {error.body.model_dump_json()}\n\n"
        return
    if request.stream_options is not None and request.stream_options.include_usage:
        yield event(usage=_usage(last))
    yield "data: [DONE]\n\n"


def _question(service: Service, caller: Caller, request: ChatRequest, run: str) -> Question:
    most = service.policy.limits.chat_tokens
    return Question(
        id=new_id("chatcmpl"),
        project=caller.project,
        run=run,
        messages=[
            {"role": "system" if turn.role == "developer" else turn.role, "content": turn.text()}
            for turn in request.messages
        ],
        max_tokens=min(most, request.max_completion_tokens or request.max_tokens or most),
        temperature=_temperature(request.temperature),
        top_p=1.0 if request.top_p is None else request.top_p,
        seed=request.seed,
        stop=request.stops(),
    )


def _usage(last: Reply) -> Usage:
    return Usage(
        prompt_tokens=last.prompt_tokens,
        completion_tokens=last.completion_tokens,
        total_tokens=last.prompt_tokens + last.completion_tokens,
    )


def _temperature(asked: float | None) -> float:
    """Logits divided by a temperature of nearly 0 are no numbers: that is greedy."""
    temperature = 1.0 if asked is None else asked
    return temperature if temperature >= LEAST_TEMPERATURE else 0.0
