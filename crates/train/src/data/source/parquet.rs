//! Parquet: each row as a JSON object of the columns that are read.

use std::fs::File;
use std::io::{BufRead, Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use parquet::basic::Compression;
use parquet::file::reader::{ChunkReader, FileReader, SerializedFileReader};
use parquet::record::reader::RowIter;
use parquet::record::{Field, Row};
use parquet::schema::types::Type;

use super::{Columns, Found, ROW_LIMIT_BYTES, Trouble, pages};

/// Bytes of the table at a file's end at most.
const FOOTER_LIMIT_BYTES: u32 = 64 << 20;
/// Bytes of a file at most that is packed as a whole: Parquet can not be read from front to end, so it is held.
const UNPACKED_LIMIT_BYTES: u64 = 256 << 20;
/// Rows whose columns are decoded at a time.
const BATCH_ROWS: usize = 64;
/// The columns of samples.
const KNOWN: [&str; 6] = ["text", "messages", "tools", "prompt", "chosen", "rejected"];

pub(super) struct ParquetRows {
    rows: RowIter<'static>,
    n_read: u64,
}

impl ParquetRows {
    pub fn open(path: &Path, columns: Columns) -> Result<Self, String> {
        Self::new(File::open(path).map_err(|error| error.to_string())?, columns)
    }

    /// Reads a file that is packed as a whole.
    pub fn unpack(input: &mut dyn BufRead, columns: Columns) -> Result<Self, String> {
        let mut bytes = Vec::new();
        let read = input.take(UNPACKED_LIMIT_BYTES + 1).read_to_end(&mut bytes);
        read.map_err(|error| error.to_string())?;
        if bytes.len() as u64 > UNPACKED_LIMIT_BYTES {
            let limit = UNPACKED_LIMIT_BYTES >> 20;
            return Err(format!("is a packed Parquet file of more than {limit} MiB; unpack it first"));
        }
        Self::new(bytes::Bytes::from(bytes), columns)
    }

    fn new<R: ChunkReader + Clonable + 'static>(file: R, columns: Columns) -> Result<Self, String> {
        check_footer(&file)?;
        guarded(|| {
            let reader = SerializedFileReader::new(file.another().map_err(|error| error.to_string())?);
            let reader = reader.map_err(|error| damaged(&error.to_string()))?;
            let metadata = reader.metadata();
            let root = metadata.file_metadata().schema_descr().root_schema();
            let is_read = |name: &str| columns == Columns::All || KNOWN.contains(&name);
            let fields: Vec<_> = root.get_fields().iter().filter(|field| is_read(field.name())).cloned().collect();
            if fields.is_empty() {
                let names: Vec<&str> = root.get_fields().iter().map(|field| field.name()).collect();
                let wanted = "name one of them text or messages, or three prompt, chosen and rejected";
                return Err(format!("has the columns {}; {wanted}", names.join(", ")));
            }
            for column in metadata.row_groups().iter().flat_map(|group| group.columns()) {
                check_codec(column.compression())?;
            }
            pages::check(&file, metadata, &is_read)?;
            let projection = Type::group_type_builder(root.name()).with_fields(fields).build();
            let projection = projection.map_err(|error| damaged(&error.to_string()))?;
            let rows = RowIter::from_file_into(Box::new(reader)).project(Some(projection));
            let rows = rows.map_err(|error| damaged(&error.to_string()))?.with_batch_size(BATCH_ROWS);
            Ok(Self { rows, n_read: 0 })
        })
    }

    /// The next row.
    pub fn next(&mut self) -> Found<Vec<u8>> {
        self.n_read += 1;
        let rows = &mut self.rows;
        let row = guarded(|| rows.next().transpose().map_err(|error| damaged(&error.to_string())));
        match row {
            Ok(Some(row)) => {
                let mut json = Bounded(Vec::new());
                Some(match write_row(&row, &mut json) {
                    Ok(()) => Ok((self.n_read, json.0)),
                    Err(error) => Err(Trouble::Row(self.n_read, error.to_string())),
                })
            }
            Ok(None) => None,
            Err(why) => Some(Err(Trouble::File(format!("row {}: {why}", self.n_read)))),
        }
    }
}

