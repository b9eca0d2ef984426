"""Through weir, an app with the official OpenAI SDK sees what it sees without weir."""

import openai
import pydantic
import pytest

from observe import observe, without_headers

CHAT, REASONING, EMBEDDING = "gpt-4o-mini", "gpt-5", "text-embedding-3-small"
PARAMETERS = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
    "required": ["city", "days"],
    "additionalProperties": False,
}
CHAT_TOOL = {"type": "function", "function": {"name": "forecast", "description": "The weather", "parameters": PARAMETERS}}
RESPONSES_TOOL = {"type": "function", "name": "forecast", "parameters": PARAMETERS, "strict": True}


class Answer(pydantic.BaseModel):
    summary: str
    confident: bool


def chat(client, prompt, **more):
    return client.chat.completions.create(model=CHAT, messages=[{"role": "user", "content": prompt}], **more)


def in_words(prompt):
    return [{"role": "system", "content": "Be brief."}, {"role": "user", "content": prompt}]


CALLS = {
    "chat": chat,
    "chat with a system prompt and a tool": lambda client, prompt: client.chat.completions.create(
        model=CHAT, messages=in_words(prompt), tools=[CHAT_TOOL], tool_choice="required"
    ),
    "chat with a tool's result": lambda client, prompt: client.chat.completions.create(
        model=CHAT,
        tools=[CHAT_TOOL],
        messages=[
            {"role": "user", "content": prompt},
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [
                    {"id": "call_1", "type": "function", "function": {"name": "forecast", "arguments": '{"city":"Ulm","days":1}'}}
                ],
            },
            {"role": "tool", "tool_call_id": "call_1", "content": "rain"},
        ],
    ),
    "chat of a reasoning model": lambda client, prompt: client.chat.completions.create(
        model=REASONING, messages=in_words(prompt), reasoning_effort="low"
    ),
    "chat with several choices": lambda client, prompt: chat(client, prompt, n=2, seed=1),
    "chat stream": lambda client, prompt: chat(client, prompt, stream=True),
    "chat stream with usage": lambda client, prompt: chat(
        client, prompt, stream=True, stream_options={"include_usage": True}
    ),
    "chat stream without usage": lambda client, prompt: chat(
        client, prompt, stream=True, stream_options={"include_usage": False}
    ),
    "chat stream of a tool call": lambda client, prompt: chat(
        client, prompt, stream=True, tools=[CHAT_TOOL], tool_choice="required"
    ),
    "chat stream by the helper": lambda client, prompt: client.chat.completions.stream(
        model=CHAT, messages=in_words(prompt)
    ),
    "chat parsed": lambda client, prompt: client.chat.completions.parse(
        model=CHAT, messages=in_words(prompt), response_format=Answer
    ),
    "chat with headers": lambda client, prompt: client.chat.completions.with_raw_response.create(
        model=CHAT, messages=in_words(prompt)
    ),
    "chat stream with headers": lambda client, prompt: client.chat.completions.with_raw_response.create(
        model=CHAT, messages=in_words(prompt), stream=True
    ),
    "chat line by line": lambda client, prompt: client.chat.completions.with_streaming_response.create(
        model=CHAT, messages=in_words(prompt)
    ),
    "chat stream line by line": lambda client, prompt: client.chat.completions.with_streaming_response.create(
        model=CHAT, messages=in_words(prompt), stream=True
    ),
    "responses": lambda client, prompt: client.responses.create(model=REASONING, input=prompt, store=False),
    "responses with a tool": lambda client, prompt: client.responses.create(
        model=REASONING, input=prompt, tools=[RESPONSES_TOOL], tool_choice="required", store=False
    ),
    "responses stream": lambda client, prompt: client.responses.create(
        model=REASONING, input=prompt, stream=True, store=False
    ),
    "responses stream by the helper": lambda client, prompt: client.responses.stream(
        model=REASONING, input=prompt, store=False
    ),
    "responses parsed": lambda client, prompt: client.responses.parse(
        model=REASONING, input=prompt, text_format=Answer, store=False
    ),
    "responses that are stored": lambda client, prompt: client.responses.create(model=REASONING, input=prompt),
    "embeddings": lambda client, prompt: client.embeddings.create(model=EMBEDDING, input=[prompt, "dam"]),
    "embeddings as floats": lambda client, prompt: client.embeddings.create(
        model=EMBEDDING, input=prompt, encoding_format="float", dimensions=8
    ),
    "completions": lambda client, prompt: client.completions.create(
        model="gpt-3.5-turbo-instruct", prompt=prompt, max_tokens=20
    ),
    "completions stream": lambda client, prompt: client.completions.create(
        model="gpt-3.5-turbo-instruct", prompt=prompt, max_tokens=20, stream=True
    ),
}


@pytest.fixture(params=["sync", "async"])
def kind(request):
    return request.param


def both(house, kind, call, route="/openai/v1", **options):
    """What the app sees without weir, and with it."""
    direct = observe(call, openai, kind, f"{house.simulator}/v1", **options)
    through = observe(call, openai, kind, f"{house.app}{route}", **options)
    return direct, through


