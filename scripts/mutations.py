#!/usr/bin/env python3
"""Makes each known mistake in our own model code, one at a time, and reports whether the golden tests turn red.

usage: python scripts/mutations.py [--only WORD] [--list]

The counterpart of toy_mistakes.py: that one shows that the goldens can see a mistake, this one that the tests do.  A
mutation is an exact piece of code and what replaces it; a piece that is no longer there exactly once makes the script
fail, so the list cannot rot.  The repository is copied to target/mutations/tree (tracked files and new ones), and built
in a target folder of its own, which later runs reuse.

  RED     the mutated code compiles and a golden test fails: what is wanted
  GREEN   no test noticed: wanted only of the mutations marked so, which compute the same function
  BROKEN  it does not apply or does not compile

Exit status 1 if any mutation ends otherwise than wanted, or the unchanged code is not green.
"""
import argparse
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass

ROOT = pathlib.Path(__file__).resolve().parent.parent
WORK = ROOT / "target/mutations"
# What the goldens' configs spell out, a default can not spoil: those are seen by the configs' own tests.
TESTS = [
    (["cargo", "test", "--quiet", "-p", "it", "--test", "golden"], ["--", "every_golden_tensor_agrees"]),
    (["cargo", "test", "--quiet", "-p", "formats", "--test", "config"], []),
]

DECODER = "crates/llama/src/decoder.rs"
ROTARY = "crates/llama/src/rotary.rs"
VISION = "crates/llama/src/vision.rs"
CONFIG = "crates/formats/src/config/llama4.rs"
DENSE = "crates/formats/src/config/llama.rs"
MATH = "crates/tensor/src/math.rs"
REFERENCE = "crates/tensor/src/reference.rs"
CPU = "crates/cpu/src/device.rs"


@dataclass(frozen=True)
class Edit:
    """`old`, found exactly once in `file`, becomes `new`."""
    file: str
    old: str
    new: str


@dataclass(frozen=True)
class Mutation:
    name: str
    edits: tuple
    wanted: str = "RED"


def mutation(name, *edits, wanted="RED"):
    return Mutation(name, tuple(Edit(*edit) for edit in edits), wanted)


QK_NORM = """            if self.qk_norm {
                q = dev.rms_norm(&q, None, self.head_len, self.eps)?;
                k = dev.rms_norm(&k, None, self.head_len, self.eps)?;
            }
"""
ROPE = """            q = dev.rope(&q, rotation)?;
            k = dev.rope(&k, rotation)?;
"""
ROPE_THEN_NORM = ROPE + """            // Rotation first, then the gain-free norm of each head.
""" + QK_NORM
TEMPERATURE = """        } else if let Some(factors) = &step.temperature {
            q = dev.scale_rows(&q, factors)?;
        }
"""
CHUNK_BEGIN = "(row.position, row.chunked, begin(row.position))"
CHUNK_ANGLES = "positions().map(|p| p % chunk)"
SCORED_REFERENCE = "let Choice { expert, score } = routing.choices[i];"
ADD_REFERENCE = """            for (sum, y) in values[row..row + shared.width].iter_mut().zip(y) {
                *sum += y;"""
SCORED_CPU = "(x.row(choice / routing.top_k), routing.choices[choice].score)"
CLASS_ROW = """    cos.resize(cos.len() + n_pairs, 1.0);
    sin.resize(sin.len() + n_pairs, 0.0);
"""
COORDINATES = "for coordinate in [patch % grid, patch / grid] {"
ANGLE = "(coordinate + 1) as f32 * frequency"
JOINED_ROW = "let y = token / side * self.joined + inner / self.joined;"
JOINED_COLUMN = "let x = token % side * self.joined + inner % self.joined;"
ADAPTER = "x = dev.gelu(&dev.linear(matrix, None, &x)?);"
CLASS_LAST = "x = dev.concat(&x, &dev.embed(&self.class, &[0])?)?;"
CHOSEN_SCORE = "score: sigmoid(logits[expert as usize])"
GELU = "0.5 * x * (1.0 + erf(x * std::f32::consts::FRAC_1_SQRT_2))"
SHARED = "let shared = dev.linear(&dense.down, dense.down_bias.as_ref(), &inner.shared)?;"

