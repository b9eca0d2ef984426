"""Through weir, an app with boto3 sees what it sees without weir, although the signature is another one."""

import json

import boto3
import botocore.config
import botocore.exceptions
import pytest
import urllib3.exceptions

from house import AWS_KEYS

CLAUDE, NOVA, LLAMA = "us.anthropic.claude-sonnet-4-5-v1:0", "amazon.nova-lite-v1:0", "meta.llama3-3-70b-instruct-v1:0"
PROFILE = "arn:aws:bedrock:us-east-1:111122223333:inference-profile/us.anthropic.claude-sonnet-4-5-v1:0"
TITAN = "amazon.titan-embed-text-v2:0"
SIMULATORS = (AWS_KEYS["AWS_ACCESS_KEY_ID"], AWS_KEYS["AWS_SECRET_ACCESS_KEY"])
APPS = ("AKIAAPPAPPAPPAPPAPPA", "the app's own secret, which nobody but AWS could check")
TOOL = {
    "toolSpec": {
        "name": "forecast",
        "description": "The weather",
        "inputSchema": {
            "json": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
        },
    }
}
# Header fields that belong to one reply or to a connection, or that weir adds.
OTHER_HEADERS = {"date", "connection", "transfer-encoding", "x-amzn-requestid", "x-cache", "cache-status", "x-weir-request-id", "age"}


def says(prompt):
    return [{"role": "user", "content": [{"text": prompt}]}]


def native(prompt, **more):
    messages = [{"role": "user", "content": prompt}]
    return json.dumps({"anthropic_version": "bedrock-2023-05-31", "max_tokens": 200, "messages": messages} | more)


CALLS = {
    "converse": lambda client, prompt: client.converse(modelId=CLAUDE, messages=says(prompt)),
    "converse by an inference profile": lambda client, prompt: client.converse(modelId=PROFILE, messages=says(prompt)),
    "converse with a system prompt and a cache point": lambda client, prompt: client.converse(
        modelId=CLAUDE,
        messages=says(prompt),
        system=[{"text": f"{prompt} Be brief. " * 200}, {"cachePoint": {"type": "default"}}],
        inferenceConfig={"maxTokens": 50},
    ),
    "converse with a tool": lambda client, prompt: client.converse(
        modelId=CLAUDE, messages=says(prompt), toolConfig={"tools": [TOOL], "toolChoice": {"any": {}}}
    ),
    "converse with a tool's result": lambda client, prompt: client.converse(
        modelId=CLAUDE,
        toolConfig={"tools": [TOOL]},
        messages=[
            *says(prompt),
            {"role": "assistant", "content": [{"toolUse": {"toolUseId": "t1", "name": "forecast", "input": {"city": "Ulm"}}}]},
            {"role": "user", "content": [{"toolResult": {"toolUseId": "t1", "content": [{"text": "rain"}]}}]},
        ],
    ),
    "converse with thinking": lambda client, prompt: client.converse(
        modelId=CLAUDE,
        messages=says(prompt),
        additionalModelRequestFields={"thinking": {"type": "enabled", "budget_tokens": 1024}},
    ),
    "converse stream": lambda client, prompt: client.converse_stream(modelId=CLAUDE, messages=says(prompt)),
    "converse stream of a tool call": lambda client, prompt: client.converse_stream(
        modelId=CLAUDE, messages=says(prompt), toolConfig={"tools": [TOOL], "toolChoice": {"tool": {"name": "forecast"}}}
    ),
    "invoke": lambda client, prompt: client.invoke_model(modelId=CLAUDE, body=native(prompt)),
    "invoke stream": lambda client, prompt: client.invoke_model_with_response_stream(modelId=CLAUDE, body=native(prompt)),
    "invoke Nova": lambda client, prompt: client.invoke_model(modelId=NOVA, body=json.dumps({"messages": says(prompt)})),
    "invoke Nova stream": lambda client, prompt: client.invoke_model_with_response_stream(
        modelId=NOVA, body=json.dumps({"messages": says(prompt)})
    ),
    "invoke Llama": lambda client, prompt: client.invoke_model(modelId=LLAMA, body=json.dumps({"prompt": prompt})),
    "invoke Llama stream": lambda client, prompt: client.invoke_model_with_response_stream(
        modelId=LLAMA, body=json.dumps({"prompt": prompt})
    ),
    "invoke Titan's embeddings": lambda client, prompt: client.invoke_model(
        modelId=TITAN, body=json.dumps({"inputText": prompt, "dimensions": 256})
    ),
    "count tokens": lambda client, prompt: client.count_tokens(
        modelId=CLAUDE, input={"converse": {"messages": says(prompt)}}
    ),
}
# The transport's own errors reach the app bare when a body breaks off.
FAILURES = (botocore.exceptions.BotoCoreError, urllib3.exceptions.HTTPError, ValueError)
STREAMS = ["converse stream", "invoke stream"]


