"""Through weir, an app with the official Cohere SDK sees what it sees without weir: with the client of either version."""

import pytest

from native import assert_billed, observe_cohere

# What the SDK says of itself.
pytestmark = pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecatedSince20")

MODEL, MODEL_V1 = "command-a", "command-r"
TOOL = {
    "type": "function",
    "function": {
        "name": "forecast",
        "description": "The weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
TOOL_V1 = {
    "name": "forecast",
    "description": "The weather",
    "parameter_definitions": {"city": {"description": "Where", "type": "str", "required": True}},
}


def asked(prompt, **more):
    return {"model": MODEL, "messages": [{"role": "user", "content": prompt}]} | more


def asked_v1(prompt, **more):
    return {"model": MODEL_V1, "message": prompt} | more


V2 = {
    "chat": lambda client, prompt: client.chat(**asked(prompt)),
    "chat with a tool": lambda client, prompt: client.chat(**asked(prompt, tools=[TOOL], tool_choice="REQUIRED")),
    "chat with a tool's result": lambda client, prompt: client.chat(
        **asked(
            prompt,
            tools=[TOOL],
            messages=[
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": prompt},
                {
                    "role": "assistant",
                    "tool_plan": "I will look it up.",
                    "tool_calls": [
                        {"id": "a", "type": "function", "function": {"name": "forecast", "arguments": '{"city":"Ulm"}'}}
                    ],
                },
                {"role": "tool", "tool_call_id": "a", "content": "rain"},
            ],
        )
    ),
    "chat with documents": lambda client, prompt: client.chat(**asked(prompt, documents=["Weirs dam rivers."])),
    "chat with thinking": lambda client, prompt: client.chat(**asked(prompt, thinking={"type": "enabled"})),
    "chat cut short": lambda client, prompt: client.chat(**asked(prompt, max_tokens=5)),
    "chat in JSON": lambda client, prompt: client.chat(**asked(prompt, response_format={"type": "json_object"})),
    "chat stream": lambda client, prompt: client.chat_stream(**asked(prompt)),
    "chat stream of a tool call": lambda client, prompt: client.chat_stream(
        **asked(prompt, tools=[TOOL], tool_choice="REQUIRED")
    ),
    "chat stream of thoughts": lambda client, prompt: client.chat_stream(**asked(prompt, thinking={"type": "enabled"})),
    "embed": lambda client, prompt: client.embed(
        model="embed-v4.0", input_type="search_query", texts=[prompt], embedding_types=["float"], output_dimension=256
    ),
    "rerank": lambda client, prompt: client.rerank(
        model="rerank-v3.5", query=prompt, documents=["a weir", "a dam", "bread"], top_n=2
    ),
}
V1 = {
    "chat": lambda client, prompt: client.chat(**asked_v1(prompt)),
    "chat with a history": lambda client, prompt: client.chat(
        **asked_v1(
            prompt,
            preamble="Be brief.",
            chat_history=[{"role": "USER", "message": "Hello"}, {"role": "CHATBOT", "message": "Hello!"}],
        )
    ),
    "chat with a tool": lambda client, prompt: client.chat(**asked_v1(prompt, tools=[TOOL_V1], force_single_step=True)),
    "chat stream": lambda client, prompt: client.chat_stream(**asked_v1(prompt)),
    "chat stream of a tool call": lambda client, prompt: client.chat_stream(
        **asked_v1(prompt, tools=[TOOL_V1], force_single_step=True)
    ),
}
CALLS = {("v2", name): call for name, call in V2.items()} | {("v1", name): call for name, call in V1.items()}
STREAMS = [("v2", "chat stream"), ("v1", "chat stream")]
CHATS = [("v2", "chat"), ("v1", "chat"), *STREAMS]


@pytest.fixture(params=["sync", "async"])
def kind(request):
    return request.param


def both(house, kind, version, name, prompt, **options):
    """What the app sees without weir, and with it."""

    def call(client):
        return CALLS[version, name](client, prompt)

    direct = observe_cohere(call, version, kind, house.simulator, **options)
    through = observe_cohere(call, version, kind, f"{house.app}/cohere", **options)
    return direct, through


@pytest.mark.parametrize(("version", "name"), CALLS)
def test_a_call_gives_the_same(house, kind, prompt, version, name):
    direct, through = both(house, kind, version, name, prompt)
    assert direct["error"] is None
    assert direct["result"] or len(direct["events"]) > 3
    assert through == direct
    again = both(house, kind, version, name, prompt)[1]
    assert again == direct, "the second time, perhaps from the cache"


@pytest.mark.parametrize(("version", "name"), CHATS)
@pytest.mark.parametrize("oddity", ["gzip", "trickle", "no-usage", "chunk-delay=2ms"])
def test_an_odd_provider_gives_the_same(house, prompt, version, name, oddity):
    direct, through = both(house, "sync", version, name, prompt, script=oddity)
    assert direct["error"] is None
    assert through == direct


@pytest.mark.parametrize(
    ("script", "error", "attempts"),
    [
        ("status=400", "BadRequestError", 1),
        ("status=401", "UnauthorizedError", 1),
        ("status=404", "NotFoundError", 1),
        ("status=429; retry-after-ms=20", "TooManyRequestsError", 2),
        ("status=500; retry-after-ms=20", "InternalServerError", 2),
        ("status=503; retry-after-ms=20", "ServiceUnavailableError", 2),
    ],
)
@pytest.mark.parametrize(("version", "name"), CHATS)
def test_a_refusal_raises_the_same_after_as_many_attempts(house, kind, prompt, version, name, script, error, attempts):
    direct, through = both(house, kind, version, name, prompt, script=script, max_retries=1)
    attempts = 1 if (version, name) in STREAMS else attempts  # this SDK does not retry streams
    assert (direct["error"]["type"], direct["attempts"]) == (error, attempts)
    assert through == direct


@pytest.mark.parametrize("script", ["cut=after 3 chunks; chunk-delay=10ms", "stream-error=after 3 chunks", "no-done", "bad-json"])
@pytest.mark.parametrize(("version", "name"), STREAMS)
def test_a_broken_stream_breaks_the_same(house, kind, prompt, version, name, script):
    direct, through = both(house, kind, version, name, prompt, script=script)
    assert through == direct


def test_a_provider_that_cannot_be_reached_is_an_error_in_its_own_shape(house, prompt):
    through = both(house, "sync", "v2", "chat", prompt, script="reset")[1]
    assert (through["error"]["type"], through["error"]["status"]) == ("ApiError", 502)
    assert "cohere" in through["error"]["body"]["message"]


def test_tokens_and_requests_equal_the_bill(fresh_house):
    for number, script in enumerate(["usage=input:100,cached:40,output:20", "usage=input:3,output:0", "status=500", "gzip", ""]):
        for (version, _), call in CALLS.items():
            prompt = f"What is a weir? {number}"
            observe_cohere(lambda client: call(client, prompt), version, "sync", f"{fresh_house.app}/cohere", script)
    assert_billed(fresh_house, "cohere")
