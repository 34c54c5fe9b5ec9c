//! Files of rows: JSONL, Parquet and plain text, as they are or in gzip or Zstandard.

mod lines;
mod pages;
mod parquet;
mod prose;
mod unpack;

use std::path::Path;
use std::sync::Arc;

use lines::Lines;
use parquet::ParquetRows;
use prose::Prose;
use unpack::{Packing, unpacked};

use super::row::Row;
use super::wire;
use super::{DataError, Place};

/// Bytes of one row of JSONL or Parquet at most: what a request with images may have, and a third more.
pub const ROW_LIMIT_BYTES: usize = 32 << 20;

/// Bytes of one document of a plain text at most: a page or two, so that in a mixture prose does not come in bursts.
pub const DOCUMENT_BYTES: usize = 4 << 10;

/// Which columns of a Parquet file are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Columns {
    /// Those of samples: `text`, `messages`, `tools`, `prompt`, `chosen`, `rejected`.
    OfSamples,
    /// All, for files that are no samples.
    All,
}

/// A row as it stands in its file.
#[derive(Debug, Clone)]
pub struct Raw {
    /// Where.
    pub place: Place,
    content: Content,
    /// What paths in it are relative to.
    folder: Arc<Path>,
}

#[derive(Debug, Clone)]
enum Content {
    Text(String),
    Json(Vec<u8>),
}

impl Raw {
    /// What the row says.
    ///
    /// # Errors
    /// [`DataError::Row`] naming the field that is wrong.
    pub fn parse(&self) -> Result<Row, DataError> {
        match &self.content {
            Content::Text(text) => Ok(Row::Document(text.clone())),
            Content::Json(json) => wire::parse(json, &self.folder).map_err(|why| DataError::row(&self.place, why)),
        }
    }

    /// Bytes, as it stands.
    pub fn size_bytes(&self) -> usize {
        match &self.content {
            Content::Text(text) => text.len(),
            Content::Json(json) => json.len(),
        }
    }

    /// Every text in it, whatever its field's name.
    ///
    /// # Errors
    /// [`DataError::Row`] if it is no JSON.
    pub fn texts(&self) -> Result<Vec<String>, DataError> {
        match &self.content {
            Content::Text(text) => Ok(vec![text.clone()]),
            Content::Json(json) => wire::texts(json).map_err(|why| DataError::row(&self.place, why)),
        }
    }
}

/// What can not be read: one row, or all that is left.
enum Trouble {
    Row(u64, String),
    File(String),
}

type Found<T> = Option<Result<(u64, T), Trouble>>;

enum Reader {
    Lines(Lines),
    Prose(Prose),
    Parquet(Box<ParquetRows>),
}

/// The rows of a file, one after the other.
///
/// Holds one row and a decoder's window at a time; of a Parquet file what [`open`](Self::open) found its pages to take. A row
/// that is wrong is an error and does not end it; a file that can not be read any further ends with its error.
pub struct Rows {
    source: Arc<str>,
    folder: Arc<Path>,
    reader: Option<Reader>,
}

impl Rows {
    /// Opens a file. Gzip, Zstandard and Parquet are told by their first bytes, JSONL by its name: `.jsonl`, `.ndjson`,
    /// `.json`, and `.gz` or `.zst` behind it; everything else is plain text.
    ///
    /// # Errors
    /// [`DataError::File`] if it can not be opened, or has no column of a known name.
    pub fn open(path: &Path, columns: Columns) -> Result<Self, DataError> {
        let source: Arc<str> = path.display().to_string().into();
        let failed = |why: String| DataError::file(&source, why);
        let (packing, mut input) = unpacked(path).map_err(|error| failed(error.to_string()))?;
        let begin = input.fill_buf().map_err(|error| failed(error.to_string()))?;
        let reader = if begin.starts_with(b"PAR1") {
            let rows = match packing {
                Packing::None => ParquetRows::open(path, columns),
                Packing::Gzip | Packing::Zstd => ParquetRows::unpack(&mut input, columns),
            };
            Reader::Parquet(Box::new(rows.map_err(failed)?))
        } else if is_jsonl(path, packing) {
            Reader::Lines(Lines::new(input))
        } else {
            Reader::Prose(Prose::new(input))
        };
        let folder = path.parent().unwrap_or(Path::new("")).into();
        Ok(Self { source, folder, reader: Some(reader) })
    }
}

/// Whether the name, without the ending of its packing, is that of JSONL.
fn is_jsonl(path: &Path, packing: Packing) -> bool {
    let stem = match packing {
        Packing::None => path.to_owned(),
        Packing::Gzip | Packing::Zstd => path.with_extension(""),
    };
    let extension = stem.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    ["jsonl", "ndjson", "json"].iter().any(|known| extension.eq_ignore_ascii_case(known))
}

impl Iterator for Rows {
    type Item = Result<Raw, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        let found = match self.reader.as_mut()? {
            Reader::Lines(lines) => lines.next().map(|found| found.map(|(row, line)| (row, Content::Json(line)))),
            Reader::Prose(prose) => prose.next().map(|found| found.map(|(row, text)| (row, Content::Text(text)))),
            Reader::Parquet(rows) => rows.next().map(|found| found.map(|(row, json)| (row, Content::Json(json)))),
        };
        let place = |row| Place { source: Arc::clone(&self.source), row };
        match found {
            Some(Ok((row, content))) => Some(Ok(Raw { place: place(row), content, folder: Arc::clone(&self.folder) })),
            Some(Err(Trouble::Row(row, why))) => Some(Err(DataError::row(&place(row), why))),
            Some(Err(Trouble::File(why))) => {
                self.reader = None;
                Some(Err(DataError::file(&self.source, why)))
            }
            None => {
                self.reader = None;
                None
            }
        }
    }
}