def client_of(endpoint, keys, headers={}, **options):
    """A client that sends these headers too, and takes nothing from the machine's environment."""
    config = {"retries": {"total_max_attempts": 1, "mode": "standard"}, "proxies": {}, "read_timeout": 30} | options
    session = boto3.Session(*keys, region_name="us-east-1")
    client = session.client("bedrock-runtime", endpoint_url=endpoint, config=botocore.config.Config(**config))

    def add(request, **_):
        for name, value in headers.items():
            request.headers[name] = value

    client.meta.events.register("before-sign.bedrock-runtime", add)
    return client


def observe(call, client):
    """All that the caller of `call` can see: result, events, error, attempts."""
    seen = {"result": None, "events": [], "error": None, "attempts": 0}

    def attempted(**_):
        seen["attempts"] += 1

    client.meta.events.register("before-send.bedrock-runtime", attempted)
    try:
        seen["result"] = take(call(client), seen["events"])
    except botocore.exceptions.ClientError as error:  # a refusal, or an exception in a stream
        metadata = error.response.get("ResponseMetadata", {})
        seen["error"] = [type(error).__name__, error.response["Error"], metadata.get("HTTPStatusCode")]
        seen["retries"] = metadata.get("RetryAttempts")
    except FAILURES as error:
        seen["error"] = [type(error).__name__]
    return seen


def take(reply, events):
    """A reply as plain data; its events go to `events`, one by one, so that those before a failure are seen too."""
    for event in reply.pop("stream", None) or []:
        events.append(event)
    body = reply.pop("body", None)
    if hasattr(body, "read"):
        reply["body"] = json.loads(body.read())
    elif body is not None:
        for event in body:
            events.append(json.loads(event["chunk"]["bytes"]) if "bytes" in event.get("chunk", {}) else event)
    metadata = reply.pop("ResponseMetadata")
    headers = sorted(item for item in metadata["HTTPHeaders"].items() if item[0] not in OTHER_HEADERS)
    return reply | {"status": metadata["HTTPStatusCode"], "headers": headers, "has id": bool(metadata.get("RequestId"))}


def without_headers(seen):
    """The same observation, for replies out of the cache: their headers are fewer."""
    fewer = {name: value for name, value in seen["result"].items() if name not in ("headers", "has id", "performanceConfigLatency")}
    return seen | {"result": fewer}


def both(house, call, **options):
    """What the app sees without weir, and with it: with keys that AWS would not know."""
    direct = observe(call, client_of(house.simulator, SIMULATORS, **options))
    through = observe(call, client_of(f"{house.app}/bedrock", APPS, **options))
    return direct, through


@pytest.mark.parametrize("name", CALLS)
def test_a_call_gives_the_same(house, prompt, name):
    def call(client):
        return CALLS[name](client, prompt)

    # The prompt cache of the model writes the first time and reads from then on.
    observe(call, client_of(house.simulator, SIMULATORS))
    direct, through = both(house, call)
    assert direct["error"] is None
    assert direct["result"]["has id"]
    assert ("stream" in name) == bool(direct["events"])
    assert through == direct
    again = observe(call, client_of(f"{house.app}/bedrock", APPS))
    assert without_headers(again) == without_headers(direct), "the second time, perhaps from the cache"


@pytest.mark.parametrize("name", ["converse", "converse stream", "invoke stream"])
@pytest.mark.parametrize("oddity", ["trickle", "no-usage", "chunk-delay=2ms"])
def test_an_odd_provider_gives_the_same(house, prompt, name, oddity):
    direct, through = both(house, lambda client: CALLS[name](client, prompt), headers={"x-simulate": oddity})
    assert direct["error"] is None
    assert through == direct


