"""Through weir, an app with the official Ollama SDK sees what it sees without weir."""

import pytest

from native import assert_billed, observe_ollama

MODEL = "llama3.2"
TOOL = {
    "type": "function",
    "function": {
        "name": "forecast",
        "description": "The weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


def asked(prompt, **more):
    return {"model": MODEL, "messages": [{"role": "user", "content": prompt}]} | more


def with_tool(prompt, **more):
    return asked(f"Ask for the forecast. {prompt}", tools=[TOOL], **more)


CALLS = {
    "chat": lambda client, prompt: client.chat(**asked(prompt, options={"temperature": 0})),
    "chat with a tool": lambda client, prompt: client.chat(**with_tool(prompt)),
    "chat with a tool's result": lambda client, prompt: client.chat(
        **asked(
            prompt,
            tools=[TOOL],
            messages=[
                {"role": "user", "content": prompt},
                {"role": "assistant", "tool_calls": [{"function": {"name": "forecast", "arguments": {"city": "Ulm"}}}]},
                {"role": "tool", "tool_name": "forecast", "content": "rain"},
            ],
        )
    ),
    "chat with thinking": lambda client, prompt: client.chat(**asked(prompt, think=True)),
    "chat cut short": lambda client, prompt: client.chat(**asked(prompt, options={"num_predict": 5})),
    "chat in JSON": lambda client, prompt: client.chat(**asked(prompt, format="json")),
    "chat stream": lambda client, prompt: client.chat(**asked(prompt, stream=True)),
    "chat stream of a tool call": lambda client, prompt: client.chat(**with_tool(prompt, stream=True)),
    "chat stream of thoughts": lambda client, prompt: client.chat(**asked(prompt, stream=True, think=True)),
    "generate": lambda client, prompt: client.generate(model=MODEL, prompt=prompt, system="Be brief."),
    "generate stream": lambda client, prompt: client.generate(model=MODEL, prompt=prompt, stream=True),
    "embed": lambda client, prompt: client.embed(model="all-minilm", input=[prompt, "a dam"]),
}
STREAMS = ["chat stream", "generate stream"]
CHATS = ["chat", *STREAMS]


@pytest.fixture(params=["sync", "async"])
def kind(request):
    return request.param


def both(house, kind, name, prompt, script=""):
    """What the app sees without weir, and with it."""

    def call(client):
        return CALLS[name](client, prompt)

    direct = observe_ollama(call, kind, house.simulator, script)
    through = observe_ollama(call, kind, f"{house.app}/ollama", script)
    return direct, through


@pytest.mark.parametrize("name", CALLS)
def test_a_call_gives_the_same(house, kind, prompt, name):
    direct, through = both(house, kind, name, prompt)
    assert direct["error"] is None
    assert direct["result"] or len(direct["events"]) > 1
    assert through == direct
    again = both(house, kind, name, prompt)[1]
    assert again == direct, "the second time, perhaps from the cache"


@pytest.mark.parametrize("name", CHATS)
@pytest.mark.parametrize("oddity", ["gzip", "trickle", "no-usage", "chunk-delay=2ms"])
def test_an_odd_provider_gives_the_same(house, prompt, name, oddity):
    direct, through = both(house, "sync", name, prompt, oddity)
    assert direct["error"] is None
    assert through == direct


@pytest.mark.parametrize("status", [400, 404, 500, 503])
@pytest.mark.parametrize("name", CHATS)
def test_a_refusal_raises_the_same(house, kind, prompt, name, status):
    direct, through = both(house, kind, name, prompt, f"status={status}")
    assert (direct["error"]["type"], direct["error"]["status"]) == ("ResponseError", status)
    assert through == direct


@pytest.mark.parametrize("script", ["cut=after 3 chunks; chunk-delay=10ms", "stream-error=after 3 chunks", "no-done", "bad-json"])
@pytest.mark.parametrize("name", STREAMS)
def test_a_broken_stream_breaks_the_same(house, kind, prompt, name, script):
    direct, through = both(house, kind, name, prompt, script)
    assert through == direct


def test_a_provider_that_cannot_be_reached_is_an_error_in_its_own_shape(house, prompt):
    through = both(house, "sync", "chat", prompt, "reset")[1]
    assert (through["error"]["type"], through["error"]["status"]) == ("ResponseError", 502)
    assert through["error"]["said"].startswith("weir got no answer from provider `ollama`")


def test_what_weir_does_not_read_passes(house):
    direct = observe_ollama(lambda client: client.show("llama3.2"), "sync", house.simulator)
    through = observe_ollama(lambda client: client.show("llama3.2"), "sync", f"{house.app}/ollama")
    assert direct["error"]["status"] == 404, "the simulator manages no models"
    assert through == direct


def test_tokens_and_requests_equal_the_bill(fresh_house):
    for number, script in enumerate(["usage=input:100,output:20", "usage=input:3,output:0", "status=500", "gzip", ""]):
        for call in CALLS.values():
            prompt = f"What is a weir? {number}"
            observe_ollama(lambda client: call(client, prompt), "sync", f"{fresh_house.app}/ollama", script)
    assert_billed(fresh_house, "ollama")
    assert fresh_house.sum("weir_unpriced_requests_total") == 0
    assert fresh_house.sum("weir_cost_usd_total", provider="ollama") == 0
