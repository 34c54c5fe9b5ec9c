//! The GGUF format, versions 2 and 3: metadata and tensors in one file.

mod metadata;
mod read;
mod types;
mod write;

use std::path::Path;

use tensor::Bytes;

use crate::budget::Need;
use crate::{FormatError, Tensor};

pub use metadata::{Array, Metadata, Value};
pub use write::{Layout, Writer, write};

use read::Cursor;

/// The first four bytes.
const MAGIC: [u8; 4] = *b"GGUF";

/// What tensors are aligned to where the metadata does not say.
const ALIGNMENT: usize = 32;

/// The key that says otherwise.
const ALIGNMENT_KEY: &str = "general.alignment";

/// Most metadata keys of one file; published ones have fewer than 100.
const KEYS_LIMIT: usize = 2048;

/// Longest metadata key and tensor name. The reference allows 65535 and 63.
const NAME_LIMIT_BYTES: usize = 65535;

/// Most axes of a tensor, as in the reference.
const AXES_LIMIT: usize = 4;

/// The smallest tensor description: a name's length, axes, type, offset.
const TENSOR_BYTES: usize = 8 + 4 + 4 + 8;

/// A parsed GGUF file.
#[derive(Debug, Clone)]
pub struct Gguf {
    /// The format's version, 2 or 3.
    pub version: u32,
    /// Everything that is no tensor.
    pub metadata: Metadata,
    /// The tensors in the file's order.
    pub tensors: Vec<Tensor>,
}

impl Gguf {
    /// Parses the file `file`, whose content is `bytes`.
    ///
    /// # Errors
    /// [`FormatError::Corrupt`] if anything does not fit the format or the file's length, a name appears twice, or
    /// tensors overlap; [`FormatError::Unsupported`] for other versions, big-endian files and tensor types that
    /// [`tensor::Format`] does not have.
    pub fn parse(file: &Path, bytes: &Bytes) -> Result<Self, FormatError> {
        let mut cursor = Cursor::new(file, bytes);
        let version = read_version(&mut cursor)?;
        let n_tensors = cursor.count("tensor count", TENSOR_BYTES)?;
        let n_keys = cursor.count("metadata count", 8 + 4 + 1)?;
        if n_keys > KEYS_LIMIT {
            let why = format!("{n_keys} keys; the limit is {KEYS_LIMIT}");
            return Err(FormatError::corrupt(file, "metadata count", why));
        }
        let mut need = Need { n_keys, ..Need::default() };
        let metadata = Metadata::read(&mut cursor, bytes, &mut need)?;
        let alignment = alignment(&metadata)?;
        let infos = read_infos(&mut cursor, n_tensors, need)?;
        let data_begin = cursor.at().checked_next_multiple_of(alignment).filter(|begin| *begin <= bytes.len());
        let data_begin = match data_begin {
            Some(begin) => begin,
            None if n_tensors == 0 => bytes.len(),
            None => return Err(FormatError::corrupt(file, "tensor data", "the file ends before it")),
        };
        let tensors = place(file, infos, bytes, data_begin, alignment)?;
        Ok(Self { version, metadata, tensors })
    }

    /// The tensor called `name`.
    pub fn tensor(&self, name: &str) -> Option<&Tensor> {
        self.tensors.iter().find(|tensor| tensor.name == name)
    }
}

fn read_version(cursor: &mut Cursor<'_>) -> Result<u32, FormatError> {
    let magic = cursor.take(4, "magic")?;
    if magic != MAGIC {
        return Err(FormatError::corrupt(cursor.file(), "magic", format!("is {magic:?}, not \"GGUF\"")));
    }
    let version = cursor.u32("version")?;
    match version {
        2 | 3 => Ok(version),
        _ if matches!(version.swap_bytes(), 1..=3) => {
            Err(FormatError::unsupported(cursor.file(), "version", "is big-endian; only little-endian files are read"))
        }
        _ => Err(FormatError::unsupported(cursor.file(), "version", format!("is {version}; 2 and 3 are read"))),
    }
}

fn alignment(metadata: &Metadata) -> Result<usize, FormatError> {
    let Some(alignment) = metadata.find_count(ALIGNMENT_KEY)? else { return Ok(ALIGNMENT) };
    if !alignment.is_power_of_two() || alignment > 1 << 20 {
        let why = format!("is {alignment}; it has to be a power of two up to 1 MiB");
        return Err(FormatError::corrupt(metadata.file(), ALIGNMENT_KEY, why));
    }
    Ok(alignment)
}