MUTATIONS = [
    # Rotation and what goes with it.
    mutation("half-rotation", (CONFIG, "tensor::Pairing::Interleaved", "tensor::Pairing::Halves")),
    mutation("dense model with interleaved pairs", (DENSE, "tensor::Pairing::Halves", "tensor::Pairing::Interleaved")),
    mutation("no_rope_layers upside down", (CONFIG, "0 => Ok(false),\n        1 => Ok(true),", "0 => Ok(true),\n        1 => Ok(false),")),
    mutation("unrotated interval off by one", (CONFIG, "(1..=n_layers).map(", "(0..n_layers).map(")),
    mutation("rotation on every layer", (DECODER, TEMPERATURE, """        } else {
            q = dev.rope(&q, &step.rotation)?;
            k = dev.rope(&k, &step.rotation)?;
            if let Some(factors) = &step.temperature {
                q = dev.scale_rows(&q, factors)?;
            }
        }
""")),
    mutation("rope scaling ignored", (ROTARY, "match rope.scaling {\n", "match RopeScaling::None {\n")),
    mutation("every frequency divided", (ROTARY, "if wavelength < original / high {", "if wavelength < 0.0 {")),
    mutation("blend band ignored", (ROTARY, "} else if wavelength > original / low {", "} else if wavelength > original / high {")),
    mutation("rope factor high 4 whatever the config says", (ROTARY, "f64::from(high), original as f64", "f64::from(high.max(4.0)), original as f64")),
    # Q/k norm.
    mutation("no q/k norm", (DECODER, "if self.qk_norm {", "if self.qk_norm && self.eps > 1.0 {")),
    mutation("q/k norm eps 1e-6", (DECODER, QK_NORM, QK_NORM.replace("self.eps", "1e-6"))),
    mutation("q/k norm over all heads", (DECODER, QK_NORM, QK_NORM
             .replace("(&q, None, self.head_len", "(&q, None, q_width").replace("(&k, None, self.head_len", "(&k, None, kv_width"))),
    mutation("q/k norm on every layer", (DECODER, TEMPERATURE, TEMPERATURE + QK_NORM.replace("if self.qk_norm", "if self.qk_norm && !layer.config.rotated"))),
    mutation("q/k norm before the rotation", (DECODER, ROPE_THEN_NORM, QK_NORM + ROPE), wanted="GREEN"),
    # Temperature.
    mutation("no temperature", (DECODER, TEMPERATURE, "        }\n")),
    mutation("temperature position off by one", (DECODER, "((position + 1) as f64", "(position as f64")),
    mutation("temperature on every layer", (DECODER, TEMPERATURE, "        }\n" + TEMPERATURE.replace("} else if", "if"))),
    mutation("temperature on k", (DECODER, TEMPERATURE, TEMPERATURE.replace("q = dev.scale_rows(&q", "k = dev.scale_rows(&k"))),
    mutation("temperature scale 0.1 whatever the config says", (DECODER, "f64::from(temperature.scale)", "0.1")),
    # What a row sees.
    mutation("no chunk mask", (DECODER, CHUNK_BEGIN, "(row.position, row.chunked, 0 * begin(row.position))"), (DECODER, CHUNK_ANGLES, "positions().map(|p| p % usize::MAX.max(chunk.get()))")),
    mutation("sliding window for chunk", (DECODER, CHUNK_BEGIN, "(row.position, row.chunked, (row.position + 1).saturating_sub(chunk.get()) + 0 * begin(0))"),
             (DECODER, CHUNK_ANGLES, "positions().map(|p| p % usize::MAX.max(chunk.get()))")),
    mutation("chunk border one late", (DECODER, "position - position % chunk;", "position - position.saturating_sub(1) % chunk;")),
    mutation("key heads in turn", (REFERENCE, "head / group", "head % pages.n_heads")),
    # Experts.
    mutation("score on expert output", (REFERENCE, SCORED_REFERENCE, "let (expert, score) = (routing.choices[i].expert, 1.0);"),
             (REFERENCE, ADD_REFERENCE, ADD_REFERENCE.replace("*sum += y", "*sum += y * routing.choices[i].score"))),
    mutation("no score on the fast device", (CPU, SCORED_CPU, "(x.row(choice / routing.top_k), routing.choices[choice].score.ceil())")),
    mutation("scores renormalised", (MATH, CHOSEN_SCORE, "score: if top_k == 1 { 1.0 } else { sigmoid(logits[expert as usize]) }")),
    mutation("one expert only", (CONFIG, 'section.size("num_experts_per_tok", 1, n_experts)?', 'section.size("num_experts_per_tok", 1, n_experts)?.min(1)')),
    mutation("shared expert scaled by the expert count", (DECODER, SHARED, SHARED + " let shared = dev.add(&shared, &shared)?;")),
    mutation("gate and up exchanged", (REFERENCE, "halves.flat_map(|(gate, up)|", "halves.flat_map(|(up, gate)|")),
    mutation("gate/up columns interleaved", (REFERENCE, "let halves = gate_up.rows().map(|row| row.split_at(width));\n        let values = halves.flat_map(|(gate, up)| gate.iter().zip(up).map(|(g, u)| math::silu(*g) * u)).collect();",
             "let values = gate_up.rows().flat_map(|row| row.as_chunks::<2>().0.iter().map(|[g, u]| math::silu(*g) * u)).collect();")),
    mutation("dense width from intermediate_size", (CONFIG, 'section.size("intermediate_size_mlp", 16_384, FFN_LIMIT)?', "expert_width")),
    # Norms.
    mutation("RMS norm eps 1e-6", (CONFIG, 'section.positive("rms_norm_eps", 1e-5)?', '1e-6 * section.positive("rms_norm_eps", 1e-5)?.signum()')),
    # Vision.
    mutation("vision y not floored", (ROTARY, COORDINATES, "for coordinate in [(patch % grid) as f32, patch as f32 / grid as f32] {"), (ROTARY, ANGLE, "(coordinate + 1.0) * frequency")),
    mutation("vision x and y exchanged", (ROTARY, COORDINATES, "for coordinate in [patch / grid, patch % grid] {")),
    mutation("vision positions from 0", (ROTARY, ANGLE, "coordinate as f32 * frequency")),
    mutation("vision class row rotated", (ROTARY, "for patch in 0..grid * grid {", "for patch in 0..=grid * grid {"), (ROTARY, CLASS_ROW, "")),
    mutation("vision half-rotation", (ROTARY, "Rotation { pairing: Pairing::Interleaved, n_pairs, cos, sin }", "Rotation { pairing: Pairing::Halves, n_pairs, cos, sin }")),
    mutation("vision frequencies over head_dim", (ROTARY, "-2.0 * k as f64 / n_pairs as f64", "-2.0 * k as f64 / head_len as f64")),
    mutation("vision class row first", (VISION, CLASS_LAST, "x = dev.concat(&dev.embed(&self.class, &[0])?, &x)?;")),
    mutation("vision layer norm eps 1e-6", (VISION, "const EPS: f32 = 1e-5;", "const EPS: f32 = 1e-6;")),
    mutation("tanh GELU", (MATH, GELU, "{ let t = 0.797_884_6 * (x + 0.044_715 * x * x * x); let e = exp(-2.0 * t); 0.5 * x * (1.0 + (1.0 - e) / (1.0 + e)) }")),
    mutation("adapter without last GELU", (VISION, ADAPTER, "let inner = dev.linear(matrix, None, &x)?; x = if std::ptr::eq(matrix, &self.adapter[1]) { inner } else { dev.gelu(&inner) };")),
    mutation("pixel shuffle dx before dy", (VISION, JOINED_ROW, JOINED_ROW.replace("inner /", "inner %")), (VISION, JOINED_COLUMN, JOINED_COLUMN.replace("inner %", "inner /"))),
    mutation("pixel shuffle columns first", (VISION, JOINED_ROW, JOINED_ROW.replace("token /", "token %")), (VISION, JOINED_COLUMN, JOINED_COLUMN.replace("token %", "token /"))),
]


