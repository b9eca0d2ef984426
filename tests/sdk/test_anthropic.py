"""Through weir, an app with the official Anthropic SDK sees what it sees without weir."""

import anthropic
import pytest

from observe import observe, without_headers

MODEL = "claude-sonnet-4-6"
TOOL = {
    "name": "forecast",
    "description": "The weather",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}


def asked(prompt, **more):
    return {"model": MODEL, "max_tokens": 200, "messages": [{"role": "user", "content": prompt}]} | more


CALLS = {
    "messages": lambda client, prompt: client.messages.create(**asked(prompt)),
    "messages with a system prompt": lambda client, prompt: client.messages.create(
        **asked(prompt, system=[{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}])
    ),
    "messages with a tool": lambda client, prompt: client.messages.create(
        **asked(prompt, tools=[TOOL], tool_choice={"type": "any"})
    ),
    "messages with a tool's result": lambda client, prompt: client.messages.create(
        **asked(
            prompt,
            tools=[TOOL],
            messages=[
                {"role": "user", "content": prompt},
                {
                    "role": "assistant",
                    "content": [{"type": "tool_use", "id": "toolu_1", "name": "forecast", "input": {"city": "Ulm"}}],
                },
                {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "content": "rain"}]},
            ],
        )
    ),
    "messages with thinking": lambda client, prompt: client.messages.create(
        **asked(prompt, max_tokens=2000, thinking={"type": "enabled", "budget_tokens": 1024})
    ),
    "messages stream": lambda client, prompt: client.messages.create(**asked(prompt, stream=True)),
    "messages stream by the helper": lambda client, prompt: client.messages.stream(**asked(prompt)),
    "messages stream of a tool call": lambda client, prompt: client.messages.stream(
        **asked(prompt, tools=[TOOL], tool_choice={"type": "any"})
    ),
    "messages with headers": lambda client, prompt: client.messages.with_raw_response.create(**asked(prompt)),
    "messages stream line by line": lambda client, prompt: client.messages.with_streaming_response.create(
        **asked(prompt, stream=True)
    ),
    "count_tokens": lambda client, prompt: client.messages.count_tokens(
        model=MODEL, messages=[{"role": "user", "content": prompt}]
    ),
}


@pytest.fixture(params=["sync", "async"])
def kind(request):
    return request.param


def both(house, kind, call, **options):
    """What the app sees without weir, and with it."""
    direct = observe(call, anthropic, kind, house.simulator, **options)
    through = observe(call, anthropic, kind, f"{house.app}/anthropic", **options)
    return direct, through


@pytest.mark.parametrize("name", CALLS)
def test_a_call_gives_the_same(house, kind, prompt, name):
    def call(client):
        return CALLS[name](client, prompt)

    direct, through = both(house, kind, call)
    assert direct["error"] is None
    assert direct["result"] or direct["events"]
    assert through == direct
    again = observe(call, anthropic, kind, f"{house.app}/anthropic")
    assert without_headers(again) == without_headers(direct), "the second time, perhaps from the cache"


@pytest.mark.parametrize("name", ["messages", "messages stream"])
@pytest.mark.parametrize("oddity", ["gzip", "trickle", "no-usage", "chunk-delay=2ms"])
def test_an_odd_provider_gives_the_same(house, prompt, name, oddity):
    headers = {"x-simulate": oddity}
    direct, through = both(house, "sync", lambda client: CALLS[name](client, prompt), default_headers=headers)
    assert direct["error"] is None
    assert through == direct


@pytest.mark.parametrize(
    ("script", "error", "attempts"),
    [
        ("status=400", "BadRequestError", 1),
        ("status=401", "AuthenticationError", 1),
        ("status=404", "NotFoundError", 1),
        ("status=429; retry-after-ms=20", "RateLimitError", 2),
        ("status=500", "InternalServerError", 2),
        ("status=529", "OverloadedError", 2),
    ],
)
@pytest.mark.parametrize("name", ["messages", "messages stream"])
def test_a_refusal_raises_the_same_after_as_many_attempts(house, kind, prompt, name, script, error, attempts):
    options = {"default_headers": {"x-simulate": script}, "max_retries": 1}
    direct, through = both(house, kind, lambda client: CALLS[name](client, prompt), **options)
    assert (direct["error"]["type"], direct["attempts"]) == (error, attempts)
    assert through == direct


@pytest.mark.parametrize("script", ["slow-headers=5s", "stall=after 10 bytes"])
def test_a_slow_provider_times_out_the_same(house, kind, prompt, script):
    options = {"default_headers": {"x-simulate": script}, "timeout": 2.0}
    direct, through = both(house, kind, lambda client: CALLS["messages"](client, prompt), **options)
    assert "Timeout" in direct["error"]["type"]
    assert through == direct


@pytest.mark.parametrize("script", ["cut=after 3 chunks; chunk-delay=10ms", "stream-error=after 3 chunks", "no-done", "bad-json"])
@pytest.mark.parametrize("name", ["messages stream", "messages stream by the helper"])
def test_a_broken_stream_breaks_the_same(house, kind, prompt, name, script):
    options = {"default_headers": {"x-simulate": script}}
    direct, through = both(house, kind, lambda client: CALLS[name](client, prompt), **options)
    assert through == direct
