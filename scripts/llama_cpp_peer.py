"""Token ids and logits from the llama.cpp that the wheel `xllamacpp` carries, through its C functions.

The wheel's own classes give only the most likely tokens of a generated text; the library inside it exports the whole C
interface.  Its parameter structs differ from release to release, so none is spelled out here: they are passed as opaque
blocks, larger than any release's struct (which both calling conventions in use allow for a last argument), filled by the
library's own `*_default_params`.  One number is set, the context length, the first field of its struct, and it is read
back.  A batch asks for its last logits only, which needs no field of
the batch struct at all; only `logits_at_once` fills one, the list of wanted rows, and it fails if they do not come.
"""
import contextlib
import ctypes
import importlib.util
import time

import numpy


class Opaque(ctypes.Structure):
    """1 KiB, aligned like a pointer; llama.cpp's parameter structs are about 150 bytes."""
    _fields_ = [("words", ctypes.c_uint32 * 254), ("aligned", ctypes.c_void_p)]


_POINTER, _I32, _I64, _U32 = ctypes.c_void_p, ctypes.c_int32, ctypes.c_int64, ctypes.c_uint32
_FLOATS, _IDS = ctypes.POINTER(ctypes.c_float), ctypes.POINTER(_I32)
_LOG = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, _POINTER)
# name: (result, arguments)
_FUNCTIONS = {
    "llama_backend_init": (None, []),
    "llama_log_set": (None, [_LOG, _POINTER]),
    "llama_model_default_params": (Opaque, []),
    "llama_model_load_from_file": (_POINTER, [ctypes.c_char_p, Opaque]),
    "llama_model_free": (None, [_POINTER]),
    "llama_model_get_vocab": (_POINTER, [_POINTER]),
    "llama_vocab_n_tokens": (_I32, [_POINTER]),
    "llama_tokenize": (_I32, [_POINTER, ctypes.c_char_p, _I32, _IDS, _I32, ctypes.c_bool, ctypes.c_bool]),
    "llama_context_default_params": (Opaque, []),
    "llama_init_from_model": (_POINTER, [_POINTER, Opaque]),
    "llama_free": (None, [_POINTER]),
    "llama_n_ctx": (_U32, [_POINTER]),
    "llama_set_n_threads": (None, [_POINTER, _I32, _I32]),
    "llama_batch_get_one": (Opaque, [_IDS, _I32]),
    "llama_decode": (_I32, [_POINTER, Opaque]),
    "llama_get_logits_ith": (_FLOATS, [_POINTER, _I32]),
    "ggml_quantize_chunk": (ctypes.c_size_t, [ctypes.c_int, _FLOATS, _POINTER, _I64, _I64, _I64, _FLOATS]),
}


# Of `struct llama_batch`, in words: the list of rows whose logits are wanted, after six other fields of 8 bytes.
_WANTED = slice(12, 14)


def _library():
    lib = ctypes.CDLL(importlib.util.find_spec("xllamacpp.xllamacpp").origin)
    for name, (result, arguments) in _FUNCTIONS.items():
        function = getattr(lib, name)
        function.restype, function.argtypes = result, arguments
    return lib


def quantise(rows, type_id, n_bytes):
    """`rows`, `[R,K]` float32, in the format that GGUF files number `type_id`, `n_bytes` long, by llama.cpp's encoder."""
    rows = numpy.ascontiguousarray(rows, numpy.float32)
    out = numpy.empty(n_bytes, numpy.uint8)
    n_written = _library().ggml_quantize_chunk(type_id, rows.ctypes.data_as(_FLOATS), out.ctypes.data, 0, *rows.shape, None)
    if n_written != n_bytes:
        raise RuntimeError(f"llama.cpp makes {n_written} bytes of type {type_id}; {n_bytes} are expected")
    return out


