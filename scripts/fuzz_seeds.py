"""Seeds for the fuzz targets, from the fixtures: `python3 scripts/fuzz_seeds.py <corpus directory>`.

An input is laid out as fuzz/lib.rs reads it: which endpoint, how the reply came, and its bytes in pieces.
"""

import base64
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


def seeds():
    for request in sorted(FIXTURES.glob("*/*.request.json")):
        name, asked = f"{request.parent.name}-{request.name.split('.')[0]}", json.loads(request.read_text())
        path = asked["path"].split("?")[0]
        target, which = next((target, which) for rule, target, which in READERS if re.search(rule, path))
        yield target, f"{name}-request", bytes([which | 128]) + f"{asked['path']}\n{json.dumps(asked.get('body'))}".encode()
        body = asked.get("body")
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


for target, name, seed in seeds():
    folder = Path(sys.argv[1]) / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"seed-{name}").write_bytes(seed)
