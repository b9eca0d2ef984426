"""Similar requests, as an app sees them: the vectors are the simulator's, for which texts of the same words are near."""

import openai
import pytest

from house import AWS_KEYS, CONFIG, eventually, open_house
from observe import client_of

SIMILAR = """
cache:
  similar:
    url: "{simulator}/v1"
    model: text-embedding-3-small
    api_key_env: VECTORS_KEY
    threshold: 0.85
    timeout: 10s
"""
ASKED = "Please explain to me how a weir holds back the water of a river"
IN_OTHER_WORDS = "Please explain to me how the weir holds back the water of a river"


@pytest.fixture
def similar_house(tmp_path):
    with open_house(tmp_path, AWS_KEYS | {"VECTORS_KEY": "sk-vectors"}, CONFIG + SIMILAR) as own:
        yield own


def ask(house, prompt, key="sk-one", headers=None, **options):
    """Asks by chat completion, and tells what `X-Cache` says and what came."""
    with client_of(openai, "sync", f"{house.app}/openai/v1", api_key=key) as client:
        messages = options.pop("messages", []) + [{"role": "user", "content": prompt}]
        raw = client.chat.completions.with_raw_response.create(
            model="gpt-4o-mini", messages=messages, extra_headers=headers or {}, **options
        )
    return raw.headers["x-cache"], raw.parse()


def learn(house):
    """Asks, and waits until the answer is known to similar requests."""
    status, reply = ask(house, ASKED)
    assert status == "MISS"
    eventually(lambda: house.sum("weir_cache_entries", backend="similar") == 1)
    return reply


def test_a_request_in_other_words_gets_the_same_answer(similar_house):
    reply = learn(similar_house)
    assert ask(similar_house, IN_OTHER_WORDS) == ("SIMILAR", reply)
    assert similar_house.sum("weir_tokens_saved_total", source="similar") == reply.usage.total_tokens


@pytest.mark.parametrize(
    "asked",
    [
        pytest.param({"key": "sk-two"}, id="another key"),
        pytest.param({"headers": {"x-cache-namespace": "two"}}, id="another namespace"),
        pytest.param({"messages": [{"role": "system", "content": "Be terse."}]}, id="another system prompt"),
        pytest.param({"temperature": 0.5}, id="another temperature"),
        pytest.param({"headers": {"x-cache-similar": "off"}}, id="an app that declines"),
    ],
)
def test_another_context_never_does(similar_house, asked):
    learn(similar_house)
    assert ask(similar_house, IN_OTHER_WORDS, **asked)[0] == "MISS"


@pytest.mark.parametrize("prompt", [IN_OTHER_WORDS.replace("the weir", "no weir"), f"{IN_OTHER_WORDS} 2 times"])
def test_another_meaning_never_does(similar_house, prompt):
    learn(similar_house)
    assert ask(similar_house, prompt)[0] == "MISS"


def test_a_stream_is_answered_by_a_stream(similar_house):
    def stream(prompt):
        with client_of(openai, "sync", f"{similar_house.app}/openai/v1") as client:
            messages = [{"role": "user", "content": prompt}]
            chunks = client.chat.completions.create(model="gpt-4o-mini", messages=messages, stream=True)
            return [chunk.model_dump() for chunk in chunks]

    first = stream(ASKED)
    eventually(lambda: similar_house.sum("weir_cache_entries", backend="similar") == 1)
    assert stream(IN_OTHER_WORDS) == first
    assert similar_house.sum("weir_cache_similar_requests_total", result="hit") == 1
