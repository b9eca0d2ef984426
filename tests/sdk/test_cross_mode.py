"""With `cache.cross_mode`, an app gets an answer that came in the other form, and sees through its SDK what it would have
seen of a call of its own: text, thoughts, calls of tools, why it stopped, and what was used."""

import json

import anthropic
import cohere
import httpx
import ollama
import openai
import pytest

from house import AWS_KEYS, CONFIG, open_house
from observe import client_of
from test_anthropic import TOOL as ANTHROPIC_TOOL
from test_anthropic import asked as anthropic_asked
from test_bedrock import CLAUDE, says
from test_bedrock import TOOL as BEDROCK_TOOL
from test_bedrock import client_of as bedrock_client
from test_cohere import TOOL as COHERE_TOOL
from test_cohere import asked as cohere_asked
from test_gemini import MODEL as GEMINI
from test_gemini import MUST_CALL, THINKING, gemini
from test_ollama import asked as ollama_asked
from test_ollama import with_tool as ollama_with_tool
from test_openai import CHAT, CHAT_TOOL, RESPONSES_TOOL

pytestmark = pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecatedSince20")

USAGE = {"include_usage": True}
# The SDK's helper for streams takes strict tools only.
STRICT_TOOL = {"type": "function", "function": CHAT_TOOL["function"] | {"strict": True}}
CALLS_TOOL = {"tools": [STRICT_TOOL], "tool_choice": "required"}


@pytest.fixture(scope="module")
def crossing(tmp_path_factory):
    with open_house(tmp_path_factory.mktemp("crossing"), config=CONFIG + "cache: {{ cross_mode: true }}\n") as house:
        yield house


def plain():
    return httpx.Client(trust_env=False, verify=False)


def without_ids(thing):
    """An SDK's object as data, without what belongs to one reply."""
    dumped = thing.model_dump(mode="json", warnings=False) if hasattr(thing, "model_dump") else thing
    if isinstance(dumped, dict):
        belongs = {"id", "created", "created_at", "completed_at", "call_id", "item_id", "response_id", "toolUseId"}
        return {name: without_ids(value) for name, value in dumped.items() if name not in belongs}
    if isinstance(dumped, (list, tuple)):
        return [without_ids(item) for item in dumped]
    return dumped


class OpenAi:
    route = "/openai/v1"
    cases = {"text": {}, "tool": CALLS_TOOL, "choices": {"n": 2, "seed": 1}}

    def whole(url, prompt, **more):
        with client_of(openai, "sync", url) as client:
            messages = [{"role": "user", "content": prompt}]
            return without_ids(client.chat.completions.create(model=CHAT, messages=messages, **more))

    def stream(url, prompt, **more):
        """Put together by the SDK."""
        with client_of(openai, "sync", url) as client:
            messages = [{"role": "user", "content": prompt}]
            with client.chat.completions.stream(model=CHAT, messages=messages, stream_options=USAGE, **more) as stream:
                return without_ids(stream.get_final_completion())


class OpenAiUnasked(OpenAi):
    """The app does not ask for usage; weir does, and tells it to who wants one piece."""

    cases = {"text": {}, "tool": CALLS_TOOL}

    def stream(url, prompt, **more):
        with client_of(openai, "sync", url) as client:
            messages = [{"role": "user", "content": prompt}]
            chunks = list(client.chat.completions.create(model=CHAT, messages=messages, stream=True, **more))
        assert all(chunk.usage is None for chunk in chunks)
        deltas = [chunk.choices[0].delta for chunk in chunks]
        calls = {}
        for call in (call for delta in deltas for call in delta.tool_calls or []):
            name, arguments = calls.get(call.index, ("", ""))
            calls[call.index] = (name or call.function.name, arguments + (call.function.arguments or ""))
        reasons = [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices[0].finish_reason]
        return {"text": "".join(delta.content or "" for delta in deltas), "calls": calls, "reasons": reasons}


