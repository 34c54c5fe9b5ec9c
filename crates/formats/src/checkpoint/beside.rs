//! Repositories that a checkpoint takes parts from: Ultravox's holds a projector, and names the two others.

use std::collections::BTreeMap;
use std::path::Path;

use super::folder::Folder;
use super::tensors_of;
use crate::config::CONFIG_LIMIT_BYTES;
use crate::json::{self, Node, Section};
use crate::{FormatError, Tensor};

/// What tells a part's tensors, the key of the repository's name, the key of the part's config, and the tensors of the
/// repository that are the part's.
type Part = ([&'static str; 4], &'static str, &'static str, [&'static str; 2]);

const PARTS: [Part; 2] = [
    (
        ["audio_tower.", "model.audio_tower.", "model.encoder.", "encoder."],
        "audio_model_id",
        "audio_config",
        ["model.encoder.", "encoder."],
    ),
    (
        ["language_model.", "model.language_model.", "model.layers.", "model.embed_tokens."],
        "text_model_id",
        "text_config",
        ["model.", "lm_head."],
    ),
];

/// Adds to `tensors` the parts that the config `json` in `file` names and that are not there, from folders of their
/// names beside `path`. Returns their configs by key.
///
/// # Errors
/// [`FormatError::Missing`] for a folder that is not there; what reading it gives.
pub(super) fn add(
    path: &Path,
    file: &Path,
    json: &[u8],
    tensors: &mut BTreeMap<String, Tensor>,
) -> Result<Vec<(&'static str, Vec<u8>)>, FormatError> {
    let map = json::parse(file, json, &["model_type", "audio_model_id", "text_model_id"])?;
    if map.get("model_type") != Some(&Node::Text("ultravox".into())) {
        return Ok(Vec::new());
    }
    let top = Section::new(file, &map);
    let mut configs = Vec::new();
    for (own, id_key, config_key, wanted) in PARTS {
        if tensors.keys().any(|name| own.iter().any(|prefix| name.starts_with(prefix))) {
            continue;
        }
        let id = top.text(id_key)?.ok_or_else(|| top.missing(id_key))?;
        let name = id.rsplit('/').next().unwrap_or_default();
        if name.is_empty() || name.starts_with('.') || name.contains(['\\', ':', '\0']) {
            return Err(top.corrupt(id_key, format!("is \"{id}\"; its end is no plain name of a folder")));
        }
        let real = path.canonicalize().map_err(|e| FormatError::io(path, e))?;
        let beside = real.parent().unwrap_or(&real).join(name);
        if !beside.is_dir() {
            let what = format!("the folder {name} beside it, which is the repository \"{id}\" of {id_key},");
            return Err(FormatError::missing(path, &what));
        }
        let folder = Folder::open(&beside)?;
        let config = folder.find("config.json")?.ok_or_else(|| folder.missing("config.json"))?;
        configs.push((config_key, json::read(&config, CONFIG_LIMIT_BYTES)?));
        for (name, tensor) in tensors_of(&beside, &folder)? {
            if wanted.iter().any(|prefix| name.starts_with(prefix)) {
                tensors.insert(name, tensor);
            }
        }
    }
    Ok(configs)
}
