"""A weir with everything turned on, and an app that does everything that weir counts, again and again until it is stopped.

Used where it matters that every number moves, not what it comes to.
"""

import concurrent.futures
import contextlib
import http.client
import http.server
import json
import threading
import urllib.request

from house import AWS_KEYS

TOKEN = "sesame"
KEYS = {"authorization": "Bearer sk-test", "x-api-key": "sk-test", "anthropic-version": "2023-06-01"}
# Faster than a person, slow enough for a debug build on a small machine.
ROUND_S = 1.0

# Beside house.CONFIG, whose braces are doubled for `format`.
CONFIG = """
state_dir: "{folder}/state"
upstream: {{{{ first_byte_timeout: 2s, breaker: {{{{ enabled: true, min_attempts: 1000000 }}}} }}}}
cache:
  similar:
    url: "{{simulator}}/v1"
    model: text-embedding-3-small
    api_key_env: VECTORS_KEY
    threshold: 0.85
    timeout: 10s
    verify: 1.0
  redis: {{{{ url: "redis+unix://{folder}/redis.sock", secret_file: "{folder}/secret", replicas: 1, deadline: 1s }}}}
loops: {{{{ repeats: 4, on_runaway: alert }}}}
limits:
  - {{{{ name: all, requests_per_minute: 100000, tokens_per_minute: 100000000 }}}}
  - {{{{ name: greedy, match: {{{{ agent: greedy }}}}, per: agent, requests_per_minute: 1 }}}}
  - {{{{ name: patient, match: {{{{ agent: patient }}}}, requests_per_second: 2, wait: 5s }}}}
budgets:
  - {{{{ name: app, limit_usd: 1000, limit_tokens: 1000000000, window: month, enforce: alert }}}}
  - {{{{ name: alone, limit_usd: 50, limit_tokens: 1000000000, window: month, enforce: alert, shared: false }}}}
  - {{{{ name: users, per: user, limit_usd: 10, window: day, enforce: alert }}}}
  - {{{{ name: spent, match: {{{{ workspace: spent }}}}, limit_tokens: 1, window: total, enforce: block }}}}
  - {{{{ name: ends, match: {{{{ workspace: ends }}}}, per: user, limit_tokens: 1, window: total, enforce: block,
      stop_streams: true }}}}
  - {{{{ name: cheaper, match: {{{{ workspace: cheaper }}}}, limit_tokens: 1, window: total, enforce: downgrade,
      downgrade_to: gpt-5-nano }}}}
prices: {{{{ overlay: "{folder}/prices.json" }}}}
"""
ADMIN = "admin: {{ listen: 127.0.0.1:0 }}"
ADMIN_WITH_TOKEN = 'admin: {{{{ listen: 127.0.0.1:0, token_file: "{folder}/token" }}}}'
TELEMETRY = "telemetry: {{ log: {{ format: json }} }}"
# So many providers at once take more series than names from outside are given by default.
EVERYTHING = """telemetry:
  log: {{ format: json }}
  metrics: {{ consumers: plain, cache_namespaces: true, max_series: 100000 }}
"""
ENVIRONMENT = AWS_KEYS | {"VECTORS_KEY": "sk-vectors"}
OVERLAY = '{"schema_version": 1, "providers": []}'


