//! What is read from an image file's container before and beside its decoder: enough to refuse a file that ends early
//! or whose parts contradict each other, and where the orientation stands.

use super::{Format, MediaError, Size};

/// The size in a PNG's first chunk.
pub(super) fn png_size(bytes: &[u8]) -> Option<Size> {
    let (_, header) = png_chunks(bytes).next().filter(|(kind, _)| kind == b"IHDR")?;
    Size::new(be_u32(header, 4)?, be_u32(header, 0)?)
}

/// A PNG's Exif block, which may stand before or after the pixels.
pub(super) fn png_exif(bytes: &[u8]) -> Option<&[u8]> {
    png_chunks(bytes).find(|(kind, _)| kind == b"eXIf").map(|(_, chunk)| chunk)
}

/// Kind and content of a PNG's chunks up to the first that is cut off.
fn png_chunks(bytes: &[u8]) -> impl Iterator<Item = ([u8; 4], &[u8])> {
    let mut rest = bytes.get(8..).unwrap_or(&[]);
    std::iter::from_fn(move || {
        let len = usize::try_from(be_u32(rest, 0)?).ok()?;
        let kind = rest.get(4..)?.first_chunk::<4>()?;
        let content = rest.get(8..)?.get(..len)?;
        // Four bytes of checksum, which the decoder judges.
        rest = rest.get(8..)?.get(len..)?.get(4..)?;
        Some((*kind, content))
    })
}

/// Whether a JPEG has its end mark.
///
/// The decoder fills what is missing with grey; here a file that was cut is refused instead. Entropy-coded data holds
/// no mark but restarts, so the first other mark after it is a true one.
///
/// # Errors
/// [`MediaError::Truncated`] if the bytes end before the mark.
pub(super) fn check_jpeg_end(bytes: &[u8]) -> Result<(), MediaError> {
    let mut rest = bytes.get(2..).unwrap_or(&[]);
    let cut = MediaError::Truncated { format: Format::Jpeg };
    loop {
        // To the next mark: past entropy-coded data, stuffed zeros, restarts and fill bytes.
        let is_mark = |pair: &[u8]| pair[0] == 0xff && !matches!(pair[1], 0x00 | 0x01 | 0xd0..=0xd7 | 0xff);
        let Some(at) = rest.windows(2).position(is_mark) else { return Err(cut) };
        let (mark, after) = (rest[at + 1], &rest[at + 2..]);
        if mark == 0xd9 {
            return Ok(());
        }
        let len = after.first_chunk::<2>().map(|len| usize::from(u16::from_be_bytes(*len)));
        rest = match len.and_then(|len| after.get(len..)) {
            Some(rest) => rest,
            None => return Err(cut),
        };
    }
}

/// Checks that the lossy parts of a WebP are no larger than the canvas or the frame that they belong to; the decoder
/// would allocate what they claim before it compares.
///
/// # Errors
/// [`MediaError::Corrupt`] if one is.
pub(super) fn check_webp_parts(bytes: &[u8]) -> Result<(), MediaError> {
    let Some(body) = bytes.get(12..) else { return Ok(()) };
    let Some((_, canvas)) = riff_chunks(body).next().filter(|(kind, _)| kind == b"VP8X") else { return Ok(()) };
    let mut parts = Vec::new();
    for (kind, chunk) in riff_chunks(body) {
        match &kind {
            b"VP8 " => parts.push((chunk, size_24(canvas, 4))),
            b"ANMF" => {
                let nested = riff_chunks(chunk.get(16..).unwrap_or(&[])).filter(|(kind, _)| kind == b"VP8 ");
                parts.extend(nested.map(|(_, part)| (part, size_24(chunk, 6))));
            }
            _ => {}
        }
    }
    match parts.iter().all(|(part, size)| size.is_some() && lossy_size(part) == *size) {
        true => Ok(()),
        false => Err(MediaError::Corrupt {
            format: Format::WebP,
            why: "a part of it has another size than its header says".into(),
        }),
    }
}

/// Kind and content of RIFF chunks; a last one that is cut off comes as far as it goes.
fn riff_chunks(mut rest: &[u8]) -> impl Iterator<Item = ([u8; 4], &[u8])> {
    std::iter::from_fn(move || {
        let kind = rest.first_chunk::<4>()?;
        let len = usize::try_from(u32::from_le_bytes(*rest.get(4..)?.first_chunk()?)).ok()?;
        let content = rest.get(8..)?;
        let content = content.get(..len).unwrap_or(content);
        rest = rest.get(8..)?.get(len.checked_add(len % 2)?..).unwrap_or(&[]);
        Some((*kind, content))
    })
}

/// Width and height, each less one, in 24 bits from `at` on.
fn size_24(chunk: &[u8], at: usize) -> Option<Size> {
    let number = |at: usize| {
        let [a, b, c] = *chunk.get(at..)?.first_chunk::<3>()?;
        Some(u32::from_le_bytes([a, b, c, 0]) + 1)
    };
    Size::new(number(at + 3)?, number(at)?)
}

/// The size in a VP8 key frame's header.
fn lossy_size(part: &[u8]) -> Option<Size> {
    let [a, b, c, d] = *part.get(6..)?.first_chunk::<4>()?;
    let number = |bytes: [u8; 2]| u32::from(u16::from_le_bytes(bytes) & 0x3fff);
    Size::new(number([c, d]), number([a, b]))
}

fn be_u32(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|word| u32::from_be_bytes(*word))
}
