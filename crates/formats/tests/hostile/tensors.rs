//! Broken safetensors files.

use crate::{Case, Parser};

/// A header of three tensors, 24 + 8 + 8 bytes. Every `@n@` is a number to be broken.
const HEADER: &str = r#"{"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[@2@,@3@],"data_offsets":[@0@,@24@]},"b":{"dtype":"BF16","shape":[@4@],"data_offsets":[@24@,@32@]},"c":{"dtype":"I64","shape":[],"data_offsets":[@32@,@40@]}}"#;
const DATA_BYTES: usize = 40;

/// What a number is replaced with.
const NUMBERS: [&str; 18] = [
    "-1",
    "2147483648",
    "4294967295",
    "4294967296",
    "9223372036854775807",
    "9223372036854775808",
    "18446744073709551615",
    "18446744073709551616",
    "1.5",
    "1e999",
    "NaN",
    "null",
    "true",
    "\"2\"",
    "[]",
    "{}",
    "7",
    "",
];

fn file(header: &str, data_bytes: usize) -> Vec<u8> {
    let len = u64::try_from(header.len()).unwrap();
    [&len.to_le_bytes(), header.as_bytes(), &vec![7; data_bytes]].concat()
}

fn header() -> String {
    HEADER.replace('@', "")
}

pub fn sound() -> Case {
    Case::new(Parser::Safetensors, "sound", file(&header(), DATA_BYTES))
}

/// A sound file of `n` empty tensors.
pub fn of_n_tensors(n: usize) -> Vec<u8> {
    let tensor = |i: usize| format!("\"tensor.{i}\":{{\"dtype\":\"U8\",\"shape\":[0,1,2,3],\"data_offsets\":[0,0]}}");
    file(&format!("{{{}}}", (0..n).map(tensor).collect::<Vec<_>>().join(",")), 0)
}

pub fn broken() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut add = |what: String, bytes: Vec<u8>| cases.push(Case::new(Parser::Safetensors, what, bytes));
    let sound = file(&header(), DATA_BYTES);
    for len in 0..sound.len() {
        add(format!("cut at {len}"), sound[..len].to_vec());
    }
    let n = u64::try_from(header().len()).unwrap();
    let lengths = [0, 1, n - 1, n + 1, n + 40, n + 41, 100_000_001, 1 << 31, 1 << 32, 1 << 63, u64::MAX - 7, u64::MAX];
    for length in lengths {
        add(format!("header length {length}"), [&length.to_le_bytes(), &sound[8..]].concat());
    }
    let parts: Vec<&str> = HEADER.split('@').collect();
    for number in (1..parts.len()).step_by(2) {
        let value: i64 = parts[number].parse().unwrap();
        let near = [(value + 1).to_string(), (value - 1).to_string(), "0".into()];
        for new in NUMBERS.iter().map(ToString::to_string).chain(near).filter(|new| *new != parts[number]) {
            let mut parts = parts.clone();
            parts[number] = &new;
            add(format!("number {number} is {new}"), file(&parts.concat(), DATA_BYTES));
        }
    }
    for (what, from, to) in REPLACED {
        assert!(header().contains(from), "{from}");
        add(what.into(), file(&header().replacen(from, to, 1), DATA_BYTES));
    }
    for header in WHOLE {
        add(format!("header {header}"), file(header, 0));
    }
    add("more data".into(), file(&header(), DATA_BYTES + 1));
    let mut not_text = sound.clone();
    not_text[20] = 0xff;
    add("not UTF-8".into(), not_text);
    add_large(&mut add);
    cases
}

