"""llama.cpp, out of the wheel `xllamacpp`, for `puna bench --against xllamacpp`.

usage: python llama_cpp.py MODEL THREADS CONTEXT

Prints {"ready": true, "version": ...} and then answers one JSON line with another until its input ends:
  {"test": "prefill", "tokens": T, "depth": D}              -> {"seconds": s}: reading T tokens after D others
  {"test": "decode", "tokens": T, "depth": D, "batch": B}   -> {"seconds": s}: T steps of B sequences after D tokens each
An error is answered as {"error": ...}.  Tokens are fed, not sampled, and are the same for every engine.

Its best settings.  The library's own defaults are the best or the same: memory mapping, batches of 2048 in pieces of 512,
keys and values in f16, flash attention where the device has it (a CPU does).  Threads are as many as ours.  One is not
always best: weights repacked for the CPU (the default) are faster for most work, but experts are then multiplied token
by token, and the layout of the file can win.  So the first run of each test tries both, the faster one counts from then
on, and answers name it ("setting").  Where a file has no format that is repacked, there is one.

The library exports the C interface.  Its parameter structs differ from release to release, so they are passed as opaque
blocks filled by its own `*_default_params`.  Of the context's, only the first four numbers are set, after a look at
whether their defaults are what they have always been, and what came of them is read back; of the model's, one flag,
after a look at its neighbours, and the log has to say that it worked.
"""
import ctypes
import importlib.metadata
import importlib.util
import json
import sys
import time

POINTER, I32, U32 = ctypes.c_void_p, ctypes.c_int32, ctypes.c_uint32


class Opaque(ctypes.Structure):
    """1 KiB, aligned like a pointer; the parameter structs are about 150 bytes."""
    _fields_ = [("words", U32 * 254), ("aligned", POINTER)]


class Batch(ctypes.Structure):
    """llama_batch, which has kept its layout."""
    _fields_ = [("n_tokens", I32), ("token", ctypes.POINTER(I32)), ("embd", POINTER), ("pos", ctypes.POINTER(I32)),
                ("n_seq_id", ctypes.POINTER(I32)), ("seq_id", ctypes.POINTER(ctypes.POINTER(I32))),
                ("logits", ctypes.POINTER(ctypes.c_int8))]


LOG = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, POINTER)
FUNCTIONS = {                                                           # name: (result, arguments)
    "llama_backend_init": (None, []),
    "llama_log_set": (None, [LOG, POINTER]),
    "llama_model_default_params": (Opaque, []),
    "llama_model_load_from_file": (POINTER, [ctypes.c_char_p, Opaque]),
    "llama_model_get_vocab": (POINTER, [POINTER]),
    "llama_vocab_n_tokens": (I32, [POINTER]),
    "llama_context_default_params": (Opaque, []),
    "llama_init_from_model": (POINTER, [POINTER, Opaque]),
    "llama_free": (None, [POINTER]),
    "llama_n_ctx": (U32, [POINTER]),
    "llama_n_seq_max": (U32, [POINTER]),
    "llama_set_n_threads": (None, [POINTER, I32, I32]),
    "llama_get_memory": (POINTER, [POINTER]),
    "llama_memory_clear": (None, [POINTER, ctypes.c_bool]),
    "llama_batch_init": (Batch, [I32, I32, I32]),
    "llama_batch_free": (None, [Batch]),
    "llama_decode": (I32, [POINTER, Batch]),
    "llama_synchronize": (None, [POINTER]),
}
N_BATCH = 2048
REPACKED, AS_STORED = "repacked", "as stored"
# Of the model's parameters: vocab_only, check_tensors, use_extra_bufts (which is repacking), no_host, no_alloc.
FLAGS_AT, FLAGS, REPACK_AT = 72, (0, 0, 1, 0, 0), 74