@pytest.mark.parametrize("name", CALLS)
def test_a_call_gives_the_same(house, kind, prompt, name):
    def call(client):
        return CALLS[name](client, prompt)

    direct, through = both(house, kind, call)
    assert direct["error"] is None
    assert direct["result"] or direct["events"]
    assert through == direct
    again = observe(call, openai, kind, f"{house.app}/openai/v1")
    assert without_headers(again) == without_headers(direct), "the second time, perhaps from the cache"


@pytest.mark.parametrize("route", ["/openai/v1", "/openai", "/v1", "/local/v1"])
@pytest.mark.parametrize("name", ["chat", "chat stream", "responses stream", "embeddings"])
def test_every_base_url_leads_there(house, prompt, route, name):
    direct, through = both(house, "sync", lambda client: CALLS[name](client, prompt), route)
    assert direct["error"] is None
    assert through == direct


@pytest.mark.parametrize("name", ["chat", "chat stream", "chat stream with usage", "responses stream", "embeddings"])
@pytest.mark.parametrize("oddity", ["gzip", "trickle", "no-usage", "chunk-delay=2ms"])
def test_an_odd_provider_gives_the_same(house, prompt, name, oddity):
    headers = {"x-simulate": oddity}
    direct, through = both(house, "sync", lambda client: CALLS[name](client, prompt), default_headers=headers)
    assert direct["error"] is None
    assert through == direct


def test_a_usage_chunk_that_nobody_asked_for_goes_too(house, kind, prompt):
    """weir has asked, so it cannot tell such a chunk from the answer; `ask_for_usage: false` lets it pass."""
    headers = {"x-simulate": "usage-always"}
    direct, through = both(house, kind, lambda client: CALLS["chat stream"](client, prompt), default_headers=headers)
    *others, last = direct["events"]
    assert last["usage"] is not None
    assert through["events"] == others


@pytest.mark.parametrize(
    ("script", "error", "attempts"),
    [
        ("status=400", "BadRequestError", 1),
        ("status=401", "AuthenticationError", 1),
        ("status=403", "PermissionDeniedError", 1),
        ("status=404", "NotFoundError", 1),
        ("status=422", "UnprocessableEntityError", 1),
        ("status=429", "RateLimitError", 2),
        ("status=429; retry-after-ms=20", "RateLimitError", 2),
        ("status=500", "InternalServerError", 2),
        ("status=503", "InternalServerError", 2),
    ],
)
@pytest.mark.parametrize("name", ["chat", "chat stream"])
def test_a_refusal_raises_the_same_after_as_many_attempts(house, kind, prompt, name, script, error, attempts):
    options = {"default_headers": {"x-simulate": script}, "max_retries": 1}
    direct, through = both(house, kind, lambda client: CALLS[name](client, prompt), **options)
    assert (direct["error"]["type"], direct["attempts"]) == (error, attempts)
    assert through == direct


def test_what_is_not_there_is_not_there_through_weir_either(house, kind):
    direct, through = both(house, kind, lambda client: client.batches.retrieve("no-such-batch"))
    assert direct["error"]["type"] == "NotFoundError"
    assert through == direct


@pytest.mark.parametrize(
    ("name", "script"),
    [
        ("chat", "slow-headers=5s"),
        ("chat", "stall=after 10 bytes"),
        ("chat stream", "slow-headers=5s"),
        ("chat stream", "stall=after 2 chunks"),
        ("chat stream with usage", "stall=after 2 chunks"),
        ("responses stream", "stall=after 2 chunks"),
    ],
)
def test_a_slow_provider_times_out_the_same(house, kind, prompt, name, script):
    options = {"default_headers": {"x-simulate": script}, "timeout": 2.0}
    direct, through = both(house, kind, lambda client: CALLS[name](client, prompt), **options)
    assert "Timeout" in direct["error"]["type"]
    assert through == direct


@pytest.mark.parametrize(
    ("name", "script"),
    [
        (name, script)
        for name in ("chat stream", "chat stream with usage", "responses stream")
        for script in ("cut=after 3 chunks; chunk-delay=10ms", "stream-error=after 3 chunks", "no-done")
    ]
    # Which event is spoilt depends on how many there are, and where weir asks for usage there is one more.
    + [("chat stream with usage", "bad-json"), ("responses stream", "bad-json")],
)
def test_a_broken_stream_breaks_the_same(house, kind, prompt, name, script):
    options = {"default_headers": {"x-simulate": script}}
    direct, through = both(house, kind, lambda client: CALLS[name](client, prompt), **options)
    assert through == direct


def test_a_reply_that_breaks_off_breaks_off_the_same(house, kind, prompt):
    # Byte by byte, so that the head has gone out before the end comes.
    options = {"default_headers": {"x-simulate": "trickle; cut=after 100 bytes"}, "max_retries": 1}
    direct, through = both(house, kind, lambda client: chat(client, prompt), **options)
    assert direct["error"]["type"] == "APIConnectionError"
    assert through == direct


def test_a_provider_that_cannot_be_reached_is_an_error_that_the_sdk_retries(house, kind, prompt):
    options = {"default_headers": {"x-simulate": "reset"}, "max_retries": 1}
    direct, through = both(house, kind, lambda client: chat(client, prompt), **options)
    assert direct["error"]["type"] == "APIConnectionError"
    assert (through["error"]["type"], through["error"]["status"]) == ("InternalServerError", 502)
    assert through["attempts"] == direct["attempts"] == 2
