#!/usr/bin/env python3
"""Loads `puna serve` as many clients do, then four times as much; exit status 1 if something is not as it must be.

usage: python scripts/check_load.py MODEL [--puna target/release/puna] [--seconds 60] [--untimed]

MODEL is best a toy (`cargo run -p it --bin toy FOLDER` writes one): the server is what is tested.  Needs nothing but Python.

load: 64 clients, prompts of 8 to 512 bytes, answers of 1 to 128 tokens, half of them streamed.  No request may fail, 99 of
100 first tokens come within 2 s, and the tokens that clients were told of are those that the server counted.
overload: 256 clients from four addresses with the same requests, to a server with a quarter of the room.  Nothing but whole
answers and 429 with `retry-after`, which clients obey; how fast refusals come is printed; answers' tokens a second are at
least 90 % of what 16 clients get from that server.
--untimed: both speeds are printed but not judged, for a machine of unknown speed or a program without optimisation.
"""
import argparse
import http.client
import json
import pathlib
import random
import re
import sys
import tempfile
import threading
import time
import urllib.request

import serving

ROOT = pathlib.Path(__file__).resolve().parent.parent
TIMEOUT_S = 60


def metrics(server):
    with urllib.request.urlopen(f"{server.url}/metrics", timeout=TIMEOUT_S) as reply:
        text = reply.read().decode()
    return {name: float(value) for name, value in re.findall(r"^(\w+\{[^}]*\}) (\S+)$", text, re.MULTILINE)}


class Client:
    """One connection's requests, one after another."""

    def __init__(self, server, seed, source):
        self.server, self.random, self.source = server, random.Random(seed), source
        self.answers, self.prompt, self.completion = 0, 0, 0
        self.first_s, self.refused_s, self.failures = [], [], []

    def run(self, deadline):
        connection = http.client.HTTPConnection(self.server.host, self.server.port, timeout=TIMEOUT_S, source_address=(self.source, 0))
        while time.monotonic() < deadline:
            try:
                self.ask(connection, deadline)
            except (OSError, http.client.HTTPException, ValueError, KeyError) as error:
                self.failures.append(f"{type(error).__name__}: {error}")
                connection.close()
        connection.close()

    def ask(self, connection, deadline):
        n_tokens, streams = self.random.randint(1, 128), self.random.random() < .5
        letters = self.random.choices("abcdefgh ", k=self.random.randint(8, 512) - 7)
        body = {"prompt": "%06d " % self.random.randrange(10 ** 6) + "".join(letters), "max_tokens": n_tokens,
                "ignore_eos": True, "stream": streams}
        if streams:
            body["stream_options"] = {"include_usage": True}
        began = time.monotonic()
        connection.request("POST", "/v1/completions", json.dumps(body), {"content-type": "application/json"})
        reply = connection.getresponse()
        if reply.status == 429:
            self.refused_s.append(time.monotonic() - began)
            after = reply.headers["retry-after"]
            reply.read()
            if after is None:
                raise ValueError("429 without retry-after")
            time.sleep(min(float(after), max(0, deadline - time.monotonic())))
            return
        if reply.status != 200:
            raise ValueError(f"{reply.status}: {reply.read()[:200]}")
        usage, reason = self.stream(reply, began) if streams else self.whole(reply)
        if usage["completion_tokens"] != n_tokens or reason != "length":
            raise ValueError(f"{usage}, {reason}; {n_tokens} tokens were asked for")
        self.answers += 1
        self.prompt += usage["prompt_tokens"]
        self.completion += usage["completion_tokens"]

    def whole(self, reply):
        answer = json.loads(reply.read())
        return answer["usage"], answer["choices"][0]["finish_reason"]

    def stream(self, reply, began):
        usage = reason = first = None
        done = False
        for line in reply:
            if not line.startswith(b"data: "):
                continue
            first = first or time.monotonic()
            if line.startswith(b"data: [DONE]"):
                done = True
                continue
            event = json.loads(line[6:])
            if "error" in event:
                raise ValueError(f"an error in the stream: {event['error']}")
            usage = event.get("usage") or usage
            reason = next((choice["finish_reason"] for choice in event["choices"] if choice["finish_reason"]), reason)
        if not done or usage is None:
            raise ValueError("a stream without its end")
        self.first_s.append(first - began)
        return usage, reason


