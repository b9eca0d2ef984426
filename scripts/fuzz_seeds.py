"""Seeds for the fuzz targets, from the fixtures: `python3 scripts/fuzz_seeds.py <corpus directory>`.

An input is laid out as fuzz/lib.rs reads it: which endpoint, how the reply came, and its bytes in pieces.
"""

import base64
import gzip
import json
import re
import struct
import sys
import zlib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FIXTURES = ROOT / "tests" / "fixtures"

# Paths, the target that reads their replies, and the endpoint's place in the target's list.
READERS = [
    (r"/v2/chat$", "read_cohere", 0),
    (r"/v1/chat$", "read_cohere", 1),
    (r"/v1/generate$", "read_cohere", 2),
    (r"/v[12]/embed$", "read_cohere", 3),
    (r"/v[12]/rerank$", "read_cohere", 4),
    (r"/v1/classify$", "read_cohere", 5),
    (r"/v1/tokenize$", "read_cohere", 6),
    (r"/api/chat$", "read_ollama", 0),
    (r"/api/generate$", "read_ollama", 1),
    (r"/api/embed", "read_ollama", 2),
    (r"/generate$", "read_tgi", 0),
    (r"/generate_stream$", "read_tgi", 1),
    (r"/completion$", "read_llamacpp", 0),
    (r"/converse", "read_bedrock_converse", 0),
    (r"/count-tokens$", "read_bedrock_converse", 1),
    (r"/invoke", "read_bedrock_invoke", 0),
    (r":generateContent$", "read_gemini", 0),
    (r":streamGenerateContent$", "read_gemini", 1),
    (r":countTokens$", "read_gemini", 2),
    (r":(batchE|e)mbedContents?$", "read_gemini", 3),
    (r":predict$", "read_gemini", 4),
    (r"/interactions$", "read_gemini", 5),
    (r"awPredict$", "read_anthropic", 2),
    (r"/messages$", "read_anthropic", 0),
    (r"/messages/count_tokens$", "read_anthropic", 1),
    (r"/(chat|fim|agents)/completions$", "read_openai_chat", 0),
    (r"/completions$", "read_openai_chat", 1),
    (r"/responses$", "read_openai_responses", 0),
    (r"/responses/compact$", "read_openai_responses", 1),
    (r"/responses/input_tokens$", "read_openai_plain", 4),
    (r"/embeddings$", "read_openai_plain", 0),
    (r"/moderations$", "read_openai_plain", 1),
    (r"/decisions$", "read_openai_plain", 2),
    (r"/ocr$", "read_openai_plain", 3),
    (r"/images/", "read_openai_media", 0),
    (r"/audio/speech$", "read_openai_media", 1),
    (r"/audio/", "read_openai_media", 2),
]

# The places of some endpoints in `Endpoint::ALL`, and how many there are about.
ENDPOINTS = 41
ENDPOINT_OF = {
    ("read_openai_chat", 0): 0,
    ("read_openai_responses", 0): 1,
    ("read_openai_chat", 1): 3,
    ("read_openai_plain", 0): 4,
    ("read_anthropic", 0): 12,
    ("read_bedrock_converse", 0): 14,
    ("read_bedrock_invoke", 0): 15,
    ("read_cohere", 0): 17,
    ("read_cohere", 1): 18,
    ("read_ollama", 0): 24,
    ("read_ollama", 1): 25,
    ("read_tgi", 1): 28,
    ("read_llamacpp", 0): 29,
    ("read_gemini", 0): 31,
    ("read_gemini", 1): 32,
}

# How the names of replies end, the place of their content type in fuzz/lib.rs, and the target of their framing.
REPLIES = [
    (".response.json", 0, None),
    (".sse", 1, "sse"),
    (".ndjson", 2, "lines"),
    (".stream.json", 0, "array"),
    (".eventstream.jsonl", 4, "eventstream"),
]


