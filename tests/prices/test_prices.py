"""weir's prices against a second opinion: hundreds of random questions, asked of the real program at once."""

import json
import os
import random
import subprocess
from decimal import Decimal

import pytest
from house import WEIR
from reference import Reference

QUESTIONS = 1500
CONTEXTS = [
    {}, {}, {},
    {"processing": "batch"}, {"service_tier": "flex"}, {"service_tier": "priority"}, {"service_tier": "default"},
    {"speed": "fast"}, {"search_type": "fast"}, {"route": "mistral/eu"}, {"inference_geo": "us"},
    {"region": "us"}, {"region": "eu", "service_tier": "flex"}, {"region": "regional"},
]
PARTS = ["cache_read_tokens", "cache_write_tokens", "input_audio_tokens", "output_audio_tokens", "output_reasoning_tokens",
         "cache_audio_read_tokens", "cache_write_1h_tokens", "cache_write_12h_tokens", "input_image_tokens",
         "output_citation_tokens", "web_searches", "storage_searches", "input_audio_seconds", "audio_seconds",
         "input_characters", "input_document_pages", "input_annotated_document_pages", "input_text_messages"]


@pytest.fixture(scope="module")
def reference():
    return Reference()


def names(provider):
    """Names that a provider's models go by, as far as a rule spells one out."""
    for model in provider["models"]:
        literals = [name for key in ("eq", "prefix", "suffix", "contains") for name in model["match"].get(key, [])]
        yield from literals or [model["id"]]


def question(dice, reference):
    provider = dice.choice(reference.providers)
    lister = dice.choice(reference.providers) if dice.random() < 0.1 else provider
    name = dice.choice(list(names(lister)))
    if dice.random() < 0.3:
        name = dice.choice([name.upper(), name + "-20260807", name + "-2026-08-07", name + "-x", name[:-1], "ft:" + name])
    size = dice.choice([100, 10_000, 150_000, 300_000, 2_000_000])
    usage = {"input_tokens": dice.randrange(size), "output_tokens": dice.randrange(10_000)}
    for part in dice.sample(PARTS, dice.randrange(6)):
        usage[part] = dice.randrange(max(1, size // 4))
    at = f"{dice.choice(['2026-10-10', '2026-11-20', '2026-11-30', '2026-12-01', '2027-01-01'])}T" \
         f"{dice.randrange(24):02}:{dice.choice([0, 29, 30, 59]):02}:{dice.randrange(60):02}Z"
    return {"provider": provider["id"], "model": name, "usage": usage, "context": dice.choice(CONTEXTS), "at": at}


def answers(questions):
    """weir's answers, from one process."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("WEIR_")}
    asked = "".join(json.dumps(question) + "\n" for question in questions)
    run = subprocess.run([WEIR, "price", "--stdin"], input=asked, capture_output=True, text=True, timeout=60,
                         env=environment, check=True)
    return [json.loads(line, parse_float=Decimal) for line in run.stdout.splitlines()]


def test_weir_agrees_with_a_second_opinion(reference):
    dice = random.Random(20261120)
    questions = [question(dice, reference) for _ in range(QUESTIONS)]
    found = answers(questions)
    assert len(found) == QUESTIONS
    known = 0
    for asked, answer in zip(questions, found, strict=True):
        expected = reference.price(asked)
        if expected is None:
            assert "has no model" in answer.get("error", ""), (asked, answer)
            continue
        known += 1
        assert "error" not in answer, (asked, answer)
        assert (answer["listed_by"], answer["model"], Decimal(answer["usd"])) == expected, (asked, answer)
        lines = sum(Decimal(line["usd"]) for line in answer["lines"])
        classes = sum(Decimal(usd) for usd in answer["classes"].values())
        assert lines == classes == expected[2], (asked, answer)
    assert QUESTIONS / 2 < known < QUESTIONS, "most names are known, some are not"


def test_what_cannot_be_asked_is_answered_all_the_same():
    broken, unheard, asked = answers([
        {"provider": "openai"},
        {"provider": "nobody", "model": "gpt-5", "usage": {}},
        {"provider": "openai", "model": "gpt-5", "usage": {"tokens": 1}},
    ])
    assert "missing field" in broken["error"]
    assert "no provider `nobody`" in unheard["error"]
    assert "`tokens` is no counter" in asked["error"]
