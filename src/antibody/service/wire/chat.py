"""Chat completions."""

from typing import Annotated, Literal

from pydantic import Field, StrictInt

from antibody.service.wire.base import Metadata, Request, WireModel

Role = Literal["system", "developer", "user", "assistant"]
FinishReason = Literal["stop", "length"]


class TextPart(Request):
    type: Literal["text"]
    text: str


class ChatMessage(Request):
    """One turn."""

    role: Role
    content: str | Annotated[list[TextPart], Field(min_length=1)]
    name: str | None = None

    def text(self) -> str:
        return self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)


class StreamOptions(Request):
    include_usage: bool = False
    include_obfuscation: bool = False


class ChatRequest(Request):
    """What is asked of a model. What would change the answer and is not supported can only have its neutral value."""

    model: Annotated[str, Field(min_length=1, max_length=256)]
    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=1000)]
    max_tokens: Annotated[StrictInt, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[StrictInt, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] | None = None
    seed: Annotated[StrictInt, Field(ge=0, le=2**63 - 1)] | None = None
    stop: Annotated[str, Field(min_length=1)] | Annotated[list[str], Field(max_length=4)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: Literal[1] | None = None
    frequency_penalty: Literal[0] | None = None
    presence_penalty: Literal[0] | None = None
    logprobs: Literal[False] | None = None
    store: Literal[False] | None = None
    user: str | None = None
    metadata: Metadata | None = None

    def stops(self) -> list[str]:
        return [self.stop] if isinstance(self.stop, str) else [text for text in self.stop or [] if text]


class Usage(WireModel):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class Answer(WireModel):
    role: Literal["assistant"] = "assistant"
    content: str
    refusal: str | None = None


class Choice(WireModel):
    index: int = 0
    message: Answer
    finish_reason: FinishReason
    logprobs: None = None


class ChatCompletion(WireModel):
    """A whole answer."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[Choice]
    usage: Usage


class Delta(WireModel):
    role: Literal["assistant"] | None = None
    content: str | None = None


class ChunkChoice(WireModel):
    index: int = 0
    delta: Delta
    finish_reason: FinishReason | None = None
    logprobs: None = None


class ChatCompletionChunk(WireModel):
    """A piece of a streamed answer."""

    id: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int
    model: str
    choices: list[ChunkChoice]
    usage: Usage | None = None
