//! The tables of the specification (serving, section 4.4), and the forecast against what is really made.

use std::path::{Path, PathBuf};

use cpu::{Cpu, CpuOptions, Matrix, Outline};
use engine::{CachePlan, Content, Engine, Known, STEP_ROWS, Sequence};
use llama::Model;
use tensor::quant::Kind;
use tensor::{Device, Format, KvFormat, Orientation, WeightSource};

use super::forecast::{Ask, Memory, Speed, Verdict, bytes, token_bytes};
use super::machine::{GIB, Machine};
use super::subject::{Parts, Reference, Subject};
use super::*;
use crate::model;

fn toy(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/toy").join(name)
}

fn published(name: &str, quant: &str) -> Subject {
    let reference = Reference::find(name).expect("built in");
    Subject::described(name, reference.config(), Parts::Text, recipe(quant).expect("a recipe")).expect("laid out")
}

fn ask(context: usize, kv: KvFormat) -> Ask {
    Ask { context, n_sequences: 1, kv, n_images: 0, n_tiles: 0, process_bytes: 0 }
}

/// Whether `got` is `want` up to `share`.
fn near(got: f64, want: f64, share: f64, what: &str) {
    assert!((got / want - 1.0).abs() <= share, "{what}: {got} for {want}");
}

#[test]
fn parameters_are_those_of_the_table() {
    for (name, text, routed) in [("scout", 107.8, 96.6), ("maverick", 400.7, 386.5)] {
        let parameters = Reference::find(name).expect("built in").config().parameters();
        // The table has four digits.
        near(parameters.text as f64 / 1e9, text, 5e-4, name);
        near(parameters.routed_experts as f64 / 1e9, routed, 5e-4, name);
        let table = 202_048 * 5120;
        near((parameters.active - table) as f64 / 1e9, 16.1, 5e-3, name);
    }
}

#[test]
fn files_are_as_large_as_the_table_says() {
    // The table multiplies all parameters by one number of bits; a mixture differs by what its tensors weigh. One
    // format for all leaves only routers (f32) and rounding.
    for (quant, scout, maverick, share) in [
        ("q2", 39.7, 147.8, 0.03),
        ("q3", 52.5, 195.3, 0.03),
        ("q4", 65.3, 242.9, 0.003),
        ("q6", 88.4, 328.6, 0.001),
        ("q8", 114.5, 425.8, 0.001),
        ("bf16", 215.5, 801.4, 0.001),
    ] {
        for (name, gb) in [("scout", scout), ("maverick", maverick)] {
            near(published(name, quant).disk_bytes as f64 / 1e9, gb, share, &format!("{name}:{quant}"));
        }
    }
}

#[test]
fn what_a_token_reads_is_as_the_table_says() {
    for (name, resident, token, routed) in [("scout", 6.7, 9.78, 3.66), ("maverick", 8.6, 9.79, 1.83)] {
        let subject = published(name, "q4");
        let always = subject.fixed_bytes() + subject.weights.tables;
        // The table has two digits here, and takes 4.85 bits for all tensors: those outside of experts have more in the
        // output map and fewer in attention.
        near(always as f64 / 1e9, resident, 0.03, name);
        // The output map in Q6_K where the table has 4.85 bits: 0.22 GB more, 2.3 %.
        near(token_bytes(&subject) as f64 / 1e9, token, 0.025, name);
        near(subject.footprint.chosen_bytes() as f64 / 1e9, routed, 0.003, name);
        near(forecast::one_expert_bytes(&subject) as f64 / 1e6, 76.0, 0.12, name);
        let mean = subject.footprint.expert_bytes() as f64 / subject.footprint.n_experts() as f64;
        near(mean / 1e6, 76.0, 0.006, name);
    }
}

