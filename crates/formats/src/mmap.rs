//! Mapping a file and letting go of parts: the two unsafe functions of this crate. Reading parts past the mapping.

use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, Ordering};

use memmap2::Mmap;
#[cfg(target_os = "linux")]
use memmap2::UncheckedAdvice;
use tensor::{Bytes, Owner, READ_ALIGN, ReadError};

use crate::FormatError;

/// Maps the regular file `path` for reading. An empty file gives no bytes.
///
/// The mapping shows the file as it is: while it is used, nobody may shorten or rewrite the file. Shortening it ends the
/// process at the next access, as with every program that maps its weights; [`Bytes::read`] only fails.
///
/// # Errors
/// [`FormatError::Io`] if the file can not be opened or mapped, [`FormatError::Unsupported`] if it is no regular file.
#[allow(unsafe_code)]
pub fn map_file(path: &Path) -> Result<Bytes, FormatError> {
    // Looked at before opening: opening a pipe would wait for its writer.
    let about = std::fs::metadata(path).map_err(|e| FormatError::io(path, e))?;
    if !about.is_file() {
        return Err(FormatError::unsupported(path, "file", "is no regular file, so it can not be mapped"));
    }
    if about.len() == 0 {
        return Ok(Bytes::from(Vec::new()));
    }
    let file = File::open(path).map_err(|e| FormatError::io(path, e))?;
    // SAFETY: the mapping is private and read-only and outlives `file`. What remains is that another process changes
    // the file under us, which no program can prevent; everything parsed from the mapping is copied when it is checked,
    // and tensor data is read as plain numbers, of which every bit pattern is valid.
    let map = unsafe { Mmap::map(&file) }.map_err(|e| FormatError::io(path, e))?;
    Ok(Bytes::of(MappedFile { map, file, path: path.into(), reads: AtomicU8::new(UNTRIED) }))
}

/// Bytes that Linux maps around the one that was looked at, its default.
#[cfg(target_os = "linux")]
const LOOK_AROUND: usize = 1 << 16;

/// Direct I/O was not asked for yet, works, or is refused by the file system.
const UNTRIED: u8 = 0;
const DIRECT: u8 = 1;
const ORDINARY: u8 = 2;

/// A mapped file that can also be read.
struct MappedFile {
    map: Mmap,
    file: File,
    path: PathBuf,
    reads: AtomicU8,
}

impl Owner for MappedFile {
    fn bytes(&self) -> &[u8] {
        &self.map
    }

    fn read(&self, range: Range<usize>, buffer: &mut [u8]) -> Result<usize, ReadError> {
        let begin = range.start / READ_ALIGN * READ_ALIGN;
        let error = |why: String| ReadError { file: self.path.display().to_string(), why };
        let blocks = range.end.next_multiple_of(READ_ALIGN) - begin;
        let wanted = range.end - begin;
        let mut n_read = 0;
        self.prepare();
        while n_read < wanted {
            let at = begin + n_read;
            match read_at(&self.file, &self.map, &mut buffer[n_read..blocks], at) {
                Ok(0) => {
                    let why = format!("ends at {at}, before {}: it was shortened while it is in use", range.end);
                    return Err(error(why));
                }
                Ok(n) => n_read += n,
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                // Some file systems take the flag and refuse the read.
                Err(_) if self.reads.swap(ORDINARY, Ordering::Relaxed) == DIRECT => set_direct(&self.file, false),
                Err(e) => return Err(error(format!("reading {} bytes at {at}: {e}", range.end - at))),
            }
        }
        Ok(range.start - begin)
    }

    #[cfg(target_os = "linux")]
    #[allow(unsafe_code)]
    fn release(&self, range: Range<usize>) {
        // A look at a byte maps the pages around it too, and those have to go as well.
        let begin = range.start / LOOK_AROUND * LOOK_AROUND;
        let len = range.end.next_multiple_of(LOOK_AROUND).min(self.map.len()) - begin;
        if !range.is_empty() {
            // SAFETY: the mapping is read-only and of a file, so no page differs from the file; one that is looked at
            // again is mapped again.
            let advised = unsafe { self.map.unchecked_advise_range(UncheckedAdvice::DontNeed, begin, len) };
            // Refused, for larger pages or locked ones: they stay, which is as good.
            let _ = advised;
        }
    }
}

