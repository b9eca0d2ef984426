"""Through weir, apps with the SDKs of other clouds, and of frameworks, see what they see without weir.

Every call is made twice with the same SDK: at the simulated vendor, and at weir in front of it. `base` is where the
vendor's own host name would be.
"""

import groq
import httpx
import httpx2
import langchain_openai
import litellm
import openai
import pytest
import together
from mistralai.client import Mistral

from observe import stable

MODEL, EMBEDDING = "gpt-4o-mini", "text-embedding-3-small"
TOOL = {
    "type": "function",
    "function": {
        "name": "forecast",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
# Members that weir's asking for usage adds to every chunk, as null.
UNSAID = {"usage"}


def messages(prompt):
    return [{"role": "user", "content": prompt}]


def plain(thing):
    """What an SDK returned, as data that two equal calls share."""
    if isinstance(thing, bytes):
        return thing
    if hasattr(thing, "model_dump"):
        data = stable(thing.model_dump(mode="json"))
        return {name: value for name, value in data.items() if name not in UNSAID or value is not None}
    if hasattr(thing, "read"):
        return thing.read()
    return [plain(event) for event in thing]


def groq_at(base):
    return groq.Groq(api_key="sk-test", base_url=base, max_retries=0, http_client=httpx.Client(trust_env=False))


def together_at(base):
    return together.Together(api_key="sk-test", base_url=base, max_retries=0, http_client=httpx.Client(trust_env=False))


def mistral_at(base):
    return Mistral(api_key="sk-test", server_url=base, client=httpx.Client(trust_env=False))


def azure_at(base):
    return openai.AzureOpenAI(
        api_key="sk-test",
        api_version="2025-04-01-preview",
        azure_endpoint=base,
        max_retries=0,
        http_client=httpx2.Client(trust_env=False),
    )


def openai_at(base):
    http_client = httpx2.Client(trust_env=False)
    return openai.OpenAI(api_key="sk-test", base_url=f"{base}/v1", max_retries=0, http_client=http_client)


def openai_style(client):
    """The calls that SDKs made by the same generator share."""
    create = client.chat.completions.create
    return {
        "chat": lambda prompt: create(model=MODEL, messages=messages(prompt)),
        "chat with a tool": lambda prompt: create(
            model=MODEL, messages=messages(prompt), tools=[TOOL], tool_choice="required"
        ),
        "chat stream": lambda prompt: create(model=MODEL, messages=messages(prompt), stream=True),
        "chat stream of a tool call": lambda prompt: create(
            model=MODEL, messages=messages(prompt), tools=[TOOL], tool_choice="required", stream=True
        ),
        "embeddings": lambda prompt: client.embeddings.create(model=EMBEDDING, input=[prompt]),
    }


def media(client):
    """Pictures, speech and transcriptions, as OpenAI's SDK has them."""
    sound = ("a.mp3", b"ID3" + bytes(40_000), "audio/mpeg")
    hear = client.audio.transcriptions.create
    return {
        "images": lambda prompt: client.images.generate(model="gpt-image-2", prompt=prompt),
        "images stream": lambda prompt: client.images.generate(model="gpt-image-2", prompt=prompt, stream=True),
        "image edit": lambda prompt: client.images.edit(model="gpt-image-2", prompt=prompt, image=("a.png", b"\x89PNG")),
        "speech": lambda prompt: client.audio.speech.create(model="tts-1", input=prompt, voice="alloy"),
        "transcription": lambda prompt: hear(model="whisper-1", file=sound),
        "transcription in words": lambda prompt: [hear(model="gpt-4o-transcribe", file=sound, response_format="json")],
        "transcription stream": lambda prompt: hear(model="gpt-4o-transcribe", file=sound, stream=True),
    }


def groq_calls(base):
    client = groq_at(base)
    sound = ("a.mp3", b"ID3" + bytes(40_000))
    return openai_style(client) | {
        "speech": lambda prompt: client.audio.speech.create(model="tts-1", input=prompt, voice="troy"),
        "transcription": lambda prompt: client.audio.transcriptions.create(model="whisper-1", file=sound),
    }


def together_calls(base):
    client = together_at(base)
    complete = client.completions.create
    return openai_style(client) | {
        "completions": lambda prompt: complete(model="gpt-3.5-turbo-instruct", prompt=prompt, max_tokens=20),
    }


def azure_calls(base):
    client = azure_at(base)
    respond = client.responses.create
    return openai_style(client) | media(client) | {
        "responses": lambda prompt: respond(model="gpt-5", input=prompt, store=False),
        "responses stream": lambda prompt: respond(model="gpt-5", input=prompt, store=False, stream=True),
    }


def openai_calls(base):
    client = openai_at(base)
    return media(client) | {
        "moderations": lambda prompt: client.moderations.create(input=prompt),
        "batches": lambda prompt: client.batches.create(
            input_file_id="file-1", endpoint="/v1/chat/completions", completion_window="24h"
        ),
    }


def mistral_calls(base):
    client = mistral_at(base)
    return {
        "chat": lambda prompt: client.chat.complete(model=MODEL, messages=messages(prompt)),
        "chat with a tool": lambda prompt: client.chat.complete(
            model=MODEL, messages=messages(prompt), tools=[TOOL], tool_choice="required"
        ),
        "chat stream": lambda prompt: list(client.chat.stream(model=MODEL, messages=messages(prompt))),
    }


def langchain_calls(base):
    options = {"model": MODEL, "api_key": "sk-test", "max_retries": 0, "http_client": httpx2.Client(trust_env=False)}
    chat = langchain_openai.ChatOpenAI(base_url=f"{base}/v1", **options)
    return {
        "chat": lambda prompt: chat.invoke(prompt).content,
        "chat with a tool": lambda prompt: str(chat.bind_tools([TOOL], tool_choice="any").invoke(prompt).tool_calls),
        "chat stream": lambda prompt: "|".join(str(piece.content) for piece in chat.stream(prompt)),
    }


def litellm_calls(base):
    def complete(prompt, **more):
        return litellm.completion(
            model=f"openai/{MODEL}", api_base=f"{base}/v1", api_key="sk-test", messages=messages(prompt), **more
        )

    def texts(chunks):
        return "|".join(chunk.choices[0].delta.content or "" for chunk in chunks)

    return {
        "chat": lambda prompt: complete(prompt).choices[0].message.content,
        "chat with usage": lambda prompt: str(complete(prompt).usage),
        "chat stream": lambda prompt: texts(complete(prompt, stream=True)),
        "embeddings": lambda prompt: str(
            litellm.embedding(
                model=f"openai/{EMBEDDING}", api_base=f"{base}/v1", api_key="sk-test", input=[prompt], encoding_format="float"
            ).data[0]["embedding"][:8]
        ),
    }


# The SDK, the path of its vendor at weir, and that path at the simulator.
SDKS = {
    "groq": (groq_calls, "/groq", "/groq"),
    "together": (together_calls, "/together", "/together"),
    "mistralai": (mistral_calls, "/mistral", "/mistral"),
    "azure": (azure_calls, "/azure", "/azure"),
    "openai": (openai_calls, "/openai", ""),
    "langchain": (langchain_calls, "/openai", ""),
    "litellm": (litellm_calls, "/openai", ""),
}
CASES = [(sdk, name) for sdk, (calls, *_) in SDKS.items() for name in calls("http://127.0.0.1:9")]


@pytest.mark.parametrize(("sdk", "name"), CASES, ids=lambda part: part)
def test_a_call_gives_the_same(house, prompt, sdk, name):
    calls, at_weir, at_simulator = SDKS[sdk]
    direct, through, again = (
        seen(calls(base)[name](prompt))
        for base in (f"{house.simulator}{at_simulator}", f"{house.app}{at_weir}", f"{house.app}{at_weir}")
    )
    assert direct
    assert through == direct
    assert again == direct, "the second time, perhaps from the cache"


def seen(result):
    return result if isinstance(result, str) else plain(result)


@pytest.mark.parametrize(
    ("provider", "path"),
    [
        ("groq", "/groq/v1"),
        ("groq", "/groq/openai/v1"),
        ("groq", "/groq"),
        ("deepseek", "/deepseek"),
        ("deepseek", "/deepseek/v1"),
        ("fireworks_ai", "/fireworks/inference/v1"),
        ("mistral_ai", "/mistral/v1"),
        ("openrouter", "/openrouter/api/v1"),
        ("perplexity", "/perplexity"),
        ("together_ai", "/together/v1"),
        ("x_ai", "/xai/v1"),
        ("azure.ai.openai", "/azure/openai/v1"),
    ],
)
def test_a_stream_is_counted_however_its_vendor_tells(fresh_house, prompt, provider, path):
    client = openai.OpenAI(api_key="sk-test", base_url=f"{fresh_house.app}{path}", http_client=httpx2.Client(trust_env=False))
    text = "".join(
        chunk.choices[0].delta.content or ""
        for chunk in client.chat.completions.create(model=MODEL, messages=messages(prompt), stream=True)
        if chunk.choices
    )
    assert text
    fresh_house.settle()
    (line,) = fresh_house.bill()["lines"]
    assert fresh_house.sum("weir_tokens_total", provider=provider) == line["input"] + line["output"]


def test_what_costs_nothing_is_not_unpriced(fresh_house):
    openai_calls(f"{fresh_house.app}/openai")["batches"]("")
    fresh_house.settle()
    assert fresh_house.sum("weir_requests_total") == 1
    assert fresh_house.sum("weir_unpriced_requests_total") == 0


def test_speech_is_charged_by_the_character_and_transcription_by_the_second(fresh_house):
    calls = openai_calls(f"{fresh_house.app}/openai")
    calls["speech"]("Grüße").read()
    calls["transcription"]("")
    fresh_house.settle()
    lines = {line["model"]: line for line in fresh_house.bill()["lines"]}
    assert (lines["tts-1"]["characters"], lines["whisper-1"]["seconds"]) == (5, 3)
    expected = 5 * 15 / 1e6 + 3 * 0.36 / 3600
    assert fresh_house.sum("weir_cost_usd_total") == pytest.approx(expected)