#[test]
fn keys_and_values_are_as_the_table_says() {
    let subject = published("scout", "q4");
    let chunked_layers = 36;
    let position = 4096; // of one layer in f16: 8 heads of 128, keys and values
    for (context, gib) in [(8 << 10, 1.5), (32 << 10, 2.6), (128 << 10, 7.1), (1 << 20, 49.1), (10 << 20, 481.0)] {
        let plan = CachePlan::new(&subject.model, context, KvFormat::F16).expect("counted");
        // The table has one chunk and nothing else; a step's rows and torn pages come on top.
        let extra = (plan.n_chunked as usize * 16 - context.min(8192)) * chunked_layers * position;
        let want = 48.0 * 1024.0 * context as f64 + (context.min(8192) * chunked_layers * position) as f64;
        assert_eq!(plan.bytes - extra, want as usize, "{context}");
        assert!(
            (want / GIB - gib).abs() <= 0.051 || (want / GIB / gib - 1.0).abs() < 1e-3,
            "{context}: {}",
            want / GIB
        );
        assert!(extra as f64 <= 0.03 * want, "{context}");
        // Eight bits with an f32 scale for every 32: 9 bits a number, where the table takes 8.5.
        let q8 = CachePlan::new(&subject.model, context, KvFormat::Q8).expect("counted");
        assert_eq!(q8.bytes * 16, plan.bytes * 9);
    }
    let two = CachePlan::for_sequences(&subject.model, 32 << 10, 2, KvFormat::F16, STEP_ROWS).expect("counted");
    let one = CachePlan::new(&subject.model, 32 << 10, KvFormat::F16).expect("counted");
    assert_eq!(two.bytes, 2 * one.bytes);
}

/// A machine without arithmetic: only its memory and its disk count, as in the table.
fn bound(ram_gib: f64, memory_gb_s: f64, disk_gb_s: f64) -> Machine {
    let mut machine = Machine::preset("desktop-32").expect("a preset");
    (machine.ram_gib, machine.memory_gb_s, machine.disk_gb_s) = (ram_gib, memory_gb_s, Some(disk_gb_s));
    (machine.int8_gop_s, machine.f32_gflop_s, machine.overhead_us) = (1e12, 1e12, 1e-9);
    machine.values_g_s = Some(1e12);
    machine
}

#[test]
fn streaming_is_as_fast_as_the_table_says() {
    // RAM, memory, disk; hit rate and the range of each model.
    type Row = ([f64; 3], [(f64, [f64; 2]); 2]);
    let table: [Row; 5] = [
        ([32.0, 70.0, 5.0], [(0.38, [1.7, 2.2]), (0.09, [2.1, 3.0])]),
        ([64.0, 70.0, 5.0], [(0.96, [6.0, 7.2]), (0.23, [2.4, 3.6])]),
        ([128.0, 70.0, 5.0], [(1.0, [7.2, 7.2]), (0.53, [3.2, 5.8])]),
        ([256.0, 200.0, 7.0], [(1.0, [20.4, 20.4]), (1.0, [20.4, 20.4])]),
        ([23.0, 20.0, 1.5], [(0.21, [0.4, 0.5]), (0.05, [0.6, 0.9])]),
    ];
    for ([ram, memory_rate, disk], models) in table {
        let machine = bound(ram, memory_rate, disk);
        for (name, (hit, [slow, fast])) in ["scout", "maverick"].into_iter().zip(models) {
            let what = format!("{name} in {ram} GiB");
            let subject = published(name, "q4");
            // The table's work memory, and its keys and values.
            let ask = ask(32 << 10, KvFormat::Q8);
            let memory = Memory { kv: bytes(1.4), work: bytes(0.7), ..Memory::of(&subject, &ask).expect("planned") };
            let (cached, verdict) = memory.place(&subject, bytes(ram - 3.0));
            let got = cached as f64 / memory.experts as f64;
            // Two digits, and 0.2 GiB less in what is always there.
            assert!((got - hit).abs() <= 0.012, "{what}: hit {got}");
            assert_eq!(verdict, if hit == 1.0 { Verdict::Fits } else { Verdict::Streams }, "{what}");
            let speed = Speed { subject: &subject, machine: &machine, kv: KvFormat::Q8, hit: got };
            let time = speed.decode(0, 1).expect("forecast");
            // 2 % from the mixture (above), half of the last digit from the table, 5 % from a hit rate near 1.
            for (got, want) in [(1.0 / time.slow(), slow), (1.0 / time.fast(), fast)] {
                assert!((got - want).abs() <= 0.05 + 0.03 * want, "{what}: {got} for {want}");
            }
        }
    }
    // A prompt reads all of the uncached experts once: 7 s and 43 s.
    for (name, seconds) in [("scout", 7.0), ("maverick", 43.0)] {
        let subject = published(name, "q4");
        let machine = bound(32.0, 70.0, 5.0);
        let memory = Memory::of(&subject, &ask(32 << 10, KvFormat::Q8)).expect("planned");
        let memory = Memory { kv: bytes(1.4), work: bytes(0.7), ..memory };
        let hit = memory.place(&subject, bytes(29.0)).0 as f64 / memory.experts as f64;
        let speed = Speed { subject: &subject, machine: &machine, kv: KvFormat::Q8, hit };
        near(speed.prefill(4096, 0).expect("forecast").disk_s, seconds, 0.05, name);
    }
}

