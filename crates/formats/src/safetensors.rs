//! The safetensors format: eight bytes of header length, a JSON header, the data.
//!
//! The header is walked twice, first to count and then to keep, so that its description is known to fit before it is
//! made. What is accepted is what the `safetensors` crate accepts, less duplicate names and more than 16 axes; a test
//! compares the two.

use std::path::Path;

use ::safetensors::Dtype;
use ::safetensors::tensor::{Metadata, TensorInfo as Entered};
use serde::Deserialize;
use serde::de::{Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use tensor::Bytes;

use crate::budget::Need;
use crate::error::clip;
use crate::{DType, FormatError, NewTensor, Tensor, TensorInfo, atomic, json};

/// Bytes of the header's length.
const PREFIX_BYTES: usize = 8;

/// Longest header, as in the reference.
const HEADER_LIMIT_BYTES: usize = 100_000_000;

/// Most axes of one tensor.
const AXES_LIMIT: usize = 16;

/// The key that holds no tensor.
const METADATA: &str = "__metadata__";

/// The tensors of the file `file`, whose content is `bytes`, in order of name.
///
/// # Errors
/// [`FormatError::Corrupt`] if the header is no header, two tensors share a name or bytes, bytes belong to no tensor, or
/// a tensor's bytes are not what its shape and type ask for.
pub fn parse(file: &Path, bytes: &Bytes) -> Result<Vec<Tensor>, FormatError> {
    let corrupt = |field: &str, why: String| FormatError::corrupt(file, field, why);
    let prefix = bytes.first_chunk::<PREFIX_BYTES>();
    let prefix = prefix.ok_or_else(|| corrupt("header length", format!("the file has {} bytes", bytes.len())))?;
    let header_bytes = usize::try_from(u64::from_le_bytes(*prefix)).ok().filter(|n| *n <= HEADER_LIMIT_BYTES);
    let data_begin = header_bytes.and_then(|n| n.checked_add(PREFIX_BYTES));
    let header = data_begin.and_then(|begin| bytes.get(PREFIX_BYTES..begin));
    let (Some(data_begin), Some(header)) = (data_begin, header) else {
        let claimed = u64::from_le_bytes(*prefix);
        return Err(corrupt("header length", format!("{claimed} bytes in a file of {} bytes", bytes.len())));
    };
    let header = str::from_utf8(header).map_err(|e| corrupt("header", e.to_string()))?;
    let entries = read_header(file, header, bytes.len())?;
    place(file, entries, bytes, data_begin)
}

/// One tensor of the header.
struct Entry {
    name: String,
    dtype: DType,
    shape: Vec<usize>,
    begin: usize,
    end: usize,
}

fn read_header(file: &Path, header: &str, file_bytes: usize) -> Result<Vec<Entry>, FormatError> {
    let longest_string = json::longest_string(header.as_bytes());
    let mut need = Need { longest_string, ..Need::default() };
    need.check(file, "header", file_bytes)?;
    let mut current = String::new();
    let mut reader = serde_json::Deserializer::from_str(header);
    let counted = reader.deserialize_map(Count { need: &mut need }).and_then(|()| reader.end());
    counted.map_err(|e| FormatError::corrupt(file, "header", e.to_string()))?;
    need.check(file, "header", file_bytes)?;
    let mut entries = Vec::with_capacity(need.n_tensors);
    let mut reader = serde_json::Deserializer::from_str(header);
    let kept = reader.deserialize_map(Keep { entries: &mut entries, current: &mut current });
    kept.map_err(|e| FormatError::corrupt(file, &current, e.to_string()))?;
    Ok(entries)
}

/// Checks every entry against the data and gives it its bytes.
fn place(file: &Path, mut entries: Vec<Entry>, bytes: &Bytes, data_begin: usize) -> Result<Vec<Tensor>, FormatError> {
    let data_bytes = bytes.len() - data_begin;
    entries.sort_unstable_by_key(|entry| (entry.begin, entry.end));
    let mut expected = 0;
    for entry in &entries {
        let Entry { name, dtype, shape, begin, end } = entry;
        let corrupt = |why: String| FormatError::corrupt(file, name, why);
        if *begin != expected || end < begin {
            return Err(corrupt(format!("data_offsets are [{begin}, {end}]; the data before ends at {expected}")));
        }
        let size = dtype.size_bytes(shape);
        let size = size.ok_or_else(|| corrupt(format!("{} {shape:?} has no size in bytes", dtype.name())))?;
        if size != end - begin {
            let of = dtype.name();
            return Err(corrupt(format!("{of} {shape:?} is {size} bytes; data_offsets are [{begin}, {end}]")));
        }
        if *end > data_bytes {
            return Err(corrupt(format!("data_offsets end at {end}; the file holds {data_bytes} bytes of data")));
        }
        expected = *end;
    }
    if expected != data_bytes {
        let why = format!("the tensors end at {expected}; the file holds {data_bytes} bytes of data");
        return Err(FormatError::corrupt(file, "data_offsets", why));
    }
    entries.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    if let Some([twice, _]) = entries.array_windows().find(|[a, b]| a.name == b.name) {
        return Err(FormatError::corrupt(file, &twice.name, "appears twice"));
    }
    let mut tensors = Vec::with_capacity(entries.len());
    for Entry { name, dtype, shape, begin, end } in entries {
        let slice = bytes.slice(data_begin + begin..data_begin + end);
        let bytes = slice.ok_or_else(|| FormatError::corrupt(file, &name, "lies outside of the file"))?;
        tensors.push(Tensor { name, dtype, shape, bytes });
    }
    Ok(tensors)
}

/// Counts the header's tensors and the bytes of their names.
struct Count<'a> {
    need: &'a mut Need,
}

