"""The cache, as an app sees it: the same answer, sooner, for the same caller only, and only if the app wants it."""

import anthropic
import openai
import pytest

from house import eventually
from observe import client_of, observe
from test_anthropic import CALLS as ANTHROPIC_CALLS
from test_openai import CALLS as OPENAI_CALLS

CACHEABLE = [
    pytest.param(sdk, route, calls[name], id=name)
    for sdk, route, calls, names in (
        (
            openai,
            "/openai/v1",
            OPENAI_CALLS,
            ["chat", "chat stream", "chat stream with usage", "chat parsed", "responses stream", "embeddings"],
        ),
        (anthropic, "/anthropic", ANTHROPIC_CALLS, ["messages", "messages stream", "messages with a tool"]),
    )
    for name in names
]


def cached(house, prompt, **options):
    """Asks by chat completion, and tells what `X-Cache` says and which reply came."""
    headers = options.pop("headers", {})
    with client_of(openai, "sync", f"{house.app}/openai/v1", **options) as client:
        messages = [{"role": "user", "content": prompt}]
        raw = client.chat.completions.with_raw_response.create(
            model="gpt-4o-mini", messages=messages, extra_headers=headers
        )
    return raw.headers["x-cache"], raw.parse()


@pytest.mark.parametrize(("sdk", "route", "call"), CACHEABLE)
def test_an_equal_call_is_answered_equally_without_the_provider(fresh_house, prompt, sdk, route, call):
    first = observe(lambda client: call(client, prompt), sdk, "sync", fresh_house.app + route)
    fresh_house.settle()
    second = observe(lambda client: call(client, prompt), sdk, "sync", fresh_house.app + route)
    assert first["error"] is None
    assert second == first
    assert fresh_house.state()["received"] == 1


def test_a_hit_says_so(house, prompt):
    (first, reply), (second, again) = cached(house, prompt), cached(house, prompt)
    assert (first, second) == ("MISS", "HIT")
    assert again == reply


def test_another_key_never_gets_it(house, prompt):
    cached(house, prompt, api_key="sk-one")
    status, _ = cached(house, prompt, api_key="sk-two")
    assert status == "MISS"


def test_another_namespace_never_gets_it(house, prompt):
    cached(house, prompt, headers={"x-cache-namespace": "one"})
    for other in ({"x-cache-namespace": "two"}, {}):
        assert cached(house, prompt, headers=other)[0] == "MISS"


@pytest.mark.parametrize("directive", ["no-store", "no-cache"])
def test_an_app_that_wants_no_stored_answer_gets_none(house, prompt, directive):
    cached(house, prompt)
    assert cached(house, prompt, headers={"cache-control": directive})[0] != "HIT"


def test_an_app_says_how_long_its_answer_may_serve(house, prompt):
    assert cached(house, prompt, headers={"X-Cache-TTL": "0"})[0] == "MISS"
    assert cached(house, prompt, headers={"X-Cache-TTL": "soon"})[0] == "BYPASS"
    assert cached(house, prompt, headers={"X-Cache-TTL": "5m"})[0] == "MISS"
    assert cached(house, prompt, headers={"Cache-Control": "min-fresh=240"})[0] == "HIT"
    assert cached(house, prompt, headers={"Cache-Control": "min-fresh=360"})[0] == "BYPASS"


@pytest.mark.parametrize("max_retries", [0, 2])
def test_an_app_that_wants_a_stored_answer_only_has_nobody_asked(fresh_house, prompt, max_retries):
    """Once, too: `x-should-retry` tells the SDK that it would be the same again."""
    attempts = []
    with client_of(
        openai, "sync", f"{fresh_house.app}/openai/v1", attempts=attempts, max_retries=max_retries
    ) as client:
        with pytest.raises(openai.APIStatusError) as refused:
            client.chat.completions.create(
                model="gpt-4o-mini",
                messages=[{"role": "user", "content": prompt}],
                extra_headers={"Cache-Control": "only-if-cached"},
            )
    assert (refused.value.status_code, refused.value.code) == (504, "not_stored")
    assert len(attempts) == 1
    assert fresh_house.state()["received"] == 0
    cached(fresh_house, prompt)
    assert cached(fresh_house, prompt, headers={"Cache-Control": "only-if-cached"})[0] == "HIT"


def test_a_failure_is_not_kept(house, prompt):
    with pytest.raises(openai.InternalServerError):
        cached(house, prompt, headers={"x-simulate": "status=500"})
    assert cached(house, prompt)[0] == "MISS"


def test_a_stream_that_broke_off_is_not_kept(fresh_house, prompt):
    call = OPENAI_CALLS["chat stream"]
    broken = observe(
        lambda client: call(client, prompt),
        openai,
        "sync",
        f"{fresh_house.app}/openai/v1",
        default_headers={"x-simulate": "cut=after 3 chunks; chunk-delay=10ms"},
    )
    assert broken["error"] is not None
    whole = observe(lambda client: call(client, prompt), openai, "sync", f"{fresh_house.app}/openai/v1")
    assert whole["error"] is None
    assert fresh_house.state()["received"] == 2


def test_a_usage_chunk_is_only_for_those_who_asked(house, prompt):
    """Two apps that differ only in `include_usage` each get their own stream, first and second time."""
    with_usage, without = OPENAI_CALLS["chat stream with usage"], OPENAI_CALLS["chat stream"]
    for _ in range(2):
        for call, wanted in ((with_usage, True), (without, False)):
            seen = observe(lambda client, call=call: call(client, prompt), openai, "sync", f"{house.app}/openai/v1")
            assert any(event.get("usage") for event in seen["events"]) == wanted


def test_hanging_up_cancels_the_call_upstream(fresh_house, prompt):
    with client_of(openai, "sync", f"{fresh_house.app}/openai/v1") as client:
        stream = client.chat.completions.create(
            model="gpt-4o-mini",
            messages=[{"role": "user", "content": prompt}],
            stream=True,
            extra_headers={"x-simulate": "stall=after 2 chunks"},
        )
        next(iter(stream))
        assert fresh_house.state()["open"] == 1
        stream.close()
        eventually(lambda: fresh_house.state()["hung_up"] == 1)
    eventually(lambda: fresh_house.sum("weir_requests_total", outcome="cancelled") == 1)