def serve(args, parallel, folder):
    flags = ["--state", "none", "--ctx", 1024, "--parallel", parallel]
    return serving.Server(args.puna, args.model, *flags, log=pathlib.Path(folder) / "server.log")


def quantile(values, share):
    return sorted(values)[min(len(values) - 1, int(share * len(values)))] if values else 0


def load(server, n_clients, seconds, sources=("127.0.0.1",)):
    """The clients, after `seconds` and what was asked for until then, and the seconds that it took."""
    clients = [Client(server, seed, sources[seed % len(sources)]) for seed in range(n_clients)]
    began = time.monotonic()
    threads = [threading.Thread(target=client.run, args=(began + seconds,)) for client in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return clients, time.monotonic() - began


def report(name, clients, seconds):
    of = lambda field: [value for client in clients for value in getattr(client, field)]
    total = lambda field: sum(getattr(client, field) for client in clients)
    failures = of("failures")
    print(f"{name}: {len(clients)} clients, {seconds:.0f} s, {total('answers')} answers, {total('completion')} tokens, "
          f"{total('completion') / seconds:.0f} tok/s, first token p50 {quantile(of('first_s'), .5):.3f} s, "
          f"p99 {quantile(of('first_s'), .99):.3f} s, {len(of('refused_s'))} refused "
          f"(p50 {1e3 * quantile(of('refused_s'), .5):.0f} ms, p99 {1e3 * quantile(of('refused_s'), .99):.0f} ms), "
          f"{len(failures)} failed", flush=True)
    for failure in failures[:3]:
        print(f"  failed: {failure}")
    return failures


def settled(server):
    """The server's counters once nothing runs any more; the last ones where that never comes."""
    for _ in range(200):
        counters = metrics(server)
        if counters['puna_engine{kind="running"}'] == counters['puna_engine{kind="waiting"}'] == 0:
            break
        time.sleep(.05)
    return counters


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--puna", default=str(ROOT / "target/release/puna"))
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--untimed", action="store_true")
    args = parser.parse_args()
    wrong = []

    def expect(holds, what):
        if not holds:
            wrong.append(what)

    with tempfile.TemporaryDirectory() as folder:
        server = serve(args, 8, folder)
        clients, seconds = load(server, 64, args.seconds)
        expect(not report("load", clients, seconds), "requests failed under load")
        refused = sum(len(client.refused_s) for client in clients)
        expect(refused == 0, f"{refused} requests were refused under load")
        first = quantile([value for client in clients for value in client.first_s], .99)
        expect(args.untimed or first < 2, f"99 of 100 first tokens came within {first:.2f} s; the limit is 2 s")
        counters = settled(server)
        for kind, told in (("completion", "completion"), ("prompt", "prompt")):
            counted, of_usage = counters['puna_tokens_total{kind="%s"}' % kind], sum(getattr(c, told) for c in clients)
            print(f"  {kind} tokens: {of_usage} in usage, {counted:.0f} counted by the server")
            expect(counted == of_usage, f"{of_usage} {kind} tokens in usage, {counted:.0f} counted")
        held = counters['puna_engine{kind="pages_of_sequences"}']
        expect(held == 0, f"{held:.0f} pages are still held")
        expect(server.end() == 0, "the server did not end well")

        server = serve(args, 2, folder)
        clients, seconds = load(server, 16, args.seconds / 2)
        expect(not report("a quarter of the room", clients, seconds), "requests failed")
        capacity = sum(client.completion for client in clients) / seconds
        sources = [f"127.0.0.{i}" for i in range(1, 5)] if sys.platform == "linux" else ["127.0.0.1"]
        clients, seconds = load(server, 64 * len(sources), args.seconds, sources)
        expect(not report("overload", clients, seconds), "requests failed under overload")
        goodput = sum(client.completion for client in clients) / seconds / capacity
        refused_s = [value for client in clients for value in client.refused_s]
        print(f"  {goodput:.0%} of the tokens a second that 16 clients get")
        expect(args.untimed or goodput >= .9, f"goodput under overload is {goodput:.0%}; at least 90 % was wanted")
        expect(refused_s, "nothing was refused: that was no overload")
        held = settled(server)['puna_engine{kind="pages_of_sequences"}']
        expect(held == 0, f"{held:.0f} pages are still held")
        expect(server.end() == 0, "the server did not end well")
    for what in wrong:
        print(f"NOT as it must be: {what}")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