def copy_tree(tree):
    """Mirrors the repository; unchanged files keep their times, so that cargo rebuilds only what changed."""
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT, capture_output=True, check=True)
    wanted = {name for name in listed.stdout.decode().split("\0") if name and (ROOT / name).is_file()}
    for path in [path for path in tree.rglob("*") if path.is_file()]:
        if str(path.relative_to(tree)) not in wanted:
            path.unlink()
    for name in wanted:
        source, target = ROOT / name, tree / name
        if target.exists() and target.read_bytes() == source.read_bytes():
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)


def run(tree, command):
    environment = os.environ | {"CARGO_TARGET_DIR": str(WORK / "build"), "CARGO_TERM_COLOR": "never", "RUSTFLAGS": "-Awarnings"}
    return subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True)


def outcome(tree):
    """RED, GREEN or BROKEN, and why."""
    for command, chosen in TESTS:
        built = run(tree, [*command, "--no-run"])
        if built.returncode != 0:
            return "BROKEN", next((line for line in built.stderr.splitlines() if line.startswith("error")), "does not compile")
        tested = run(tree, [*command, *chosen])
        if tested.returncode != 0:
            text = tested.stdout + tested.stderr
            why = re.search(r"panicked at [^\n]*\n([^\n]+)", text) or re.search(r"(Error: [^\n]+)", text)
            # The folder of the toy is of no interest beyond its name.
            return "RED", re.sub(r"\S*/tests/data/toy/|\S*/\.\./data/toy/", "", why.group(1)) if why else "a test failed"
    return "GREEN", ""


