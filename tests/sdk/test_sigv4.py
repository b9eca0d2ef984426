"""weir's signatures for AWS are those of botocore, and its identity comes from where AWS's SDKs take theirs."""

import contextlib
import datetime
import http.server
import json
import threading
import urllib.error
import urllib.request

import botocore.auth
import botocore.awsrequest
import botocore.credentials
import pytest

from house import AWS_KEYS, eventually, open_house

KEY, SECRET = AWS_KEYS["AWS_ACCESS_KEY_ID"], AWS_KEYS["AWS_SECRET_ACCESS_KEY"]
TOKEN = "simulated-session-token"
CONVERSE = "/model/us.anthropic.claude-sonnet-4-5-v1%3A0/converse"
BODY = json.dumps({"messages": [{"role": "user", "content": [{"text": "Hello"}]}]}).encode()
CONFIG = """
listen: 127.0.0.1:0
admin: {{ listen: 127.0.0.1:0 }}
calls: {{ max_request_bytes: 100KiB }}
providers:
  signed: {{ api: bedrock, base_url: "{simulator}", aws_sign: true }}
  regional: {{ api: bedrock, base_url: "{simulator}", aws_sign: true, aws_region: eu-west-1 }}
  keyed: {{ api: bedrock, base_url: "CAPTURE", api_key_env: BEDROCK_KEY }}
  captured: {{ api: bedrock, base_url: "CAPTURE", aws_sign: true }}
  aws: {{ api: bedrock, base_url: "https://bedrock-runtime.us-east-1.amazonaws.com" }}
  other: {{ api: bedrock, base_url: "https://bedrock-runtime.eu-west-1.amazonaws.com", aws_sign: true }}
telemetry: {{ log: {{ format: json }} }}
"""


def signature(region="us-east-1", service="bedrock", key="AKIAAPP"):
    """What an app signs for weir's address; nobody but AWS could check it."""
    return f"AWS4-HMAC-SHA256 Credential={key}/20261121/{region}/{service}/aws4_request, SignedHeaders=host, Signature=0"


def ask(url, body=BODY, **headers):
    """Status, error type and message of a call."""
    headers = {"Content-Type": "application/json", "Cache-Control": "no-store"} | headers
    request = urllib.request.Request(url, data=body, headers=headers, method="POST")
    try:
        with urllib.request.urlopen(request, timeout=20) as reply:
            return reply.status, None, None
    except urllib.error.HTTPError as error:
        text = error.read().decode()
        return error.code, error.headers.get("x-amzn-errortype", "").split(":")[0], json.loads(text).get("message")


class Server(http.server.ThreadingHTTPServer):
    """Notes every request, and answers with what `answers` has for its path, or with an empty object."""

    def __init__(self, answers=None):
        self.answers, self.requests = answers or {}, []
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self):
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        self.server.requests.append((self.command, self.path, dict(self.headers.items()), body))
        answer = self.server.answers.get(self.path.split("?")[0], b"{}")
        self.send_response(200)
        self.send_header("content-length", str(len(answer)))
        self.send_header("x-aws-ec2-metadata-token-ttl-seconds", "21600")
        self.end_headers()
        self.wfile.write(answer)

    do_GET = do_POST = do_PUT = answer

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def serving(server):
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(scope="module")
def capture():
    with serving(Server()) as server:
        yield server


@pytest.fixture(scope="module")
def own_house(tmp_path_factory, capture):
    """A house with these providers, whose weir has the simulator's keys as temporary ones."""
    environment = AWS_KEYS | {"AWS_SESSION_TOKEN": TOKEN, "BEDROCK_KEY": "ABSK-weir"}
    with open_house(tmp_path_factory.mktemp("sigv4"), environment, CONFIG.replace("CAPTURE", capture.url)) as house:
        yield house


