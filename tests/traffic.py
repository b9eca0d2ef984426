"""Traffic of many kinds, whose bill is worth comparing: whole and streamed, scripted and true, refused and repeated."""

import anthropic
import openai

import test_anthropic
import test_openai
from observe import observe

# Counts that the simulator is told to report, so that every class of tokens occurs.
SCRIPTS = [
    "usage=input:100,cached:40,output:20,reasoning:12",
    "usage=input:1000,output:1",
    "usage=input:3,output:0",
    "status=500",
    "gzip",
    "",
]
KINDS = [
    (openai, "/openai/v1", test_openai.CALLS["chat"]),
    (openai, "/openai/v1", test_openai.CALLS["chat stream"]),
    (openai, "/openai/v1", test_openai.CALLS["chat stream with usage"]),
    (openai, "/openai/v1", test_openai.CALLS["responses"]),
    (openai, "/openai/v1", test_openai.CALLS["responses stream"]),
    (anthropic, "/anthropic", test_anthropic.CALLS["messages"]),
    (anthropic, "/anthropic", test_anthropic.CALLS["messages stream"]),
]


def make_traffic(house):
    """Makes every kind of call with every script, and then each once more, as it was the last time."""
    embed = test_openai.CALLS["embeddings"]
    for text in ("weir", "dam", "weir"):
        observe(lambda client: embed(client, text), openai, "sync", f"{house.app}/openai/v1")
    for sdk, route, call in KINDS:
        for number, script in enumerate([*SCRIPTS, SCRIPTS[-1]]):
            headers = {"x-simulate": script} if script else {}
            prompt = f"What is a weir? {min(number, len(SCRIPTS) - 1)}"
            observe(lambda client: call(client, prompt), sdk, "sync", house.app + route, default_headers=headers)
    house.settle()
