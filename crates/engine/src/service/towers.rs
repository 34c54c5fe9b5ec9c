//! Images and clips through their towers, tile by tile and chunk by chunk, as far as their rows are not kept.

use llama::{AudioStream, LlamaError};
use tensor::Device;

use super::Owner;
use super::compute::Core;
use super::live::Medium;
use super::rows::Rows;
use crate::media::audio::SoundChunk;
use crate::media::{Media, Tiles};
use crate::prompt::{append, encode_chunk};

type Kept<D> = Rows<<D as Device>::Tensor, AudioStream<D>>;

/// Encodes the next tile or chunk of `medium`. How many frames of audio were computed.
///
/// # Errors
/// [`LlamaError`] if what there is to encode is not of the tower's size.
pub(super) fn encode_next<D: Device>(
    core: &Core<D>,
    kept: &mut Kept<D>,
    owner: Owner,
    medium: &mut Medium<D::Tensor>,
) -> Result<usize, LlamaError> {
    let Some(media) = medium.rest.take() else { return Ok(0) };
    let (is_last, n_frames) = match &media {
        Media::Image(tiles) => (encode_tile(core, kept, owner, (medium, tiles))?, 0),
        Media::Audio(sound) => {
            let (rows, n_frames) = match sound.chunks().nth(medium.n_encoded) {
                Some(chunk) => rows_of(core, kept, owner, chunk)?,
                None => (None, 0),
            };
            medium.features = append(&core.dev, medium.features.take(), rows)?;
            (medium.n_encoded + 1 >= sound.chunks().len(), n_frames)
        }
    };
    medium.n_encoded += 1;
    medium.rest = Some(media).filter(|_| !is_last);
    Ok(n_frames)
}

/// Encodes an image's next tile; an image is kept as a whole. Whether it was the last.
fn encode_tile<D: Device>(
    core: &Core<D>,
    kept: &mut Kept<D>,
    owner: Owner,
    (medium, tiles): (&mut Medium<D::Tensor>, &Tiles),
) -> Result<bool, LlamaError> {
    // What the model does not take was refused when the prompt was laid out.
    let Some(vision) = &core.model.vision else { return Ok(true) };
    let (key, n) = ((owner, medium.keys.of_piece(0)), medium.n_encoded);
    if n == 0
        && let Some(rows) = kept.find(key)
    {
        medium.features = Some(rows);
        return Ok(true);
    }
    crate::fault::point("encode");
    let n_values = 3 * vision.tile() * vision.tile();
    let end = ((n + 1) * n_values).min(tiles.pixels.len());
    let pixels = tiles.pixels.get(n * n_values..end).unwrap_or(&[]);
    let rows = vision.forward(&core.dev, pixels, &mut ())?;
    medium.features = append(&core.dev, medium.features.take(), Some(rows))?;
    let is_last = end == tiles.pixels.len();
    if let Some(rows) = medium.features.clone().filter(|_| is_last) {
        let bytes = size_bytes(&core.dev, &rows);
        kept.keep(key, (rows, None), bytes);
    }
    Ok(is_last)
}

/// The rows of a chunk, and how many frames were computed for them: all, or, where the pieces at its beginning are kept, those
/// behind them.
fn rows_of<D: Device>(
    core: &Core<D>,
    kept: &mut Kept<D>,
    owner: Owner,
    chunk: &SoundChunk,
) -> Result<(Option<D::Tensor>, usize), LlamaError> {
    let (Some(audio), [earlier @ .., last]) = (&core.model.audio, chunk.keys()) else { return Ok((None, 0)) };
    if let Some(rows) = kept.find((owner, *last)) {
        return Ok((Some(rows), 0));
    }
    crate::fault::point("encode");
    let begun = earlier.iter().rev().find_map(|key| kept.take((owner, *key)));
    let (rows, mut stream) = begun.map_or_else(Default::default, |(rows, stream)| (Some(rows), stream));
    let n_before = stream.n_frames();
    let rows = append(&core.dev, rows, encode_chunk(&core.dev, audio, chunk, &mut stream)?)?;
    if let Some(rows) = &rows {
        let open = Some(stream).filter(|_| chunk.is_open());
        let state_bytes = open.as_ref().map_or(0, |stream| stream.size_bytes(audio));
        kept.keep((owner, *last), (rows.clone(), open), size_bytes(&core.dev, rows) + state_bytes);
    }
    Ok((rows, chunk.n_frames() - n_before))
}

fn size_bytes<D: Device>(dev: &D, rows: &D::Tensor) -> usize {
    let [n_rows, width] = dev.shape(rows);
    n_rows * width * size_of::<f32>()
}
