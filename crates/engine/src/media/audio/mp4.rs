//! What is checked of an MP4 file before its reader gets it, and what the reader leaves out: the edit list, which says
//! where between the encoder's padding the audio stands.

use super::{AudioError, AudioFormat};

/// Entries in tables that the reader walks through from the beginning for every sample. An hour of AAC has one or, from
/// recorders that write every sample's time, 155,000.
const TABLE_ENTRIES: u64 = 1 << 18;
/// Boxes of one file, fragments included.
const BOXES: usize = 1 << 17;
/// Boxes within boxes.
const DEPTH: usize = 8;

/// The part of a track that is meant to be heard.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Edit {
    /// Frames at the beginning that are not.
    skip: u64,
    /// Frames after them that are; `None`: all.
    keep: Option<u64>,
}

impl Edit {
    /// Takes in how many frames the track says it has, padding at the beginning included, and returns how many are left.
    pub fn bound(&mut self, n_frames: Option<u64>) -> Option<u64> {
        let left = n_frames?.saturating_sub(self.skip);
        if let Some(keep) = &mut self.keep {
            *keep = left.min(*keep);
        }
        Some(self.keep.unwrap_or(left))
    }

    /// What of the next samples is meant to be heard.
    pub fn cut<'a>(&mut self, samples: &'a [f64]) -> &'a [f64] {
        let n_skipped = usize::try_from(self.skip).unwrap_or(usize::MAX).min(samples.len());
        self.skip -= n_skipped as u64;
        let samples = &samples[n_skipped..];
        let Some(keep) = &mut self.keep else { return samples };
        let n_kept = usize::try_from(*keep).unwrap_or(usize::MAX).min(samples.len());
        *keep -= n_kept as u64;
        &samples[..n_kept]
    }
}

/// What is gathered on the way through the boxes.
#[derive(Default)]
struct Facts {
    n_boxes: usize,
    n_entries: u64,
    n_tracks: usize,
    /// Ticks a second of the whole film and of the last track.
    film_scale: u32,
    track_scale: u32,
    /// The only entry of the last track's edit list: length in ticks of the film, and beginning in ticks of the track.
    edit: Option<(u32, u32)>,
}

/// Checks the tables of an MP4 file and reads its edit list, which counts if there is one track and one edit.
///
/// # Errors
/// [`AudioError::Corrupt`] if tables or boxes are too many.
pub(super) fn checked(bytes: &[u8]) -> Result<Edit, AudioError> {
    let mut facts = Facts::default();
    walk(bytes, 0, &mut facts)?;
    let (1, Some((length, begin))) = (facts.n_tracks, facts.edit) else { return Ok(Edit::default()) };
    // A track's ticks are its frames in all files of audio alone; others keep their padding.
    // The film's ticks are coarse: one more, of which the track's own length takes off what is too much.
    let keep = (u64::from(length) + 1) * u64::from(facts.track_scale);
    let keep = keep.div_ceil(u64::from(facts.film_scale).max(1));
    Ok(Edit { skip: u64::from(begin), keep: Some(keep).filter(|_| length > 0 && facts.film_scale > 0) })
}

/// Goes through the boxes in `bytes`; one that is cut off comes as far as it goes, for the reader to complain.
fn walk(mut bytes: &[u8], depth: usize, facts: &mut Facts) -> Result<(), AudioError> {
    while let Some((kind, content, rest)) = first_box(bytes) {
        bytes = rest;
        facts.n_boxes += 1;
        match &kind {
            b"moov" | b"trak" | b"mdia" | b"minf" | b"stbl" | b"edts" | b"moof" | b"traf" if depth < DEPTH => {
                facts.n_tracks += usize::from(&kind == b"trak");
                walk(content, depth + 1, facts)?;
            }
            b"mvhd" => facts.film_scale = scale(content).unwrap_or(0),
            b"mdhd" => facts.track_scale = scale(content).unwrap_or(0),
            b"elst" => facts.edit = edit(content),
            b"stts" => {
                facts.n_entries += u64::from(be_u32(content, 4).unwrap_or(0));
                let entries = content.get(8..).unwrap_or(&[]).chunks_exact(8);
                let n_samples: u64 = entries.filter_map(|entry| be_u32(entry, 0)).map(u64::from).sum();
                if n_samples > u64::from(u32::MAX) {
                    return Err(too_large());
                }
            }
            b"ctts" => facts.n_entries += u64::from(be_u32(content, 4).unwrap_or(0)),
            b"trun" => facts.n_entries += 1,
            _ => {}
        }
        if facts.n_boxes > BOXES || facts.n_entries > TABLE_ENTRIES {
            return Err(too_large());
        }
    }
    Ok(())
}

fn too_large() -> AudioError {
    AudioError::Corrupt { format: AudioFormat::M4a, why: "its tables are larger than any recorder's".into() }
}

/// Kind and content of the box at the front, and what follows it.
fn first_box(bytes: &[u8]) -> Option<([u8; 4], &[u8], &[u8])> {
    let kind = *bytes.get(4..)?.first_chunk::<4>()?;
    let (head, len) = match be_u32(bytes, 0)? {
        0 => (8, bytes.len()),
        1 => (16, usize::try_from(u64::from_be_bytes(*bytes.get(8..)?.first_chunk()?)).unwrap_or(usize::MAX)),
        len => (8, usize::try_from(len).ok()?),
    };
    let len = len.min(bytes.len());
    Some((kind, bytes.get(head..len)?, &bytes[len..]))
}

/// Ticks a second in a header of a film or a track.
fn scale(header: &[u8]) -> Option<u32> {
    match header.first()? {
        0 => be_u32(header, 12),
        _ => be_u32(header, 20),
    }
}

/// The only edit of a list, if it plays the track at its own pace from a place that 32 bits can hold.
fn edit(list: &[u8]) -> Option<(u32, u32)> {
    let (version, n_edits) = (*list.first()?, be_u32(list, 4)?);
    let (length, begin, pace) = match version {
        0 => (be_u32(list, 8)?, be_u32(list, 12)?, be_u32(list, 16)?),
        _ => (be_u32(list, 12).filter(|_| be_u32(list, 8) == Some(0))?, be_u32(list, 20)?, be_u32(list, 24)?),
    };
    (n_edits == 1 && pace == 0x1_0000 && begin < 1 << 31).then_some((length, begin))
}

fn be_u32(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|word| u32::from_be_bytes(*word))
}
