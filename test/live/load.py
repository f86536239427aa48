"""A bounded background load for live tests: threads that send one request after another and remember every answer."""
import http.client
import json
import threading


class Load:
    def __init__(self, server, key, model="echo", inputs=None, threads=4):
        self.server, self.key, self.model = server, key, model
        self.body = json.dumps({"inputs": inputs or [
            {"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}]})
        self.stopping = threading.Event()
        self.lock = threading.Lock()
        self.statuses, self.codes, self.broken, self.wrong = {}, {}, 0, 0
        self.threads = [threading.Thread(target=self._run, daemon=True) for _ in range(threads)]

    def __enter__(self):
        for t in self.threads:
            t.start()
        return self

    def __exit__(self, *_):
        self.stopping.set()
        for t in self.threads:
            t.join()

    def _run(self):
        connection = None
        while not self.stopping.is_set():
            try:
                connection = connection or self.server.connect()
                connection.request("POST", f"/v2/models/{self.model}/infer", self.body,
                                   {"Authorization": "Bearer " + self.key})
                answer = connection.getresponse()
                body = answer.read()
                if answer.will_close:
                    connection.close()
                    connection = None
            except (OSError, http.client.HTTPException):
                connection = None
                with self.lock:
                    self.broken += 1
                continue
            self._count(answer, body)

    def _count(self, answer, body):
        with self.lock:
            self.statuses[answer.status] = self.statuses.get(answer.status, 0) + 1
            try:
                content = json.loads(body)
                if answer.status != 200:
                    self.codes[content["code"]] = self.codes.get(content["code"], 0) + 1
                    if answer.status in (429, 503) and not answer.headers.get("Retry-After"):
                        self.wrong += 1
                elif self.model == "echo" and content["outputs"][0]["data"] != [1, 2, 3, 4]:
                    self.wrong += 1
            except (ValueError, KeyError):
                self.wrong += 1

    def count(self, status=200):
        with self.lock:
            return self.statuses.get(status, 0)