def says(prompt, **more):
    return {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": prompt}]} | more


TOOL = {"type": "function", "function": {"name": "forecast", "parameters": {"type": "object", "properties": {}}}}
OPENAI = "/openai/v1/chat/completions"
CLAUDE = "us.anthropic.claude-sonnet-4-5-v1:0"
# Every provider, as (path, body).
PROVIDERS = {
    "openai": (OPENAI, says),
    "responses": ("/openai/v1/responses", lambda prompt: {"model": "gpt-5", "input": prompt}),
    "embeddings": ("/openai/v1/embeddings", lambda prompt: {"model": "text-embedding-3-small", "input": prompt}),
    "anthropic": ("/anthropic/v1/messages", lambda prompt: says(prompt, model="claude-sonnet-4-6", max_tokens=100)),
    "cohere": ("/cohere/v2/chat", lambda prompt: says(prompt, model="command-a")),
    "ollama": ("/ollama/api/chat", lambda prompt: says(prompt, model="llama3.2", stream=False)),
    "gemini": (
        "/gemini/v1beta/models/gemini-2.5-flash:generateContent",
        lambda prompt: {"contents": [{"role": "user", "parts": [{"text": prompt}]}]},
    ),
    "bedrock": (
        f"/bedrock/model/{CLAUDE}/converse",
        lambda prompt: {"messages": [{"role": "user", "content": [{"text": prompt}]}]},
    ),
    "local": ("/local/v1/chat/completions", says),
    "azure": ("/azure/openai/v1/chat/completions", says),
    "deepseek": ("/deepseek/v1/chat/completions", lambda prompt: says(prompt, model="deepseek-chat")),
    "fireworks": ("/fireworks/inference/v1/chat/completions", says),
    "groq": ("/groq/openai/v1/chat/completions", lambda prompt: says(prompt, model="llama-3.3-70b-versatile")),
    "mistral": ("/mistral/v1/chat/completions", lambda prompt: says(prompt, model="mistral-large-latest")),
    "openrouter": ("/openrouter/api/v1/chat/completions", lambda prompt: says(prompt, model="openai/gpt-4o-mini")),
    "perplexity": ("/perplexity/chat/completions", lambda prompt: says(prompt, model="sonar")),
    "together": ("/together/v1/chat/completions", says),
    "xai": ("/xai/v1/chat/completions", lambda prompt: says(prompt, model="grok-4")),
}
RIVERS = ["Rhine", "Rhone", "Po", "Elbe", "Oder", "Seine", "Loire", "Tagus", "Ebro", "Thames", "Severn", "Danube", "Inn"]


class Busy:
    """The app."""

    def __init__(self, house, folder):
        self.house, self.folder = house, folder
        self.rounds = 0
        self._stop = threading.Event()
        self._failures = []

    @contextlib.contextmanager
    def going_on(self):
        thread = threading.Thread(target=self._go_on)
        thread.start()
        try:
            yield
        finally:
            self._stop.set()
            thread.join()
        self.insist()

    def insist(self):
        """Fails if it does not go on."""
        if self._failures:
            raise self._failures[0]

    def _go_on(self):
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            while not self._stop.is_set():
                try:
                    self.make_round(pool)
                except Exception as error:  # noqa: BLE001: told where the test can fail
                    self._failures.append(error)
                    return
                self.rounds += 1
                self._stop.wait(ROUND_S)

    def make_round(self, pool):
        """One of everything."""
        n = self.rounds
        calls = [
            *((path, body(f"What is a weir? {name} {n % 5}"), {}) for name, (path, body) in PROVIDERS.items()),
            *self.streams(n),
            *self.mishaps(n),
            *self.refusals(n),
            *self.loops(n),
            (OPENAI, says(f"Please explain to me how a weir holds back the water of the {RIVERS[n % len(RIVERS)]}"), {}),
            (OPENAI, says(f"mystery {n}", model="mystery-1"), {}),
            (OPENAI, says(f"Again {n}"), {"x-stainless-retry-count": "1"}),
            (OPENAI, says(f"user {n % 3}"), {"X-User-ID": f"user-{n % 3}", "X-Agent-ID": "planner", "X-Cache-Namespace": "shop"}),
        ]
        # Two that are equal, at the same time.
        calls += 2 * [(OPENAI, says(f"Together {n}"), {"x-simulate": "latency=300ms"})]
        for done in [pool.submit(self.call, *call) for call in calls]:
            done.result()
        self.command("/api/v1/cache/invalidate", {"model": "no-such-model"})
        self.command("/api/v1/metrics", {"name": "orders", "type": "counter", "value": 1})
        if n % 10 == 5:
            (self.folder / "prices.json").write_text(OVERLAY + n * " ")

    def streams(self, n):
        yield OPENAI, says(f"Stream {n}", stream=True), {"x-simulate": "latency=20ms;chunk-delay=2ms"}
        yield "/anthropic/v1/messages", says(f"Stream {n}", model="claude-sonnet-4-6", max_tokens=100, stream=True), {}
        yield OPENAI, says(f"Breaks off {n}", stream=True), {"x-simulate": "cut=after 3 chunks"}

    def mishaps(self, n):
        for script in ("status=500", "status=429", "status=400", "slow-headers=3s", "reset", "no-usage"):
            yield OPENAI, says(f"{script} {n}"), {"x-simulate": script}

    def refusals(self, n):
        yield OPENAI, says(f"Too much {n}"), {"X-Agent-ID": "greedy"}
        for turn in range(4):
            yield OPENAI, says(f"Wait {n} {turn}"), {"X-Agent-ID": "patient"}
        for workspace in ("spent", "cheaper"):
            yield OPENAI, says(f"Spend {n}"), {"X-Workspace-ID": workspace}
        # Somebody new each time, since a stream is ended only once.
        somebody = {"X-Workspace-ID": "ends", "X-User-ID": f"somebody-{n}"}
        yield OPENAI, says(f"Go on {n}", stream=True), somebody

    def loops(self, n):
        circles = {"X-Run-ID": f"circles-{n // 8}", "X-Loop-Type": "research"}
        yield OPENAI, says("The same again", tools=[TOOL], tool_choice="required"), circles
        for status, script in (("success", ""), ("error", "status=500")):
            run = {"X-Run-ID": f"{status}-{n}", "X-Loop-Type": "support", "X-Run-Status": status}
            yield OPENAI, says(f"{status} {n}"), run | ({"x-simulate": script} if script else {})

    def call(self, path, body, headers):
        """Makes a call, whatever comes of it."""
        headers = KEYS | {"content-type": "application/json"} | headers
        request = urllib.request.Request(self.house.app + path, json.dumps(body).encode(), headers)
        # Refusals and broken answers are what the app is for.
        with contextlib.suppress(OSError, http.client.HTTPException):
            with urllib.request.urlopen(request, timeout=30) as reply:
                reply.read()

    def command(self, path, body):
        """What an operator asks, which has to work."""
        headers = {"authorization": f"Bearer {TOKEN}", "content-type": "application/json"}
        request = urllib.request.Request(self.house.admin + path, json.dumps(body).encode(), headers)
        with urllib.request.urlopen(request, timeout=30) as reply:
            reply.read()


@contextlib.contextmanager
def collector():
    """Somewhere to send spans, which takes and forgets all of them. Gives its URL."""

    class Takes(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Takes) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def config(folder, base):
    """The configuration of a weir with everything on, for `open_house`. `base` is the ordinary one."""
    (folder / "token").write_text(TOKEN)
    (folder / "secret").write_text("x" * 64)
    (folder / "prices.json").write_text(OVERLAY)
    more = {ADMIN: ADMIN_WITH_TOKEN.format(folder=folder), TELEMETRY: EVERYTHING}
    for part, instead in more.items():
        assert part in base
        base = base.replace(part, instead)
    return base + CONFIG.format(folder=folder)
