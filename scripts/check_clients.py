#!/usr/bin/env python3
"""Lets the programs that people already have talk to `puna serve`: one line a check; exit status 1 if one fails.

usage: python scripts/check_clients.py FOLDER [--puna target/release/puna] [--node FOLDER] [--only openai,llm] [--allow-missing]

FOLDER is a small model that takes images, such as the toy that `cargo run -p it --bin toy FOLDER` writes: what is checked is
that requests arrive, answers have the shape that each client reads, and what has to follow a schema does, not what is said.
Clients: openai, anthropic, litellm, langchain-openai, instructor, llm (from the Python index) and openai for Node (in
FOLDER/node_modules).  Each does a chat, a stream, a tool call, an answer by a JSON schema and an image.
"""
import argparse
import base64
import importlib.util
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import traceback
import urllib.request
import zlib

import serving

ROOT = pathlib.Path(__file__).resolve().parent.parent
KEY = "check-clients-key"
ANSWER_TOKENS = 48
SCHEMA = {"type": "object", "properties": {"color": {"enum": ["red", "blue"]}, "ok": {"type": "boolean"}},
          "required": ["color", "ok"], "additionalProperties": False}
PARAMETERS = {"type": "object", "properties": {"city": {"enum": ["Oslo", "Rome"]}}, "required": ["city"],
              "additionalProperties": False}
TOOL = {"type": "function", "function": {"name": "get_weather", "description": "Weather of a city",
                                         "parameters": PARAMETERS}}


class Failure(Exception):
    """A check that does not hold."""


def expect(holds, what):
    if not holds:
        raise Failure(what)


