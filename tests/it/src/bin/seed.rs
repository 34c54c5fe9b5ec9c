//! Gives objects in a server's state other names: tests that ask for objects of certain names find them there.
//!
//! usage: `cargo run -p it --bin seed STATE FROM=TO...`
//!
//! Wherever a document has the text FROM as a whole, it has TO afterwards, and a document whose own name was FROM is kept
//! as TO. No server may run meanwhile.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use server::Store;
use server::store::Kind;

/// The kinds of documents, and where each has its name.
const KINDS: [(Kind, &str); 4] =
    [(Kind::Response, "/response/id"), (Kind::File, "/id"), (Kind::Batch, "/id"), (Kind::Completion, "/completion/id")];

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (state, pairs) = args.split_first().context("usage: seed STATE FROM=TO...")?;
    let names = pairs
        .iter()
        .map(|pair| pair.split_once('=').with_context(|| format!("{pair:?} is not FROM=TO")))
        .collect::<Result<BTreeMap<&str, &str>>>()?;
    let store = Store::open(Path::new(state))?;
    let mut n_renamed = 0;
    for (kind, at) in KINDS {
        for (caller, mut document) in store.all::<Value>(kind)? {
            let name = |document: &Value| document.pointer(at).and_then(Value::as_str).map(str::to_owned);
            let old = name(&document).context("a document without a name")?;
            n_renamed += rename(&mut document, &names);
            let new = name(&document).context("a document without a name")?;
            if new != old {
                if let Some(bytes) = store.bytes(&old)? {
                    store.put_bytes(&new, &bytes)?;
                }
                store.delete(kind, caller, &old)?;
            }
            store.put(kind, caller, (&new, &document), usize::MAX)?;
        }
    }
    ensure!(n_renamed >= names.len(), "only {n_renamed} texts were found of {} names", names.len());
    Ok(())
}

/// Renames texts in `value`; returns how many.
fn rename(value: &mut Value, names: &BTreeMap<&str, &str>) -> usize {
    match value {
        Value::String(text) => match names.get(text.as_str()) {
            Some(new) => {
                (*new).clone_into(text);
                1
            }
            None => 0,
        },
        Value::Array(list) => list.iter_mut().map(|value| rename(value, names)).sum(),
        Value::Object(map) => map.values_mut().map(|value| rename(value, names)).sum(),
        _ => 0,
    }
}
