//! What is checked of an Ogg file before its reader gets it: the reader would look for pages anywhere and believe what a
//! Vorbis header says of its tables.

use super::{AudioError, AudioFormat};

/// Streams side by side; more than a film has.
const STREAMS: usize = 8;
/// Values in the tables of a Vorbis header together: four bytes each; common encoders' have a tenth of it.
const TABLE_VALUES: u64 = 4 << 20;

/// Entries and dimensions of one table that the decoder takes.
const ENTRIES: u64 = 128 << 10;
const DIMENSIONS: u64 = 32;

/// The pages at the front of `bytes`, each whole, with a right checksum and right behind the one before; what may follow
/// the last page of all streams is left out.
///
/// # Errors
/// [`AudioError::Truncated`] if the last page is cut off or no page is marked as the last; [`AudioError::Corrupt`] for a
/// wrong checksum, other bytes between pages, streams one after another, too many side by side, or tables of Vorbis that
/// are too large.
pub(super) fn checked(bytes: &[u8]) -> Result<&[u8], AudioError> {
    let crc = Crc::new();
    let (mut at, mut open, mut n_streams, mut began) = (0, 0usize, 0usize, false);
    let mut headers: Vec<Headers<'_>> = Vec::new();
    while at < bytes.len() {
        let page = &bytes[at..];
        if !page.starts_with(b"OggS") {
            return Err(corrupt("there is something between its pages"));
        }
        let len = page_len(page).ok_or(TRUNCATED)?;
        let Some(page) = page.get(..len) else { return Err(TRUNCATED) };
        if !crc.is_right(page) {
            return Err(corrupt("a page does not have the checksum that it says"));
        }
        let (is_first, is_last) = (page[5] & 2 != 0, page[5] & 4 != 0);
        if is_first && began {
            return Err(corrupt("several streams follow each other in it"));
        }
        began |= !is_first;
        n_streams += usize::from(is_first);
        open += usize::from(is_first);
        if n_streams > STREAMS {
            return Err(corrupt("it holds too many streams"));
        }
        at += len;
        if is_first && Headers::begin(page) {
            headers.push(Headers { page, ..Headers::default() });
        }
        for stream in &mut headers {
            stream.take(page)?;
        }
        open = open.saturating_sub(usize::from(is_last));
        if is_last && open == 0 {
            return Ok(&bytes[..at]);
        }
    }
    Err(TRUNCATED)
}

/// Bytes of the page at the front.
fn page_len(page: &[u8]) -> Option<usize> {
    let n_segments = usize::from(*page.get(26)?);
    let table = page.get(27..)?.get(..n_segments)?;
    Some(27 + n_segments + table.iter().map(|len| usize::from(*len)).sum::<usize>())
}

/// Ogg's checksum: polynomial 0x04c11db7, from the upper bit on, beginning with 0.
struct Crc([u32; 256]);

impl Crc {
    fn new() -> Self {
        let step = |crc: u32| if crc >> 31 == 1 { crc << 1 ^ 0x04c1_1db7 } else { crc << 1 };
        Self(std::array::from_fn(|byte| (0..8).fold((byte as u32) << 24, |crc, _| step(crc))))
    }

    fn is_right(&self, page: &[u8]) -> bool {
        let next = |crc: u32, byte: u8| crc << 8 ^ self.0[usize::from(crc.to_be_bytes()[0] ^ byte)];
        let (Some(head), Some(stated), Some(rest)) = (page.get(..22), page.get(22..26), page.get(26..)) else {
            return false;
        };
        let crc = [head, &[0; 4], rest].iter().flat_map(|part| part.iter()).fold(0, |crc, byte| next(crc, *byte));
        stated == crc.to_le_bytes()
    }
}

/// The first three packets of a Vorbis stream.
#[derive(Default)]
struct Headers<'a> {
    /// The stream's first page.
    page: &'a [u8],
    /// Packets that are complete, and the one that is not.
    n_complete: usize,
    packet: Vec<u8>,
}

impl Headers<'_> {
    /// Whether a first page begins a stream of Vorbis.
    fn begin(page: &[u8]) -> bool {
        content(page).is_some_and(|content| content.starts_with(b"\x01vorbis"))
    }

    /// Takes what a page has of the packets, and checks the third.
    fn take(&mut self, page: &[u8]) -> Result<(), AudioError> {
        /// Where the number of the page's stream stands.
        const SERIAL: std::ops::Range<usize> = 14..18;
        if page.get(SERIAL) != self.page.get(SERIAL) {
            return Ok(());
        }
        let (Some(mut rest), Some(n_segments)) = (content(page), page.get(26)) else { return Ok(()) };
        for len in page.get(27..).unwrap_or(&[]).iter().take(usize::from(*n_segments)) {
            if self.n_complete == 3 {
                return Ok(());
            }
            let Some((part, after)) = rest.split_at_checked(usize::from(*len)) else { return Ok(()) };
            rest = after;
            // Of the others nothing is needed.
            if self.n_complete == 2 {
                self.packet.extend(part);
            }
            if *len < 255 {
                self.n_complete += 1;
            }
        }
        match self.n_complete {
            3 => check_tables(&std::mem::take(&mut self.packet)),
            _ => Ok(()),
        }
    }
}

