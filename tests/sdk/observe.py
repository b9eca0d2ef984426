"""What an app sees of a call through its SDK, as plain data: result, events, error, headers, attempts.

The SDKs are made by one generator and share their shapes, so one observer serves both of them, sync and async.
"""

import asyncio
import contextlib
import inspect
import re

import anthropic
import httpx2
import openai
import pydantic

# The transport's own errors reach the app bare when a body breaks off, the JSON parser's (a ValueError) when it is wrong.
FAILURES = (openai.OpenAIError, anthropic.AnthropicError, httpx2.HTTPError, ValueError)
# Header fields that belong to a connection (RFC 9110, section 7.6.1), or that a proxy may set.
CONNECTION_HEADERS = {"date", "connection", "keep-alive", "transfer-encoding"}
# Header fields whose value belongs to one reply: they must be there, whatever they say.
VOLATILE_HEADERS = re.compile("(x-)?request-id|openai-processing-ms|.*ratelimit.*(remaining|reset).*")
# What weir adds. Everything else must be the provider's own.
WEIR_HEADERS = {"x-cache", "age", "cache-status", "x-weir-request-id"}
# Members of a body that belong to one reply.
VOLATILE_MEMBERS = {"created", "created_at", "completed_at", "request_id"}
TIMES = re.compile(r'"(created|created_at|completed_at)":[\d.]+')
# What the provider adds to every chunk of a stream when it was asked for usage. weir asks where the app did not.
NO_USAGE_YET = ',"usage":null'
CLIENTS = {
    (openai, "sync"): (openai.OpenAI, httpx2.Client),
    (openai, "async"): (openai.AsyncOpenAI, httpx2.AsyncClient),
    (anthropic, "sync"): (anthropic.Anthropic, httpx2.Client),
    (anthropic, "async"): (anthropic.AsyncAnthropic, httpx2.AsyncClient),
}


def observe(call, sdk, kind, base_url, **options):
    """Makes `call` with a client of `sdk` and tells all that its caller can see of it."""
    attempts = []
    seen = {"result": None, "error": None, "events": []}

    async def make():
        client = client_of(sdk, kind, base_url, attempts, **options)
        async with entered(client):
            try:
                seen["result"] = await take(call(client), seen["events"])
            except FAILURES as error:
                seen["error"] = describe(error)

    asyncio.run(make())
    return seen | {"attempts": len(attempts)}


def client_of(sdk, kind, base_url, attempts=None, **options):
    """A client that notes each of its attempts."""
    make, transport = CLIENTS[sdk, kind]

    def note(request):
        if attempts is not None:
            attempts.append(request.url)

    async def note_async(request):
        note(request)

    options = {"api_key": "sk-test", "max_retries": 0, "timeout": 30} | options
    hooks = {"request": [note if kind == "sync" else note_async]}
    # No proxy of the machine's environment may stand between the test and weir; and without TLS, there is no need to
    # load certificates for every client.
    http = transport(event_hooks=hooks, timeout=options["timeout"], trust_env=False, verify=False)
    return make(base_url=base_url, http_client=http, **options)


async def take(result, events):
    """Takes in whatever an SDK method returns: each event goes to `events`, the rest is returned as data."""
    if inspect.isawaitable(result):
        result = await result
    if isinstance(result, pydantic.BaseModel):
        return dump(result)
    if hasattr(result, "parse"):  # with_raw_response
        parsed = await take(result.parse(), events)
        return {"status": result.status_code, "headers": headers_of(result), "parsed": parsed}
    if hasattr(result, "__iter__") or hasattr(result, "__aiter__"):
        async for event in each(result):
            events.append(dump(event))
        return await final(result)
    async with entered(result) as opened:  # a helper, or with_streaming_response
        if hasattr(opened, "iter_lines"):
            lines = [line async for line in each(opened.iter_lines())]
            lines = [TIMES.sub(r'"\1":0', line).replace(NO_USAGE_YET, "") for line in lines]
            return {"status": opened.status_code, "headers": headers_of(opened), "lines": lines}
        return await take(opened, events)


async def each(things):
    if hasattr(things, "__aiter__"):
        async for thing in things:
            yield thing
    else:
        for thing in things:
            yield thing


@contextlib.asynccontextmanager
async def entered(manager):
    if hasattr(manager, "__aenter__"):
        async with manager as opened:
            yield opened
    else:
        with manager as opened:
            yield opened


async def final(stream):
    """What a streaming helper has put together in the end; other streams put nothing together."""
    for method in ("get_final_completion", "get_final_response", "get_final_message"):
        if hasattr(stream, method):
            return await take(getattr(stream, method)(), [])
    return None


def describe(error):
    described = {"type": type(error).__name__, "body": stable(getattr(error, "body", None))}
    if isinstance(error, (openai.APIStatusError, anthropic.APIStatusError)):
        described |= {"status": error.status_code, "headers": headers_of(error.response)}
    return described


def headers_of(response):
    unwanted = CONNECTION_HEADERS | WEIR_HEADERS
    return sorted(
        (name, "any" if VOLATILE_HEADERS.fullmatch(name) else value)
        for name, value in response.headers.multi_items()
        if name not in unwanted
    )


def dump(thing):
    return stable(thing.model_dump(mode="json", warnings=False) if isinstance(thing, pydantic.BaseModel) else thing)


def stable(data):
    """The same data, less what differs between equal replies."""
    if isinstance(data, dict):
        return {name: stable(value) for name, value in data.items() if name not in VOLATILE_MEMBERS}
    if isinstance(data, list):
        return [stable(value) for value in data]
    return data


def without_headers(seen):
    """The same observation, for replies out of the cache: their headers are fewer."""
    if isinstance(seen["result"], dict) and "headers" in seen["result"]:
        seen = seen | {"result": {name: value for name, value in seen["result"].items() if name != "headers"}}
    return seen