class LlamaCpp:
    """One model, loaded once or in both settings."""

    def __init__(self, path, n_threads):
        self.lib = ctypes.CDLL(importlib.util.find_spec("xllamacpp.xllamacpp").origin)
        for name, (result, arguments) in FUNCTIONS.items():
            function = getattr(self.lib, name)
            function.restype, function.argtypes = result, arguments
        self.log = []
        self.logger = LOG(lambda _level, text, _data: self.log.append(text))     # must outlive the library's use of it
        self.lib.llama_log_set(self.logger, None)
        self.lib.llama_backend_init()
        self.n_threads = n_threads
        self.models = {REPACKED: self._load(path, repack=True)}
        if self._was_repacked():
            model = self._load(path, repack=False)
            if model and not self._was_repacked():
                self.models[AS_STORED] = model
        else:
            self.models = {AS_STORED: self.models[REPACKED]}
        first = next(iter(self.models.values()))
        self.n_vocab = self.lib.llama_vocab_n_tokens(self.lib.llama_model_get_vocab(first))
        self.best = {}

    def _load(self, path, repack):
        """The model, or None where this release has no such flag in the place that is known."""
        params = self.lib.llama_model_default_params()
        if not repack:
            flags = ctypes.cast(ctypes.byref(params), ctypes.POINTER(ctypes.c_uint8))
            if tuple(flags[FLAGS_AT:FLAGS_AT + len(FLAGS)]) != FLAGS:
                return None
            flags[REPACK_AT] = 0
        self.log.clear()
        model = self.lib.llama_model_load_from_file(path.encode(), params)
        if not model:
            raise RuntimeError(f"llama.cpp does not load '{path}'")
        return model

    def _was_repacked(self):
        return any(b"REPACK" in text for text in self.log if text)

    def run(self, test, tokens, depth, batch):
        """Seconds of the measured part, and the setting."""
        key = (test, tokens, depth, batch)
        if key not in self.best:
            tried = {name: self._time(name, *key) for name in self.models}
            self.best[key] = min(tried, key=tried.get)
            return tried[self.best[key]], self.best[key]
        return self._time(self.best[key], *key), self.best[key]

    def _time(self, setting, test, tokens, depth, batch):
        self.log.clear()
        prefill = test == "prefill"
        context = self._context(self.models[setting], (depth + tokens + 16) * batch, batch)
        room = self.lib.llama_batch_init(N_BATCH, 0, 1)
        try:
            positions = [0] * batch
            if not prefill or depth == 0:                               # buffers are made by the first use
                self._step(context, room, [(s, 0) for s in range(batch)] if not prefill else
                           [(0, i) for i in range(min(tokens, N_BATCH))], ids(self.n_vocab))
                self.lib.llama_memory_clear(self.lib.llama_get_memory(context), False)
            stream = ids(self.n_vocab)
            for sequence in range(batch):
                self._read(context, room, sequence, 0, depth, stream)
                positions[sequence] = depth
            if prefill:
                began = time.perf_counter()
                self._read(context, room, 0, depth, tokens, stream)
                return time.perf_counter() - began
            seconds = 0.0
            for step in range(tokens):
                rows = [(sequence, positions[sequence] + step) for sequence in range(batch)]
                began = time.perf_counter()
                self._step(context, room, rows, stream, all_logits=True)
                seconds += time.perf_counter() - began
            return seconds
        finally:
            self.lib.llama_batch_free(room)
            self.lib.llama_free(context)

    def _context(self, model, n_positions, n_sequences):
        params = self.lib.llama_context_default_params()
        if list(params.words[1:4]) != [N_BATCH, 512, 1]:
            raise RuntimeError("this release of xllamacpp has another layout of context parameters")
        params.words[0], params.words[3] = n_positions, n_sequences
        context = self.lib.llama_init_from_model(model, params)
        lib = self.lib
        if not context or lib.llama_n_ctx(context) < n_positions or lib.llama_n_seq_max(context) != n_sequences:
            raise RuntimeError(f"llama.cpp gives no context of {n_positions} tokens in {n_sequences} sequences")
        lib.llama_set_n_threads(context, self.n_threads, self.n_threads)
        return context

    def _read(self, context, room, sequence, first, n, stream):
        """Reads `n` tokens of one sequence; logits after the last of each batch."""
        for begin in range(first, first + n, N_BATCH):
            end = min(begin + N_BATCH, first + n)
            self._step(context, room, [(sequence, position) for position in range(begin, end)], stream)

    def _step(self, context, room, rows, stream, all_logits=False):
        for i, (sequence, position) in enumerate(rows):
            room.token[i], room.pos[i] = next(stream), position
            room.n_seq_id[i], room.seq_id[i][0] = 1, sequence
            room.logits[i] = all_logits or i + 1 == len(rows)
        room.n_tokens = len(rows)
        if self.lib.llama_decode(context, room) != 0:
            raise RuntimeError(f"llama.cpp fails at a batch of {len(rows)} tokens")
        self.lib.llama_synchronize(context)


def ids(n_vocab):
    """Token ids that are the same for every engine."""
    state = 1
    while True:
        state = (state * 1103515245 + 12345) % 2 ** 31
        yield (state >> 8) % n_vocab


def main():
    path, n_threads, _context = sys.argv[1:4]
    try:
        engine = LlamaCpp(path, int(n_threads))
    except Exception as error:                                          # every failure is the peer's answer
        print(json.dumps({"error": str(error)}), flush=True)
        return
    print(json.dumps({"ready": True, "version": importlib.metadata.version("xllamacpp")}), flush=True)
    for line in sys.stdin:
        try:
            request = json.loads(line)
            test = request["test"], request["tokens"], request["depth"], request.get("batch", 1)
            seconds, setting = engine.run(*test)
            answer = {"seconds": seconds, "setting": setting}
        except Exception as error:
            answer = {"error": str(error)}
        print(json.dumps(answer), flush=True)


main()