/// A tensor's description before its bytes are found.
struct Info {
    name: String,
    dtype: crate::DType,
    shape: Vec<usize>,
    begin: usize,
    end: usize,
}

/// Walks the descriptions twice: to know what they take, then to keep them.
fn read_infos(cursor: &mut Cursor<'_>, n_tensors: usize, mut need: Need) -> Result<Vec<Info>, FormatError> {
    need.n_tensors = n_tensors;
    let mut ahead = cursor.clone();
    for _ in 0..n_tensors {
        need.names_bytes += ahead.text("tensor name", NAME_LIMIT_BYTES)?.len();
        let n_axes = read_n_axes(&mut ahead, "tensor axes")?;
        ahead.take(n_axes * 8 + 4 + 8, "tensor offset")?;
    }
    need.check(cursor.file(), "tensor count", cursor.file_bytes())?;
    let mut infos = Vec::with_capacity(n_tensors);
    for _ in 0..n_tensors {
        infos.push(read_info(cursor)?);
    }
    Ok(infos)
}

fn read_n_axes(cursor: &mut Cursor<'_>, field: &str) -> Result<usize, FormatError> {
    let n_axes = cursor.u32(field)?;
    usize::try_from(n_axes).ok().filter(|n| (1..=AXES_LIMIT).contains(n)).ok_or_else(|| {
        FormatError::corrupt(cursor.file(), field, format!("has {n_axes} axes; 1 to {AXES_LIMIT} are allowed"))
    })
}

fn read_info(cursor: &mut Cursor<'_>) -> Result<Info, FormatError> {
    let file = cursor.file();
    let name = cursor.text("tensor name", NAME_LIMIT_BYTES)?;
    if name.is_empty() {
        return Err(FormatError::corrupt(file, "tensor name", "is empty"));
    }
    let mut shape = Vec::with_capacity(AXES_LIMIT);
    for _ in 0..read_n_axes(cursor, name)? {
        let axis = cursor.u64(name)?;
        let len = usize::try_from(axis).ok().filter(|len| *len > 0);
        shape.push(len.ok_or_else(|| FormatError::corrupt(file, name, format!("has an axis of length {axis}")))?);
    }
    // The file lists the innermost axis first.
    shape.reverse();
    let id = cursor.u32(name)?;
    let dtype = types::dtype(id).map_err(|why| FormatError::unsupported(file, name, why))?;
    let begin = cursor.u64(name)?;
    let size = dtype.size_bytes(&shape).ok_or_else(|| {
        FormatError::corrupt(
            file,
            name,
            format!("{} {shape:?} is no whole number of blocks or too large", dtype.name()),
        )
    })?;
    let end = usize::try_from(begin).ok().and_then(|begin| Some((begin, begin.checked_add(size)?)));
    let (begin, end) = end.ok_or_else(|| FormatError::corrupt(file, name, format!("begins at {begin}")))?;
    Ok(Info { name: name.into(), dtype, shape, begin, end })
}

/// Checks that the tensors lie apart and inside of the file, and gives them their bytes.
fn place(
    file: &Path,
    infos: Vec<Info>,
    bytes: &Bytes,
    data_begin: usize,
    alignment: usize,
) -> Result<Vec<Tensor>, FormatError> {
    let data = bytes.slice(data_begin..bytes.len());
    let data = data.ok_or_else(|| FormatError::corrupt(file, "tensor data", "the file ends before it"))?;
    let mut order: Vec<&Info> = infos.iter().collect();
    order.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    if let Some([twice, _]) = order.array_windows().find(|[a, b]| a.name == b.name) {
        return Err(FormatError::corrupt(file, &twice.name, "appears twice"));
    }
    order.sort_unstable_by_key(|info| (info.begin, info.end));
    if let Some([a, b]) = order.array_windows().find(|[a, b]| b.begin < a.end) {
        let why = format!("begins at {}, inside of {}, which ends at {}", b.begin, a.name, a.end);
        return Err(FormatError::corrupt(file, &b.name, why));
    }
    drop(order);
    let mut tensors = Vec::with_capacity(infos.len());
    for Info { name, dtype, shape, begin, end } in infos {
        if !begin.is_multiple_of(alignment) {
            let why = format!("begins at {begin}, no multiple of the alignment {alignment}");
            return Err(FormatError::corrupt(file, &name, why));
        }
        let Some(bytes) = data.slice(begin..end) else {
            let why = format!("is at {begin}..{end}; the file holds {} bytes of data", data.len());
            return Err(FormatError::corrupt(file, &name, why));
        };
        tensors.push(Tensor { name, dtype, shape, bytes });
    }
    Ok(tensors)
}
