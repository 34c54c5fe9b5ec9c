#!/usr/bin/env python3
"""Writes 20 steps of torch.optim.AdamW and torch.optim.Muon to tests/data/train/optimizers.safetensors.

usage: python scripts/make_optimizer_goldens.py
needs: torch 2.10 or later, safetensors

Both optimisers run in f64, so that what a test compares with has no rounding of its own.  torch.optim.Muon rounds matrices
to bf16 before it makes them orthogonal; here its own code runs with that type replaced, in f64 for the golden and in f32
for `spread.*`: how far an evaluation in f32 comes to lie from the one in f64.
  adamw.{begin,gradients,steps}       [n], [20, n], [20, n]
  muon.SCALE.RxC.{begin,gradients,steps}   [R, C], [20, R, C], [20, R, C]
"""
import pathlib
import types

import torch
from safetensors.torch import save_file

N_STEPS = 20
OUT = pathlib.Path(__file__).resolve().parent.parent / "tests/data/train/optimizers.safetensors"
muon_module = __import__("torch.optim._muon", fromlist=["Muon"])


def run(begin, gradients, make, dtype):
    """The parameter after each step, in f64."""
    parameter = torch.nn.Parameter(begin.to(dtype, copy=True))
    optimizer = make([parameter])
    steps = []
    for step, gradient in enumerate(gradients):
        for group in optimizer.param_groups:
            # A learning rate that moves, as under a schedule: factors 1/20 to 1.
            group["lr"] = group.setdefault("peak", group["lr"]) * (step + 1) / N_STEPS
        parameter.grad = gradient.to(dtype)
        optimizer.step()
        steps.append(parameter.detach().double().clone())
    return torch.stack(steps)


def muon_in(dtype, **settings):
    """torch.optim.Muon whose matrices are rounded to `dtype` instead of bf16."""
    names = {**vars(torch), "bfloat16": dtype}

    def make(parameters):
        muon_module.torch = types.SimpleNamespace(**names)
        return torch.optim.Muon(parameters, **settings)
    return make


def main():
    torch.manual_seed(7)
    tensors = {}
    # Magnitudes in 0.5..1 keep the second moment away from 0, which the test's error bound rests on.
    n = 37
    begin = torch.rand(n) * 2 - 1
    gradients = (torch.rand(N_STEPS, n) / 2 + 0.5) * torch.randint(0, 2, (N_STEPS, n)).mul(2).sub(1)
    adamw = dict(lr=1e-2, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1)
    steps = run(begin, gradients, lambda p: torch.optim.AdamW(p, **adamw), torch.float64)
    tensors.update({"adamw.begin": begin, "adamw.gradients": gradients, "adamw.steps": steps})
    for scale, name in (("original", "shape"), ("match_rms_adamw", "adamw")):
        settings = dict(lr=2e-2, momentum=0.95, weight_decay=0.1, adjust_lr_fn=scale)
        for rows, columns in ((6, 10), (10, 6), (8, 8), (1, 5)):
            begin = torch.randn(rows, columns) / 4
            gradients = torch.randn(N_STEPS, rows, columns)
            steps = run(begin, gradients, muon_in(torch.float64, **settings), torch.float64)
            rounded = run(begin, gradients, muon_in(torch.float32, **settings), torch.float32)
            prefix = f"muon.{name}.{rows}x{columns}"
            spread = (rounded - steps).abs().max()
            print(f"{prefix}: f32 lies {spread:.2e} from f64, the parameter moved {(steps[-1] - begin).abs().max():.2e}")
            tensors.update({f"{prefix}.begin": begin, f"{prefix}.gradients": gradients, f"{prefix}.steps": steps,
                            f"{prefix}.spread": spread})
    save_file(tensors, OUT)
    print(f"{OUT.name}: {OUT.stat().st_size} bytes, torch {torch.__version__}")


if __name__ == "__main__":
    main()
