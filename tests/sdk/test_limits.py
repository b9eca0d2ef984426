"""What limits and budgets say, official SDKs understand: they come back when they are told to, do not where that is in vain,
hand on what came of a stream that was ended, and tell which model answered."""

import time
import uuid

import anthropic
import cohere
import httpx
import ollama
import openai
import pytest
from botocore.exceptions import ClientError
from cohere.errors import TooManyRequestsError
from google.genai import types
from google.genai.errors import ClientError as GeminiError

from house import AWS_KEYS, CONFIG, open_house
from observe import client_of
from test_anthropic import asked as anthropic_asked
from test_bedrock import CLAUDE, says
from test_bedrock import client_of as bedrock_client
from test_cohere import asked as cohere_asked
from test_gemini import MODEL as GEMINI
from test_gemini import gemini
from test_ollama import asked as ollama_asked
from test_openai import CHAT

pytestmark = pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecatedSince20")

CHEAPER = "gpt-5-nano"

LIMITS = f"""
limits:
  - {{{{ name: brief, match: {{{{ workspace: back-off }}}}, per: user, requests_per_second: 1 }}}}
  - {{{{ name: long, match: {{{{ workspace: in-vain }}}}, per: user, requests_per_day: 1 }}}}
budgets:
  - {{{{ name: spent, match: {{{{ workspace: spent }}}}, per: user, limit_tokens: 1, window: total, enforce: block }}}}
  - {{{{ name: ends, match: {{{{ workspace: ends }}}}, per: user, limit_tokens: 1, window: total, enforce: block, stop_streams: true }}}}
  - {{{{ name: app, match: {{{{ workspace: cheaper }}}}, per: user, limit_tokens: 1, window: total, enforce: downgrade,
      downgrade_to: {CHEAPER} }}}}
"""


@pytest.fixture(scope="module")
def limited(tmp_path_factory):
    with open_house(tmp_path_factory.mktemp("limited"), config=CONFIG + LIMITS) as house:
        yield house


def somebody(workspace):
    """Headers of an app that nobody else is, held to the rules for this workspace."""
    return {"X-Workspace-ID": workspace, "X-User-ID": uuid.uuid4().hex}


class OpenAi:
    error = openai.RateLimitError

    def client(house, headers, **more):
        return client_of(openai, "sync", f"{house.app}/openai/v1", default_headers=headers, **more)

    def whole(client, prompt):
        return client.chat.completions.create(model=CHAT, messages=[{"role": "user", "content": prompt}])

    def stream(client, prompt):
        text, reason = "", None
        for chunk in client.chat.completions.create(model=CHAT, messages=[{"role": "user", "content": prompt}], stream=True):
            for choice in chunk.choices:
                text += choice.delta.content or ""
                reason = choice.finish_reason or reason
        return text, reason, "length"


class OpenAiHelper(OpenAi):
    def stream(client, prompt):
        with client.chat.completions.stream(model=CHAT, messages=[{"role": "user", "content": prompt}]) as stream:
            # The helper raises this at any answer that is as long as it may be.
            with pytest.raises(openai.LengthFinishReasonError) as caught:
                stream.get_final_completion()
        choice = caught.value.completion.choices[0]
        return choice.message.content, choice.finish_reason, "length"


class Responses(OpenAi):
    def whole(client, prompt):
        return client.responses.create(model=CHAT, input=prompt)

    def stream(client, prompt):
        events = list(client.responses.create(model=CHAT, input=prompt, stream=True))
        assert [event.sequence_number for event in events] == list(range(len(events)))
        response = events[-1].response
        assert (events[-1].type, response.status) == ("response.incomplete", "incomplete")
        deltas = "".join(event.delta for event in events if event.type == "response.output_text.delta")
        assert response.output_text == deltas
        return deltas, response.incomplete_details.reason, "max_output_tokens"


class Anthropic:
    error = anthropic.RateLimitError

    def client(house, headers, **more):
        return client_of(anthropic, "sync", f"{house.app}/anthropic", default_headers=headers, **more)

    def whole(client, prompt):
        return client.messages.create(**anthropic_asked(prompt))

    def stream(client, prompt):
        with client.messages.stream(**anthropic_asked(prompt)) as stream:
            message = stream.get_final_message()
        assert message.usage.output_tokens > 0
        return message.content[0].text, message.stop_reason, "max_tokens"


class Gemini:
    def client(house, headers):
        return gemini(f"{house.app}/gemini", headers=headers)

    def stream(client, prompt):
        text, reason = "", None
        for chunk in client.models.generate_content_stream(model=GEMINI, contents=prompt):
            text += chunk.text or ""
            reason = chunk.candidates[0].finish_reason or reason
        return text, reason, types.FinishReason.MAX_TOKENS


class Cohere:
    def client(house, headers):
        plain = httpx.Client(trust_env=False, verify=False, headers=headers)
        return cohere.ClientV2(api_key="sk-test", base_url=f"{house.app}/cohere", httpx_client=plain)

    def stream(client, prompt):
        text, reason, kinds = "", None, []
        for event in client.chat_stream(**cohere_asked(prompt)):
            kinds.append(event.type)
            if event.type == "content-delta":
                text += event.delta.message.content.text
            elif event.type == "message-end":
                reason = event.delta.finish_reason
        assert kinds[-2:] == ["content-end", "message-end"]
        return text, reason, "MAX_TOKENS"


