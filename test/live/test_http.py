"""HTTP/1.1 as real clients speak it: Python's http.client, curl, Node, and raw sockets for what no client does."""
import contextlib
import email.utils
import http.client
import json
import re
import shutil
import subprocess
import urllib.request

import pytest

from conftest import CEILING_S, Answer, vector

MIB = 1 << 20
PATH = "/v2/models/echo/infer"
BODY = json.dumps({"inputs": vector(1, [1, 2, 3, 4])})


@pytest.fixture
def echo(identity):
    assert identity.infer("echo", vector(1, [1, 2, 3, 4]), identity.acme).status == 200
    identity.base = f"http://127.0.0.1:{identity.port}"
    return identity


def is_echo(answer):
    assert answer["outputs"] == [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]}], answer


def large_body(size):
    """A good request of that many bytes."""
    return BODY + " " * (size - len(BODY))


# --- Python ---

def test_python_keeps_its_connection(echo):
    with contextlib.closing(echo.connect()) as connection:
        port = connection.sock.getsockname()
        for _ in range(50):
            is_echo(echo.http("POST", PATH, echo.acme, BODY, connection=connection).json)
        assert connection.sock.getsockname() == port


def test_python_sends_chunks(echo):
    with contextlib.closing(echo.connect()) as connection:
        for pieces in ([BODY.encode()], [c.encode() for c in BODY], [BODY.encode(), b" " * MIB, b" "]):
            connection.request("POST", PATH, iter(pieces), {"Authorization": "Bearer " + echo.acme})
            answer = connection.getresponse()
            is_echo(json.loads(answer.read()))


def test_python_urllib(echo):
    request = urllib.request.Request(echo.base + PATH, BODY.encode(), {"X-API-Key": echo.acme})
    with urllib.request.urlopen(request, timeout=CEILING_S) as answer:  # asks for Connection: close
        is_echo(json.load(answer))
        assert answer.headers["Connection"] == "close"


def test_headers_of_an_answer(echo):
    answer = echo.http("GET", "/v2", echo.acme)
    assert answer.headers["Content-Type"] == "application/json"
    assert int(answer.headers["Content-Length"]) == len(answer.body)
    assert email.utils.parsedate_to_datetime(answer.headers["Date"]).tzinfo is not None
    assert set(answer.headers) <= {"Date", "Content-Type", "Content-Length"}  # nothing about who we are


# --- curl ---

def curl(server, *args, data=None, key=None):
    """Runs curl with a key; its output, its notes on what went over the wire, and its own counts."""
    counts = '%{stderr}COUNTS {"connects": %{num_connects}, "sent": %{size_upload}, "status": %{http_code}}\n'
    run = subprocess.run(["curl", "--silent", "--show-error", "--verbose", "--max-time", str(CEILING_S), "--header",
                          "Authorization: Bearer " + (key or server.acme), "--write-out", counts, *args],
                         input=data, capture_output=True, timeout=2 * CEILING_S)
    notes = run.stderr.decode("latin-1")
    assert run.returncode == 0, notes
    found = [json.loads(line[7:]) for line in notes.splitlines() if line.startswith("COUNTS ")]
    return run.stdout.decode(), notes, found


def test_curl_keeps_its_connection(echo):
    out, _, counts = curl(echo, *[echo.base + "/v2"] * 5)
    assert out.count('"bulkhead"') == 5
    assert [c["connects"] for c in counts] == [1, 0, 0, 0, 0]


def test_curl_without_keep_alive(echo):
    out, notes, counts = curl(echo, "--header", "Connection: close", *[echo.base + "/v2"] * 3)
    assert out.count('"bulkhead"') == 3 and notes.count("< Connection: close") == 3
    assert [c["connects"] for c in counts] == [1, 1, 1]


def test_curl_posts(echo):
    out, notes, _ = curl(echo, "--data-binary", "@-", echo.base + PATH, data=BODY.encode())
    is_echo(json.loads(out))
    assert "Content-Length: " + str(len(BODY)) in notes


def test_curl_sends_chunks(echo):
    out, notes, _ = curl(echo, "--request", "POST", "--upload-file", "-", echo.base + PATH,
                         data=large_body(MIB).encode())
    is_echo(json.loads(out))
    assert "> Transfer-Encoding: chunked" in notes


def test_curl_waits_for_100_continue(echo):
    out, notes, counts = curl(echo, "--expect100-timeout", str(CEILING_S), "--data-binary", "@-", "--header",
                              "Expect: 100-continue", echo.base + PATH, data=large_body(2 * MIB).encode())
    is_echo(json.loads(out))
    assert notes.index("> Expect: 100-continue") < notes.index("< HTTP/1.1 100 Continue") < notes.index("< HTTP/1.1 200")
    assert counts[0]["sent"] == 2 * MIB


