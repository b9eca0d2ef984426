"""`weir warm`: the questions of a file are answered before an app asks them."""

import json
import os
import re
import signal
import subprocess

import openai
import pytest

from house import WEIR, eventually

MODEL = "gpt-5-mini"
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("WEIR_")}


def written(path, count, **more):
    lines = [
        {"custom_id": f"q{n}", "method": "POST", "url": "/openai/v1/chat/completions",
         "headers": {"Authorization": "Bearer warm"},
         "body": {"model": MODEL, "max_completion_tokens": 50, "messages": [{"role": "user", "content": f"Question {n}?"}], **more}}
        for n in range(count)
    ]  # fmt: skip
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def warm(house, file, *more):
    command = [WEIR, "warm", str(file), "--to", house.app.removeprefix("http://"), "--rate", "500", *more]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env=ENVIRONMENT)


def calls(house):
    return house.sum("weir_upstream_requests_total")


def test_what_was_warmed_is_a_hit_for_an_app(fresh_house, tmp_path):
    file = written(tmp_path / "questions.jsonl", 20)
    done = warm(fresh_house, file)
    assert (done.returncode, done.stderr) == (0, ""), done
    spent = re.fullmatch(r"20 new, 0 stored already; spent (\S+) USD\n", done.stdout)
    fresh_house.settle()
    assert calls(fresh_house) == 20
    assert float(spent[1]) == pytest.approx(fresh_house.sum("weir_cost_usd_total"), rel=1e-9), "it says what weir says"

    client = openai.OpenAI(base_url=f"{fresh_house.app}/openai/v1", api_key="warm")
    answer = client.chat.completions.with_raw_response.create(
        model=MODEL, max_completion_tokens=50, messages=[{"role": "user", "content": "Question 7?"}]
    )
    assert answer.headers["x-cache"] == "HIT"
    assert "20 were answered in an earlier run" in warm(fresh_house, file).stdout
    assert warm(fresh_house, file, "--again").stdout == "0 new, 20 stored already; spent 0 USD\n"
    assert calls(fresh_house) == 20


def test_a_dry_run_prices_and_sends_nothing(fresh_house, tmp_path):
    file = written(tmp_path / "questions.jsonl", 10)
    with file.open("a") as more:
        more.write(json.dumps({"url": "/openai/v1/chat/completions", "body": {"model": "nobody-knows", "messages": []}}) + "\n")
        more.write(json.dumps({"url": "/openai/v1/responses", "body": {"model": MODEL, "input": "Hi"}}) + "\n")
    done = warm(fresh_house, file, "--dry-run")
    assert done.returncode == 0, done.stderr
    said = done.stdout
    least, most = re.search(r"in all: 12 requests, (\S+) to (\S+) USD; nothing was sent", said).groups()
    # gpt-5-mini: 0.25 and 2 USD a million; 50 tokens of output for each of ten.
    assert 0 < float(least) < 0.001
    assert abs(float(most) - float(least) - 10 * 50 * 2e-6) < 1e-12
    assert "1 have no price" in said and "1 set no limit on their output" in said
    assert "1 have answers that are never stored" in said
    assert calls(fresh_house) == 0


def test_it_stops_at_the_limit_of_cost_and_goes_on_from_there(fresh_house, tmp_path):
    file = written(tmp_path / "questions.jsonl", 30)
    first = warm(fresh_house, file, "--max-usd", "0.0000001", "--concurrency", "2")
    assert first.returncode == 1 and "the limit of 0.0000001 USD is reached" in first.stderr
    assert 1 <= calls(fresh_house) <= 3, "those that had begun ended"
    assert warm(fresh_house, file).returncode == 0
    assert calls(fresh_house) == 30, "none was asked twice"


def test_a_run_that_was_killed_goes_on_where_it_stopped(fresh_house, tmp_path):
    file = written(tmp_path / "questions.jsonl", 200)
    command = [WEIR, "warm", str(file), "--to", fresh_house.app.removeprefix("http://"), "--rate", "100"]
    running = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=ENVIRONMENT)
    eventually(lambda: calls(fresh_house) >= 10)
    running.send_signal(signal.SIGKILL)
    running.wait()
    rest = warm(fresh_house, file)
    assert rest.returncode == 0 and "were answered in an earlier run" in rest.stdout, rest
    fresh_house.settle()
    # Those that were on their way when it was killed are asked again.
    assert 200 <= calls(fresh_house) <= 204


def test_nothing_is_sent_while_a_line_is_wrong(fresh_house, tmp_path):
    file = written(tmp_path / "questions.jsonl", 3)
    with file.open("a") as more:
        more.write('{"url": "v1/chat"}\n{"url": "/v1/chat/completions", "body": {}, "header": {}}\n')
    done = warm(fresh_house, file)
    assert done.returncode == 1 and "line 4: " in done.stderr and "line 5: unknown field `header`" in done.stderr
    assert calls(fresh_house) == 0


def test_refusals_are_told_by_line_and_tried_again(fresh_house, tmp_path):
    file = tmp_path / "questions.jsonl"
    file.write_text(json.dumps({"url": "/nowhere/v1/chat/completions", "body": {}}) + "\n")
    for _ in range(2):
        done = warm(fresh_house, file)
        assert done.returncode == 1 and done.stdout.startswith("line 1: status 404\n")
