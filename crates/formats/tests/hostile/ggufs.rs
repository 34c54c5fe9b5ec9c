//! Broken GGUF files.

use tensor::packed::VERSION;

use crate::{Case, Parser};

/// What a marked number stands for, which decides what is broken about it.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Mark {
    /// A length or count: anything else is wrong.
    Len,
    /// The count of tensors: fewer leave the rest to the data.
    Tensors,
    /// A type's number: only unknown ones are surely wrong.
    Type,
    /// The length of an axis: a smaller one is a smaller tensor.
    Axis,
    /// Where a tensor begins.
    Offset,
}

/// A file under construction, with the places of its numbers.
#[derive(Default)]
struct Builder {
    bytes: Vec<u8>,
    marks: Vec<(Mark, usize, usize)>,
}

impl Builder {
    fn u64(&mut self, mark: Mark, value: u64) -> &mut Self {
        self.marks.push((mark, self.bytes.len(), 8));
        self.bytes.extend(value.to_le_bytes());
        self
    }

    fn u32(&mut self, mark: Mark, value: u32) -> &mut Self {
        self.marks.push((mark, self.bytes.len(), 4));
        self.bytes.extend(value.to_le_bytes());
        self
    }

    fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.bytes.extend(bytes);
        self
    }

    fn text(&mut self, text: &[u8]) -> &mut Self {
        self.u64(Mark::Len, u64::try_from(text.len()).unwrap()).raw(text)
    }

    fn key(&mut self, key: &str, type_id: u32) -> &mut Self {
        self.text(key.as_bytes()).u32(Mark::Type, type_id)
    }

    fn count(&mut self, key: &str, value: u32) -> &mut Self {
        self.key(key, 4).raw(&value.to_le_bytes())
    }

    fn array(&mut self, key: &str, element: u32, len: u64) -> &mut Self {
        self.key(key, 9).u32(Mark::Type, element).u64(Mark::Len, len)
    }

    fn tensor(&mut self, name: &str, axes: &[u64], type_id: u32, begin: u64) -> &mut Self {
        self.text(name.as_bytes()).u32(Mark::Len, u32::try_from(axes.len()).unwrap());
        for axis in axes {
            self.u64(Mark::Axis, *axis);
        }
        self.u32(Mark::Type, type_id).u64(Mark::Offset, begin)
    }

    /// Pads to the alignment and adds the data: 256 + 2·34 bytes, the first padded.
    fn data(&mut self) -> &mut Self {
        self.bytes.resize(self.bytes.len().next_multiple_of(32) + 256 + 68, 1);
        self
    }
}

const N_KEYS: u64 = 17;

/// A small dense model with a value of most types.
fn builder(change: impl Fn(&mut Builder)) -> Builder {
    let mut b = Builder::default();
    b.raw(b"GGUF").raw(&3u32.to_le_bytes()).u64(Mark::Tensors, 2).u64(Mark::Len, N_KEYS);
    b.key("general.architecture", 8).text(b"llama");
    b.count("llama.block_count", 2).count("llama.context_length", 128).count("llama.embedding_length", 64);
    b.count("llama.feed_forward_length", 96).count("llama.attention.head_count", 4).count("llama.vocab_size", 8);
    b.key("llama.attention.layer_norm_rms_epsilon", 6).raw(&1e-6f32.to_le_bytes());
    b.count("general.alignment", 32);
    b.key("a.bool", 7).raw(&[1]).key("a.u8", 0).raw(&[200]).key("a.i16", 3).raw(&[1, 2]);
    b.key("a.f64", 12).raw(&1.5f64.to_le_bytes()).key("a.u64", 10).raw(&[9; 8]);
    b.array("tokenizer.ggml.tokens", 8, 3).text(b"one").text(b"").text("drei".as_bytes());
    b.array("tokenizer.ggml.token_type", 5, 3).raw(&[1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0]);
    b.array("a.nested", 9, 1).u32(Mark::Type, 0).u64(Mark::Len, 2).raw(&[1, 2]);
    change(&mut b);
    b.tensor("first", &[32, 2], 0, 0).tensor("second", &[32, 2], 8, 256).data();
    b
}

