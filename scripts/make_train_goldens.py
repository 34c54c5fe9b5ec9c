#!/usr/bin/env python3
"""Gradients of the toy checkpoints, and the losses of ten steps of training, by PyTorch's autograd over transformers.

usage: python scripts/make_train_goldens.py [--out tests/data/train] [--full]

For each toy of make_toy_llama4.py one file `<case>.safetensors`.  The loss of a prompt is the mean cross-entropy of its
next tokens, plus BALANCE · Σ over mixture layers of E · Σ_e f_e · P_e (f: share of the choices that went to expert e, P:
mean of the router's softmax), plus ROUTER_Z · Σ over layers of the mean square of the router's logsumexp.

  <prompt>/loss            [1] f32: the cross-entropy alone;   <prompt>/whole  [1] f32: with both other terms
  <prompt>/grad/<tensor>   every STRIDE-th value of the gradient of the whole (all of them with --full), in f32
  <prompt>/largest/<tensor> [1] f32: the largest absolute value of the whole gradient
  steps/ids, steps/lens    what ten steps of AdamW are trained on, two sequences a step;  steps/loss [10] f64

Needs torch, transformers 5, safetensors, numpy.  No network.
"""
import argparse
import pathlib

import numpy
import torch
from safetensors.torch import save_file

import make_toy_llama4 as toys
from transformers.modeling_outputs import MoeCausalLMOutputWithPast

# transformers 5.24 asks the text model's output for images, which it does not have.
MoeCausalLMOutputWithPast.image_outputs = None

BALANCE, ROUTER_Z, STRIDE = 0.01, 0.001, 13
STEPS, LR, BETAS, EPS, DECAY, CLIP = 10, 2e-3, (0.9, 0.95), 1e-8, 0.1, 1.0


def routers(model):
    """Hooks that keep the router logits of a pass, and the list that they fill."""
    text, seen, hooks = getattr(model, "language_model", model).model, [], []
    for layer in text.layers:
        ffn = getattr(layer, "feed_forward", None)
        if hasattr(ffn, "router"):
            hooks.append(ffn.router.register_forward_hook(lambda _m, _in, out: seen.append(out[1])))
    return hooks, seen


def auxiliary(model, logits):
    """The two further terms of one layer's router logits `[T, E]`."""
    n_experts, top_k = logits.shape[-1], model.config.get_text_config().num_experts_per_tok
    chosen = logits.topk(top_k, dim=-1).indices
    share = torch.nn.functional.one_hot(chosen, n_experts).float().sum((0, 1)) / chosen.numel()
    balance = n_experts * (share * logits.softmax(-1).mean(0)).sum()
    return BALANCE * balance + ROUTER_Z * logits.logsumexp(-1).square().mean()


def forward(model, ids, pixels=None):
    """Logits `[1,T,V]`."""
    images = {} if pixels is None else {"pixel_values": pixels}
    return model(input_ids=ids, use_cache=False, **images).logits


def entropy(logits, ids):
    return torch.nn.functional.cross_entropy(logits[0, :-1], ids[0, 1:], reduction="sum")


def gradients(model, ids, pixels):
    """Cross-entropy, whole loss, and the gradient of each parameter."""
    model.zero_grad(set_to_none=True)
    hooks, seen = routers(model)
    logits = forward(model, ids, pixels)
    for hook in hooks:
        hook.remove()
    loss = entropy(logits, ids) / (ids.shape[1] - 1)
    whole = loss + sum(auxiliary(model, x) for x in seen)
    whole.backward()
    return loss, whole, {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def stored_names(case, folder):
    """The names of the file's tensors, by the names of the loaded model's parameters."""
    from safetensors import safe_open
    with safe_open(folder / "model.safetensors", "pt") as file:
        return set(file.keys())


def steps(model, case):
    """Ten steps of AdamW, two sequences of unequal length each; the mean cross-entropy before each step."""
    rng = numpy.random.Generator(numpy.random.PCG64([case.seed, 10]))
    is_decayed = {name: p.ndim > 1 and "embed" not in name for name, p in model.named_parameters()}
    decayed = [p for name, p in model.named_parameters() if is_decayed[name]]
    plain = [p for name, p in model.named_parameters() if not is_decayed[name]]
    groups = [dict(params=decayed, weight_decay=DECAY), dict(params=plain, weight_decay=0.0)]
    optimiser = torch.optim.AdamW(groups, lr=LR, betas=BETAS, eps=EPS)
    all_ids, lens, losses = [], [], []
    # Four sequences come again and again, so that the losses fall.
    sequences = [rng.integers(toys.EOS + 1, toys.FIRST_CONTROL, n) for n in rng.integers(20, 40, 4)]
    for step in range(STEPS):
        batch = [sequences[(2 * step + i) % 4] for i in range(2)]
        n_targets = sum(len(ids) - 1 for ids in batch)
        optimiser.zero_grad(set_to_none=True)
        total = 0.0
        for ids in batch:
            ids = torch.from_numpy(ids)[None]
            loss = entropy(forward(model, ids), ids) / n_targets
            loss.backward()
            total += loss.item()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimiser.step()
        losses.append(total)
        all_ids += [x for ids in batch for x in ids.tolist()]
        lens += [len(ids) for ids in batch]
    return {"steps/ids": torch.tensor(all_ids), "steps/lens": torch.tensor(lens),
            "steps/loss": torch.tensor(losses, dtype=torch.float64)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    root = pathlib.Path(__file__).resolve().parent.parent / "tests/data"
    parser.add_argument("--out", type=pathlib.Path, default=root / "train")
    parser.add_argument("--full", action="store_true")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    for name, case in toys.CASES.items():
        out, model = {}, toys.build(case)
        names = stored_names(case, root / "toy" / name)
        for prompt in case.prompts:
            ids, pixels = toys.inputs(case, model.config, prompt)
            loss, whole, grads = gradients(model, ids, pixels)
            out[f"{prompt.name}/loss"], out[f"{prompt.name}/whole"] = loss.detach()[None], whole.detach()[None]
            for parameter, grad in grads.items():
                stored = parameter if parameter in names else parameter.replace("model.language_model", "language_model.model")
                assert stored in names, (parameter, sorted(names)[:5])
                flat = grad.flatten()
                out[f"{prompt.name}/grad/{stored}"] = (flat if args.full else flat[::STRIDE]).clone()
                out[f"{prompt.name}/largest/{stored}"] = flat.abs().max()[None].clone()
        if name in ("text", "llama", "scout"):
            out |= steps(model, case)
        save_file(out, args.out / f"{name}.safetensors")
        print(name, len(out), "tensors", [f"{k} {v.item():.5f}" for k, v in out.items() if k.endswith("/whole")],
              out.get("steps/loss", torch.zeros(0)).tolist())


if __name__ == "__main__":
    main()
