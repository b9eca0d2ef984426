"""Whoever is told: takes what Alertmanager sends to Slack, PagerDuty and webhooks, and keeps it."""

import collections
import contextlib
import http.server
import json
import threading

# After a receiver's name: its webhook, beside what it really sends to.
WEBHOOK = "/webhook/"


class Recorder:
    def __init__(self, url):
        self.url, self.posts, self.lock = url, [], threading.Lock()

    def take(self, path, body):
        with self.lock:
            self.posts.append((path, body))

    def sent_to(self, path):
        with self.lock:
            return [body for found, body in self.posts if found == path]

    def notifications(self, job):
        """What the receivers' webhooks were told of an app: (receiver, status, alert), one for each alert in each."""
        with self.lock:
            posts = list(self.posts)
        for path, body in posts:
            if path.startswith(WEBHOOK):
                for alert in body["alerts"]:
                    if alert["labels"].get("job") == job:
                        yield path.removeprefix(WEBHOOK), alert["status"], alert

    def rings(self, job):
        """How often each (receiver, alert) of an app rang."""
        told = self.notifications(job)
        return collections.Counter((to, alert["labels"]["alertname"]) for to, status, alert in told if status == "firing")

    def rung(self, job, name):
        """The alert of this name, as it was when it first rang; None if it has not."""
        told = self.notifications(job)
        return next((it for _, status, it in told if status == "firing" and it["labels"]["alertname"] == name), None)

    def is_over(self, job, receiver, name):
        """Whether the receiver was told that it is over."""
        told = self.notifications(job)
        return any((to, status, it["labels"]["alertname"]) == (receiver, "resolved", name) for to, status, it in told)


@contextlib.contextmanager
def recorder():
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            kept.take(self.path, json.loads(body))
            answer = b'{"status": "success"}'
            self.send_response(200)
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    kept = Recorder(f"http://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield kept
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