/// Metadata that packed files have more.
const N_PACKED_KEYS: u64 = 2;

/// The same model, packed: `second` has 17 outputs, which take two row groups of 576 bytes, padding included.
fn packed_builder([layout, rows, alignment]: [u32; 3], change: impl Fn(&mut Builder)) -> Builder {
    let mut b = builder(|b| {
        b.count("puna.packed.layout", layout).count("puna.packed.rows", rows);
    });
    b.bytes[..4].copy_from_slice(b"PUNA");
    b.bytes[16..24].copy_from_slice(&(N_KEYS + N_PACKED_KEYS).to_le_bytes());
    let at = b.bytes.windows(17).position(|window| window == b"general.alignment").unwrap() + 17 + 4;
    b.bytes[at..at + 4].copy_from_slice(&alignment.to_le_bytes());
    // From the first tensor's name on it is written anew.
    let first = b.bytes.windows(5).position(|window| window == b"first").unwrap() - 8;
    b.bytes.truncate(first);
    b.marks.retain(|(_, at, _)| *at < first);
    b.tensor("first", &[32, 2], 0, 0).tensor("second", &[32, 17], PACKED | 8, 256);
    change(&mut b);
    b.bytes.resize(b.bytes.len().next_multiple_of(64) + 256 + 1152, 1);
    b
}

/// What types of packed tensors have on top.
const PACKED: u32 = 1 << 16;

pub fn sound_packed() -> Case {
    Case::new(Parser::Gguf, "sound", packed_builder([VERSION, 16, 64], |_| {}).bytes)
}

pub fn broken_packed() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut add = |what: String, bytes: Vec<u8>| cases.push(Case::new(Parser::Gguf, format!("packed: {what}"), bytes));
    let Builder { bytes: sound, marks } = packed_builder([VERSION, 16, 64], |_| {});
    for len in 0..sound.len() {
        add(format!("cut at {len}"), sound[..len].to_vec());
    }
    for (mark, at, width) in marks {
        let mut wide = [0; 8];
        wide[..width].copy_from_slice(&sound[at..at + width]);
        let value = u64::from_le_bytes(wide);
        for new in broken_numbers(mark, value) {
            // Outputs up to a multiple of 16 take no more bytes.
            if mark == Mark::Axis && value == 17 && new == 18 {
                continue;
            }
            let new = if width == 4 { new.min(u64::from(u32::MAX)) } else { new };
            let mut bytes = sound.clone();
            bytes[at..at + width].copy_from_slice(&new.to_le_bytes()[..width]);
            add(format!("{mark:?} at {at} is {new}, not {value}"), bytes);
        }
    }
    let layouts = [0, VERSION - 1, VERSION + 1, u32::MAX].map(|layout| [layout, 16, 64]);
    let others = [[8, 64], [0, 64], [16, 32], [16, 0]].map(|[rows, alignment]| [VERSION, rows, alignment]);
    for numbers in layouts.into_iter().chain(others) {
        add(format!("layout, rows and alignment {numbers:?}"), packed_builder(numbers, |_| {}).bytes);
    }
    for key in ["puna.packed.layout", "puna.packed.rows"] {
        let mut bytes = sound.clone();
        let at = bytes.windows(key.len()).position(|window| window == key.as_bytes()).unwrap();
        bytes[at..at + 4].copy_from_slice(b"none");
        add(format!("no {key}"), bytes);
        let mut bytes = sound.clone();
        bytes[at + key.len()..at + key.len() + 4].copy_from_slice(&6u32.to_le_bytes());
        add(format!("{key} is no whole number"), bytes);
    }
    let mut as_gguf = sound.clone();
    as_gguf[..4].copy_from_slice(b"GGUF");
    add("packed tensors in a GGUF file".into(), as_gguf);
    let mut tensor = |what: &str, axes: &[u64], type_id: u32| {
        let mut bytes = packed_builder([VERSION, 16, 64], |b| {
            b.tensor("x", axes, type_id, 1408);
        })
        .bytes;
        bytes[8..16].copy_from_slice(&3u64.to_le_bytes());
        add(what.into(), bytes);
    };
    tensor("one axis", &[32], PACKED | 8);
    tensor("half a block", &[33, 16], PACKED | 8);
    tensor("a group over 64 bits", &[1 << 60, 1], PACKED);
    tensor("groups over 64 bits", &[1 << 30, 1 << 40], PACKED);
    tensor("matrices over 64 bits", &[1, 1 << 30, 1 << 30, 1 << 30], PACKED);
    tensor("packed more than once", &[32, 16], PACKED << 1 | PACKED | 8);
    tensor("another mark", &[32, 16], PACKED << 1 | 8);
    for type_id in [4, 9, 16, 24, 39, 1000] {
        tensor(&format!("type {type_id}"), &[256, 16], PACKED | type_id);
    }
    cases
}

