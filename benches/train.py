#!/usr/bin/env python3
"""Training speed of the reference model against PyTorch, in turns on the same cores.

usage: python benches/train.py [--runs 5] [--steps 3] [--threads 2] [--precision f32|bf16] [--out FILE]

The model is that of crates/train/benches/step.rs: 24.5 M parameters, 6 layers of width 256, 4 query heads on 2 key heads,
8 experts of 512 (one a token) and a shared one, vocabulary 4096; sequences of 256, 8 a step; AdamW, gradients clipped.
PyTorch's is written for speed: fused q/k/v and gate/up, scaled_dot_product_attention, rows grouped by expert with one
matrix product an expert, the foreach AdamW.  Build ours first: cargo bench -p train --bench step --no-run

bf16: products of both sides are computed from bfloat16, PyTorch's by autocast; weights stay f32.

One JSON line a run of each side, then one with the ratio of the medians and its spread.  Needs torch.
"""
import argparse
import json
import os
import pathlib
import resource
import statistics
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
WIDTH, LAYERS, HEADS, KV_HEADS, FFN, EXPERTS, VOCAB, LEN, BATCH = 256, 6, 4, 2, 512, 8, 4096, 256, 8


def torch_run(steps, threads, precision):
    """Tokens a second of PyTorch, the median of `steps`; printed as JSON."""
    import torch
    from torch import nn
    from torch.nn import functional

    torch.set_num_threads(threads)
    torch.manual_seed(1)
    head = WIDTH // HEADS

    class Layer(nn.Module):
        def __init__(self, rotated):
            super().__init__()
            self.rotated = rotated
            self.norm1, self.norm2 = nn.RMSNorm(WIDTH, eps=1e-5), nn.RMSNorm(WIDTH, eps=1e-5)
            self.qkv = nn.Linear(WIDTH, (HEADS + 2 * KV_HEADS) * head, bias=False)
            self.o = nn.Linear(WIDTH, WIDTH, bias=False)
            self.router = nn.Linear(WIDTH, EXPERTS, bias=False)
            self.gate_up, self.down = nn.Linear(WIDTH, 2 * FFN, bias=False), nn.Linear(FFN, WIDTH, bias=False)
            self.experts_gate_up = nn.Parameter(torch.randn(EXPERTS, WIDTH, 2 * FFN) / WIDTH ** 0.5)
            self.experts_down = nn.Parameter(torch.randn(EXPERTS, FFN, WIDTH) / FFN ** 0.5)

        def forward(self, x, cos, sin):
            n, t, _ = x.shape
            q, k, v = self.qkv(self.norm1(x)).view(n, t, -1, head).transpose(1, 2).split([HEADS, KV_HEADS, KV_HEADS], 1)
            if self.rotated:
                def turn(y):
                    a, b = y[..., 0::2], y[..., 1::2]
                    y = torch.stack([a * cos - b * sin, a * sin + b * cos], -1).flatten(-2)
                    return functional.rms_norm(y, (head,), eps=1e-5)
                q, k = turn(q), turn(k)
            mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
            x = x + self.o(mixed.transpose(1, 2).reshape(n, t, WIDTH))
            y = self.norm2(x).view(-1, WIDTH)
            logits = self.router(y)
            score, expert = logits.max(-1)
            order = expert.argsort(stable=True)
            counts = torch.bincount(expert, minlength=EXPERTS).tolist()
            sent = (y * score.sigmoid()[:, None])[order]
            out = []
            for i, rows in enumerate(sent.split(counts)):
                gate, up = (rows @ self.experts_gate_up[i]).chunk(2, -1)
                out.append((functional.silu(gate) * up) @ self.experts_down[i])
            routed = torch.zeros_like(y).index_copy(0, order, torch.cat(out))
            gate, up = self.gate_up(y).chunk(2, -1)
            share = torch.tensor(counts) / y.shape[0]
            losses = (0.01 * EXPERTS * (share * logits.softmax(-1).mean(0)).sum()
                      + 0.001 * logits.logsumexp(-1).square().mean())
            return x + (self.down(functional.silu(gate) * up) + routed).view(n, t, WIDTH), losses

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Embedding(VOCAB, WIDTH)
            self.layers = nn.ModuleList(Layer((i + 1) % 4 != 0) for i in range(LAYERS))
            self.norm, self.head = nn.RMSNorm(WIDTH, eps=1e-5), nn.Linear(WIDTH, VOCAB, bias=False)

        def forward(self, ids, targets, cos, sin):
            x, losses = self.embed(ids), 0.0
            for layer in self.layers:
                x, more = layer(x, cos, sin)
                losses = losses + more
            logits = self.head(self.norm(x))
            return functional.cross_entropy(logits.view(-1, VOCAB), targets.reshape(-1)) + losses

    angles = torch.arange(LEN)[:, None] / 10000 ** (torch.arange(0, head, 2) / head)
    model = Model()
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.1, foreach=True)
    seconds = []
    for _ in range(steps + 1):
        ids = torch.randint(0, VOCAB, (BATCH, LEN + 1))
        begin = time.perf_counter()
        optimiser.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            loss = model(ids[:, :-1], ids[:, 1:], angles.cos(), angles.sin())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        seconds.append(time.perf_counter() - begin)
    print(json.dumps({"test": "train", "engine": f"torch {torch.__version__}", "threads": threads, "precision": precision,
                      "parameters": sum(p.numel() for p in model.parameters()),
                      "tok_per_s": round(BATCH * LEN / statistics.median(seconds[1:])),
                      "peak_kib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}))


def ours(binary, steps, threads, precision):
    """The same of the newest build of the bench."""
    args = [binary, "--size", "real", "--steps", str(steps), "--threads", str(threads), "--precision", precision]
    return json.loads(subprocess.run(args, check=True, capture_output=True, text=True).stdout) | {"engine": "puna"}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--precision", choices=["f32", "bf16"], default="f32")
    parser.add_argument("--out", type=pathlib.Path)
    parser.add_argument("--torch", action="store_true", help="run PyTorch's side once, in this process")
    args = parser.parse_args()
    if args.torch:
        return torch_run(args.steps, args.threads, args.precision)
    found = [path for path in (ROOT / "target/release/deps").glob("step-*") if path.suffix == "" and os.access(path, os.X_OK)]
    if not found:
        sys.exit("no bench is built: cargo bench -p train --bench step --no-run")
    binary = max(found, key=lambda path: path.stat().st_mtime)
    lines, rates = [], {"puna": [], "torch": []}
    for _ in range(args.runs):
        for side in rates:
            if side == "puna":
                line = ours(binary, args.steps, args.threads, args.precision)
            else:
                command = [sys.executable, __file__, "--torch", "--steps", str(args.steps), "--threads", str(args.threads),
                           "--precision", args.precision]
                line = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            rates[side].append(line["tok_per_s"])
            lines.append(line)
            print(json.dumps(line), flush=True)
    ratios = sorted(a / b for a, b in zip(rates["puna"], rates["torch"]))
    summary = {"test": "train", "precision": args.precision, "ratio": round(statistics.median(rates["puna"]) / statistics.median(rates["torch"]), 3),
               "ratios": [round(ratio, 3) for ratio in ratios], "load_average": os.getloadavg()[0]}
    print(json.dumps(summary))
    if args.out:
        args.out.write_text("".join(json.dumps(line) + "\n" for line in [*lines, summary]))


if __name__ == "__main__":
    main()