class Responses:
    route = "/openai/v1"
    cases = {"text": {}, "tool": {"tools": [RESPONSES_TOOL], "tool_choice": "required"}}

    def whole(url, prompt, **more):
        with client_of(openai, "sync", url) as client:
            return without_ids(client.responses.create(model=CHAT, input=prompt, store=False, **more))

    def stream(url, prompt, **more):
        with client_of(openai, "sync", url) as client:
            with client.responses.stream(model=CHAT, input=prompt, store=False, **more) as stream:
                return without_ids(stream.get_final_response())


class Anthropic:
    route = "/anthropic"
    cases = {
        "text": {},
        "tool": {"tools": [ANTHROPIC_TOOL], "tool_choice": {"type": "any"}},
        "thoughts": {"max_tokens": 4000, "thinking": {"type": "enabled", "budget_tokens": 2000}},
    }

    def whole(url, prompt, **more):
        with client_of(anthropic, "sync", url) as client:
            return without_ids(client.messages.create(**anthropic_asked(prompt, **more)))

    def stream(url, prompt, **more):
        with client_of(anthropic, "sync", url) as client:
            with client.messages.stream(**anthropic_asked(prompt, **more)) as stream:
                return without_ids(stream.get_final_message())


class Gemini:
    route = "/gemini"
    cases = {"text": {}, "tool": {"config": MUST_CALL}, "thoughts": {"config": THINKING}}

    def whole(url, prompt, **more):
        client = gemini(url)
        reply = client.models.generate_content(model=GEMINI, contents=prompt, **more)
        return without_ids({"candidates": [without_ids(one) for one in reply.candidates], "usage": without_ids(reply.usage_metadata)})

    def stream(url, prompt, **more):
        client = gemini(url)
        texts, calls, reason, usage = {False: "", True: ""}, [], None, None
        for chunk in client.models.generate_content_stream(model=GEMINI, contents=prompt, **more):
            candidate = chunk.candidates[0]
            for part in (candidate.content and candidate.content.parts) or []:
                texts[bool(part.thought)] += part.text or ""
                calls += [(part.function_call.name, part.function_call.args)] if part.function_call else []
            reason, usage = candidate.finish_reason or reason, chunk.usage_metadata or usage
        return {"texts": texts, "calls": calls, "reason": reason, "usage": without_ids(usage)}


class Cohere:
    route = "/cohere"
    cases = {
        "text": {},
        "tool": {"tools": [COHERE_TOOL], "tool_choice": "REQUIRED"},
        "thoughts": {"thinking": {"type": "enabled"}},
        "citations": {"documents": ["Weirs dam rivers."]},
    }

    def client(url):
        return cohere.ClientV2(api_key="sk-test", base_url=url, httpx_client=plain())

    def whole(url, prompt, **more):
        return without_ids(Cohere.client(url).chat(**cohere_asked(prompt, **more)))

    def stream(url, prompt, **more):
        texts, plan, calls, citations, ending = {}, "", {}, [], None
        for event in Cohere.client(url).chat_stream(**cohere_asked(prompt, **more)):
            message = getattr(event.delta, "message", None) if getattr(event, "delta", None) else None
            if event.type == "content-delta":
                content = message.content
                text = getattr(content, "text", None) or getattr(content, "thinking", None)
                texts[event.index] = texts.get(event.index, "") + text
            elif event.type == "tool-plan-delta":
                plan += message.tool_plan
            elif event.type == "tool-call-start":
                calls[event.index] = [message.tool_calls.function.name, ""]
            elif event.type == "tool-call-delta":
                calls[event.index][1] += message.tool_calls.function.arguments
            elif event.type == "citation-start":
                citations.append(without_ids(message.citations))
            elif event.type == "message-end":
                ending = without_ids(event.delta)
        return {"texts": texts, "plan": plan, "calls": calls, "citations": citations, "ending": ending}