/// What a page holds behind its table of lengths.
fn content(page: &[u8]) -> Option<&[u8]> {
    page.get(27 + usize::from(*page.get(26)?)..)
}

/// Checks the tables in the third packet of Vorbis: that a decoder's memory for them is bounded, and that no size in
/// them overflows its arithmetic.
fn check_tables(setup: &[u8]) -> Result<(), AudioError> {
    let Some(tables) = setup.strip_prefix(b"\x05vorbis") else { return Err(corrupt("its third packet is no header")) };
    let mut bits = Bits { bytes: tables, at: 0 };
    let (n_books, mut n_values) = (bits.take(8).ok_or(TRUNCATED)? + 1, 0);
    for _ in 0..n_books {
        n_values += bits.skip_book().ok_or_else(|| corrupt("its tables are no encoder's"))?;
        if n_values > TABLE_VALUES {
            return Err(corrupt("its tables are larger than any encoder's"));
        }
    }
    Ok(())
}

/// Bits from the lower end of each byte on.
struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Bits<'_> {
    /// The next `n` bits, at most 32.
    fn take(&mut self, n: usize) -> Option<u64> {
        let mut value = 0;
        for i in 0..n {
            let byte = *self.bytes.get((self.at + i) / 8)?;
            value |= u64::from(byte >> ((self.at + i) % 8) & 1) << i;
        }
        self.at += n;
        Some(value)
    }

    fn skip(&mut self, n: u64) -> Option<()> {
        self.at = self.at.checked_add(usize::try_from(n).ok()?)?;
        (self.at <= self.bytes.len().checked_mul(8)?).then_some(())
    }

    /// Passes over one table of the Vorbis specification's section 3.2.1 and says how many values it will have in memory.
    fn skip_book(&mut self) -> Option<u64> {
        self.skip(24)?;
        let (dimensions, entries) = (self.take(16)?, self.take(24)?);
        if !(1..=DIMENSIONS).contains(&dimensions) || entries > ENTRIES {
            return None;
        }
        match self.take(1)? {
            0 => self.skip_lengths(entries)?,
            _ => self.skip_ordered_lengths(entries)?,
        }
        let kind = self.take(4)?;
        // A code and its length of every entry, beside the vectors.
        let n_codes = entries.checked_mul(4)?;
        if kind == 0 {
            return Some(n_codes);
        }
        self.skip(64)?;
        let value_bits = self.take(4)? + 1;
        self.skip(1)?;
        let n_vectors = entries.checked_mul(dimensions)?;
        let n_stored = if kind == 1 { root(entries, dimensions)? } else { n_vectors };
        self.skip(n_stored.checked_mul(value_bits)?)?;
        n_codes.checked_add(n_vectors)
    }

    fn skip_lengths(&mut self, entries: u64) -> Option<()> {
        if self.take(1)? == 0 {
            return self.skip(entries * 5);
        }
        for _ in 0..entries {
            if self.take(1)? == 1 {
                self.skip(5)?;
            }
        }
        Some(())
    }

    fn skip_ordered_lengths(&mut self, entries: u64) -> Option<()> {
        self.skip(5)?;
        let mut left = entries;
        while left > 0 {
            let n_bits = usize::try_from(u64::BITS - left.leading_zeros()).ok()?;
            left = left.checked_sub(self.take(n_bits)?)?;
        }
        Some(())
    }
}

/// The largest number whose power of `dimensions` is at most `entries`; `None` if the next one's does not fit 32 bits.
fn root(entries: u64, dimensions: u64) -> Option<u64> {
    let power =
        |base: u64| base.checked_pow(u32::try_from(dimensions).ok()?).filter(|power| *power <= u64::from(u32::MAX));
    let next = (1..=entries + 1).find(|base| power(*base).is_none_or(|power| power > entries))?;
    power(next).map(|_| next - 1)
}

const TRUNCATED: AudioError = AudioError::Truncated { format: AudioFormat::Ogg };

fn corrupt(why: &str) -> AudioError {
    AudioError::Corrupt { format: AudioFormat::Ogg, why: why.into() }
}
