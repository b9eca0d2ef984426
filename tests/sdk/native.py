"""What an app sees of a call through an SDK of its provider's own make (Cohere's, Ollama's), as plain data.

These SDKs share a transport, but no shapes with those that `observe` knows: they raise other errors and are set up
differently.
"""

import asyncio

import cohere
import httpx
import ollama
from cohere.core.api_error import ApiError

from observe import stable, take

FAILURES = (ApiError, ollama.ResponseError, httpx.HTTPError, ConnectionError, ValueError)
TRANSPORTS = {"sync": httpx.Client, "async": httpx.AsyncClient}
COHERE = {
    ("v1", "sync"): cohere.Client,
    ("v1", "async"): cohere.AsyncClient,
    ("v2", "sync"): cohere.ClientV2,
    ("v2", "async"): cohere.AsyncClientV2,
}
OLLAMA = {"sync": ollama.Client, "async": ollama.AsyncClient}


def observe_cohere(call, version, kind, base_url, script="", max_retries=0, timeout=30):
    """Makes `call` with Cohere's client of this version, and tells all that its caller can see of it."""

    def make(attempts):
        http = TRANSPORTS[kind](**transport(kind, attempts, script), timeout=timeout)
        options = {"httpx_client": http, "max_retries": max_retries, "timeout": timeout}
        return COHERE[version, kind](api_key="sk-test", base_url=base_url, **options)

    return observe(call, make)


def observe_ollama(call, kind, base_url, script="", timeout=30):
    """The same with Ollama's client."""
    return observe(call, lambda attempts: OLLAMA[kind](host=base_url, timeout=timeout, **transport(kind, attempts, script)))


def transport(kind, attempts, script):
    """Options of an HTTP client that notes each of its attempts and has the simulator follow a script.

    No proxy of the machine's environment may stand between the test and weir; and without TLS, there is no need to load
    certificates for every client.
    """

    def note(request):
        attempts.append(request.url)

    async def note_async(request):
        note(request)

    hooks = {"request": [note if kind == "sync" else note_async]}
    return {"event_hooks": hooks, "headers": {"x-simulate": script} if script else {}, "trust_env": False, "verify": False}


def observe(call, make):
    attempts = []
    seen = {"result": None, "error": None, "events": []}

    async def ask():
        try:
            seen["result"] = await take(call(make(attempts)), seen["events"])
        except FAILURES as error:
            seen["error"] = describe(error)

    asyncio.run(ask())
    return seen | {"attempts": len(attempts)}


def describe(error):
    """An error without the id of the request, which is different every time."""
    body = getattr(error, "body", None)
    if isinstance(body, dict):
        body = {name: value for name, value in stable(body).items() if name != "id"}
    said = getattr(error, "error", None)
    return {"type": type(error).__name__, "status": getattr(error, "status_code", None), "body": body, "said": said}


def assert_billed(house, provider):
    """What weir counted of this provider equals what it charged, to the token."""
    house.settle()
    lines = [line for line in house.bill()["lines"] if line["api"] == provider]
    assert lines
    for line in lines:
        labels = {"provider": provider, "model": line["model"]}
        tokens = {name: house.sum("weir_tokens_total", token_type=name, **labels) for name in ("input", "cache_read", "output")}
        assert tokens["cache_read"] == line["cached"], line
        assert tokens["input"] + tokens["cache_read"] == line["input"], line
        assert tokens["output"] == line["output"], line
        assert house.sum("weir_requests_total", **labels) == line["requests"], line
        assert house.sum("weir_requests_total", outcome="success", **labels) == line["requests"] - line["failures"], line