@pytest.mark.parametrize("path", [CONVERSE, CONVERSE.replace("%3A", ":"), "/model/arn%3Aaws%3Abedrock%3Aus-east-1%3A1%3Ax%2Fy/invoke?b=2&a=%20"])
@pytest.mark.parametrize("service", ["bedrock", "bedrock-mantle"])
def test_a_signature_is_what_botocore_makes_of_the_same_request(own_house, capture, path, service):
    capture.requests.clear()
    headers = {"Authorization": signature("ap-south-1", service), "x-amz-security-token": "the app's", "X-Amzn-Bedrock-Trace": "ENABLED"}
    assert ask(f"{own_house.app}/captured{path}", **headers)[0] == 200
    ((method, sent_path, sent, body),) = capture.requests
    sent = {name.lower(): value for name, value in sent.items()}
    assert (method, sent_path, body) == ("POST", path, BODY), "as the app sent it"
    assert sent["x-amz-security-token"] == TOKEN

    signed = sent["authorization"].split("SignedHeaders=")[1].split(",")[0].split(";")
    assert {"host", "content-type", "x-amz-date", "x-amz-security-token", "x-amzn-bedrock-trace"} == set(signed)
    again = botocore.awsrequest.AWSRequest(
        "POST", capture.url + path, data=BODY, headers={name: sent[name] for name in signed if not name.startswith("x-amz-")}
    )
    credentials = botocore.credentials.Credentials(KEY, SECRET, TOKEN)
    at = datetime.datetime.strptime(sent["x-amz-date"], "%Y%m%dT%H%M%SZ")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(botocore.auth, "get_current_datetime", lambda *_, **__: at)
        botocore.auth.SigV4Auth(credentials, service, "ap-south-1").add_auth(again)
    assert again.headers["Authorization"] == sent["authorization"]


def test_an_api_key_passes_through_unsigned(own_house, capture):
    capture.requests.clear()
    assert ask(f"{own_house.app}/captured{CONVERSE}", Authorization="Bearer ABSK-1")[0] == 200
    ((_, _, sent, _),) = capture.requests
    assert sent["authorization"] == "Bearer ABSK-1"
    assert not [name for name in sent if name.lower().startswith("x-amz")]


def test_an_api_key_of_weirs_takes_the_place_of_the_apps_signature(own_house, capture):
    capture.requests.clear()
    headers = {"Authorization": signature(), "x-amz-date": "20261121T100000Z", "x-amz-security-token": "the app's"}
    assert ask(f"{own_house.app}/keyed{CONVERSE}", **headers)[0] == 200
    ((_, _, sent, _),) = capture.requests
    assert sent["authorization"] == "Bearer ABSK-weir"
    assert not [name for name in sent if name.lower().startswith("x-amz")]


@pytest.mark.parametrize(
    ("provider", "headers", "status", "words"),
    [
        ("signed", {"Authorization": signature()}, 200, None),
        ("regional", {}, 200, None),
        ("regional", {"Authorization": signature("us-east-1")}, 200, None),
        ("signed", {}, 400, "aws_region"),
        ("other", {"Authorization": signature("us-east-1")}, 400, "AWS_REGION=eu-west-1"),
        ("aws", {"Authorization": signature()}, 400, "aws_sign: true"),
        (
            "signed",
            {"Authorization": signature(), "x-amz-content-sha256": "STREAMING-AWS4-HMAC-SHA256-EVENTS"},
            400,
            "piece by piece",
        ),
    ],
)
def test_what_cannot_be_signed_is_refused_with_what_mends_it(own_house, provider, headers, status, words):
    found, kind, message = ask(f"{own_house.app}/{provider}{CONVERSE}", **headers)
    assert found == status
    if words:
        assert kind == "ValidationException"
        assert words in message, message


def test_a_body_too_large_to_be_kept_is_too_large_to_be_signed(own_house):
    own_house.settle()
    before = own_house.sum("weir_requests_total", outcome="client_error")
    status, _, message = ask(f"{own_house.app}/signed{CONVERSE}", b" " * (100 << 10) + BODY, Authorization=signature())
    assert status == 413
    assert "calls.max_request_bytes" in message
    own_house.settle()
    assert own_house.sum("weir_requests_total", outcome="client_error") == before + 1


