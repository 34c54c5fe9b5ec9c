//! What the pages of a Parquet file claim, checked before the decoder believes it.
//!
//! The decoder makes room for as many bytes and values as a page's header says, and for as long a list as its levels say.
//! A header is a struct of Thrift's compact protocol; its fields are those of `parquet.thrift`, `PageHeader`.

use std::io::{self, Read};

use parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData};
use parquet::file::reader::ChunkReader;

/// Bytes of one page at most, unpacked.
const PAGE_LIMIT_BYTES: i64 = 64 << 20;
/// Values of one page at most.
const PAGE_LIMIT_VALUES: i64 = 1 << 23;
/// Values of one page's dictionary at most.
const DICTIONARY_LIMIT_VALUES: i64 = 1 << 20;
/// Values of one column of lists in one row group at most: as many as one row may have.
const LIST_LIMIT_VALUES: i64 = 1 << 23;
/// Bytes of one page's header at most.
const HEADER_LIMIT_BYTES: u64 = 1 << 20;

/// Checks every page of the columns for which `is_read`.
pub(super) fn check<R: ChunkReader>(
    file: &R,
    metadata: &ParquetMetaData,
    is_read: &dyn Fn(&str) -> bool,
) -> Result<(), String> {
    for (number, group) in metadata.row_groups().iter().enumerate() {
        for column in group.columns() {
            let path = column.column_descr().path();
            if path.parts().first().is_some_and(|root| is_read(root)) {
                let checked = chunk(file, column);
                checked.map_err(|why| format!("row group {number}, column {}: {why}", path.string()))?;
            }
        }
    }
    Ok(())
}

fn chunk<R: ChunkReader>(file: &R, column: &ColumnChunkMetaData) -> Result<(), String> {
    let outside = || "lies outside of the file, which is damaged or cut off; fetch it again".to_owned();
    let begin = column.dictionary_page_offset().unwrap_or(column.data_page_offset());
    let begin = u64::try_from(begin).map_err(|_| outside())?;
    let len = u64::try_from(column.compressed_size()).map_err(|_| outside())?;
    let end = begin.checked_add(len).filter(|end| *end <= file.len()).ok_or_else(outside)?;
    let (mut at, mut n_values) = (begin, 0);
    while at < end {
        let read = file.get_read(at).map_err(|error| error.to_string())?;
        let mut header = Compact { input: read, n_read: 0 };
        let page = header.page().map_err(|error| format!("a page's header at byte {at} is damaged: {error}"))?;
        let bytes = 0..=PAGE_LIMIT_BYTES;
        if !bytes.contains(&page.unpacked_bytes) || !bytes.contains(&page.packed_bytes) {
            let got = page.unpacked_bytes.max(page.packed_bytes);
            return Err(format!("a page claims {got} bytes; write pages of at most {} MiB", PAGE_LIMIT_BYTES >> 20));
        }
        let limit = if page.is_dictionary { DICTIONARY_LIMIT_VALUES } else { PAGE_LIMIT_VALUES };
        if !(0..=limit).contains(&page.n_values) {
            return Err(format!("a page claims {} values; write pages of at most {limit}", page.n_values));
        }
        if !page.is_dictionary {
            n_values += page.n_values;
        }
        if column.column_descr().max_rep_level() > 0 && n_values > LIST_LIMIT_VALUES {
            let limit = LIST_LIMIT_VALUES;
            return Err(format!("has more than {limit} values in a row group; write row groups of fewer rows"));
        }
        let packed = u64::try_from(page.packed_bytes).map_err(|_| outside())?;
        at = at.checked_add(header.n_read + packed).filter(|at| *at <= end).ok_or_else(outside)?;
    }
    Ok(())
}

#[derive(Debug, Default)]
struct Page {
    unpacked_bytes: i64,
    packed_bytes: i64,
    n_values: i64,
    is_dictionary: bool,
}

/// A reader of Thrift's compact protocol. Everything in it takes at least a byte, and the bytes are bounded, so that
/// nothing goes on for long.
struct Compact<R> {
    input: R,
    n_read: u64,
}

