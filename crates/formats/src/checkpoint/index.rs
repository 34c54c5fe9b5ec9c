//! Sharded safetensors: `model.safetensors.index.json` and the files that it names.

use std::collections::BTreeMap;
use std::path::Path;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, Visitor};

use super::by_name;
use super::folder::Folder;
use crate::{FormatError, Tensor, json, map_file, safetensors};

/// The index's name.
pub(super) const NAME: &str = "model.safetensors.index.json";

/// Longest index; Maverick's has about 150 KB.
const LIMIT_BYTES: usize = 64 << 20;

/// Most shards; Maverick in FP8 has 84.
const SHARDS_LIMIT: usize = 1024;

/// Longest file name, as in most file systems.
const SHARD_NAME_LIMIT_BYTES: usize = 255;

/// Opens every shard that the index `file` names and checks that each tensor lies where the index says.
///
/// The index is walked twice, for the shards' names and for the check, so that it takes no memory of its own.
pub(super) fn open(folder: &Folder, file: &Path) -> Result<BTreeMap<String, Tensor>, FormatError> {
    let json = json::read(file, LIMIT_BYTES)?;
    json::check_strings(file, &json)?;
    let mut names: Vec<String> = Vec::new();
    walk(file, &json, &mut |_, shard| {
        if names.iter().any(|known| known == shard) {
            return Ok(());
        }
        check_shard_name(shard)?;
        if names.len() == SHARDS_LIMIT {
            return Err(format!("names more than {SHARDS_LIMIT} shards"));
        }
        names.push(shard.into());
        Ok(())
    })?;
    if names.is_empty() {
        return Err(FormatError::corrupt(file, "weight_map", "names no shard"));
    }
    let mut shards = Vec::with_capacity(names.len());
    for name in &names {
        let path = folder.find(name)?.ok_or_else(|| FormatError::missing(file, &format!("weight_map: {name}")))?;
        shards.push(by_name(safetensors::parse(&path, &map_file(&path)?)?));
    }
    walk(file, &json, &mut |tensor, shard| {
        let holder = names.iter().position(|known| known == shard).and_then(|i| shards.get(i));
        match holder.is_some_and(|tensors| tensors.contains_key(tensor)) {
            true => Ok(()),
            false => Err(format!("\"{tensor}\" is not in {shard}")),
        }
    })?;
    merge(file, shards)
}

/// One map of all shards' tensors.
fn merge(file: &Path, shards: Vec<BTreeMap<String, Tensor>>) -> Result<BTreeMap<String, Tensor>, FormatError> {
    let mut all = BTreeMap::new();
    for shard in shards {
        for (name, tensor) in shard {
            if all.contains_key(&name) {
                return Err(FormatError::corrupt(file, &name, "is in two shards"));
            }
            all.insert(name, tensor);
        }
    }
    Ok(all)
}

/// A shard is a plain file name: nothing that leads out of the folder.
fn check_shard_name(name: &str) -> Result<(), String> {
    let plain = !name.contains(['/', '\\', ':', '\0']) && name.ends_with(".safetensors") && !name.starts_with('.');
    if !plain || name.len() > SHARD_NAME_LIMIT_BYTES {
        return Err(format!("\"{name}\" is no plain name of a .safetensors file"));
    }
    Ok(())
}

/// Calls `visit` with every tensor and its shard.
fn walk(file: &Path, json: &[u8], visit: &mut dyn FnMut(&str, &str) -> Result<(), String>) -> Result<(), FormatError> {
    let mut reader = serde_json::Deserializer::from_slice(json);
    let walked = reader.deserialize_map(Top { visit }).and_then(|found| reader.end().map(|()| found));
    match walked {
        Ok(true) => Ok(()),
        Ok(false) => Err(FormatError::missing(file, "weight_map")),
        Err(e) => Err(FormatError::corrupt(file, "weight_map", e.to_string())),
    }
}

type Visit<'a> = &'a mut dyn FnMut(&str, &str) -> Result<(), String>;

/// The index itself; says whether it has a `weight_map`.
struct Top<'a> {
    visit: Visit<'a>,
}

impl<'de> Visitor<'de> for Top<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object with a weight_map")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<bool, A::Error> {
        let mut found = false;
        while let Some(key) = map.next_key_seed(Text(&mut |key| key == "weight_map"))? {
            if !key {
                map.next_value::<IgnoredAny>()?;
            } else if found {
                return Err(A::Error::custom("appears twice"));
            } else {
                map.next_value_seed(WeightMap { visit: self.visit })?;
                found = true;
            }
        }
        Ok(found)
    }
}

struct WeightMap<'a> {
    visit: Visit<'a>,
}

impl<'de> DeserializeSeed<'de> for WeightMap<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for WeightMap<'_> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object of file names")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        // One buffer for all names; a shard's name is visited where the parser has it.
        let mut tensor = String::new();
        while map
            .next_key_seed(Text(&mut |key| {
                tensor.clear();
                tensor.push_str(key);
            }))?
            .is_some()
        {
            map.next_value_seed(Text(&mut |shard| (self.visit)(&tensor, shard)))?.map_err(A::Error::custom)?;
        }
        Ok(())
    }
}

/// Hands a string to a function without copying it.
struct Text<'f, T>(&'f mut dyn FnMut(&str) -> T);

impl<'de, T> DeserializeSeed<'de> for Text<'_, T> {
    type Value = T;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<T, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<T> Visitor<'_> for Text<'_, T> {
    type Value = T;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a string")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        Ok((self.0)(text))
    }
}
