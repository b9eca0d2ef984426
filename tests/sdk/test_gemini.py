"""Through weir, an app with Google's official SDK sees what it sees without weir: the Gemini API and Vertex AI, and
Anthropic's models there with Anthropic's SDK."""

import asyncio
import inspect

import aiohttp
import anthropic
import google.auth.credentials
import httpx2
import pytest
from google import genai
from google.genai import errors, types

from observe import each, stable

MODEL = "gemini-2.5-flash"
EMBEDDER = "gemini-embedding-2"
WEATHER = types.FunctionDeclaration(
    name="forecast",
    description="The weather",
    parameters=types.Schema(type="OBJECT", properties={"city": types.Schema(type="STRING")}, required=["city"]),
)
MUST_CALL = types.GenerateContentConfig(
    tools=[types.Tool(function_declarations=[WEATHER])],
    tool_config=types.ToolConfig(function_calling_config=types.FunctionCallingConfig(mode="ANY")),
)
THINKING = types.GenerateContentConfig(thinking_config=types.ThinkingConfig(thinking_budget=1024, include_thoughts=True))
# The async client is aiohttp's where that is installed, as other SDKs have it.
FAILURES = (errors.APIError, httpx2.HTTPError, aiohttp.ClientError, ValueError)


class Token(google.auth.credentials.Credentials):
    """A token that is never refreshed."""

    def __init__(self):
        super().__init__()
        self.token = "test-token"

    def refresh(self, request):
        raise AssertionError("nobody refreshes this token")


def generate(client, prompt, config=None, model=MODEL):
    return client.models.generate_content(model=model, contents=prompt, config=config)


def stream(client, prompt, config=None):
    return client.models.generate_content_stream(model=MODEL, contents=prompt, config=config)


def result_of_a_tool(client, prompt):
    called = types.FunctionCall(name="forecast", args={"city": "Ulm"})
    result = types.FunctionResponse(name="forecast", response={"sky": "rain"})
    contents = [
        types.Content(role="user", parts=[types.Part(text=prompt)]),
        types.Content(role="model", parts=[types.Part(function_call=called)]),
        types.Content(role="user", parts=[types.Part(function_response=result)]),
    ]
    return client.models.generate_content(model=MODEL, contents=contents, config=MUST_CALL)


def chat(client, prompt):
    return client.chats.create(model=MODEL).send_message(prompt)


def chat_stream(client, prompt):
    return client.chats.create(model=MODEL).send_message_stream(prompt)


CALLS = {
    "generate": generate,
    "generate with a system instruction": lambda client, prompt: generate(
        client, prompt, types.GenerateContentConfig(system_instruction="Be brief.", max_output_tokens=20)
    ),
    "generate with a tool": lambda client, prompt: generate(client, prompt, MUST_CALL),
    "generate with a tool's result": result_of_a_tool,
    "generate with thoughts": lambda client, prompt: generate(client, prompt, THINKING),
    "generate JSON": lambda client, prompt: generate(
        client,
        prompt,
        types.GenerateContentConfig(
            response_mime_type="application/json",
            response_schema=types.Schema(type="OBJECT", properties={"n": types.Schema(type="INTEGER")}, required=["n"]),
        ),
    ),
    "generate two candidates": lambda client, prompt: generate(
        client, prompt, types.GenerateContentConfig(candidate_count=2)
    ),
    "generate with cached content": lambda client, prompt: generate(
        client, prompt, types.GenerateContentConfig(cached_content="cachedContents/test")
    ),
    "stream": stream,
    "stream with thoughts": lambda client, prompt: stream(client, prompt, THINKING),
    "stream of a tool call": lambda client, prompt: stream(client, prompt, MUST_CALL),
    "chat": chat,
    "chat stream": chat_stream,
    "count_tokens": lambda client, prompt: client.models.count_tokens(model=MODEL, contents=prompt),
    "embed_content": lambda client, prompt: client.models.embed_content(
        model=EMBEDDER, contents=[prompt, "and a dam"], config=types.EmbedContentConfig(output_dimensionality=8)
    ),
}
# Embeddings have another path there, which the simulator does not have.
VERTEX_CALLS = [name for name in CALLS if name != "embed_content"]