def pieces(data: bytes, longest: int) -> bytes:
    cuts = (data[at : at + longest] for at in range(0, len(data), longest))
    return b"".join(bytes([len(cut)]) + cut for cut in cuts)


def message(source: dict) -> bytes:
    headers = b"".join(
        bytes([len(name)]) + name.encode() + b"\x07" + struct.pack(">H", len(value)) + value.encode()
        for name, value in source["headers"].items()
    )
    payload = source.get("payload", "")
    if "bytes" in source:
        payload = {"bytes": base64.b64encode(json.dumps(source["bytes"]).encode()).decode(), "p": source.get("p")}
    payload = payload.encode() if isinstance(payload, str) else json.dumps(payload).encode()
    head = struct.pack(">II", 16 + len(headers) + len(payload), len(headers))
    whole = head + struct.pack(">I", zlib.crc32(head)) + headers + payload
    return whole + struct.pack(">I", zlib.crc32(whole))


def websocket(messages: list[bytes]) -> bytes:
    frames = b""
    for text in messages:
        length = bytes([len(text)]) if len(text) < 126 else b"\x7e" + struct.pack(">H", len(text))
        frames += b"\x81" + length + text
    return frames


def packed(plain: bytes, how: int) -> bytes:
    """Coded as the second to fourth of fuzz/frames.rs: gzip under both its names, deflate."""
    return zlib.compress(plain) if how == 2 else gzip.compress(plain, mtime=0)


def recording(body: dict, reply: list[str]) -> bytes:
    request = {"method": "POST", "provider": "openai", "path": "/v1/chat/completions", "query": "a=b", "body": body}
    timing = [[len("".join(reply).encode()), 5]]
    response = {"status": 200, "headers": {"content-type": "text/event-stream"}, "body": reply, "timing": timing}
    return json.dumps({"version": 1, "request": request, "response": response}, indent=2).encode()


def envelope(body: bytes) -> bytes:
    facts = {"model": "m", "id": "1", "finish_reasons": ["stop"], "tools": []}
    head = {
        "asked": [1, 2], "stored_ms": 1700000000000, "lifetime_ms": 60000, "keep_ms": 60000, "status": 200,
        "headers": [["content-type", "text/plain"]], "provider": "openai", "model": "m", "namespace": None,
        "facts": facts, "usage": [["input_tokens", 3], ["output_tokens", 5]], "provider_cost": "12",
    }
    head = json.dumps(head).encode()
    plain = struct.pack("<I", len(head)) + head + body
    return b"\0" + struct.pack("<I", len(plain)) + plain


def state(state: dict) -> bytes:
    text = json.dumps(state, separators=(",", ":"))
    header = {"kept": "limits.json", "version": 1, "crc32": f"{zlib.crc32(text.encode()):08x}"}
    return f'{{"weir":{json.dumps(header)},\n"state":{text}}}\n'.encode()


def field(number: int, value: bytes) -> bytes:
    """A field of a protobuf message, of those whose length is written."""
    return bytes([number << 3 | 2, len(value)]) + value


def otlp(name: bytes) -> bytes:
    label = field(7, field(1, b"region") + field(2, field(1, b"eu")))
    point = label + b"\x19" + struct.pack("<Q", 1700000000000000000) + b"\x21" + struct.pack("<d", 2.5)
    kinds = [(5, field(1, point)), (7, field(1, point) + b"\x10\x02\x18\x01")]
    metrics = b"".join(field(2, field(1, name) + field(3, b"1") + field(kind, data)) for kind, data in kinds)
    return field(1, field(2, metrics))


