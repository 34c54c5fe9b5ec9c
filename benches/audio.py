#!/usr/bin/env python3
"""Speed of 30 s of audio: puna and `transformers` in alternation, through an encoder of the size of Whisper base.

usage: python benches/audio.py FOLDER [--puna target/release/puna] [--threads 2] [--runs 5] [--dtype float32]
       [--weights stored|q8_0] [--precision f32|bf16] [--out FILE.json]

FOLDER gets a checkpoint of random weights if it has none: Whisper base's encoder (6 layers of width 512, 8 heads, feed-forward
2048, 80 mel bins, chunks of 30 s), the default projector to width 2048, and a text model that is as small as the format
allows.  A run goes from samples to rows: log-mel features, encoder, projector; `puna bench --audio-clip` warms up with one
clip before the one that counts, and so does the peer.  `transformers` gets the same weights in its better type, float32
unless `--dtype` says otherwise, its own feature extractor (in torch) and WhisperEncoder, and the projector in torch.

`--weights q8_0` holds our encoder's maps in eight bits, as `puna serve --audio-weights q8_0` does.
`--precision bf16` has maps as stored multiply activations that are rounded to bf16.

Needs torch, transformers 5, numpy, safetensors.
"""
import json
import time

import tower  # beside this file

SEED, SECONDS, RATE = 0, 30, 16000
WIDTH, FFN, LAYERS, HEADS, MELS, FRAMES, STACK, TEXT = 512, 2048, 6, 8, 80, 1500, 4, 2048


def weights():
    """The encoder in transformers, and the projector's two maps."""
    import torch
    from transformers import WhisperConfig
    from transformers.models.whisper.modeling_whisper import WhisperEncoder
    torch.manual_seed(SEED)
    config = WhisperConfig(d_model=WIDTH, encoder_layers=LAYERS, encoder_attention_heads=HEADS, encoder_ffn_dim=FFN,
                           num_mel_bins=MELS, max_source_positions=FRAMES, activation_function="gelu")
    encoder = WhisperEncoder(config).eval()
    with torch.no_grad():
        for name, parameter in encoder.named_parameters():
            if parameter.ndim > 1 and "positions" not in name:           # what comes out is as large as what goes in
                fan_in = parameter[0].numel()
                parameter.copy_(torch.randn(parameter.shape) / fan_in ** 0.5)
    maps = [torch.randn(TEXT, STACK * WIDTH) / (STACK * WIDTH) ** 0.5, torch.randn(TEXT, TEXT) / TEXT ** 0.5]
    return encoder, maps


def make(folder, encoder, maps):
    """Writes the checkpoint."""
    import torch
    from safetensors.torch import save_file
    text = dict(model_type="llama4_text", vocab_size=128, hidden_size=TEXT, intermediate_size=64, intermediate_size_mlp=64,
                num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=2, head_dim=32, num_local_experts=2,
                num_experts_per_tok=1, max_position_embeddings=4096, attention_chunk_size=4096, rms_norm_eps=1e-5,
                no_rope_layers=[1], moe_layers=[], interleave_moe_layer_step=1, attn_temperature_tuning=True,
                floor_scale=8192, attn_scale=0.1, use_qk_norm=False, rope_theta=500000.0, tie_word_embeddings=False,
                pad_token_id=0, bos_token_id=1, eos_token_id=2, attention_bias=False, hidden_act="silu")
    audio = dict(model_type="whisper", num_mel_bins=MELS, hidden_size=WIDTH, intermediate_size=FFN, num_hidden_layers=LAYERS,
                 num_attention_heads=HEADS, max_source_positions=FRAMES, activation_function="gelu")
    config = dict(architectures=["Llama4ForConditionalGeneration"], model_type="llama4", text_config=text,
                  audio_config=audio, audio_projector_config=dict(stack_factor=STACK, hidden_size=TEXT, hidden_act="gelu"),
                  boa_token_index=5, audio_token_index=6, eoa_token_index=7, tie_word_embeddings=False)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "audio_preprocessor_config.json").write_text(json.dumps(
        dict(feature_extractor_type="WhisperFeatureExtractor", feature_size=MELS, chunk_length=SECONDS)))
    tensors = {f"audio_tower.{name}": value.contiguous() for name, value in encoder.state_dict().items()}
    for index, value in enumerate(maps, 1):
        tensors[f"audio_projector.linear_{index}.weight"] = value
    rows = lambda *shape: torch.randn(*shape) / shape[-1] ** 0.5
    layer = "language_model.model.layers.0."
    tensors |= {"language_model.model.embed_tokens.weight": rows(128, TEXT), "language_model.lm_head.weight": rows(128, TEXT),
                "language_model.model.norm.weight": torch.ones(TEXT), layer + "input_layernorm.weight": torch.ones(TEXT),
                layer + "post_attention_layernorm.weight": torch.ones(TEXT)}
    for name in "qkv":
        tensors[f"{layer}self_attn.{name}_proj.weight"] = rows(64, TEXT)
    tensors[layer + "self_attn.o_proj.weight"] = rows(TEXT, 64)
    for name, shape in (("gate", (64, TEXT)), ("up", (64, TEXT)), ("down", (TEXT, 64))):
        tensors[f"{layer}feed_forward.{name}_proj.weight"] = rows(*shape)
    save_file(tensors, folder / "model.safetensors")


class Peer:
    """`transformers` with one clip."""

    def __init__(self, encoder, maps, threads, dtype):
        import torch
        from transformers import WhisperFeatureExtractor
        torch.set_num_threads(threads)
        self.torch, self.dtype = torch, getattr(torch, dtype)
        self.encoder, self.maps = encoder.to(self.dtype), [value.to(self.dtype) for value in maps]
        self.extractor = WhisperFeatureExtractor(feature_size=MELS)
        generator = torch.Generator().manual_seed(SEED)
        self.samples = (torch.rand(SECONDS * RATE, generator=generator) * 2 - 1).numpy()

    def run(self):
        """Seconds of one clip."""
        with self.torch.inference_mode():
            begin = time.perf_counter()
            features = self.extractor(self.samples, sampling_rate=RATE, return_tensors="pt").input_features
            frames = self.encoder(features.to(self.dtype)).last_hidden_state
            stacked = frames.reshape(-1, STACK * WIDTH)
            hidden = self.torch.nn.functional.gelu(stacked @ self.maps[0].T)
            _rows = hidden @ self.maps[1].T
            return time.perf_counter() - begin


def measure(arguments):
    """One row of results."""
    tower.quiet(arguments.threads)
    encoder, maps = weights()
    if not (arguments.folder / "config.json").exists():
        arguments.folder.mkdir(parents=True, exist_ok=True)
        make(arguments.folder, encoder, maps)
    peer = Peer(encoder, maps, arguments.threads, arguments.dtype)
    import transformers
    engine = f"transformers {transformers.__version__}, torch {peer.torch.__version__}, {arguments.dtype}"
    flags = ["--audio-clip", "--audio-weights", arguments.weights]
    row = tower.alternated(arguments, arguments.folder, flags, peer.run, engine)
    return {"test": "clip", "seconds": SECONDS, **row}


if __name__ == "__main__":
    tower.main(__doc__, measure, "float32")