pub fn sound() -> Case {
    Case::new(Parser::Gguf, "sound", builder(|_| {}).bytes)
}

/// A sound file with as many keys as are allowed and `n` tensors more.
pub fn of_n_tensors(n: usize) -> Vec<u8> {
    let n_keys = 2048 - usize::try_from(N_KEYS).unwrap();
    let n_tensors = u64::try_from(n).unwrap();
    let built = builder(|b| {
        for i in 0..n_keys {
            b.key(&format!("key.{i}"), 8).text(b"some words");
        }
        for i in 0..n_tensors {
            b.tensor(&format!("blk.{i}.weight"), &[1, 1, 1, 1], 0, 352 + 32 * i);
        }
    });
    let mut bytes = built.bytes;
    bytes[8..16].copy_from_slice(&(n_tensors + 2).to_le_bytes());
    bytes[16..24].copy_from_slice(&2048u64.to_le_bytes());
    bytes.resize(bytes.len() + 64 + 32 * n, 0);
    bytes
}

pub fn broken() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut add = |what: String, bytes: Vec<u8>| cases.push(Case::new(Parser::Gguf, what, bytes));
    let Builder { bytes: sound, marks } = builder(|_| {});
    for len in 0..sound.len() {
        add(format!("cut at {len}"), sound[..len].to_vec());
    }
    for (mark, at, width) in marks {
        let mut wide = [0; 8];
        wide[..width].copy_from_slice(&sound[at..at + width]);
        let value = u64::from_le_bytes(wide);
        for new in broken_numbers(mark, value) {
            // What does not fit the width is that width's largest number.
            let new = if width == 4 { new.min(u64::from(u32::MAX)) } else { new };
            let mut bytes = sound.clone();
            bytes[at..at + width].copy_from_slice(&new.to_le_bytes()[..width]);
            add(format!("{mark:?} at {at} is {new}, not {value}"), bytes);
        }
    }
    for (what, at, new) in [
        ("magic", 0, b"GGUE".to_vec()),
        ("magic of an older format", 0, b"ggjt".to_vec()),
        ("magic backwards", 0, b"FUGG".to_vec()),
        ("version 0", 4, 0u32.to_le_bytes().into()),
        ("version 1", 4, 1u32.to_le_bytes().into()),
        ("version 4", 4, 4u32.to_le_bytes().into()),
        ("big-endian version 3", 4, 3u32.to_be_bytes().into()),
        ("big-endian version 2", 4, 2u32.to_be_bytes().into()),
        ("version 2^32 - 1", 4, u32::MAX.to_le_bytes().into()),
    ] {
        let mut bytes = sound.clone();
        bytes[at..at + new.len()].copy_from_slice(&new);
        add(what.into(), bytes);
    }
    add_values(&mut add);
    add_tensors(&mut add);
    add_large(&mut add);
    cases
}