# What is short enough to be written here: each is one seed of its target.
WORDS = {
    "admin_query": [
        "range=24h&granularity=hourly&limit=50&provider=openai",
        "from=2026-11-01&to=2026-11-02T00:00:00Z&granularity=minutely",
        "range=3w&cursor=AAAAAAAAAAGmZ9Mm&model=a%2Bb+c&user_id=%ff",
    ],
    "custom_metrics": [
        '{"name":"orders","type":"counter","value":3,"labels":{"region":"eu"},"unit":"orders","help":"How many."}',
        '{"metrics":[{"name":"depth","type":"gauge","value":-1.5},{"name":"wait","type":"histogram","values":[1,2.5],'
        '"buckets":[1,5]},{"name":"size","type":"summary","count":3,"sum":9,"quantiles":{"0.5":3}}]}',
    ],
    "labels": ["gpt-5*\ngpt-5-mini", "90m", "64MiB", "12.000000000001\na", "name \x07 with\tcontrols\n*"],
    "manifest": [
        "apiVersion: v1\nkind: Pod\nmetadata: {name: a, annotations: {weir.dev/cache: 'off'}}\n"
        "spec:\n  containers:\n  - name: app\n    image: app:1\n    env: [{name: OPENAI_API_KEY, value: k}]\n",
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a}\nspec:\n  template:\n    metadata: {labels: {a: b}}\n"
        "    spec:\n      containers:\n      - {name: app, image: 'app:1'}\n---\nkind: List\nitems: []\n",
    ],
    "prometheus_reply": [
        '\0{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"value":[1.5,"12.5"]}]}}',
        '\0{"status":"success","data":{"resultType":"scalar","result":[1.5,"1e-05"]}}',
        '\x01{"status":"error","errorType":"bad_data","error":"parse error"}',
    ],
    "redact": [
        '{"email":"jane.doe@example.com","card":"4111 1111 1111 1111","password":"hunter2 hunter2","text":"\\u00e9 \\"sk-"}',
        "call +1 (415) 555-2671 or 192.168.1.7, key sk-proj-abcdefghijklmnopqrstuvwxyz0123456789, IBAN DE89370400440532013000",
    ],
    "reply_head": [
        "x-ratelimit-limit-requests:500\nx-ratelimit-remaining-requests:499\nx-ratelimit-reset-requests:1m6.5s\nretry-after:7",
        "anthropic-ratelimit-tokens-reset:2026-11-01T00:00:00Z\nretry-after-ms:250\nopenai-processing-ms:12\nx-request-id:r",
        "retry-after:Wed, 21 Oct 2015 07:28:00 GMT\nrequest-id:req_1",
    ],
    "request_head": [
        "x-cache-namespace:team\nx-user-id:\xe9\nx-agent-id:a\nx-run-id:r\nx-stainless-retry-count:2\ncache-control:max-age=5",
        "cache-control:no-store, max-stale=\"7\"\nx-cache-ttl:90m\ncontent-type:multipart/form-data; boundary=\"b\"",
    ],
    "route": ["\0/v1/chat/completions?a=b", "\x01/../admin", "\x05/%2e%2e/x", "\x0b/openai/v1/files", "\x02//host/@x;a/..;/"],
    "traceparent": [
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00-more",
    ],
    "warm_lines": [
        '{"custom_id":"1","method":"POST","url":"/openai/v1/chat/completions","headers":{"a":"b"},"body":{"model":"m"}}\n\n{}\n',
    ],
    "export_resume": [
        '{"timestamp":"2026-11-01T00:00:00.000001Z","provider":"openai"}\n{"timestamp":"2026-11-01T00:00:01Z"}\n{"times',
    ],
}