def test_paths_that_weir_does_not_read_are_signed_too(own_house, capture):
    capture.requests.clear()
    assert ask(f"{own_house.app}/captured/guardrail/g/version/1/apply", Authorization=signature())[0] == 200
    assert capture.requests[0][2]["authorization"].startswith(f"AWS4-HMAC-SHA256 Credential={KEY}/")


def soon():
    return (datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")


def temporary(**more):
    return json.dumps({"AccessKeyId": KEY, "SecretAccessKey": SECRET, "Token": TOKEN, "Expiration": soon()} | more).encode()


def from_a_profile(folder, _):
    (folder / "config").write_text(f"[profile weir]\naws_access_key_id = {KEY}\naws_secret_access_key = {SECRET}\n")
    return {"AWS_CONFIG_FILE": str(folder / "config"), "AWS_PROFILE": "weir"}


def from_a_container(_, server):
    server.answers["/role"] = temporary()
    return {"AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{server.url}/role", "AWS_CONTAINER_AUTHORIZATION_TOKEN": "pod"}


def from_the_instance(_, server):
    server.answers["/latest/api/token"] = b"token"
    for folder in ("security-credentials", "security-credentials-extended"):
        server.answers[f"/latest/meta-data/iam/{folder}/"] = b"role"
        server.answers[f"/latest/meta-data/iam/{folder}/role"] = temporary(Code="Success", Type="AWS-HMAC", LastUpdated=soon())
    return {"AWS_EC2_METADATA_SERVICE_ENDPOINT": server.url, "AWS_EC2_METADATA_DISABLED": "false"}


def from_a_web_identity(folder, server):
    (folder / "token").write_text("a service account's token")
    server.answers["/"] = f"""<AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">
        <AssumeRoleWithWebIdentityResult>
            <AssumedRoleUser><AssumedRoleId>r:s</AssumedRoleId><Arn>arn:aws:sts::1:assumed-role/r/s</Arn></AssumedRoleUser>
            <Credentials><AccessKeyId>{KEY}</AccessKeyId><SecretAccessKey>{SECRET}</SecretAccessKey>
            <SessionToken>{TOKEN}</SessionToken><Expiration>{soon()}</Expiration></Credentials>
        </AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>""".encode()
    return {
        "AWS_WEB_IDENTITY_TOKEN_FILE": str(folder / "token"),
        "AWS_ROLE_ARN": "arn:aws:iam::111122223333:role/weir",
        "AWS_ENDPOINT_URL_STS": server.url,
        "AWS_REGION": "us-east-1",
    }


@pytest.mark.parametrize("source", [from_a_profile, from_a_container, from_the_instance, from_a_web_identity])
def test_the_identity_comes_from_where_sdks_take_theirs(tmp_path, source):
    with serving(Server()) as server:
        environment = {"HOME": str(tmp_path), "BEDROCK_KEY": "ABSK-weir"} | source(tmp_path, server)
        with open_house(tmp_path, environment, CONFIG.replace("CAPTURE", server.url)) as house:
            status, kind, message = ask(f"{house.app}/signed{CONVERSE}", Authorization=signature())
            assert (status, kind, message) == (200, None, None)


def test_without_an_identity_calls_fail_with_what_mends_it_and_are_counted(tmp_path):
    environment = {"HOME": str(tmp_path), "BEDROCK_KEY": "ABSK-weir"}
    with open_house(tmp_path, environment, CONFIG.replace("CAPTURE", "http://127.0.0.1:9")) as house:
        status, kind, message = ask(f"{house.app}/signed{CONVERSE}", Authorization=signature())
        assert (status, kind) == (503, "ServiceUnavailableException")
        assert "AWS_ACCESS_KEY_ID" in message and "role" in message
        eventually(lambda: house.sum("weir_requests_total", outcome="internal_error") == 1)
        assert house.state()["received"] == 0