def png():
    """A small picture."""
    def chunk(kind, data):
        body = kind + data
        return len(data).to_bytes(4, "big") + body + zlib.crc32(body).to_bytes(4, "big")
    rows = b"".join(b"\0" + b"".join(bytes((8 * x, 8 * y, 99)) for x in range(8)) for y in range(8))
    header = (8).to_bytes(4, "big") * 2 + bytes((8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


IMAGE = base64.b64encode(png()).decode()
IMAGE_URL = f"data:image/png;base64,{IMAGE}"
PICTURE = [{"role": "user", "content": [{"type": "text", "text": "What is it?"},
                                        {"type": "image_url", "image_url": {"url": IMAGE_URL}}]}]
HELLO = [{"role": "user", "content": "Hello"}]


def follows_schema(text):
    value = json.loads(text)
    expect(value.get("color") in ("red", "blue") and isinstance(value.get("ok"), bool) and len(value) == 2,
           f"{text!r} does not follow the schema")


def is_weather(name, arguments):
    arguments = json.loads(arguments) if isinstance(arguments, str) else arguments
    # Not every client passes `additionalProperties` on.
    expect(name == "get_weather" and arguments.get("city") in ("Oslo", "Rome"), f"{name}({arguments})")


class OpenAi:
    """The official client for Python."""
    packages = ("openai",)

    def __init__(self, url, model):
        import openai
        self.client, self.model = openai.OpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=0), model

    def chat(self):
        answer = self.client.chat.completions.create(model=self.model, messages=HELLO, max_completion_tokens=ANSWER_TOKENS)
        expect(isinstance(answer.choices[0].message.content, str) and answer.usage.completion_tokens > 0, answer)

    def stream(self):
        parts = list(self.client.chat.completions.create(model=self.model, messages=HELLO, stream=True,
                                                         max_completion_tokens=ANSWER_TOKENS,
                                                         stream_options={"include_usage": True}))
        expect(len(parts) > 3 and parts[-1].usage.completion_tokens > 0 and parts[-2].choices[0].finish_reason, parts)

    def tool(self):
        choice = {"type": "function", "function": {"name": "get_weather"}}
        for how in ("required", choice):
            answer = self.client.chat.completions.create(model=self.model, messages=HELLO, tools=[TOOL], tool_choice=how)
            call = answer.choices[0].message.tool_calls[0]
            is_weather(call.function.name, call.function.arguments)
            expect(call.id and answer.choices[0].finish_reason == "tool_calls", answer)
        parts = self.client.chat.completions.create(model=self.model, messages=HELLO, tools=[TOOL],
                                                    tool_choice="required", stream=True)
        names, arguments, ids = {}, {}, {}
        for part in parts:
            for call in part.choices[0].delta.tool_calls or [] if part.choices else []:
                names[call.index] = names.get(call.index, "") + (call.function.name or "")
                arguments[call.index] = arguments.get(call.index, "") + (call.function.arguments or "")
                ids.setdefault(call.index, set()).update({call.id} - {None})
        for index, name in names.items():
            is_weather(name, arguments[index])
            expect(len(ids[index]) == 1, f"ids {ids}")
        expect(names, "no call")
        history = HELLO + [{"role": "assistant", "content": None, "tool_calls": [
            {"id": "c1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Oslo"}'}}]},
            {"role": "tool", "tool_call_id": "c1", "content": "12 C"}]
        answer = self.client.chat.completions.create(model=self.model, messages=history, tools=[TOOL],
                                                     tool_choice="none", max_completion_tokens=ANSWER_TOKENS)
        expect(not answer.choices[0].message.tool_calls, answer)

    def schema(self):
        form = {"type": "json_schema", "json_schema": {"name": "s", "schema": SCHEMA, "strict": True}}
        answer = self.client.chat.completions.create(model=self.model, messages=HELLO, response_format=form)
        follows_schema(answer.choices[0].message.content)

    def image(self):
        answer = self.client.chat.completions.create(model=self.model, messages=PICTURE, max_completion_tokens=ANSWER_TOKENS)
        expect(answer.usage.prompt_tokens > 10, answer)


class Anthropic:
    """Anthropic's client for Python."""
    packages = ("anthropic",)

    def __init__(self, url, model):
        import anthropic
        self.client, self.model = anthropic.Anthropic(base_url=url, api_key=KEY, max_retries=0), model

    def chat(self):
        answer = self.client.messages.create(model=self.model, max_tokens=ANSWER_TOKENS, messages=HELLO, system="Be brief.")
        expect(answer.content[0].type == "text" and answer.usage.output_tokens > 0, answer)
        count = self.client.messages.count_tokens(model=self.model, messages=HELLO)
        expect(count.input_tokens > 0, count)

    def stream(self):
        with self.client.messages.stream(model=self.model, max_tokens=ANSWER_TOKENS, messages=HELLO) as stream:
            text = "".join(stream.text_stream)
            final = stream.get_final_message()
        expect(text == "".join(block.text for block in final.content) and final.stop_reason, final)

    def tool(self):
        tool = {"name": "get_weather", "description": "Weather", "input_schema": PARAMETERS}
        answer = self.client.messages.create(model=self.model, max_tokens=400, messages=HELLO, tools=[tool],
                                             tool_choice={"type": "any"})
        call = next(block for block in answer.content if block.type == "tool_use")
        is_weather(call.name, call.input)
        expect(answer.stop_reason == "tool_use", answer)

    def schema(self):
        tool = {"name": "answer", "description": "The answer", "input_schema": SCHEMA}
        answer = self.client.messages.create(model=self.model, max_tokens=400, messages=HELLO, tools=[tool],
                                             tool_choice={"type": "tool", "name": "answer"})
        follows_schema(json.dumps(next(block for block in answer.content if block.type == "tool_use").input))

    def image(self):
        source = {"type": "base64", "media_type": "image/png", "data": IMAGE}
        content = [{"type": "image", "source": source}, {"type": "text", "text": "What is it?"}]
        answer = self.client.messages.create(model=self.model, max_tokens=ANSWER_TOKENS,
                                             messages=[{"role": "user", "content": content}])
        usage = answer.usage
        expect(usage.input_tokens + usage.cache_creation_input_tokens + usage.cache_read_input_tokens > 10, answer)


class LiteLlm:
    """LiteLLM, by its route for servers such as this."""
    packages = ("litellm",)

    def __init__(self, url, model):
        self.arguments = {"model": f"hosted_vllm/{model}", "api_base": f"{url}/v1", "api_key": KEY, "num_retries": 0}

    def _completion(self, **arguments):
        import litellm
        return litellm.completion(**self.arguments, **arguments)

    def chat(self):
        answer = self._completion(messages=HELLO, max_tokens=ANSWER_TOKENS)
        expect(answer.usage.completion_tokens > 0, answer)

    def stream(self):
        parts = list(self._completion(messages=HELLO, max_tokens=ANSWER_TOKENS, stream=True))
        expect(len(parts) > 3, parts)

    def tool(self):
        answer = self._completion(messages=HELLO, tools=[TOOL], tool_choice="required")
        call = answer.choices[0].message.tool_calls[0]
        is_weather(call.function.name, call.function.arguments)

    def schema(self):
        form = {"type": "json_schema", "json_schema": {"name": "s", "schema": SCHEMA, "strict": True}}
        follows_schema(self._completion(messages=HELLO, response_format=form).choices[0].message.content)

    def image(self):
        expect(self._completion(messages=PICTURE, max_tokens=ANSWER_TOKENS).usage.prompt_tokens > 10, "no tokens")


class LangChain:
    """LangChain's class for OpenAI."""
    packages = ("langchain_openai",)

    def __init__(self, url, model):
        from langchain_openai import ChatOpenAI
        self.model = ChatOpenAI(model=model, base_url=f"{url}/v1", api_key=KEY, max_retries=0,
                                max_completion_tokens=400)

    def chat(self):
        answer = self.model.invoke("Hello")
        expect(isinstance(answer.content, str) and answer.usage_metadata["output_tokens"] > 0, answer)

    def stream(self):
        expect(len(list(self.model.stream("Hello"))) > 3, "few pieces")

    def tool(self):
        answer = self.model.bind_tools([TOOL], tool_choice="any").invoke("Hello")
        is_weather(answer.tool_calls[0]["name"], answer.tool_calls[0]["args"])

    def schema(self):
        form = {"title": "answer", "description": "The answer", **SCHEMA}
        for method in ("json_schema", "function_calling"):
            follows_schema(json.dumps(self.model.with_structured_output(form, method=method).invoke("Hello")))

    def image(self):
        from langchain_core.messages import HumanMessage
        answer = self.model.invoke([HumanMessage(content=PICTURE[0]["content"])])
        expect(answer.usage_metadata["input_tokens"] > 10, answer)


class Instructor:
    """Instructor over the official client: models of pydantic."""
    packages = ("instructor", "openai")

    def __init__(self, url, model):
        import instructor
        import openai
        import pydantic
        from typing import Literal

        class Answer(pydantic.BaseModel):
            model_config = pydantic.ConfigDict(extra="forbid")
            color: Literal["red", "blue"]
            ok: bool

        self.answer, self.name = Answer, model
        client = openai.OpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=0)
        modes = {"tool": instructor.Mode.TOOLS, "schema": instructor.Mode.JSON_SCHEMA}
        self.clients = {name: instructor.from_openai(client, mode=mode) for name, mode in modes.items()}

    def _create(self, client="schema", messages=HELLO):
        answer = self.clients[client].chat.completions.create(model=self.name, messages=messages, max_retries=0,
                                                              response_model=self.answer)
        expect(isinstance(answer, self.answer), answer)

    def chat(self):
        self._create()

    def stream(self):
        parts = list(self.clients["schema"].chat.completions.create_partial(
            model=self.name, messages=HELLO, max_retries=0, response_model=self.answer))
        expect(parts and parts[-1].color in ("red", "blue"), parts)

    def tool(self):
        self._create("tool")

    def schema(self):
        self._create("schema")

    def image(self):
        self._create(messages=PICTURE)


class Llm:
    """The `llm` command, with the model described in its own folder."""
    packages = ("llm",)

    def __init__(self, url, model):
        self.folder = tempfile.TemporaryDirectory()
        path = pathlib.Path(self.folder.name)
        keys = {"puna": KEY}
        (path / "keys.json").write_text(json.dumps(keys))
        (path / "extra-openai-models.yaml").write_text(
            f"- model_id: puna\n  model_name: {model}\n  api_base: {url}/v1\n  api_key_name: puna\n"
            "  vision: true\n  supports_schema: true\n  supports_tools: true\n")
        (path / "image.png").write_bytes(png())

    def _run(self, *arguments):
        environment = {**os.environ, "LLM_USER_PATH": self.folder.name}
        program = pathlib.Path(sys.executable).with_name("llm")
        done = subprocess.run([program, "-m", "puna", "-o", "max_tokens", "300", *arguments], capture_output=True, text=True,
                              env=environment, timeout=300, stdin=subprocess.DEVNULL)
        expect(done.returncode == 0, done.stderr[-1000:])
        return done.stdout

    def chat(self):
        expect(self._run("Hello", "--no-stream"), "no answer")

    def stream(self):
        expect(self._run("Hello"), "no answer")

    def tool(self):
        # The model need not call; the tool has to be described, and whatever comes to be understood.
        self._run("Hello", "-T", "llm_version", "--chain-limit", "2", "--no-stream")

    def schema(self):
        follows_schema(self._run("Hello", "--schema", json.dumps(SCHEMA), "--no-stream"))

    def image(self):
        expect(self._run("What is it?", "-a", str(pathlib.Path(self.folder.name) / "image.png")), "no answer")


NODE = r"""
import OpenAI from 'openai';
const [what, url, key, model, tool, schema, picture] = process.argv.slice(2);
const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: key, maxRetries: 0 });
const messages = [{ role: 'user', content: 'Hello' }];
const chat = client.chat.completions;
const say = (value) => console.log(JSON.stringify(value));
if (what === 'chat') {
  const answer = await chat.create({ model, messages, max_completion_tokens: 48 });
  say([typeof answer.choices[0].message.content, answer.usage.completion_tokens]);
} else if (what === 'stream') {
  let [n, reason] = [0, null];
  for await (const part of await chat.create({ model, messages, max_completion_tokens: 48, stream: true })) {
    n += part.choices.length;
    reason = part.choices[0]?.finish_reason ?? reason;
  }
  say([n, reason]);
} else if (what === 'tool') {
  const answer = await chat.create({ model, messages, tools: [JSON.parse(tool)], tool_choice: 'required' });
  const call = answer.choices[0].message.tool_calls[0];
  say([call.function.name, call.function.arguments]);
} else if (what === 'schema') {
  const response_format = { type: 'json_schema', json_schema: { name: 's', strict: true, schema: JSON.parse(schema) } };
  say((await chat.create({ model, messages, response_format })).choices[0].message.content);
} else {
  const answer = await chat.create({ model, messages: JSON.parse(picture), max_completion_tokens: 48 });
  say(answer.usage.prompt_tokens);
}
"""


class Node:
    """The official client for Node."""
    packages = ()
    folder = None

    def __init__(self, url, model):
        self.url, self.model = url, model
        self.script = pathlib.Path(self.folder) / "check-clients.mjs"
        self.script.write_text(NODE)

    def _run(self, what):
        arguments = [what, self.url, KEY, self.model, json.dumps(TOOL), json.dumps(SCHEMA), json.dumps(PICTURE)]
        done = subprocess.run(["node", self.script, *arguments], capture_output=True, text=True, timeout=300)
        expect(done.returncode == 0, done.stderr[-1000:])
        return json.loads(done.stdout)

    def chat(self):
        kind, n_tokens = self._run("chat")
        expect(kind == "string" and n_tokens > 0, (kind, n_tokens))

    def stream(self):
        n_parts, reason = self._run("stream")
        expect(n_parts > 3 and reason, (n_parts, reason))

    def tool(self):
        is_weather(*self._run("tool"))

    def schema(self):
        follows_schema(self._run("schema"))

    def image(self):
        expect(self._run("image") > 10, "no tokens")


CLIENTS = {"openai": OpenAi, "anthropic": Anthropic, "litellm": LiteLlm, "langchain": LangChain, "instructor": Instructor,
           "llm": Llm, "node": Node}
CHECKS = ("chat", "stream", "tool", "schema", "image")


def decided(model, folder):
    """`model` with a setting of its own: that it takes the likeliest token. By chance a toy ends where it begins."""
    own = pathlib.Path(folder) / pathlib.Path(model).resolve().name
    shutil.copytree(model, own)
    settings = own / "generation_config.json"
    known = json.loads(settings.read_text()) if settings.exists() else {}
    settings.write_text(json.dumps({**known, "do_sample": False}))
    return own


class Served(serving.Server):
    """`puna serve` with a key."""

    def __init__(self, puna, model, folder):
        model = decided(model, folder)
        keys = pathlib.Path(folder) / "keys"
        keys.write_text(KEY + "\n")
        keys.chmod(0o600)
        super().__init__(puna, model, "--api-key-file", keys, log=pathlib.Path(folder) / "serve.log")
        request = urllib.request.Request(f"{self.url}/v1/models", headers={"Authorization": f"Bearer {KEY}"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            self.model = json.load(answer)["data"][0]["id"]


def run(args, served):
    n_checks = n_failed = n_missing = 0
    for name in args.only:
        kind = CLIENTS[name]
        missing = [package for package in kind.packages if importlib.util.find_spec(package) is None]
        if kind is Node and not (args.node and (args.node / "node_modules" / "openai").exists()):
            missing = ["openai for Node; see --node"]
        if missing:
            print(f"{name:12} did NOT run: there is no {', '.join(missing)}")
            n_missing += 1
            continue
        client = kind(served.url, served.model)
        for check in CHECKS:
            n_checks += 1
            try:
                getattr(client, check)()
                print(f"ok   {name} {check}")
            except Exception as error:                                   # a client's own exceptions have no common class
                n_failed += 1
                print(f"FAIL {name} {check}: {type(error).__name__}: {str(error)[:600]}")
                if args.verbose:
                    traceback.print_exc()
    print(f"{n_checks - n_failed} of {n_checks} checks hold, {n_missing} clients are missing")
    return 1 if n_failed or (n_missing and not args.allow_missing) or not n_checks and not args.allow_missing else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=pathlib.Path, help="a model that takes images")
    parser.add_argument("--puna", type=pathlib.Path, default=ROOT / "target/release/puna")
    parser.add_argument("--node", type=pathlib.Path, help="a folder in which `npm install openai` has run")
    parser.add_argument("--only", type=lambda names: names.split(","), default=list(CLIENTS), help="some of the clients")
    parser.add_argument("--allow-missing", action="store_true", help="do not fail where a client is not installed")
    parser.add_argument("--verbose", action="store_true", help="show where a check failed")
    args = parser.parse_args()
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")         # or it looks for prices on the network
    Node.folder = args.node
    with tempfile.TemporaryDirectory() as folder:
        served = Served(args.puna, args.model, folder)
        try:
            status = run(args, served)
        finally:
            code = served.end()
    if code != 0:
        print(f"FAIL puna serve ended with exit code {code}")
        return 1
    return status


if __name__ == "__main__":
    sys.exit(main())
