"""A plugin of pytest for check_openai_client.py: the server that the client's tests ask, and the objects that they ask for.

The tests were written for a mock that answers to any name.  This server answers for what exists, so a state file is made in
which objects of these names exist: made over the interface as any client makes them, then renamed by `seed`.  A test that
takes something away or changes it gets the server a fresh copy of that file before the next one.

What it needs stands in the environment: PUNA_CHECK, a JSON object of "puna", "seed", "model" and "folder".
"""
import json
import os
import pathlib
import re
import shutil
import subprocess
import time
import urllib.error
import urllib.request

import pytest

import serving

SETTINGS = json.loads(os.environ["PUNA_CHECK"])
FOLDER = pathlib.Path(SETTINGS["folder"])
# The name of the newest model in the client's tests.
ALIAS = "gpt-6-astra"
# Tests after which the state is not what it was.
CHANGES = re.compile("delete|cancel|update")


class Server(serving.Server):
    def __init__(self, state, port=0):
        flags = ["--state", state, "--ctx", 512, "--alias", ALIAS]
        super().__init__(SETTINGS["puna"], SETTINGS["model"], *flags, log=FOLDER / "server.log", port=port)

    def ask(self, method, path, body=None, kind="application/json"):
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, {"content-type": kind}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                text = answer.read()
        except urllib.error.HTTPError as error:
            with error:
                raise RuntimeError(f"{method} {path}: {error.code} {error.read().decode()}") from error
        return json.loads(text) if text.startswith(b"{") else text

    def upload(self, text, purpose):
        parts = [f'form-data; name="purpose"\r\n\r\n{purpose}', f'form-data; name="file"; filename="a"\r\n\r\n{text}']
        form = "".join(f"--edge\r\ncontent-disposition: {part}\r\n" for part in parts) + "--edge--\r\n"
        return self.ask("POST", "/v1/files", form.encode(), "multipart/form-data; boundary=edge")["id"]


def make(server):
    """Makes the objects; returns the pairs of their names and those that tests know."""
    def respond(text, **more):
        return server.ask("POST", "/v1/responses", {"input": text, "max_output_tokens": 4, **more})["id"]

    def chat(model):
        # The client's type of stored messages knows no role but this.
        body = {"messages": [{"role": "assistant", "content": "Hello"}], "model": model, "max_tokens": 4, "store": True,
                "metadata": {"foo": "string"}}
        return server.ask("POST", "/v1/chat/completions", body)["id"]

    def first(path):
        return server.ask("GET", path + "?order=asc")["data"][0]["id"]

    names = {}
    cancelled = respond("Hello", background=True)
    while server.ask("GET", f"/v1/responses/{cancelled}")["status"] == "in_progress":
        time.sleep(0.01)
    names[cancelled] = "resp_677efb5139a88190b512bc3fef8e535d"
    names[respond("Hello")] = "resp_123"
    items = respond("Hello")
    names |= {items: "response_id", first(f"/v1/responses/{items}/input_items"): "after"}
    completion = chat(ALIAS)
    names |= {completion: "completion_id", first(f"/v1/chat/completions/{completion}/messages"): "after"}
    names[chat(ALIAS)] = "after"
    names[server.upload("Example data", "user_data")] = "file_id"
    names[server.upload("Example data", "user_data")] = "after"
    # So many that it is still being worked off whenever somebody cancels it.
    line = {"method": "POST", "url": "/v1/responses", "body": {"input": "Hello", "store": False}}
    lines = "".join(json.dumps({"custom_id": str(number), **line}) + "\n" for number in range(5000))
    file = server.upload(lines, "batch")
    names[file] = "input_file_id"
    for name in ["batch_id", "after"]:
        body = {"input_file_id": file, "endpoint": "/v1/responses", "completion_window": "24h"}
        names[server.ask("POST", "/v1/batches", body)["id"]] = name
    return names


def seeded():
    """The path of a state file with the objects."""
    state = FOLDER / "seeded.redb"
    state.unlink(missing_ok=True)
    server = Server(state)
    try:
        names = make(server)
    finally:
        # Not gently: what it keeps has to bear that, and a batch would go on.
        server.kill()
    subprocess.run([SETTINGS["seed"], str(state), *(f"{old}={new}" for old, new in names.items())], check=True)
    return state


class Plugin:
    def __init__(self):
        FOLDER.mkdir(parents=True, exist_ok=True)
        self.seeded = seeded()
        self.server = None
        self.refresh()

    def refresh(self):
        port = 0
        if self.server:
            port = self.server.port
            self.server.kill()
        state = FOLDER / "running.redb"
        shutil.copyfile(self.seeded, state)
        self.server = Server(state, port)
        self.is_changed = False

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item):
        if self.is_changed:
            self.refresh()
        self.is_changed = bool(CHANGES.search(item.name))

    def pytest_unconfigure(self):
        self.server.kill()


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config):
    plugin = Plugin()
    # The tests' own setting up reads it when it is imported.
    os.environ["TEST_API_BASE_URL"] = plugin.server.url + "/v1"
    early_config.pluginmanager.register(plugin)