impl MappedFile {
    /// Switches to direct I/O before the first read: experts come and go, and copies in the system's cache would take
    /// the memory that they are to fit.
    fn prepare(&self) {
        if self.reads.load(Ordering::Relaxed) == UNTRIED {
            set_direct(&self.file, true);
            self.reads.store(DIRECT, Ordering::Relaxed);
        }
    }
}

/// Asks for direct I/O or for ordinary reads. A file system without the first just stays with the second.
#[cfg(target_os = "linux")]
fn set_direct(file: &File, wanted: bool) {
    use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
    if let Ok(mut flags) = fcntl_getfl(file) {
        flags.set(OFlags::DIRECT, wanted);
        // Refused: reads are ordinary ones.
        let _ = fcntl_setfl(file, flags);
    }
}

#[cfg(not(target_os = "linux"))]
fn set_direct(_file: &File, _wanted: bool) {}

#[cfg(unix)]
fn read_at(file: &File, _map: &Mmap, buffer: &mut [u8], at: usize) -> std::io::Result<usize> {
    // usize is at most 64 bits wide on every platform that Rust knows.
    std::os::unix::fs::FileExt::read_at(file, buffer, u64::try_from(at).unwrap_or(u64::MAX))
}

/// Without a call that reads at a place of its own, what the mapping shows.
#[cfg(not(unix))]
fn read_at(_file: &File, map: &Mmap, buffer: &mut [u8], at: usize) -> std::io::Result<usize> {
    let left = map.get(at..).unwrap_or_default();
    let len = left.len().min(buffer.len());
    buffer[..len].copy_from_slice(&left[..len]);
    Ok(len)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A buffer that direct I/O takes: the part of `held` that begins on a block.
    fn aligned(held: &mut [u8]) -> &mut [u8] {
        let at = held.as_ptr().align_offset(READ_ALIGN);
        &mut held[at..]
    }

    #[test]
    fn released_bytes_are_there_when_they_are_looked_at_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("weights");
        let content: Vec<u8> = (0..100_000u32).map(|i| u8::try_from(i % 251).unwrap()).collect();
        std::fs::write(&path, &content).unwrap();
        let bytes = map_file(&path).unwrap();
        for range in [0..0, 0..100_000, 5000..5001, 4000..9000, 8192..12_288, 99_000..100_000] {
            let part = bytes.slice(range.clone()).unwrap();
            part.release();
            assert_eq!(part[..], content[range]);
        }
        assert_eq!(bytes[..], content[..]);
    }

    #[test]
    fn any_part_is_read_as_it_is_mapped_and_a_shortened_file_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("weights");
        let content: Vec<u8> = (0..20_000u32).map(|i| u8::try_from(i * 7 % 251).unwrap()).collect();
        std::fs::write(&path, &content).unwrap();
        let bytes = map_file(&path).unwrap();
        let part = bytes.slice(100..19_990).unwrap();
        let mut n_parts = 0;
        for range in [0..0, 0..1, 0..19_890, 3996..3997, 3995..8200, 5000..19_890, 19_889..19_890] {
            let mut held = vec![0; Bytes::room(range.len()) + READ_ALIGN];
            let buffer = aligned(&mut held);
            let at = part.read(range.clone(), buffer).unwrap();
            assert_eq!(buffer[at..at + range.len()], content[100 + range.start..100 + range.end], "{range:?}");
            n_parts += 1;
        }
        assert_eq!(n_parts, 7);
        File::options().write(true).open(&path).unwrap().set_len(10_000).unwrap();
        let mut held = vec![0; Bytes::room(19_890) + READ_ALIGN];
        let buffer = aligned(&mut held);
        assert!(part.read(0..9_900, buffer).is_ok());
        for range in [0..9_901, 9_000..19_000, 12_000..12_001] {
            let error = part.read(range.clone(), buffer).unwrap_err();
            assert!(error.file.ends_with("weights") && error.why.contains("shortened"), "{range:?}: {error}");
        }
    }
}
