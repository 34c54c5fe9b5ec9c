#!/usr/bin/env python3
"""Trains a LoRA adapter of SmolLM2-135M on GSM8K with `puna finetune` and with PEFT, and compares what it comes to.

usage: python scripts/check_lora_training.py [--puna target/release/puna] [--data ../shared/data/gsm8k] [--steps 30]

Needs a Python with torch, transformers, peft, safetensors, gguf and numpy; no network once the model is in FOLDER
(scripts/fetch_smollm2.py FOLDER).  Both runs begin with the adapter that PEFT initialised, take the same sequences in the
same order (`puna finetune --write-steps` writes them) and have the same hyper-parameters.  Then

  - the held-out loss has to fall as much as in PEFT's run, within 2 %;
  - PEFT has to load our adapter and give our logits, within 1e-4 of their largest.

Without the data it says so and ends with 0.
"""
import argparse
import gzip
import json
import math
import pathlib
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
RANK, ALPHA, LR, WARM_UP, CLIP, BETAS = 8, 16, 5e-4, 3, 1.0, (0.9, 0.999)
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
LENGTH, BATCH, N_ROWS, HELD_OUT = 256, 2, 400, 0.04
CLOSE, LOGITS = 0.02, 1e-4


def run(*command):
    command = [str(part) for part in command]
    print("$", " ".join(command), flush=True)
    if subprocess.run(command).returncode != 0:
        sys.exit(f"error: {command[0]} failed")


def conversations(data, out):
    """Rows in the API's message format, the calculator's notes left out."""
    with gzip.open(data / "train.jsonl.gz", "rt") as rows, open(out, "w") as file:
        for _, row in zip(range(N_ROWS), rows):
            row = json.loads(row)
            answer = "".join(part.split(">>")[-1] for part in row["answer"].split("<<"))
            turns = [{"role": "user", "content": row["question"]}, {"role": "assistant", "content": answer}]
            file.write(json.dumps({"messages": turns}) + "\n")


def prepare(args):
    """The model as a folder for torch and as a GGUF file for us, both in f32."""
    work = args.work
    quantised = next(args.model.glob("*.gguf"), None)
    if quantised is None:
        run(sys.executable, ROOT / "scripts/fetch_smollm2.py", args.model)
        quantised = next(args.model.glob("*.gguf"))
    folder, gguf = work / "smollm2", work / "smollm2-f32.gguf"
    if not (folder / "config.json").exists():
        run(sys.executable, ROOT / "scripts/dequantize_gguf.py", quantised, folder)
    if not gguf.exists():
        run(args.puna, "quantize", quantised, gguf, "--to", "f32")
    return folder, gguf


def cross_entropy(model, sequences):
    """The weighted sum and the weights' sum."""
    import torch
    total, weight = 0.0, 0.0
    for sequence in sequences:
        ids = torch.tensor([sequence["inputs"]])
        targets, weights = torch.tensor(sequence["targets"]), torch.tensor(sequence["weights"])
        losses = torch.nn.functional.cross_entropy(model(input_ids=ids).logits[0].float(), targets, reduction="none")
        total, weight = total + (losses * weights).sum(), weight + float(weights.sum())
    return total, weight


def measure(model, held_out):
    import torch
    with torch.no_grad():
        total, weight = cross_entropy(model, held_out)
    return float(total) / weight


def train(model, steps, held_out):
    """PEFT's run: the losses of all steps, and the held-out loss before and after."""
    import torch
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=LR, betas=BETAS, eps=1e-8, weight_decay=0.0)
    before, losses, begin = measure(model, held_out), [], time.time()
    for number, step in enumerate(steps):
        for group in optimizer.param_groups:
            group["lr"] = LR * min(1.0, (number + 1) / WARM_UP)
        optimizer.zero_grad()
        total, weight = cross_entropy(model, step["sequences"])
        (total / weight).backward()
        torch.nn.utils.clip_grad_norm_(trained, CLIP)
        optimizer.step()
        losses.append(float(total) / weight)
    print(f"PEFT: {len(losses)} steps in {time.time() - begin:.0f} s", flush=True)
    return losses, before, measure(model, held_out)