class LlamaCpp:
    """One GGUF model, open in llama.cpp."""

    def __init__(self, path):
        lib = self._lib = _library()
        self._silence = _LOG(lambda _level, _text, _data: None)      # must outlive the library's use of it
        lib.llama_log_set(self._silence, None)
        lib.llama_backend_init()
        self._model = lib.llama_model_load_from_file(str(path).encode(), lib.llama_model_default_params())
        if not self._model:
            raise RuntimeError(f"llama.cpp does not load '{path}'")
        self._vocab = lib.llama_model_get_vocab(self._model)

    def close(self):
        self._lib.llama_model_free(self._model)

    def tokenize(self, text):
        """Ids of `text`, nothing added, no control token recognised."""
        raw = text.encode()
        ids = (_I32 * (len(raw) + 8))()
        n_ids = self._lib.llama_tokenize(self._vocab, raw, len(raw), ids, len(ids), False, False)
        if n_ids < 0:
            raise RuntimeError(f"llama.cpp does not tokenise {text!r}")
        return list(ids[:n_ids])

    def logits(self, ids, together=0):
        """`[T,V]` float32: the logits after each of `ids`, from an empty context.

        The first `together` ids are read as one batch, which gives logits only after its last: those come first then.
        """
        # One thread: its spinning barriers make more of them far slower on a busy machine.
        with self._context(len(ids), n_threads=1) as context:
            batches = [ids[:together]] if together else []
            batches += [[token] for token in ids[together:]]
            return numpy.stack([self._decode(context, batch).copy() for batch in batches])

    def logits_at_once(self, ids, n_threads):
        """`[T,V]` float32: the logits after each of `ids`, which are read as one batch from an empty context."""
        lib = self._lib
        wanted = (ctypes.c_int8 * len(ids))(*[1] * len(ids))
        tokens = (_I32 * len(ids))(*ids)
        with self._context(len(ids), n_threads) as context:
            batch = lib.llama_batch_get_one(tokens, len(ids))
            address = ctypes.addressof(wanted)
            batch.words[_WANTED] = [address & 0xffffffff, address >> 32]
            if lib.llama_decode(context, batch) != 0:
                raise RuntimeError(f"llama.cpp fails at a batch of {len(ids)} tokens")
            n_vocab = lib.llama_vocab_n_tokens(self._vocab)
            rows = [lib.llama_get_logits_ith(context, row) for row in range(len(ids))]
            if not all(rows):
                raise RuntimeError("llama.cpp does not give the logits asked for; this wheel's structs are unknown")
            return numpy.stack([numpy.ctypeslib.as_array(row, (n_vocab,)) for row in rows])

    def time_greedy(self, ids, n_tokens, n_threads):
        """Seconds of each of `n_tokens` greedy choices after `ids`, which are read as one batch."""
        with self._context(len(ids) + n_tokens, n_threads) as context:
            batch, seconds = list(ids), []
            for _ in range(n_tokens):
                begin = time.perf_counter()
                batch = [int(self._decode(context, batch).argmax())]
                seconds.append(time.perf_counter() - begin)
            return seconds

    @contextlib.contextmanager
    def _context(self, n_positions, n_threads):
        """An empty context with room for `n_positions`."""
        lib = self._lib
        params = lib.llama_context_default_params()
        params.words[0] = n_positions
        context = lib.llama_init_from_model(self._model, params)
        try:
            if not context or lib.llama_n_ctx(context) < n_positions:
                raise RuntimeError(f"llama.cpp gives no context of {n_positions} tokens; this wheel's structs are unknown")
            lib.llama_set_n_threads(context, n_threads, n_threads)
            yield context
        finally:
            if context:
                lib.llama_free(context)

    def _decode(self, context, batch):
        """`[V]` float32, the logits after the last of `batch`: a view that the next call overwrites."""
        lib = self._lib
        ids = (_I32 * len(batch))(*batch)      # llama.cpp's batch points at it
        if lib.llama_decode(context, lib.llama_batch_get_one(ids, len(batch))) != 0:
            raise RuntimeError(f"llama.cpp fails at a batch of {len(batch)} tokens")
        return numpy.ctypeslib.as_array(lib.llama_get_logits_ith(context, -1), (lib.llama_vocab_n_tokens(self._vocab),))