#[test]
fn packed_bytes_are_what_packing_makes() {
    let dev = Cpu::new(CpuOptions::default());
    let kinds = Kind::ALL.iter().map(|kind| Format::Block(*kind));
    let mut n_compared = 0;
    for format in [Format::F32, Format::F16, Format::BF16].into_iter().chain(kinds) {
        for n_out in [1, 15, 16, 17, 100] {
            for n_blocks in [1, 3] {
                for n_matrices in [1, 3] {
                    let n_in = n_blocks * format.block_len().max(32) + if format.block_len() == 1 { 5 } else { 0 };
                    let shape = [n_matrices, n_out, n_in];
                    let described = WeightSource::described(format, Orientation::OutIn, shape).expect("a shape");
                    let bytes = vec![0; described.size_bytes()];
                    let stored = WeightSource::new(bytes.into(), format, Orientation::OutIn, shape).expect("stored");
                    let outlined = Outline::new().matrix(&[described.clone(), described.clone()]).expect("outlined");
                    assert!(dev.matrix(std::slice::from_ref(&described)).is_err(), "it has no numbers");
                    let packed = dev.matrix(&[stored.clone(), stored]).expect("packed");
                    assert_eq!(outlined.size_bytes(), packed.size_bytes(), "{} {shape:?}", format.name());
                    assert_eq!(Matrix::packed_bytes(&described), Ok(packed.size_bytes() / 2));
                    n_compared += 1;
                }
            }
        }
    }
    println!("{n_compared} maps compared");
    assert_eq!(n_compared, 13 * 20);
}

#[test]
fn a_config_alone_gives_what_the_checkpoint_gives() {
    for name in ["scout", "maverick", "text", "guard"] {
        let checkpoint = model::open_checkpoint(&toy(name), None).expect("the toy");
        let stored = Subject::stored(name, &checkpoint, None).expect("laid out");
        // The toys are f32 throughout.
        let described = Subject::with_formats(name.into(), &checkpoint.config, Parts::All, &|_, _| Format::F32);
        let described = described.expect("laid out");
        assert_eq!(stored.weights, described.weights, "{name}");
        assert_eq!(stored.footprint, described.footprint, "{name}");
        assert_eq!(stored.disk_bytes, described.disk_bytes, "{name}");
        let ask = ask(64, KvFormat::F16);
        let both = [&stored, &described].map(|subject| Memory::of(subject, &ask).expect("planned"));
        assert_eq!(both[0], both[1], "{name}");
        assert!(both[0].work > 0 && both[0].kv > 0);
    }
}

