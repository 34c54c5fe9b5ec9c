//! Gzip and Zstandard, told by their first bytes.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use flate2::bufread::MultiGzDecoder;
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

/// Bytes that a frame may ask the decoder to look back: what the largest level of compression asks for without `--long`.
const WINDOW_LIMIT_BYTES: u64 = 128 << 20;

/// What a file is packed in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Packing {
    None,
    Gzip,
    Zstd,
}

/// The content of a file, and what it was packed in.
pub(super) fn unpacked(path: &Path) -> io::Result<(Packing, Box<dyn BufRead + Send>)> {
    let mut file = BufReader::new(File::open(path)?);
    let begin = file.fill_buf()?;
    Ok(if begin.starts_with(&[0x1f, 0x8b]) {
        (Packing::Gzip, Box::new(BufReader::new(MultiGzDecoder::new(file))))
    } else if begin.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        (Packing::Zstd, Box::new(BufReader::new(Zstd::new(file))))
    } else {
        (Packing::None, Box::new(file))
    })
}

/// The frames of a Zstandard file behind each other, each held against its checksum where it has one.
struct Zstd<R> {
    source: R,
    decoder: FrameDecoder,
    is_in_frame: bool,
}

impl<R: BufRead> Zstd<R> {
    fn new(source: R) -> Self {
        let mut decoder = FrameDecoder::new();
        decoder.set_max_window_size(WINDOW_LIMIT_BYTES);
        Self { source, decoder, is_in_frame: false }
    }

    /// Begins the next frame of data; false at the end of the file.
    fn open_frame(&mut self) -> io::Result<bool> {
        while !self.source.fill_buf()?.is_empty() {
            match self.decoder.init(&mut self.source) {
                Ok(()) => {
                    self.is_in_frame = true;
                    return Ok(true);
                }
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame { length, .. })) => {
                    io::copy(&mut self.source.by_ref().take(length.into()), &mut io::sink())?;
                }
                Err(error) => return Err(damaged(&error.to_string())),
            }
        }
        Ok(false)
    }
}

impl<R: BufRead> Read for Zstd<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if !self.is_in_frame && !self.open_frame()? {
                return Ok(0);
            }
            while self.decoder.can_collect() == 0 && !self.decoder.is_finished() {
                let decoded = self.decoder.decode_blocks(&mut self.source, BlockDecodingStrategy::UptoBlocks(1));
                decoded.map_err(|error| damaged(&error.to_string()))?;
            }
            let n_read = self.decoder.read(buffer)?;
            if n_read > 0 || buffer.is_empty() {
                return Ok(n_read);
            }
            let stored = self.decoder.get_checksum_from_data();
            if stored.is_some() && stored != self.decoder.get_calculated_checksum() {
                return Err(damaged("its checksum is another"));
            }
            self.is_in_frame = false;
        }
    }
}

fn damaged(why: &str) -> io::Error {
    io::Error::other(format!("Zstandard data is damaged or cut off ({why}); fetch the file again"))
}
