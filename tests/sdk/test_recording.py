"""An app's tests record what a provider says once, and replay it with neither provider nor key."""

import contextlib
import json

import anthropic
import openai
import pytest

from house import CONFIG, WEIR, eventually, listening, open_house, running
from observe import client_of, observe, without_headers
from test_anthropic import CALLS as ANTHROPIC_CALLS
from test_openai import CALLS as OPENAI_CALLS

CALLS = [(openai, "/openai/v1", name, call) for name, call in OPENAI_CALLS.items()] + [
    (anthropic, "/anthropic", name, call) for name, call in ANTHROPIC_CALLS.items()
]
PROMPT = "What is 2+2?"
# Nothing listens there.
NOWHERE = "http://127.0.0.1:1"


def config(mode, folder):
    return f"{CONFIG}\ncache: {{{{ mode: {mode}, recordings: {json.dumps(str(folder))} }}}}\n"


@contextlib.contextmanager
def replaying(folder, recordings):
    """Starts weir alone, without a provider; stops it at the end, and insists that it went in peace."""
    file = folder / "replay.yaml"
    file.write_text(config("replay", recordings).format(simulator=NOWHERE))
    with running([WEIR, "run", "--config", str(file)]) as weir:
        addresses = {}
        while "app" not in addresses:
            line = weir.wait_for(listening)
            addresses[line["weir.side"]] = f"http://{line['server.address']}"
        yield weir, addresses["app"]
        weir.stop()


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """What each call gave while it was recorded, and the directory of the recordings."""
    folder = tmp_path_factory.mktemp("recorded")
    recordings = folder / "recordings"
    with open_house(folder, config=config("record", recordings)) as house:
        given = [
            observe(lambda client, call=call: call(client, PROMPT), sdk, "sync", house.app + route, api_key="sk-real")
            for sdk, route, _, call in CALLS
        ]
        house.settle()
    return given, recordings


def test_every_call_is_replayed_as_it_was(recorded, tmp_path):
    given, recordings = recorded
    with replaying(tmp_path, recordings) as (weir, app):
        for (sdk, route, name, call), first in zip(CALLS, given, strict=True):
            again = observe(lambda client: call(client, PROMPT), sdk, "async", app + route, api_key="sk-dummy")
            assert first["error"] is None, name
            assert first["result"] or first["events"], name
            assert without_headers(again) == without_headers(first), name


def test_no_key_is_in_any_file(recorded):
    _, recordings = recorded
    files = list(recordings.iterdir())
    assert len(files) >= len(CALLS) / 2
    for file in files:
        assert "sk-real" not in file.read_text(), file


@pytest.mark.parametrize(
    ("sdk", "route", "call", "place"),
    [
        (openai, "/openai/v1", OPENAI_CALLS["chat"], "/messages/0/content"),
        (anthropic, "/anthropic", ANTHROPIC_CALLS["messages"], "/messages/0/content"),
    ],
)
def test_a_miss_is_not_found_and_says_what_differs(recorded, tmp_path, sdk, route, call, place):
    _, recordings = recorded
    attempts = []
    with replaying(tmp_path, recordings) as (weir, app):
        client = client_of(sdk, "sync", app + route, attempts, api_key="sk-dummy", max_retries=2)
        with client, pytest.raises(sdk.NotFoundError) as miss:
            call(client, "What is 2+3?")
        assert f'differs: {place}: recorded "What is 2+2?", asked "What is 2+3?"; to record it' in str(miss.value)
        assert len(attempts) == 1, "SDKs do not try again"
        eventually(lambda: any('"404"' in line or "404" in line for line in weir.lines))
        assert not any("2+3" in line or "2+2" in line for line in weir.lines), "prompts are for the app, not for logs"


def test_a_damaged_recording_stops_weir_and_names_itself(recorded, tmp_path):
    _, recordings = recorded
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    for number, file in enumerate(sorted(recordings.iterdir())[:2]):
        (damaged / f"{number}.json").write_text(file.read_text().replace('"status": 200', '"status": "fine"'))
    file = tmp_path / "weir.yaml"
    file.write_text(config("replay", damaged).format(simulator=NOWHERE))
    for command in ("check", "run"):
        with running([WEIR, command, "--config", str(file)]) as weir:
            assert weir.process.wait(10) != 0
            eventually(lambda: all(any(f"{number}.json:" in line for line in weir.lines) for number in range(2)))