/// What can be read from two places at a time.
trait Clonable: Sized {
    fn another(&self) -> std::io::Result<Self>;
}

impl Clonable for File {
    fn another(&self) -> std::io::Result<Self> {
        self.try_clone()
    }
}

impl Clonable for bytes::Bytes {
    fn another(&self) -> std::io::Result<Self> {
        Ok(self.clone())
    }
}

/// Runs `work`, turning a panic of the decoder, which is not written for hostile files, into an error.
fn guarded<T>(work: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| Err(damaged("the decoder gave up")))
}

fn damaged(why: &str) -> String {
    format!("Parquet file is damaged or cut off ({why}); fetch it again")
}

/// Bounds what the table at the end may come to.
fn check_footer<R: ChunkReader>(file: &R) -> Result<(), String> {
    let begin = file.len().checked_sub(8).ok_or_else(|| damaged("it has no end"))?;
    let tail = file.get_bytes(begin, 8).map_err(|error| damaged(&error.to_string()))?;
    let len = tail.first_chunk().map_or(u32::MAX, |len| u32::from_le_bytes(*len));
    match len > FOOTER_LIMIT_BYTES {
        true => Err(damaged(&format!("the table at its end claims {len} bytes"))),
        false => Ok(()),
    }
}

fn check_codec(codec: Compression) -> Result<(), String> {
    match codec {
        Compression::UNCOMPRESSED | Compression::SNAPPY | Compression::GZIP(_) => Ok(()),
        other => Err(format!("its columns are packed in {other}; write it with SNAPPY, GZIP or no compression")),
    }
}

/// Takes as many bytes as a row may have.
struct Bounded(Vec<u8>);

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.0.len() + bytes.len() > ROW_LIMIT_BYTES {
            return Err(std::io::Error::other(format!("is longer than {} MiB; cut it", ROW_LIMIT_BYTES >> 20)));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn write_row(row: &Row, out: &mut Bounded) -> std::io::Result<()> {
    let mut separator = "{";
    for (name, field) in row.get_column_iter() {
        out.write_all(separator.as_bytes())?;
        serde_json::to_writer(&mut *out, name)?;
        out.write_all(b":")?;
        write_field(field, out)?;
        separator = ",";
    }
    out.write_all(if separator == "{" { b"{}" } else { b"}" })
}

/// Texts, numbers, lists and structs; of what JSON has no form for, the text that the format gives it.
fn write_field(field: &Field, out: &mut Bounded) -> std::io::Result<()> {
    match field {
        Field::Null => out.write_all(b"null"),
        Field::Str(text) => Ok(serde_json::to_writer(out, text)?),
        Field::Bytes(bytes) => {
            let text = bytes.as_utf8().map_err(|_| std::io::Error::other("has bytes that are not UTF-8"))?;
            Ok(serde_json::to_writer(out, text)?)
        }
        Field::Bool(value) => Ok(serde_json::to_writer(out, value)?),
        Field::Long(value) => Ok(serde_json::to_writer(out, value)?),
        Field::Int(value) => Ok(serde_json::to_writer(out, value)?),
        Field::Double(value) => Ok(serde_json::to_writer(out, value)?),
        Field::Group(row) => write_row(row, out),
        Field::ListInternal(list) => {
            out.write_all(b"[")?;
            for (i, element) in list.elements().iter().enumerate() {
                out.write_all(if i > 0 { b"," } else { b"" })?;
                write_field(element, out)?;
            }
            out.write_all(b"]")
        }
        Field::MapInternal(_) => Err(std::io::Error::other("has a map; write it as a struct or as JSON text")),
        other => Ok(serde_json::to_writer(out, &other.to_string())?),
    }
}