def small_seeds():
    for target, texts in WORDS.items():
        for number, text in enumerate(texts):
            encoded = text.encode("latin-1" if target in ("prometheus_reply", "route", "request_head") else "utf-8")
            yield target, f"words-{number}", encoded
    for number, config in enumerate([ROOT / "docs" / "weir.default.yaml", *sorted((ROOT / "compose").rglob("*.yaml"))]):
        yield "config", f"{config.stem}-{number}", config.read_bytes()
    yield "config", "small", b"providers:\n  local: { api: openai, base_url: \"http://127.0.0.1:8000\" }\ncache: { ttl: 1h }\n"
    yield "config", "limits", (
        b"limits:\n  - { name: a, per: agent, requests_per_minute: 10 }\n"
        b"budgets:\n  - { name: b, limit_usd: 10, window: month, thresholds: [50, 100], enforce: alert }\n"
    )
    yield "recording", "stream", recording({"model": "m", "stream": True}, ["data: {}\n", "\n", "data: [DONE]\n", "\n"])
    yield "recording", "base64", recording({"base64": "AAEC"}, ["\u00e9\u0000"])
    yield "envelope", "plain", envelope(b"an answer")
    budget = {
        "name": "app", "counts": {"per": "app", "window": "month", "time_zone": "UTC"}, "since": 1700000000,
        "counted_since": 1700000000, "accounts": [{"usd": "1.5", "tokens": 7, "told_percent": 50}],
    }
    limit = {
        "name": "app", "per": "agent", "rates": [{"of": "requests", "limit": 60, "period_seconds": 60}],
        "subjects": [{"subject": "a", "full_for_ms": [5000]}],
    }
    yield "state", "file", state({"at": 1700000100, "budgets": [budget], "limits": [limit]})
    yield "otlp_metrics", "points", otlp(b"orders")


def seeds():
    for number, request in enumerate(sorted(FIXTURES.glob("*/*.request.json"))):
        name, asked = f"{request.parent.name}-{request.name.split('.')[0]}", json.loads(request.read_text())
        path = asked["path"].split("?")[0]
        target, which = next((target, which) for rule, target, which in READERS if re.search(rule, path))
        yield target, f"{name}-request", bytes([which | 128]) + f"{asked['path']}\n{json.dumps(asked.get('body'))}".encode()
        body = asked.get("body")
        text = json.dumps(body).encode()
        for endpoint in (number % ENDPOINTS, ENDPOINT_OF.get((target, which), 0)):
            yield "bodies", f"{name}-{endpoint}", bytes([endpoint]) + text
            yield "substitute", f"{name}-{endpoint}", bytes([endpoint]) + asked["path"].encode() + b"\n" + text
        yield "redact", name, text
        yield "key", name, f"{json.dumps(body)}\n{json.dumps(body, sort_keys=True, separators=(',', ':'))}".encode()
        for end, how, framing in REPLIES:
            file = request.with_name(request.name.replace(".request.json", end))
            if not file.exists():
                continue
            reply = file.read_bytes()
            lines = [line for line in reply.splitlines() if line]
            if framing == "eventstream":
                reply = b"".join(message(json.loads(line)) for line in lines)
            yield target, name, bytes([which, how]) + pieces(reply, 255)
            endpoint = ENDPOINT_OF.get((target, which), 0)
            yield "stop", name, bytes([endpoint, how]) + pieces(reply, 120)
            for to in range(5):
                yield "render", f"{name}-{to}", bytes([endpoint, 1 if framing else 0, to, how]) + reply
            yield "coding", name, bytes([1 + number % 3]) + pieces(packed(reply[:4096], number % 3), 200)
            if framing:
                yield framing, name, pieces(reply, 40)
            if framing == "sse":
                events = [line.removeprefix(b"data:").strip() for line in lines if line.startswith(b"data:")]
                yield "read_session", name, b"\x01" + b"\n".join(events)
                yield "websocket", name, pieces(websocket(events[:8]), 100)
    form = b"--b\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nwhisper-1\r\n--b--\r\n"
    yield "form", "form", b"b\n" + form
    for prices in sorted((ROOT / "tests" / "prices").glob("*.json")) + [ROOT / "src" / "price" / "additions.json"]:
        yield "price_overlay", prices.stem, prices.read_bytes()
    for pod in sorted((ROOT / "tests" / "inject" / "pods").glob("*.json")):
        yield "review", pod.stem, json.dumps(json.loads(pod.read_text())["review"]).encode()


for target, name, seed in [*seeds(), *small_seeds()]:
    folder = Path(sys.argv[1]) / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"seed-{name}").write_bytes(seed)