def gemini(url, **options):
    return genai.Client(api_key="test-key", http_options=http_options(url, **options))


def vertex(url, **options):
    return genai.Client(
        vertexai=True,
        project="test-project",
        location="europe-west1",
        credentials=Token(),
        http_options=http_options(url, api_version="v1", **options),
    )


def http_options(url, headers=None, timeout=30_000, **more):
    # No proxy of the machine's environment may stand between the test and weir.
    bare = {"trust_env": False, "verify": False}
    return types.HttpOptions(
        base_url=url, headers=headers or {}, timeout=timeout, client_args=bare, async_client_args=bare, **more
    )


def observe(call, client, kind):
    """Makes `call` with a client, sync or async, and tells all that its caller can see of it."""
    seen = {"result": None, "events": [], "error": None}

    async def make():
        try:
            result = call(client.aio if kind == "async" else client)
            while inspect.isawaitable(result):
                result = await result
            if hasattr(result, "model_dump"):
                seen["result"] = dump(result)
            else:
                async for event in each(result):
                    seen["events"].append(dump(event))
        except FAILURES as error:
            seen["error"] = describe(error)

    asyncio.run(make())
    return seen


def dump(thing):
    data = stable(thing.model_dump(mode="json", exclude={"sdk_http_response"}, warnings=False))
    response = thing.sdk_http_response
    ours = {"x-cache", "age", "cache-status", "x-weir-request-id", "date", "connection", "transfer-encoding"}
    headers = {name.lower(): value for name, value in (response.headers if response else {}).items()}
    return data | {"headers": sorted((name, value) for name, value in headers.items() if name not in ours)}


def describe(error):
    described = {"type": type(error).__name__}
    if isinstance(error, errors.APIError):
        described |= {"code": error.code, "status": error.status, "message": error.message, "details": error.details}
    return described


@pytest.fixture(params=["sync", "async"])
def kind(request):
    return request.param


def both(house, kind, call, make=gemini, name="gemini", **options):
    """What the app sees without weir, and with it."""
    direct = observe(call, make(house.simulator, **options), kind)
    through = observe(call, make(f"{house.app}/{name}", **options), kind)
    return direct, through


@pytest.mark.parametrize("name", CALLS)
def test_a_call_gives_the_same(house, kind, prompt, name):
    direct, through = both(house, kind, lambda client: CALLS[name](client, prompt))
    assert direct["error"] is None
    assert direct["result"] or direct["events"]
    assert through == direct


@pytest.mark.parametrize("name", VERTEX_CALLS)
def test_a_call_gives_the_same_on_vertex(house, kind, prompt, name):
    direct, through = both(house, kind, lambda client: CALLS[name](client, prompt), vertex, "vertex")
    assert direct["error"] is None
    assert direct["result"] or direct["events"]
    assert through == direct


@pytest.mark.parametrize("name", ["generate", "stream"])
@pytest.mark.parametrize("oddity", ["gzip", "trickle", "no-usage", "chunk-delay=2ms"])
def test_an_odd_provider_gives_the_same(house, kind, prompt, name, oddity):
    headers = {"x-simulate": oddity}
    direct, through = both(house, kind, lambda client: CALLS[name](client, prompt), headers=headers)
    assert direct["error"] is None
    assert through == direct


@pytest.mark.parametrize(
    ("script", "code", "status"),
    [
        ("status=400", 400, "INVALID_ARGUMENT"),
        ("status=403", 403, "PERMISSION_DENIED"),
        ("status=404", 404, "NOT_FOUND"),
        ("status=429", 429, "RESOURCE_EXHAUSTED"),
        ("status=500", 500, "INTERNAL"),
        ("status=503", 503, "UNAVAILABLE"),
    ],
)
@pytest.mark.parametrize("name", ["generate", "stream", "embed_content"])
def test_a_refusal_raises_the_same(house, kind, prompt, name, script, code, status):
    headers = {"x-simulate": script}
    direct, through = both(house, kind, lambda client: CALLS[name](client, prompt), headers=headers)
    assert (direct["error"]["code"], direct["error"]["status"]) == (code, status)
    assert through == direct