class Ollama:
    route = "/ollama"
    cases = {"text": {}, "tool": {"tool": True}, "thoughts": {"think": True}}
    # Times are measured.
    measured = {"total_duration", "load_duration", "prompt_eval_duration", "eval_duration"}

    def asked(prompt, tool=False, **more):
        return ollama_with_tool(prompt, **more) if tool else ollama_asked(prompt, **more)

    def counted(reply):
        return {name: value for name, value in without_ids(reply).items() if name not in Ollama.measured}

    def whole(url, prompt, **more):
        client = ollama.Client(host=url, trust_env=False, verify=False)
        return Ollama.counted(client.chat(**Ollama.asked(prompt, **more), stream=False))

    def stream(url, prompt, **more):
        client = ollama.Client(host=url, trust_env=False, verify=False)
        lines = list(client.chat(**Ollama.asked(prompt, **more), stream=True))
        said = {
            name: "".join(getattr(line.message, name) or "" for line in lines) for name in ("content", "thinking")
        }
        calls = [without_ids(call) for line in lines for call in line.message.tool_calls or []]
        assert [line.done for line in lines] == [False] * (len(lines) - 1) + [True]
        return said | {"calls": calls, "last": Ollama.counted(lines[-1]) | {"message": None}}


class Bedrock:
    route = "/bedrock"
    cases = {"text": {}, "tool": {"toolConfig": {"tools": [BEDROCK_TOOL], "toolChoice": {"any": {}}}}}

    def whole(url, prompt, **more):
        reply = bedrock_client(url, tuple(AWS_KEYS.values())).converse(modelId=CLAUDE, messages=says(prompt), **more)
        return without_ids({name: reply[name] for name in ("output", "stopReason", "usage")})

    def stream(url, prompt, **more):
        client = bedrock_client(url, tuple(AWS_KEYS.values()))
        blocks, said = {}, {}
        for event in client.converse_stream(modelId=CLAUDE, messages=says(prompt), **more)["stream"]:
            ((kind, event),) = event.items()
            if kind == "contentBlockStart":
                blocks[event["contentBlockIndex"]] = event["start"]["toolUse"]["name"] + ": "
            elif kind == "contentBlockDelta":
                delta = event["delta"]
                text = delta.get("text") or delta.get("toolUse", {}).get("input", "")
                blocks[event["contentBlockIndex"]] = blocks.get(event["contentBlockIndex"], "") + text
            elif kind in ("messageStart", "messageStop"):
                said |= event
            elif kind == "metadata":
                said["usage"] = event["usage"]
        return {"blocks": blocks, "said": said}


def normal(seen):
    """Arguments of tools are JSON: how it is spaced says nothing. Nor does a member that is empty or null: what streams
    leave out, the SDKs fill in."""
    if isinstance(seen, dict):
        return {name: normal(value) for name, value in seen.items() if value not in (None, [])}
    if isinstance(seen, (list, tuple)):
        return [normal(item) for item in seen]
    if isinstance(seen, str) and "{" in seen:
        start = seen.index("{")
        try:
            return seen[:start] + json.dumps(json.loads(seen[start:]), sort_keys=True)
        except ValueError:
            return seen
    return seen


CASES = [
    pytest.param(api, options, id=f"{api.__name__} {name}")
    for api in (OpenAi, OpenAiUnasked, Responses, Anthropic, Gemini, Cohere, Ollama, Bedrock)
    for name, options in api.cases.items()
]


@pytest.mark.parametrize("first", ["whole", "stream"])
@pytest.mark.parametrize(("api", "options"), CASES)
def test_a_call_is_answered_from_the_other_form_as_by_the_provider(crossing, prompt, api, options, first):
    second = {"whole": "stream", "stream": "whole"}[first]
    ask = {"whole": api.whole, "stream": api.stream}
    direct = crossing.simulator if api is Bedrock else crossing.simulator + direct_route(api)
    expected = ask[second](direct, prompt, **options)
    before = crossing.state()["received"]
    ask[first](crossing.app + api.route, prompt, **options)
    crossing.settle()
    seen = ask[second](crossing.app + api.route, prompt, **options)
    assert crossing.state()["received"] == before + 1, "the second call was answered from the cache"
    assert normal(seen) == normal(expected)


def direct_route(api):
    """Where the API is at the simulator, which has no names of providers in its paths."""
    return "/v1" if api.route.endswith("/v1") else ""
