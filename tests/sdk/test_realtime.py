"""Through weir, a realtime session of the official OpenAI SDK says what it says without weir; each response is counted."""

import asyncio
import base64
import hashlib

import openai
import pytest
import websockets.sync.client
from websockets.exceptions import WebSocketException

from house import eventually

MODEL, TRANSCRIBER = "gpt-realtime", "gpt-4o-mini-transcribe"
TOOL = {
    "type": "function",
    "name": "forecast",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
SILENCE = base64.b64encode(bytes(48_000)).decode()


def said(text):
    content = [{"type": "input_text", "text": text}]
    return {"type": "conversation.item.create", "item": {"type": "message", "role": "user", "content": content}}


def update(**settings):
    return {"type": "session.update", "session": {"type": "realtime", **settings}}


# What the app says, and how many responses and transcriptions it waits for.
TALKS = {
    "text": ([update(output_modalities=["text"]), said("Hello"), {"type": "response.create"}], 1),
    "speech": ([said("Hello"), {"type": "response.create"}], 1),
    "a tool": ([update(tools=[TOOL]), said("The forecast for Ulm?"), {"type": "response.create"}], 1),
    "several responses": ([said("One"), {"type": "response.create"}, said("Two"), {"type": "response.create"}], 2),
    "what is heard is written down": (
        [
            update(audio={"input": {"transcription": {"model": TRANSCRIBER}}}),
            {"type": "input_audio_buffer.append", "audio": SILENCE},
            {"type": "input_audio_buffer.commit"},
            {"type": "response.create"},
        ],
        2,
    ),
    "a mistake": ([{"type": "input_audio_buffer.commit"}, said("Hello"), {"type": "response.create"}], 1),
}
ENDS = {"response.done", "conversation.item.input_audio_transcription.completed"}


def talk(base_url, events, ends, script=""):
    """All that the app sees of a session: events, or how it broke off."""
    client = openai.OpenAI(base_url=base_url, api_key="sk-test", max_retries=0)
    seen = []
    options = {"extra_headers": {"x-simulate": script}} if script else {}
    try:
        with client.realtime.connect(model=MODEL, **options) as session:
            for event in events:
                session.send(event)
            while ends:
                try:
                    event = session.recv()
                except ValueError as error:  # of the JSON parser; the session goes on
                    seen.append(type(error).__name__)
                    continue
                seen.append(event.model_dump(warnings=False))
                ends -= event.type in ENDS
    except (openai.OpenAIError, WebSocketException, OSError) as error:
        seen.append(type(error).__name__)
    return seen


async def talk_async(base_url, events, ends):
    client = openai.AsyncOpenAI(base_url=base_url, api_key="sk-test", max_retries=0)
    seen = []
    async with client.realtime.connect(model=MODEL) as session:
        for event in events:
            await session.send(event)
        while ends:
            event = await session.recv()
            seen.append(event.model_dump(warnings=False))
            ends -= event.type in ENDS
    return seen


@pytest.mark.parametrize("name", TALKS)
def test_a_session_through_weir_is_the_same(house, name):
    direct = talk(f"{house.simulator}/v1", *TALKS[name])
    assert direct[0]["type"] == "session.created" and direct[-1]["type"] in ENDS
    assert talk(f"{house.app}/openai/v1", *TALKS[name]) == direct
    assert asyncio.run(talk_async(f"{house.app}/openai/v1", *TALKS[name])) == direct


@pytest.mark.parametrize(
    "script",
    ["status=401", "status=500", "reset", "cut=after 5 chunks", "cut", "stream-error", "bad-json", "no-usage", "x"],
)
def test_a_session_that_goes_wrong_does_so_in_the_same_way(house, script):
    events, ends = TALKS["speech"]
    direct = talk(f"{house.simulator}/v1", events, ends, script)
    weir = talk(f"{house.app}/openai/v1", events, ends, script)
    if script == "reset":
        # Without an answer to pass on, weir has one of its own: 502.
        assert direct != weir and weir == ["InvalidStatus"]
    else:
        assert weir == direct


def test_every_byte_of_every_message_is_the_same(house):
    def digest(base):
        url = base.replace("http:", "ws:") + f"/v1/realtime?model={MODEL}"
        protocols = ["realtime", "openai-insecure-api-key.sk-test"]
        sha = hashlib.sha256()
        with websockets.sync.client.connect(url, subprotocols=protocols) as socket:
            assert socket.subprotocol == "realtime"
            socket.send('{"type":"response.create"}')
            while True:
                message = socket.recv()
                sha.update(message.encode() + b"\0")
                if '"response.done"' in message:
                    return sha.hexdigest()

    assert digest(f"{house.app}/openai") == digest(house.simulator)


def test_tokens_equal_the_bill_while_the_session_lasts(fresh_house):
    client = openai.OpenAI(base_url=f"{fresh_house.app}/openai/v1", api_key="sk-test")
    events, ends = TALKS["what is heard is written down"]
    with client.realtime.connect(model=MODEL) as session:
        for event in events:
            session.send(event)
        while ends:
            ends -= session.recv().type in ENDS
        eventually(lambda: fresh_house.sum("weir_requests_total", operation="chat") == 1)
        assert fresh_house.sum("weir_requests_in_flight") == 1
        lines = {line["model"]: line for line in fresh_house.bill()["lines"]}
        assert lines.keys() == {MODEL, TRANSCRIBER}
        for model, operation in [(MODEL, "chat"), (TRANSCRIBER, "transcription")]:
            labels = {"provider": "openai", "model": model}
            tokens = fresh_house.sum("weir_tokens_total", **labels)
            assert tokens == lines[model]["input"] + lines[model]["output"], model
            assert fresh_house.sum("weir_requests_total", operation=operation, outcome="success", **labels) == 1
            assert fresh_house.sum("weir_cost_usd_total", **labels) > 0
    fresh_house.settle()
    assert fresh_house.sum("weir_requests_total", operation="other", outcome="success") == 1
    assert fresh_house.sum("weir_unpriced_requests_total") == 0