def test_curl_is_told_before_it_sends_too_much(echo):
    """The answer comes instead of 100 Continue, and not a byte of the body leaves the client."""
    out, notes, counts = curl(echo, "--expect100-timeout", str(CEILING_S), "--data-binary", "@-", "--header",
                              "Expect: 100-continue", echo.base + PATH, data=bytes(32 * MIB + 1))
    assert json.loads(out)["code"] == "body_too_large"
    assert counts == [{"connects": 1, "sent": 0, "status": 413}] and "100 Continue" not in notes


def test_curl_without_a_key_is_told_before_it_sends(echo):
    """The same for who may not send at all."""
    _, _, counts = curl(echo, "--expect100-timeout", str(CEILING_S), "--data-binary", "@-", "--header",
                        "Expect: 100-continue", echo.base + PATH, data=large_body(2 * MIB).encode(), key="wrong")
    assert counts == [{"connects": 1, "sent": 0, "status": 401}]


def test_curl_speaks_http_1_0(echo):
    out, notes, counts = curl(echo, "--http1.0", "--data-binary", "@-", echo.base + PATH, data=BODY.encode())
    is_echo(json.loads(out))
    assert "< HTTP/1.1 200" in notes and counts[0]["connects"] == 1


def test_curl_offers_http_2(echo):
    """An upgrade that is not taken: the answer is plain HTTP/1.1."""
    out, notes, _ = curl(echo, "--http2", echo.base + "/v2", echo.base + "/v2")
    assert out.count('"bulkhead"') == 2 and "> Upgrade: h2c" in notes and "101 " not in notes


def test_curl_asks_for_the_head(echo):
    _, get, _ = curl(echo, echo.base + "/v2/models")
    out, head, counts = curl(echo, "--head", echo.base + "/v2/models", echo.base + "/v2/models")
    length = re.search(r"< (Content-Length: \d+)", get)[1]
    assert head.count(length) == 2 and "{" not in out
    assert [c["connects"] for c in counts] == [1, 0]


def test_curl_sends_many_at_once(echo):
    out, _, counts = curl(echo, "--parallel", "--parallel-max", "20", *[echo.base + "/v2"] * 100)
    assert out.count('"bulkhead"') == 100 and {c["status"] for c in counts} == {200}


# --- raw sockets ---

def receive(sock, method="GET"):
    answer = http.client.HTTPResponse(sock, method=method)
    answer.begin()
    return Answer(answer.status, answer.headers, answer.read())


def request(server, method, path, body="", *headers, version="1.1"):
    lines = [f"{method} {path} HTTP/{version}", "Host: x", "X-API-Key: " + server.acme, *headers]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return ("\r\n".join(lines) + "\r\n\r\n" + body).encode()


def answers(data, methods):
    """Cuts what came from a connection into its answers."""
    found = []
    for method in methods:
        head, data = data.split(b"\r\n\r\n", 1)
        size = 0 if method == "HEAD" else int(re.search(rb"Content-Length: (\d+)", head)[1])
        found.append((int(head[9:12]), data[:size]))
        data = data[size:]
    assert data == b""
    return found


def receive_all(sock):
    return b"".join(iter(lambda: sock.recv(65536), b""))


def test_pipelining(echo):
    """Different requests in one write: each is answered, in order, errors too."""
    requests = [("GET", "/v2", ""), ("HEAD", "/v2", ""), ("POST", PATH, BODY), ("GET", "/nothing", ""),
                ("POST", PATH, "{"), ("POST", PATH, BODY), ("PUT", "/v2", "x"), ("GET", "/v2/health/live", "")]
    data = b"".join(request(echo, *r) for r in requests) + request(echo, "GET", "/v2", "", "Connection: close")
    with echo.raw() as sock:
        sock.sendall(data)
        found = answers(receive_all(sock), [r[0] for r in requests] + ["GET"])
    assert [status for status, _ in found] == [200, 200, 200, 404, 400, 200, 405, 200, 200]
    for i in (2, 5):
        is_echo(json.loads(found[i][1]))


def test_a_request_in_single_bytes(echo):
    with echo.raw() as sock:
        for byte in request(echo, "POST", PATH, BODY):
            sock.sendall(bytes([byte]))
        is_echo(receive(sock).json)