class Ollama:
    def client(house, headers):
        return ollama.Client(host=f"{house.app}/ollama", headers=headers, trust_env=False, verify=False)

    def stream(client, prompt):
        lines = list(client.chat(**ollama_asked(prompt), stream=True))
        assert [line.done for line in lines] == [False] * (len(lines) - 1) + [True]
        return "".join(line.message.content for line in lines), lines[-1].done_reason, "length"


class Bedrock:
    def client(house, headers):
        return bedrock_client(f"{house.app}/bedrock", tuple(AWS_KEYS.values()), headers=headers)

    def stream(client, prompt):
        text, reason, kinds = "", None, []
        for event in client.converse_stream(modelId=CLAUDE, messages=says(prompt))["stream"]:
            ((kind, event),) = event.items()
            kinds.append(kind)
            text += event.get("delta", {}).get("text", "")
            reason = event.get("stopReason", reason)
        assert kinds[-3:] == ["contentBlockStop", "messageStop", "metadata"]
        return text, reason, "max_tokens"


@pytest.mark.parametrize("api", [OpenAi, OpenAiHelper, Responses, Anthropic, Gemini, Cohere, Ollama, Bedrock])
def test_a_stream_that_is_ended_ends_as_if_it_were_as_long_as_it_may_be(limited, prompt, api):
    client = api.client(limited, somebody("ends"))
    text, reason, expected = api.stream(client, prompt)
    assert text
    assert reason == expected


@pytest.mark.parametrize("api", [OpenAi, Responses, Anthropic])
def test_an_sdk_comes_back_when_it_is_told_to(limited, prompt, api):
    attempts = []
    with api.client(limited, somebody("back-off"), max_retries=5, attempts=attempts) as client:
        for number in range(1, 20):
            began = time.monotonic()
            api.whole(client, f"{prompt} {number}")
            if len(attempts) > number:
                break
    assert len(attempts) > number, "none of twenty calls came too early"
    assert time.monotonic() - began < 5, "it waits no longer than it is told to"


@pytest.mark.parametrize("api", [OpenAi, Responses, Anthropic])
def test_a_refusal_says_when_to_come_back(limited, prompt, api):
    with api.client(limited, somebody("back-off")) as client, pytest.raises(api.error) as caught:
        for number in range(20):
            api.whole(client, f"{prompt} {number}")
    told = caught.value.response.headers
    assert 0 < int(told["retry-after-ms"]) <= 1000
    assert told["retry-after"] == "1"


@pytest.mark.parametrize("api", [OpenAi, Responses, Anthropic])
@pytest.mark.parametrize("workspace", ["in-vain", "spent"])
def test_an_sdk_does_not_try_again_in_vain(limited, prompt, api, workspace):
    attempts = []
    with api.client(limited, somebody(workspace), max_retries=5, attempts=attempts) as client:
        api.whole(client, f"{prompt} first")
        limited.settle()
        attempts.clear()
        with pytest.raises(api.error) as caught:
            api.whole(client, f"{prompt} second")
    assert len(attempts) == 1
    assert f"`{'long' if workspace == 'in-vain' else 'spent'}`" in str(caught.value)
    if workspace == "spent" and api is not Anthropic:
        assert (caught.value.code, caught.value.type) == ("insufficient_quota", "insufficient_quota")


def test_google_and_amazon_and_cohere_say_in_their_own_words_that_it_is_too_much(limited, prompt):
    client = Gemini.client(limited, somebody("in-vain"))
    client.models.generate_content(model=GEMINI, contents=f"{prompt} first")
    with pytest.raises(GeminiError) as caught:
        client.models.generate_content(model=GEMINI, contents=f"{prompt} second")
    assert (caught.value.code, caught.value.status) == (429, "RESOURCE_EXHAUSTED")
    retry = [detail for detail in caught.value.details["error"]["details"] if detail["@type"].endswith("RetryInfo")]
    assert float(retry[0]["retryDelay"].rstrip("s")) > 60

    client = Bedrock.client(limited, somebody("in-vain"))
    client.converse(modelId=CLAUDE, messages=says(f"{prompt} first"))
    with pytest.raises(ClientError) as caught:
        client.converse(modelId=CLAUDE, messages=says(f"{prompt} second"))
    assert caught.value.response["Error"]["Code"] == "ThrottlingException"

    client = Cohere.client(limited, somebody("in-vain"))
    client.chat(**cohere_asked(f"{prompt} first"))
    with pytest.raises(TooManyRequestsError):
        client.chat(**cohere_asked(f"{prompt} second"), request_options={"max_retries": 0})


def test_who_asked_another_model_is_told(limited, prompt):
    with OpenAi.client(limited, somebody("cheaper")) as client:
        first = client.chat.completions.with_raw_response.create(
            model=CHAT, messages=[{"role": "user", "content": f"{prompt} first"}]
        )
        assert "x-weir-downgraded" not in first.headers
        limited.settle()
        second = client.chat.completions.with_raw_response.create(
            model=CHAT, messages=[{"role": "user", "content": f"{prompt} second"}]
        )
    assert second.headers["x-weir-downgraded"] == f'{CHAT}; budget="app"'
    assert second.parse().model.startswith(CHEAPER)