def try_mutation(tree, mutated):
    """Applies, tests, restores."""
    before = {edit.file: (tree / edit.file).read_text() for edit in mutated.edits}
    after = dict(before)
    for edit in mutated.edits:
        n_found = after[edit.file].count(edit.old)
        if n_found != 1:
            return "BROKEN", f"{edit.file} has {edit.old.strip().splitlines()[0]!r} {n_found} times"
        after[edit.file] = after[edit.file].replace(edit.old, edit.new)
    try:
        for file, text in after.items():
            (tree / file).write_text(text)
        return outcome(tree)
    finally:
        for file, text in before.items():
            (tree / file).write_text(text)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="only mutations whose name contains this")
    parser.add_argument("--list", action="store_true", help="print the names and stop")
    args = parser.parse_args()
    chosen = [mutated for mutated in MUTATIONS if args.only in mutated.name]
    if args.list or not chosen:
        print("\n".join(mutated.name for mutated in chosen) or f"no mutation is named like '{args.only}'")
        return 0 if chosen else 2
    tree = WORK / "tree"
    tree.mkdir(parents=True, exist_ok=True)
    copy_tree(tree)
    result, why = outcome(tree)
    print(f"{result:6s} the code as it is  {why}", flush=True)
    if result != "GREEN":
        return 1
    n_wrong = 0
    for mutated in chosen:
        begin = time.monotonic()
        result, why = try_mutation(tree, mutated)
        n_wrong += result != mutated.wanted
        remark = "" if result == mutated.wanted else f"  <-- wanted {mutated.wanted}"
        print(f"{result:6s} {mutated.name}  {why}{remark}  ({time.monotonic() - begin:.0f} s)", flush=True)
    print(f"{len(chosen) - n_wrong} of {len(chosen)} mutations ended as wanted")
    return 1 if n_wrong else 0


if __name__ == "__main__":
    sys.exit(main())