/// The adapter of the toy `name`.
fn lora(name: &str) -> Lora {
    Lora::open(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/lora").join(name)).expect("the adapter")
}

#[test]
fn an_adapter_counts_in_the_plan() {
    for name in ["llama", "scout", "text"] {
        let (checkpoint, lora) = (model::open_checkpoint(&toy(name), None).expect("the toy"), lora(name));
        let alone = Subject::stored(name, &checkpoint, None).expect("laid out");
        let adapted = Subject::stored(name, &checkpoint, Some(&lora)).expect("laid out");
        assert_eq!(adapted.weights.stored, alone.weights.stored + lora.size_bytes(), "{name}");
        let more = adapted.weights.packed - alone.weights.packed;
        assert!(more >= lora.size_bytes(), "{name}");
        let ask = ask(64, KvFormat::F16);
        let [alone, adapted] = [&alone, &adapted].map(|subject| Memory::of(subject, &ask).expect("planned"));
        assert_eq!(adapted.always, alone.always + more, "{name}");
        assert_eq!((adapted.experts, adapted.kv), (alone.experts, alone.kv), "{name}");
        assert!(adapted.work >= alone.work, "{name}");
    }
}

/// The bytes of buffers after a prompt in pieces and a few tokens.
fn worked<D: Device>(dev: D, (checkpoint, lora): (&Checkpoint, Option<&Lora>), bytes: impl Fn(&D) -> usize) -> usize {
    let mut loaded = Model::load(&dev, checkpoint, &mut |_| {}).expect("loaded");
    model::adapt(&mut loaded, &dev, checkpoint, lora).expect("adapted");
    let mut engine = Engine::new(dev, loaded, 2 * STEP_ROWS, KvFormat::F16).expect("an engine");
    let mut sequence = Sequence::default();
    let known = (0..STEP_ROWS as u32 + 40).map(|i| Known::Token(i % 7)).collect();
    engine.set(&mut sequence, Content { known, media: Vec::new() }).expect("it fits");
    engine.prefill(&mut sequence, &mut |_, _| {}).expect("computed");
    for _ in 0..3 {
        sequence.push(1);
        engine.prefill(&mut sequence, &mut |_, _| {}).expect("computed");
    }
    bytes(engine.device())
}

#[test]
fn steps_take_the_buffers_that_were_forecast() {
    let adapted = ["llama", "scout", "text"].map(|name| (name, Some(lora(name))));
    for (name, lora) in ["scout", "maverick", "text"].map(|name| (name, None)).into_iter().chain(adapted) {
        let checkpoint = model::open_checkpoint(&toy(name), None).expect("the toy");
        let files = (&checkpoint, lora.as_ref());
        let real = worked(Cpu::new(CpuOptions::default()), files, Cpu::work_bytes);
        let outlined = worked(Outline::new(), files, Outline::work_bytes);
        assert_eq!(real, outlined, "{name}");
        assert!(real > 1 << 16, "{name}: {real}");
    }
}

#[test]
fn what_does_not_fit_is_told_and_something_better_found() {
    let subject = published("scout", "q8");
    let ask = ask(32 << 10, KvFormat::Q8);
    let memory = Memory::of(&subject, &ask).expect("planned");
    assert_eq!(memory.place(&subject, memory.need()), (memory.experts, Verdict::Fits));
    assert_eq!(memory.place(&subject, memory.need() - 1), (memory.experts - 1, Verdict::Streams));
    assert_eq!(memory.place(&subject, memory.without_experts() - 1), (0, Verdict::DoesNotFit));
    let least = memory.without_experts() + subject.footprint.chosen_bytes();
    assert_eq!(memory.place(&subject, least).1, Verdict::Streams);
    assert_eq!(memory.place(&subject, least - 1).1, Verdict::DoesNotFit);
    let name = |room: f64| better(&subject, &ask, bytes(room)).expect("looked for").map(|other| other.name);
    assert_eq!(name(1e3), None, "it fits as it is");
    assert_eq!(name(93.0).as_deref(), Some("scout:q6"));
    assert_eq!(name(64.0).as_deref(), Some("scout:q4"));
    assert_eq!(name(2.0), None, "nothing fits");
    assert_eq!(usual_ram(bytes(28.9), 3.0), 32.0);
    assert_eq!(usual_ram(bytes(29.1), 3.0), 48.0);
}