@pytest.mark.parametrize(
    ("script", "error", "attempts"),
    [
        ("status=400", "ValidationException", 1),
        ("status=403", "AccessDeniedException", 1),
        ("status=404", "ResourceNotFoundException", 1),
        ("status=424", "ModelErrorException", 1),
        ("status=429", "ThrottlingException", 2),
        ("status=500", "InternalServerException", 2),
        ("status=503", "ServiceUnavailableException", 2),
    ],
)
@pytest.mark.parametrize("name", ["converse", "converse stream", "invoke", "invoke stream"])
def test_a_refusal_raises_the_same_after_as_many_attempts(house, prompt, name, script, error, attempts):
    options = {"headers": {"x-simulate": script}, "retries": {"total_max_attempts": 2, "mode": "standard"}}
    direct, through = both(house, lambda client: CALLS[name](client, prompt), **options)
    assert (direct["error"][1]["Code"], direct["attempts"]) == (error, attempts)
    assert direct["retries"] == attempts - 1
    assert through == direct


@pytest.mark.parametrize("script", ["stream-error=after 3 chunks", "cut=after 3 chunks; chunk-delay=10ms", "no-done", "bad-json"])
@pytest.mark.parametrize("name", STREAMS)
def test_a_broken_stream_breaks_the_same(house, prompt, name, script):
    direct, through = both(house, lambda client: CALLS[name](client, prompt), headers={"x-simulate": script})
    if script.startswith("stream-error"):
        assert direct["error"][:1] == ["EventStreamError"]
        assert direct["error"][1]["Code"] == "modelStreamErrorException"
    assert through == direct


def test_an_unknown_model_is_unknown_through_weir_too(house, prompt):
    direct, through = both(house, lambda client: client.converse(modelId="nope-1", messages=says(prompt)))
    assert direct["error"][1]["Code"] == "ResourceNotFoundException"
    assert through == direct


def test_equal_calls_of_one_key_are_answered_from_the_cache_although_no_two_signatures_are_equal(fresh_house, prompt):
    def ask(keys):
        client = client_of(f"{fresh_house.app}/bedrock", keys)
        seen = client.converse(modelId=CLAUDE, messages=says(prompt))["ResponseMetadata"]["HTTPHeaders"]["x-cache"]
        fresh_house.settle()
        return seen

    assert [ask(APPS), ask(APPS)] == ["MISS", "HIT"]
    assert ask(("AKIAANOTHER", "another secret")) == "MISS"


def test_what_weir_counts_is_what_is_charged(fresh_house, prompt):
    client = client_of(f"{fresh_house.app}/bedrock", APPS, headers={"cache-control": "no-cache"})
    charged = {}
    for name in [*CALLS, *CALLS]:  # the second time, much of it is read from the model's own cache
        assert observe(lambda client: CALLS[name](client, prompt), client)["error"] is None
        fresh_house.settle()
        lines = fresh_house.bill()["lines"]
        assert {line["api"] for line in lines} == {"bedrock"}
        charged = {kind: sum(line[kind] for line in lines) for kind in lines[0] if kind not in ("api", "model")}

        def tokens(*classes):
            return sum(fresh_house.sum("weir_tokens_total", provider="aws.bedrock", token_type=kind) for kind in classes)

        assert tokens("input", "cache_read", "cache_write") == charged["input"], name
        assert tokens("cache_read") == charged["cached"], name
        assert tokens("cache_write") == charged["cache_write_short"] + charged["cache_write_long"], name
        assert tokens("output", "reasoning") == charged["output"], name
    assert fresh_house.sum("weir_requests_total", provider="aws.bedrock", outcome="success") == charged["requests"]
    assert charged["cached"] > 0 and charged["cache_write_short"] > 0


def test_the_simulator_refuses_strangers_and_weir_unsigned(house, prompt):
    def call(client):
        return CALLS["converse"](client, prompt)

    stranger = observe(call, client_of(house.simulator, APPS))
    assert stranger["error"][1]["Code"] == "UnrecognizedClientException"
    # Signed with the right keys, but for weir's address: this is why weir signs anew.
    unsigned = observe(call, client_of(f"{house.app}/unsigned", SIMULATORS))
    assert unsigned["error"][1]["Code"] == "InvalidSignatureException"
