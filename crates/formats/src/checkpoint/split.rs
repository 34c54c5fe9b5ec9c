//! GGUF models in several files: `name-00001-of-00003.gguf`.

use std::path::Path;

use super::folder::Folder;
use crate::{FormatError, Gguf, map_file};

/// Most parts of one model.
const PARTS_LIMIT: usize = 1024;

/// What the name of a part says.
pub(super) struct Part<'a> {
    stem: &'a str,
    /// Which part, from 1 on.
    pub(super) nth: usize,
    n_parts: usize,
}

impl Part<'_> {
    fn name(&self, nth: usize) -> String {
        format!("{}-{nth:05}-of-{:05}.gguf", self.stem, self.n_parts)
    }
}

/// Reads a file name as that of a part.
pub(super) fn part(name: &str) -> Option<Part<'_>> {
    let (rest, n_parts) = name.strip_suffix(".gguf")?.rsplit_once("-of-")?;
    let (stem, nth) = rest.rsplit_once('-')?;
    let number = |digits: &str| (digits.len() == 5).then(|| digits.parse::<usize>().ok()).flatten();
    Some(Part { stem, nth: number(nth)?, n_parts: number(n_parts)? })
}

/// Opens the GGUF file `path`, and if it is a part, all parts of its model; the metadata is the first part's.
pub(super) fn open(path: &Path) -> Result<Gguf, FormatError> {
    let corrupt = |file: &Path, field: &str, why: String| FormatError::corrupt(file, field, why);
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let Some(parts) = part(name) else {
        let gguf = Gguf::parse(path, &map_file(path)?)?;
        return match gguf.metadata.find_count("split.count")? {
            None | Some(0 | 1) => Ok(gguf),
            Some(n) => Err(corrupt(path, "split.count", format!("is {n}, but the name is not that of a part"))),
        };
    };
    if !(1..=PARTS_LIMIT).contains(&parts.n_parts) || !(1..=parts.n_parts).contains(&parts.nth) {
        let why = format!("says part {} of {}; up to {PARTS_LIMIT} are read", parts.nth, parts.n_parts);
        return Err(corrupt(path, "name", why));
    }
    let folder = Folder::of(path)?;
    let mut model: Option<Gguf> = None;
    for nth in 1..=parts.n_parts {
        let file = folder.find(&parts.name(nth))?.ok_or_else(|| FormatError::missing(path, &parts.name(nth)))?;
        let gguf = Gguf::parse(&file, &map_file(&file)?)?;
        for (key, wanted) in [("split.count", parts.n_parts), ("split.no", nth - 1)] {
            if let Some(got) = gguf.metadata.find_count(key)?.filter(|got| *got != wanted) {
                return Err(corrupt(&file, key, format!("is {got}; by the name it is {wanted}")));
            }
        }
        match &mut model {
            None => model = Some(gguf),
            Some(model) => model.tensors.extend(gguf.tensors),
        }
    }
    let model = model.ok_or_else(|| FormatError::missing(path, "a first part"))?;
    check_whole(path, &model)?;
    Ok(model)
}

/// Checks that the parts make one model.
fn check_whole(path: &Path, model: &Gguf) -> Result<(), FormatError> {
    let key = "split.tensors.count";
    if let Some(n) = model.metadata.find_count(key)?.filter(|n| *n != model.tensors.len()) {
        let why = format!("is {n}; the parts have {} tensors", model.tensors.len());
        return Err(FormatError::corrupt(path, key, why));
    }
    let mut names: Vec<&str> = model.tensors.iter().map(|tensor| tensor.name.as_str()).collect();
    names.sort_unstable();
    match names.array_windows().find(|[a, b]| a == b) {
        Some([twice, _]) => Err(FormatError::corrupt(path, twice, "is in two parts")),
        None => Ok(()),
    }
}