impl<'de> Visitor<'de> for Count<'_> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object of tensors")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(TextLen(len)) = map.next_key()? {
            self.need.n_tensors += 1;
            self.need.names_bytes += len;
            map.next_value::<IgnoredAny>()?;
        }
        Ok(())
    }
}

/// Keeps the header's tensors; `current` is the name being read, for the error.
struct Keep<'a> {
    entries: &'a mut Vec<Entry>,
    current: &'a mut String,
}

impl<'de> Visitor<'de> for Keep<'_> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object of tensors")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut has_metadata = false;
        while let Some(name) = map.next_key::<String>()? {
            *self.current = clip(&name);
            if name == METADATA {
                if std::mem::replace(&mut has_metadata, true) {
                    return Err(A::Error::custom("appears twice"));
                }
                map.next_value::<Option<Texts>>()?;
                continue;
            }
            let Info { dtype, shape: Axes(shape), data_offsets: (begin, end) } = map.next_value()?;
            let dtype = dtype.to_string();
            let dtype = DType::plain(&dtype).ok_or_else(|| A::Error::custom(format!("unknown type {dtype}")))?;
            self.entries.push(Entry { name, dtype, shape, begin, end });
        }
        Ok(())
    }
}

/// One tensor's description, with the reference's own list of types.
#[derive(Deserialize)]
struct Info {
    dtype: Dtype,
    shape: Axes,
    data_offsets: (usize, usize),
}

/// The length of a string.
struct TextLen(usize);

impl<'de> Deserialize<'de> for TextLen {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Len;
        impl Visitor<'_> for Len {
            type Value = TextLen;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a string")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<TextLen, E> {
                Ok(TextLen(text.len()))
            }
        }
        deserializer.deserialize_str(Len)
    }
}

/// An object of strings, checked and dropped.
struct Texts;

impl<'de> Deserialize<'de> for Texts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Each;
        impl<'de> Visitor<'de> for Each {
            type Value = Texts;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object of strings")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Texts, A::Error> {
                while map.next_entry::<TextLen, TextLen>()?.is_some() {}
                Ok(Texts)
            }
        }
        deserializer.deserialize_map(Each)
    }
}

/// At most [`AXES_LIMIT`] lengths.
struct Axes(Vec<usize>);

impl<'de> Deserialize<'de> for Axes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Each;
        impl<'de> Visitor<'de> for Each {
            type Value = Axes;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a list of lengths")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Axes, A::Error> {
                let mut axes = [0; AXES_LIMIT];
                let mut n_axes = 0;
                while let Some(axis) = seq.next_element()? {
                    let room = axes.get_mut(n_axes);
                    *room.ok_or_else(|| A::Error::custom(format!("shape has more than {AXES_LIMIT} axes")))? = axis;
                    n_axes += 1;
                }
                Ok(Axes(axes.iter().take(n_axes).copied().collect()))
            }
        }
        deserializer.deserialize_seq(Each)
    }
}

/// Writes `tensors` to `path`, in the order given: to a temporary file, synced, then renamed.
///
/// # Errors
/// As [`header`]; [`FormatError::Io`].
pub fn write(path: &Path, tensors: &[NewTensor<'_>]) -> Result<(), FormatError> {
    let infos: Vec<_> = tensors.iter().map(|tensor| (tensor.info(), tensor.bytes.len())).collect();
    let header = header(path, &infos)?;
    atomic::write(path, |out| {
        out.write(&header)?;
        tensors.iter().try_for_each(|tensor| out.write(tensor.bytes))
    })
}

/// What stands before the data in a file that holds `tensors`, each with its length in bytes, in the order given.
///
/// `path` names the file in errors alone. For who writes by other ways than [`write`](fn@write).
///
/// # Errors
/// [`FormatError::Unsupported`] for block formats, which safetensors files have no name for; [`FormatError::Corrupt`] if
/// a name repeats or the bytes do not fit the shape.
pub fn header(path: &Path, tensors: &[(TensorInfo<'_>, usize)]) -> Result<Vec<u8>, FormatError> {
    let mut begin = 0usize;
    let mut infos = Vec::with_capacity(tensors.len());
    let mut names = std::collections::BTreeSet::new();
    for (TensorInfo { name, dtype, shape }, size_bytes) in tensors {
        let corrupt = |why: &str| FormatError::corrupt(path, name, why);
        if !names.insert(*name) || *name == METADATA {
            return Err(corrupt("the name is taken"));
        }
        let known = serde_json::from_value(serde_json::Value::from(dtype.name()));
        let dtype = known.map_err(|_| {
            FormatError::unsupported(path, name, format!("safetensors files can not hold {}", dtype.name()))
        })?;
        let end = begin.checked_add(*size_bytes).ok_or_else(|| corrupt("the file would be too long"))?;
        infos.push((String::from(*name), Entered { dtype, shape: shape.to_vec(), data_offsets: (begin, end) }));
        begin = end;
    }
    let metadata = Metadata::new(None, infos).map_err(|e| FormatError::corrupt(path, "tensors", e.to_string()))?;
    let header = serde_json::to_string(&metadata).map_err(|e| FormatError::corrupt(path, "header", e.to_string()))?;
    // The reference pads with spaces so that the data begins at a multiple of 8.
    let padding = header.len().next_multiple_of(PREFIX_BYTES) - header.len();
    let header_bytes = u64::try_from(header.len() + padding).unwrap_or(u64::MAX);
    let mut bytes = header_bytes.to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.resize(bytes.len() + padding, b' ');
    Ok(bytes)
}
