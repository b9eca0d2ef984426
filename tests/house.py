"""The house under test: the simulated provider, and weir in front of it, each a process of its own on free ports."""

import contextlib
import json
import os
import pathlib
import queue
import re
import shutil
import subprocess
import threading
import time
import urllib.request

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
WEIR = os.environ.get("WEIR_BIN", str(ROOT / "target/debug/weir"))
START_WITHIN_S = 30
STOP_WITHIN_S = 10

CONFIG = """
listen: 127.0.0.1:0
admin: {{ listen: 127.0.0.1:0 }}
default_provider: openai
providers:
  openai: {{ base_url: "{simulator}" }}
  anthropic: {{ base_url: "{simulator}" }}
  cohere: {{ base_url: "{simulator}" }}
  ollama: {{ base_url: "{simulator}" }}
  gemini: {{ base_url: "{simulator}" }}
  vertex: {{ base_url: "{simulator}" }}
  local: {{ api: openai, base_url: "{simulator}", prices: free }}
  bedrock: {{ base_url: "{simulator}", aws_sign: true }}
  unsigned: {{ api: bedrock, base_url: "{simulator}" }}
  azure: {{ api: azure_openai, base_url: "{simulator}/azure" }}
  deepseek: {{ base_url: "{simulator}/deepseek" }}
  fireworks: {{ base_url: "{simulator}/fireworks" }}
  groq: {{ base_url: "{simulator}/groq" }}
  mistral: {{ base_url: "{simulator}/mistral" }}
  openrouter: {{ base_url: "{simulator}/openrouter" }}
  perplexity: {{ base_url: "{simulator}/perplexity", fallbacks: [{{ name: other, base_url: "{simulator}/other" }}] }}
  together: {{ base_url: "{simulator}/together" }}
  xai: {{ base_url: "{simulator}/xai" }}
telemetry: {{ log: {{ format: json }} }}
"""


# The pair of keys that the simulator knows (weir::simulator::signature).
AWS_KEYS = {
    "AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE",
    "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
}


class House:
    """Where everything is, and what the simulator and weir say of themselves."""

    def __init__(self, simulator, app, admin):
        self.simulator, self.app, self.admin = simulator, app, admin

    def bill(self):
        return get_json(f"{self.simulator}/simulator/bill")

    def state(self):
        return get_json(f"{self.simulator}/simulator/state")

    def samples(self):
        """Every sample of weir's metrics: (name, labels) → value. Labels are a frozenset of pairs."""
        return parse_samples(get(f"{self.admin}/metrics"))

    def sum(self, name, **labels):
        """The sum of a metric's samples that carry these labels."""
        wanted = set(labels.items())
        return sum(value for (found, pairs), value in self.samples().items() if found == name and wanted <= pairs)

    def settle(self):
        """Waits until no call is open any more, here or upstream, so that everything is counted and charged."""
        eventually(lambda: self.state()["open"] == 0 and self.sum("weir_requests_in_flight") == 0)


def needed(command):
    """The path of a program that these tests need; without it they skip, but never in CI."""
    path = shutil.which(command)
    if path is None and os.environ.get("CI") == "true":
        pytest.fail(f"{command} is not installed: run scripts/deps.sh")
    if path is None:
        pytest.skip(f"{command} is not installed: run scripts/deps.sh")
    return path


@contextlib.contextmanager
def open_house(folder, environment=AWS_KEYS, config=CONFIG):
    """Starts the simulator and weir; stops both at the end, and insists that weir went in peace."""
    with running([WEIR, "simulate", "--listen", "127.0.0.1:0"]) as simulator:
        found = simulator.wait_for(lambda line: re.search(r"simulator listening on (http://\S+)", line))
        file = folder / "weir.yaml"
        file.write_text(config.format(simulator=found[1]))
        with running([WEIR, "run", "--config", str(file)], environment) as weir:
            sides = sides_of(weir)
            yield House(found[1], sides["app"], sides["admin"])
            weir.stop()


def sides_of(weir):
    """Where a weir that has just been started listens: the URLs of its `app` and `admin` sides."""
    sides = {}
    while sides.keys() != {"app", "admin"}:
        line = weir.wait_for(listening)
        sides[line["weir.side"]] = f"http://{line['server.address']}"
    return sides


def listening(line):
    """The log line, if it tells of a bound address."""
    with contextlib.suppress(ValueError):
        parsed = json.loads(line)
        return parsed if parsed.get("message") == "listening" else None


class Running:
    """A process, and the lines it writes."""

    def __init__(self, command, environment):
        # Nothing of the machine's may decide, and nobody outside it be asked for an identity.
        # Without a home, weir keeps nothing that the next test would find.
        machines = ("WEIR_", "AWS_", "HOME", "XDG_", "STATE_DIRECTORY")
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(machines)}
        environment = inherited | {"AWS_EC2_METADATA_DISABLED": "true"} | environment
        self.command = command
        self.process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
        )
        self.lines = []
        self.unread = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        for line in self.process.stdout:
            self.lines.append(line)
            self.unread.put(line)
        self.unread.put(None)

    def wait_for(self, wanted):
        """What `wanted` makes of the first line it accepts."""
        until = time.monotonic() + START_WITHIN_S
        while True:
            try:
                line = self.unread.get(timeout=max(0, until - time.monotonic()))
            except queue.Empty:
                line = None
            if line is None:
                raise AssertionError(f"{self.command} did not get ready; it said:\n{''.join(self.lines)}")
            if found := wanted(line):
                return found

    def stop(self):
        self.process.terminate()
        code = self.process.wait(STOP_WITHIN_S)
        assert code == 0, f"{self.command} ended with {code}; it said:\n{''.join(self.lines[-50:])}"


@contextlib.contextmanager
def running(command, environment={}):
    process = Running(command, environment)
    try:
        yield process
    finally:
        process.process.kill()
        process.process.wait()


def get(url, headers=None):
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers or {}), timeout=10) as reply:
        return reply.read().decode()


def get_json(url):
    return json.loads(get(url))


def eventually(holds, within_s=10):
    """Waits for something that is bound to happen; fails if it does not."""
    until = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < until, "it did not happen in time"
        time.sleep(0.02)


SAMPLE = re.compile(r"([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)$")
LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


def parse_samples(text):
    samples = {}
    for line in text.splitlines():
        if line and not line.startswith("#"):
            name, labels, value = SAMPLE.match(line).groups()
            samples[name, frozenset(LABEL.findall(labels or ""))] = float(value)
    return samples