fn broken_numbers(mark: Mark, value: u64) -> Vec<u64> {
    let numbers: &[u64] = match mark {
        Mark::Len => &[0, value + 1, value.wrapping_sub(1), 1 << 31, 1 << 32, 1 << 63, u64::MAX, u64::MAX - 8],
        Mark::Tensors => &[value + 1, 1 << 31, 1 << 32, 1 << 63, u64::MAX, u64::MAX - 8],
        Mark::Type => &[4 + 9, 31, 40, 255, 1 << 31, u64::MAX],
        Mark::Axis => &[0, value + 1, 1 << 31, 1 << 32, 1 << 58, 1 << 63, u64::MAX],
        Mark::Offset => &[value + 1, value + 32, 1 << 20, 1 << 63, u64::MAX, u64::MAX - 31],
    };
    let mut numbers: Vec<u64> = numbers.iter().copied().filter(|new| *new != value).collect();
    // 13 is a type of tensors.
    numbers.retain(|new| mark != Mark::Type || *new != 13 || value > 12);
    numbers
}

/// Changes a sound file's metadata by one more key.
fn with_key(change: impl Fn(&mut Builder)) -> Vec<u8> {
    let mut bytes = builder(change).bytes;
    bytes[16..24].copy_from_slice(&(N_KEYS + 1).to_le_bytes());
    bytes
}

fn add_values(add: &mut dyn FnMut(String, Vec<u8>)) {
    let mut key = |what: &str, change: &dyn Fn(&mut Builder)| add(what.into(), with_key(change));
    key("a key twice", &|b| {
        b.count("llama.block_count", 2);
    });
    key("an empty key", &|b| {
        b.count("", 2);
    });
    key("a key that is no text", &|b| {
        b.text(&[0xff, 0xfe]).u32(Mark::Type, 0).raw(&[1]);
    });
    key("a string that is no text", &|b| {
        b.key("x", 8).text(&[0xc3, 0x28]);
    });
    key("a list of strings that are no text", &|b| {
        b.array("x", 8, 2).text(b"ok").text(&[0xed, 0xa0, 0x80]);
    });
    key("a bool of 2", &|b| {
        b.key("x", 7).raw(&[2]);
    });
    key("a list of bools of 2", &|b| {
        b.array("x", 7, 2).raw(&[1, 2]);
    });
    key("a key of 64 KiB", &|b| {
        b.count(&"k".repeat(65_536), 1);
    });
    key("lists in lists in lists", &|b| {
        b.array("x", 9, 1);
        for _ in 0..20 {
            b.u32(Mark::Type, 9).u64(Mark::Len, 1);
        }
        b.u32(Mark::Type, 0).u64(Mark::Len, 1).raw(&[1]);
    });
    let mut rename = |what: &str, from: &str, to: &str| {
        let mut bytes = builder(|_| {}).bytes;
        let at = bytes.windows(from.len()).position(|window| window == from.as_bytes()).unwrap();
        assert_eq!(from.len(), to.len());
        bytes[at..at + from.len()].copy_from_slice(to.as_bytes());
        add(what.into(), bytes);
    };
    rename("another architecture", "llama\u{11}", "gemma\u{11}");
    for key in ["block_count", "context_length", "embedding_length", "feed_forward_length", "head_count"] {
        rename(&format!("no {key}"), key, &"x".repeat(key.len()));
    }
    for key in ["block_count", "context_length", "embedding_length", "feed_forward_length", "head_count", "vocab_size"]
    {
        for value in [0, 3, u32::MAX] {
            if value == 3 && !matches!(key, "embedding_length" | "head_count") {
                continue;
            }
            // Longest contexts are no mistake.
            if key == "context_length" && value > 0 {
                continue;
            }
            let mut bytes = builder(|_| {}).bytes;
            let at = bytes.windows(key.len()).position(|window| window == key.as_bytes()).unwrap() + key.len() + 4;
            bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
            add(format!("{key} is {value}"), bytes);
        }
    }
    for value in [0, 3, 33, 1 << 31, u32::MAX] {
        let mut bytes = builder(|_| {}).bytes;
        let at = bytes.windows(17).position(|window| window == b"general.alignment").unwrap() + 17 + 4;
        bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
        add(format!("alignment is {value}"), bytes);
    }
    for eps in [f32::NAN, f32::INFINITY, 0.0, -1.0] {
        let mut bytes = builder(|_| {}).bytes;
        let at = bytes.windows(4).position(|window| window == 1e-6f32.to_le_bytes()).unwrap();
        bytes[at..at + 4].copy_from_slice(&eps.to_le_bytes());
        add(format!("eps is {eps}"), bytes);
    }
    for (what, key, value) in [
        ("heads that do not divide", "llama.attention.head_count_kv", 3),
        ("odd heads", "llama.attention.key_length", 15),
        ("values of another length", "llama.attention.value_length", 32),
        ("partly rotated heads", "llama.rope.dimension_count", 8),
        ("experts", "llama.expert_count", 8),
        ("a first token outside", "tokenizer.ggml.bos_token_id", 8),
        ("a last token outside", "tokenizer.ggml.eos_token_id", u32::MAX),
    ] {
        add(
            what.into(),
            with_key(|b| {
                b.count(key, value);
            }),
        );
    }
    add(
        "a scaling that is not there".into(),
        with_key(|b| {
            b.key("llama.rope.scaling.type", 8).text(b"yarn");
        }),
    );
    add(
        "a base below 0".into(),
        with_key(|b| {
            b.key("llama.rope.freq_base", 6).raw(&(-1f32).to_le_bytes());
        }),
    );
}