const STOP: u8 = 0;
const STRUCT: u8 = 12;

impl<R: Read> Compact<R> {
    fn page(&mut self) -> io::Result<Page> {
        let mut page = Page::default();
        let mut last = 0;
        while let Some((id, kind)) = self.field(&mut last)? {
            match (id, kind) {
                (2, 5) => page.unpacked_bytes = self.integer()?,
                (3, 5) => page.packed_bytes = self.integer()?,
                // The headers of a data page, a dictionary's, and a data page of version 2 begin with their values.
                (5 | 7 | 8, STRUCT) => {
                    page.is_dictionary = id == 7;
                    page.n_values = self.first_integer()?;
                }
                _ => self.skip(kind, 0)?,
            }
        }
        Ok(page)
    }

    /// Field 1 of a struct, which is read to its end.
    fn first_integer(&mut self) -> io::Result<i64> {
        let (mut value, mut last) = (0, 0);
        while let Some((id, kind)) = self.field(&mut last)? {
            match (id, kind) {
                (1, 5) => value = self.integer()?,
                _ => self.skip(kind, 0)?,
            }
        }
        Ok(value)
    }

    /// The next field's number and type; `None` at the end of the struct.
    fn field(&mut self, last: &mut i64) -> io::Result<Option<(i64, u8)>> {
        let head = self.byte()?;
        if head == STOP {
            return Ok(None);
        }
        *last = match i64::from(head >> 4) {
            0 => self.integer()?,
            delta => last.saturating_add(delta),
        };
        Ok(Some((*last, head & 15)))
    }

    fn skip(&mut self, kind: u8, depth: usize) -> io::Result<()> {
        if depth > 16 {
            return Err(io::Error::other("it is nested too deeply"));
        }
        match kind {
            1 | 2 => Ok(()),
            3 => self.bytes(1),
            4..=6 => self.varint().map(drop),
            7 => self.bytes(8),
            8 => {
                let len = self.varint()?;
                self.bytes(len)
            }
            9 | 10 => {
                let head = self.byte()?;
                let len = if head >> 4 == 15 { self.varint()? } else { u64::from(head >> 4) };
                (0..len).try_for_each(|_| self.element(head & 15, depth))
            }
            11 => {
                let len = self.varint()?;
                let kinds = if len == 0 { 0 } else { self.byte()? };
                (0..len).try_for_each(|_| {
                    self.element(kinds >> 4, depth)?;
                    self.element(kinds & 15, depth)
                })
            }
            STRUCT => {
                let mut last = 0;
                while let Some((_, kind)) = self.field(&mut last)? {
                    self.skip(kind, depth + 1)?;
                }
                Ok(())
            }
            _ => Err(io::Error::other("it has a field of an unknown type")),
        }
    }

    /// An element of a list or a map, where truth values take a byte.
    fn element(&mut self, kind: u8, depth: usize) -> io::Result<()> {
        if kind <= 2 { self.bytes(1) } else { self.skip(kind, depth + 1) }
    }

    fn integer(&mut self) -> io::Result<i64> {
        let coded = self.varint()?;
        Ok((coded >> 1).cast_signed() ^ -(coded & 1).cast_signed())
    }

    fn varint(&mut self) -> io::Result<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(io::Error::other("it has a number without an end"))
    }

    fn byte(&mut self) -> io::Result<u8> {
        let mut byte = [0];
        self.count(1)?;
        self.input.read_exact(&mut byte)?;
        Ok(byte[0])
    }

    fn bytes(&mut self, n: u64) -> io::Result<()> {
        self.count(n)?;
        match io::copy(&mut self.input.by_ref().take(n), &mut io::sink())? == n {
            true => Ok(()),
            false => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    fn count(&mut self, n: u64) -> io::Result<()> {
        self.n_read = self.n_read.saturating_add(n);
        match self.n_read > HEADER_LIMIT_BYTES {
            true => Err(io::Error::other("it is too long")),
            false => Ok(()),
        }
    }
}