/// Part of the header and what stands there instead.
const REPLACED: [(&str, &str, &str); 27] = [
    ("unknown type", "F32", "F33"),
    ("lower case type", "F32", "f32"),
    ("another type of another size", "F32", "F64"),
    ("a type of half a byte", "BF16", "F4"),
    ("a type that is a number", "\"F32\"", "5"),
    ("a type that is null", "\"F32\"", "null"),
    ("no type", "\"dtype\":\"F32\",", ""),
    ("no shape", "\"shape\":[2,3],", ""),
    ("no offsets", ",\"data_offsets\":[0,24]", ""),
    ("one offset", "[0,24]", "[0]"),
    ("three offsets", "[0,24]", "[0,24,24]"),
    ("offsets swapped", "[0,24]", "[24,0]"),
    ("type twice", "\"dtype\":\"F32\"", "\"dtype\":\"F32\",\"dtype\":\"F32\""),
    ("shape twice", "\"shape\":[2,3]", "\"shape\":[2,3],\"shape\":[2,3]"),
    ("an overlap", "[24,32]", "[20,28]"),
    ("a hole", "[24,32]", "[28,36]"),
    ("the same bytes", "[24,32]", "[32,40]"),
    ("a product over 64 bits", "[2,3]", "[4294967296,4294967296]"),
    ("bytes over 64 bits", "[2,3]", "[4611686018427387904,1]"),
    ("bits over 64 bits", "\"shape\":[]", "\"shape\":[2305843009213693952]"),
    ("a tensor that is null", "{\"dtype\":\"BF16\",\"shape\":[4],\"data_offsets\":[24,32]}", "null"),
    ("a tensor that is a list", "{\"dtype\":\"BF16\",\"shape\":[4],\"data_offsets\":[24,32]}", "[4]"),
    ("metadata of numbers", "{\"format\":\"pt\"}", "{\"format\":5}"),
    ("metadata of nulls", "{\"format\":\"pt\"}", "{\"format\":null}"),
    ("metadata that is a list", "{\"format\":\"pt\"}", "[]"),
    ("metadata twice", "\"a\":", "\"__metadata__\":{},\"a\":"),
    ("ours alone: a name twice", "\"a\":", "\"b\":{\"dtype\":\"BF16\",\"shape\":[4],\"data_offsets\":[24,32]},\"a\":"),
];

/// Whole headers, without data.
const WHOLE: [&str; 14] = [
    "[]",
    "5",
    "null",
    "\"a\"",
    "   ",
    "{",
    "}",
    "{}{}",
    "{\"a\"}",
    "{\"a\":}",
    "{a:1}",
    "{\"a\":[[[[[[",
    "{\"a\":{\"dtype\":\"F32\",\"shape\":[[1]],\"data_offsets\":[0,4]}}",
    "{\"\\ud800\":5}",
];

/// Files that are cheap to store and dear to describe.
fn add_large(add: &mut dyn FnMut(String, Vec<u8>)) {
    let axes = format!("[{}0]", "1,".repeat(20));
    let long = format!("{{\"a\":{{\"dtype\":\"U8\",\"shape\":{axes},\"data_offsets\":[0,0]}}}}");
    add("ours alone: 21 axes".into(), file(&long, 0));
    let axes = format!("[{}0]", "0,".repeat(1_000_000));
    let long = format!("{{\"a\":{{\"dtype\":\"U8\",\"shape\":{axes},\"data_offsets\":[0,0]}}}}");
    add("ours alone: a million axes".into(), file(&long, 0));
    let tensor = |i: usize| format!("\"{i}\":{{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}}");
    let many: Vec<String> = (0..50_000).map(tensor).collect();
    add("ours alone: 50000 empty tensors".into(), file(&format!("{{{}}}", many.join(",")), 0));
    let long = "x".repeat(3 << 20);
    let named = |name: &str| format!("{{\"{name}\":{{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}}}}");
    add("ours alone: a name of 3 MiB".into(), file(&named(&long), 0));
    add("ours alone: a name of 3 MiB of escapes".into(), file(&named(&"\\n".repeat(3 << 19)), 0));
    let typed = |dtype: &str| format!("{{\"a\":{{\"dtype\":\"{dtype}\",\"shape\":[0],\"data_offsets\":[0,0]}}}}");
    add("a type of 3 MiB".into(), file(&typed(&long), 0));
    add("a type of 100 KiB".into(), file(&typed(&"\\u0041".repeat(100 << 10)), 0));
    let metadata = format!("{{\"__metadata__\":{{\"a\":\"{}\"}}}}", "\\\"".repeat(2 << 20));
    add("ours alone: metadata of 4 MiB of escapes".into(), file(&metadata, 0));
    add("deep lists".into(), file(&format!("{{\"a\":{}", "[".repeat(200_000)), 0));
    add("deep shapes".into(), file(&format!("{{\"a\":{{\"shape\":{}", "[".repeat(200_000)), 0));
}