fn add_tensors(add: &mut dyn FnMut(String, Vec<u8>)) {
    let mut tensor = |what: &str, name: &str, axes: &[u64], type_id: u32, begin: u64| {
        let mut bytes = builder(|b| {
            b.tensor(name, axes, type_id, begin);
        })
        .bytes;
        bytes[8..16].copy_from_slice(&3u64.to_le_bytes());
        add(what.into(), bytes);
    };
    tensor("a tensor twice", "second", &[1], 0, 320);
    tensor("a tensor without name", "", &[1], 0, 320);
    tensor("a tensor without axes", "x", &[], 0, 320);
    tensor("five axes", "x", &[1, 1, 1, 1, 1], 0, 320);
    tensor("an overlap", "x", &[1], 0, 32);
    tensor("the same bytes", "x", &[32, 2], 8, 256);
    tensor("a tensor around others", "x", &[64], 0, 0);
    tensor("half a block", "x", &[33], 8, 320);
    tensor("a product over 64 bits", "x", &[1 << 32, 1 << 32], 0, 320);
    tensor("bytes over 64 bits", "x", &[1 << 62], 0, 320);
    tensor("an end over 64 bits", "x", &[8], 0, u64::MAX - 31);
    tensor("divisors of another length", "rope_freqs.weight", &[1], 0, 320);
    for type_id in [4, 5, 9, 15, 16, 19, 23, 24, 26, 27, 29, 31, 34, 39, 1000] {
        tensor(&format!("type {type_id}"), "x", &[256], type_id, 320);
    }
}

/// Files that are cheap to store and dear to describe.
fn add_large(add: &mut dyn FnMut(String, Vec<u8>)) {
    let mut many = builder(|b| {
        for i in 0..100_000u32 {
            b.key(&i.to_string(), 0).raw(&[1]);
        }
    });
    many.bytes[16..24].copy_from_slice(&(N_KEYS + 100_000).to_le_bytes());
    add("100000 keys".into(), many.bytes);
    let mut many = builder(|b| {
        for i in 0..60_000u64 {
            b.tensor(&i.to_string(), &[1], 0, 320 + 32 * i);
        }
    });
    many.bytes[8..16].copy_from_slice(&60_002u64.to_le_bytes());
    add("60000 tensors".into(), many.bytes);
    let mut long = builder(|b| {
        b.tensor(&"x".repeat(60_000), &[1], 99, 320);
    });
    long.bytes[8..16].copy_from_slice(&3u64.to_le_bytes());
    add("a long name of an unknown type".into(), long.bytes);
}