def our_run(path):
    """The losses of all steps, and the held-out loss before and after."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    held_out = [line["held_out"] for line in lines if "held_out" in line]
    return [line["loss"] for line in lines if "loss" in line], held_out[0], held_out[-1]


def logits_differ(args, model, gguf, ids):
    """How far our logits are from `model`'s, over the largest."""
    import safetensors.torch
    import torch
    out = args.work / "trace.safetensors"
    run(args.puna, "trace", gguf, "--lora", args.work / "run/adapter", "--ids", ",".join(map(str, ids)), "--only", "logits",
        "--out", out)
    ours = safetensors.torch.load_file(out)["logits"].reshape(len(ids), -1)
    with torch.no_grad():
        theirs = model(input_ids=torch.tensor([ids])).logits[0].float()
    return float((ours - theirs).abs().max() / theirs.abs().max())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--puna", type=pathlib.Path, default=ROOT / "target/release/puna")
    parser.add_argument("--data", type=pathlib.Path, default=ROOT.parent / "shared/data/gsm8k")
    parser.add_argument("--model", type=pathlib.Path, default=ROOT / "target/smollm2", help="where the Q4_1 file is or goes")
    parser.add_argument("--work", type=pathlib.Path, default=ROOT / "target/lora-training")
    parser.add_argument("--steps", type=int, default=30)
    args = parser.parse_args()
    if not (args.data / "train.jsonl.gz").exists():
        print(f"skipped: {args.data} does not hold GSM8K's training part")
        return
    import peft
    import shutil
    import torch
    import transformers
    args.work.mkdir(parents=True, exist_ok=True)
    folder, gguf = prepare(args)
    rows = args.work / "gsm8k.jsonl"
    conversations(args.data, rows)

    def base():
        return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)

    torch.manual_seed(1)
    settings = peft.LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=TARGETS, lora_dropout=0.0, task_type="CAUSAL_LM")
    model = peft.get_peft_model(base(), settings)
    model.save_pretrained(args.work / "initial")

    shutil.rmtree(args.work / "run", ignore_errors=True)
    seen = args.work / "steps.jsonl"
    begin = time.time()
    run(args.puna, "finetune", "-m", gguf, "--data", rows, "--adapter", args.work / "initial", "--steps", args.steps, "--lr", LR,
        "--warm-up", WARM_UP, "--schedule", "constant", "--clip", CLIP, "--batch", BATCH, "--length", LENGTH, "--seed", 1,
        "--held-out", HELD_OUT, "--write-steps", seen, "-o", args.work / "run")
    print(f"puna: {time.time() - begin:.0f} s with everything", flush=True)
    lines = [json.loads(line) for line in seen.read_text().splitlines()]
    held_out = [sequence for line in lines if "held_out" in line for sequence in line["sequences"]]
    steps = [line for line in lines if "step" in line]
    print(f"{len(held_out)} sequences held out; {sum(len(step['sequences']) for step in steps)} in {len(steps)} steps", flush=True)

    theirs, ours = train(model, steps, held_out), our_run(args.work / "run/metrics.jsonl")
    furthest = max(abs(a - b) for a, b in zip(theirs[0], ours[0], strict=True))
    print(f"losses of steps differ by {furthest:.1e} at most")
    falls = {}
    for name, (_, before, after) in (("PEFT", theirs), ("puna", ours)):
        falls[name] = before - after
        print(f"{name}: held out {before:.5f} before, {after:.5f} after, {before - after:.5f} lower")
    off = abs(falls["puna"] / falls["PEFT"] - 1)

    loaded = peft.PeftModel.from_pretrained(base(), args.work / "run/adapter").eval()
    again = measure(loaded, held_out)
    far = logits_differ(args, loaded, gguf, held_out[0]["inputs"])
    print(f"PEFT with our adapter: held out {again:.5f}; logits {far:.1e} from ours")
    ok = falls["PEFT"] > 0 and off <= CLOSE and far <= LOGITS and math.isclose(again, ours[2], rel_tol=1e-4)
    print(f"{'ok' if ok else 'NOT ok'}: the falls differ by {100 * off:.2f} %")
    sys.exit(0 if ok else 1)


if __name__ == "__main__":
    main()