def test_chunks_of_all_sorts(echo):
    """Extensions, trailers, leading zeros, capital digits, one byte a chunk; and the connection goes on."""
    body = BODY.encode()
    half = len(body) // 2
    for chunks in (b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body),
                   b"000%X;a=b;c=\"d\"\r\n%s\r\n0;x\r\n\r\n" % (len(body), body),
                   b"%x\r\n%s\r\n%x\r\n%s\r\n0\r\nX-Trailer: y\r\nX-More: z\r\n\r\n" %
                   (half, body[:half], len(body) - half, body[half:]),
                   b"".join(b"1\r\n%c\r\n" % b for b in body) + b"0\r\n\r\n"):
        with echo.raw() as sock:
            for _ in range(2):
                sock.sendall(request(echo, "POST", PATH, "", "Transfer-Encoding: chunked") + chunks)
                answer = receive(sock)
                assert answer.status == 200, (chunks[:40], answer.body)
                is_echo(answer.json)


def test_http_1_0(echo):
    for headers, goes_on in (((), False), (("Connection: keep-alive",), True)):
        with echo.raw() as sock:
            sock.sendall(request(echo, "POST", PATH, BODY, *headers, version="1.0"))
            answer = receive(sock)
            is_echo(answer.json)
            assert (answer.headers["Connection"] or "").lower() == ("keep-alive" if goes_on else "close")
            if goes_on:
                sock.sendall(request(echo, "GET", "/v2", version="1.0"))
                assert receive(sock).status == 200
            assert sock.recv(1) == b""


def test_head_has_no_body(echo):
    """Errors too; the next answer follows at once."""
    paths = ["/v2", "/v2/models", "/v2/models/echo", "/nothing", "/v2/health/live", "/v2/models/nosuch"]
    with echo.raw() as sock:
        for path in paths:
            sock.sendall(request(echo, "GET", path))
            get = receive(sock)
            sock.sendall(request(echo, "HEAD", path))
            head = receive(sock, "HEAD")
            assert (head.status, head.body, head.headers["Content-Length"]) == (get.status, b"", str(len(get.body)))


def test_a_half_closed_connection_is_answered(echo):
    with echo.raw() as sock:
        sock.sendall(request(echo, "POST", PATH, BODY))
        sock.shutdown(1)
        assert answers(receive_all(sock), ["POST"])[0][0] == 200


def test_absolute_targets_and_queries(echo):
    with echo.raw() as sock:
        for target in ("http://example.com/v2", "/v2?a=b", "/v2?", "http://example.com/v2?x=/nothing"):
            sock.sendall(request(echo, "GET", target))
            assert receive(sock).status == 200, target


# --- Node ---

NODE = """
const http = require('http');
const [base, key, path, body] = process.argv.slice(1);
const headers = {Authorization: 'Bearer ' + key};
async function post(content, more) {
  const answer = await fetch(base + path, {method: 'POST', headers, body: content, ...more});
  return [answer.status, (await answer.json()).outputs[0].data];
}
function agentPost(agent) {
  return new Promise((resolve, reject) => {
    const request = http.request(base + path, {method: 'POST', headers, agent}, answer => {
      let text = '';
      answer.on('data', piece => text += piece);
      answer.on('end', () => resolve([answer.statusCode, JSON.parse(text).outputs[0].data, request.reusedSocket]));
    });
    request.on('error', reject);
    request.end(body);
  });
}
(async () => {
  const found = {};
  found.sequence = [];
  for (let i = 0; i < 20; i++) found.sequence.push(await post(body));
  found.parallel = await Promise.all(Array.from({length: 50}, () => post(body)));
  if (globalThis.ReadableStream)
    found.stream = [await post(new Blob([body, ' '.repeat(100000)]).stream(), {duplex: 'half'})];
  const agent = new http.Agent({keepAlive: true, maxSockets: 1});
  found.agent = [await agentPost(agent), await agentPost(agent), await agentPost(agent)];
  agent.destroy();
  const head = await fetch(base + '/v2', {method: 'HEAD', headers});
  found.head = [head.status, (await head.text()).length];
  const refused = await fetch(base + '/v2');
  found.refused = [refused.status, (await refused.json()).code];
  console.log(JSON.stringify(found));
  process.exit(0);
})();
"""

@pytest.mark.skipif(not shutil.which("node"), reason="there is no node here, and the product does not need it")
def test_node(echo):
    run = subprocess.run(["node", "-e", NODE, echo.base, echo.acme, PATH, BODY], capture_output=True, text=True,
                         timeout=2 * CEILING_S)
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout)
    for way in ("sequence", "parallel", "stream", "agent"):
        assert all(answer[:2] == [200, [1, 2, 3, 4]] for answer in found.get(way, [])), (way, found[way])
    assert len(found["parallel"]) == 50
    assert [reused for _, _, reused in found["agent"]] == [False, True, True]
    assert found["head"] == [200, 0] and found["refused"] == [401, "unauthenticated"]
