"""What rows ask of servers: one inference request in binary, as the generator sends it, and its answer checked."""

import json
import math
import struct

from measure import Generator, spread
from report import GENERATOR_IDLE_MIN, QUIET_OTHERS_MAX
from servers import BenchError, wait_for


class Case:
    """A request for one model with one FP32 input, outputs in binary too."""

    def __init__(self, model, name, shape, payload):
        self.model, self.path = model, "/v2/models/%s/infer" % model
        self.name, self.shape, self.payload = name, shape, payload
        self.head = json.dumps({
            "inputs": [{"name": name, "datatype": "FP32", "shape": shape,
                        "parameters": {"binary_data_size": len(payload)}}],
            "parameters": {"binary_data_output": True},
        }, separators=(",", ":")).encode()
        self.headers = {"Content-Type": "application/octet-stream",
                        "Inference-Header-Content-Length": str(len(self.head))}

    @property
    def body(self):
        return self.head + self.payload

    def request_text(self):
        """The whole request, to every server alike; @KEY@ stands for the key."""
        lines = ["POST %s HTTP/1.1" % self.path, "Host: bench", "X-API-Key: @KEY@",
                 *("%s: %s" % header for header in self.headers.items()), "Content-Length: %d" % len(self.body), "", ""]
        return "\r\n".join(lines).encode() + self.body

    def answer(self, server, key):
        """(body, bytes of its JSON part) of one good answer."""
        status, headers, body = server.post(self.path, {**self.headers, "X-API-Key": key}, self.body)
        if status != 200:
            raise BenchError("%s answers %d: %s" % (server.name, status, body[:400]))
        json_bytes = int(headers.get("inference-header-content-length", "-1"))
        if json_bytes <= 0 or not json.loads(body[:json_bytes]).get("outputs"):
            raise BenchError("%s answers something else than it was asked: %s" % (server.name, body[:400]))
        return body, json_bytes

    def serving(self, server, key):
        status, _, _ = server.post(self.path, {**self.headers, "X-API-Key": key}, self.body)
        return server.check_alive() and status == 200

    def wait(self, server, key):
        wait_for("the first answer of model %s" % self.model, lambda: self.serving(server, key))


def floats(count):
    """Bytes of `count` FP32 numbers, always the same ones, of the size of grey values."""
    return struct.pack("<%df" % count, *(8 + 8 * math.sin(i * 12.9898) for i in range(count)))


def metrics(server):
    """{(family, ((label, value), ...)): number} of the server's /metrics."""
    found = {}
    for line in server.metrics_text().splitlines():
        if not line.startswith("#") and line:
            name, value = line.rsplit(" ", 1)
            family, _, labels = name.partition("{")
            pairs = tuple(tuple(part.split("=", 1)) for part in labels.rstrip("}").replace('"', "").split(",") if part)
            found[family, pairs] = float(value)
    return found


def lease_seconds(server, tenant):
    """Device time of a tenant so far."""
    return sum(value for (family, labels), value in metrics(server).items()
               if family == "bulkhead_lease_seconds_total" and ("tenant", tenant) in labels)


def leases(server, tenant):
    """Leases of a tenant so far."""
    return sum(value for (family, labels), value in metrics(server).items()
               if family == "bulkhead_batch_size_count" and ("tenant", tenant) in labels)


def resources(tenant, models, weight=1):
    """YAML of a tenant and its models: (name, engine, source, lines of batching)."""
    text = """apiVersion: bulkhead.dev/v1alpha1
kind: Tenant
metadata: {name: %s}
spec:
  weight: %d
  quota: {requestsPerMinute: 1000000000, queueDepth: 1024}
""" % (tenant, weight)
    for name, engine, source, batching in models:
        text += """---
apiVersion: bulkhead.dev/v1alpha1
kind: Model
metadata: {name: %s, tenant: %s}
spec:
  engine: %s
  source: %s
  batching: {%s}
  replicas: {min: 1, max: 1}
""" % (name, tenant, engine, source, batching)
    return text


def generator(stack, settings, connections, keys, case, answer, json_bytes):
    """A load generator that compares the JSON part of an answer and the size of the rest."""
    return stack.enter_context(Generator(settings, connections, keys, case.request_text(), answer, exact=json_bytes))


def figure(name, unit, values, form="%.2f"):
    return {"name": name, "unit": unit, "values": spread(values), "raw": values, "form": form}


def target(what, wanted, measured, met):
    return {"what": what, "wanted": wanted, "measured": measured, "met": met}


def load_notes(runs):
    """What every row says of its runs: how idle the generator was, and what others took of the machine."""
    idle, others = (spread([run[name] for run in runs])["median"] for name in ("generator_idle", "others"))
    notes = ["load generator %.0f %% idle" % (100 * idle)]
    if idle < GENERATOR_IDLE_MIN:
        notes.append("the generator was less than %.0f %% idle: the server may be faster than shown" % (
            100 * GENERATOR_IDLE_MIN))
    if others > QUIET_OTHERS_MAX:
        notes.append("other programs used %.0f %% of the machine: not quiet enough for a verdict" % (100 * others))
    return notes