@pytest.mark.parametrize(
    "script", ["cut=after 3 chunks; chunk-delay=10ms", "stream-error=after 3 chunks", "no-done", "bad-json"]
)
def test_a_broken_stream_breaks_the_same(house, kind, prompt, script):
    headers = {"x-simulate": script}
    direct, through = both(house, kind, lambda client: CALLS["stream"](client, prompt), headers=headers)
    assert through == direct


def test_a_provider_that_cannot_be_reached_is_an_error_in_googles_words(house, kind, prompt):
    headers = {"x-simulate": "reset"}
    _, through = both(house, kind, lambda client: CALLS["generate"](client, prompt), headers=headers)
    assert (through["error"]["code"], through["error"]["status"]) == (502, "UNAVAILABLE")


@pytest.mark.parametrize("name", ["generate", "generate with a tool", "stream", "embed_content"])
def test_an_equal_call_is_answered_equally_without_the_provider(fresh_house, prompt, name):
    client = gemini(f"{fresh_house.app}/gemini")
    first = observe(lambda client: CALLS[name](client, prompt), client, "sync")
    fresh_house.settle()
    second = observe(lambda client: CALLS[name](client, prompt), client, "sync")
    assert first["error"] is None
    assert without_headers(second) == without_headers(first)
    assert fresh_house.state()["received"] == 1


def without_headers(seen):
    less = [{name: value for name, value in part.items() if name != "headers"} for part in seen["events"]]
    result = seen["result"] and {name: value for name, value in seen["result"].items() if name != "headers"}
    return seen | {"events": less, "result": result}


def test_books_equal_the_bill(fresh_house, prompt):
    client = gemini(f"{fresh_house.app}/gemini")
    for name in CALLS:
        assert observe(lambda client: CALLS[name](client, f"{prompt} {name}"), client, "sync")["error"] is None
    fresh_house.settle()
    lines = [line for line in fresh_house.bill()["lines"] if line["api"] == "gemini"]
    charged = sum(line["input"] + line["output"] for line in lines)
    assert sum(line["reasoning"] for line in lines) > 0 and sum(line["cached"] for line in lines) > 0
    assert fresh_house.sum("weir_tokens_total", provider="gcp.gemini") == charged
    for token_type, kind in (("cache_read", "cached"), ("reasoning", "reasoning")):
        assert fresh_house.sum("weir_tokens_total", token_type=token_type) == sum(line[kind] for line in lines)


MESSAGES = {"model": "claude-sonnet-4-6", "max_tokens": 200}
CLAUDE_CALLS = {
    "messages": lambda client, asked: client.messages.create(**asked),
    "messages stream": lambda client, asked: client.messages.create(stream=True, **asked),
    "count_tokens": lambda client, asked: client.messages.count_tokens(
        model=asked["model"], messages=asked["messages"]
    ),
}


def claude(url):
    http = httpx2.Client(trust_env=False, verify=False, timeout=30)
    return anthropic.AnthropicVertex(
        base_url=f"{url}/v1",
        region="europe-west1",
        project_id="test-project",
        access_token="test-token",
        max_retries=0,
        http_client=http,
    )


@pytest.mark.parametrize("name", CLAUDE_CALLS)
def test_claude_on_vertex_gives_the_same(house, prompt, name):
    asked = MESSAGES | {"messages": [{"role": "user", "content": prompt}]}
    answers = []
    for url in (house.simulator, f"{house.app}/vertex"):
        with claude(url) as client:
            answer = CLAUDE_CALLS[name](client, asked)
            answers.append(answer.model_dump() if hasattr(answer, "model_dump") else [part.model_dump() for part in answer])
    assert answers[0] == answers[1]


@pytest.mark.parametrize("name", ["messages", "messages stream"])
def test_claude_on_vertex_is_counted(fresh_house, prompt, name):
    with claude(f"{fresh_house.app}/vertex") as client:
        answer = CLAUDE_CALLS[name](client, MESSAGES | {"messages": [{"role": "user", "content": prompt}]})
        if not hasattr(answer, "model_dump"):
            list(answer)
    fresh_house.settle()
    (line,) = fresh_house.bill()["lines"]
    assert line["model"] == MESSAGES["model"]
    assert fresh_house.sum("weir_tokens_total", provider="gcp.vertex_ai") == line["input"] + line["output"]
