//! From segments, images and clips to the content of a sequence.

use llama::{Audio, AudioStream, LlamaError, Vision};
use tensor::Device;
use tokenizer::{AudioIds, ImageIds, Piece, image_block};

use crate::EngineError;
use crate::media::audio::{Sound, SoundChunk};
use crate::media::{Extent, Media, Tiles};
use crate::sequence::{Content, Encoded, Known};

/// How images and clips lie in the prompts of a model; what is `None`, it does not take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Layout {
    /// The tokens of an image's block, and the rows of one tile.
    pub image: Option<(ImageIds, usize)>,
    /// The tokens of a clip's block.
    pub audio: Option<AudioIds>,
}

impl Layout {
    /// Positions that `pieces` with `media` come to. A piece that names what is not there counts as nothing: [`content`]
    /// refuses it.
    pub fn n_positions(&self, pieces: &[Piece], media: &[Media]) -> usize {
        let piece = |piece: &Piece| match piece {
            Piece::Ids(ids) => ids.len(),
            Piece::Media(index) => media.get(*index).map_or(0, |media| self.n_in_block(media.extent())),
        };
        pieces.iter().map(piece).fold(0, usize::saturating_add)
    }

    /// The tokens of clips, which no answer may have: they stand for rows, which a model does not write. A model without
    /// markers has no token of its own for rows either.
    pub fn unwritten(&self) -> impl Iterator<Item = u32> {
        self.audio.filter(|ids| ids.start.is_some()).into_iter().flat_map(|ids| ids.all())
    }

    /// Of those, the positions of clips.
    pub fn n_audio(&self, pieces: &[Piece], media: &[Media]) -> usize {
        let extent = |piece: &Piece| match piece {
            Piece::Media(index) => media.get(*index).map(Media::extent),
            Piece::Ids(_) => None,
        };
        let clips = pieces.iter().filter_map(extent).filter(|extent| matches!(extent, Extent::Audio { .. }));
        clips.map(|extent| self.n_in_block(extent)).sum()
    }

    /// See [`image_block`] and [`AudioIds::block`].
    fn n_in_block(&self, extent: Extent) -> usize {
        match extent {
            Extent::Image(grid) => self.image.map_or(0, |(_, tile_rows)| match grid.rows.saturating_mul(grid.cols) {
                0 | 1 => tile_rows + 3,
                n => (n * tile_rows) + n + tile_rows + 3,
            }),
            Extent::Audio { n_rows, is_open } => {
                let markers = |ids: AudioIds| ids.n_markers() - usize::from(is_open && ids.end.is_some());
                self.audio.map_or(0, |ids| n_rows.saturating_add(markers(ids)))
            }
        }
    }

    /// The tokens of a block, `None` where a row stands.
    fn block(&self, extent: Extent) -> Result<Vec<Option<u32>>, EngineError> {
        let untaken = |what: &str| EngineError::Prompt(format!("this model does not take {what}"));
        Ok(match extent {
            Extent::Image(grid) => {
                let (ids, tile_rows) = self.image.ok_or_else(|| untaken("images"))?;
                let block = image_block(&ids, grid.rows, grid.cols, tile_rows).into_iter();
                block.map(|id| (id != ids.patch).then_some(id)).collect()
            }
            Extent::Audio { n_rows, is_open } => {
                let ids = self.audio.ok_or_else(|| untaken("audio"))?;
                let ids = AudioIds { end: ids.end.filter(|_| !is_open), ..ids };
                ids.block(n_rows).map(|id| (id != ids.audio).then_some(id)).collect()
            }
        })
    }
}

/// Encodes a preprocessed image with `vision`.
///
/// # Errors
/// [`EngineError::Model`] if the tiles are not of the tower's size.
pub fn encode_image<D: Device>(dev: &D, vision: &Vision<D>, tiles: &Tiles) -> Result<Encoded<D::Tensor>, EngineError> {
    Ok(Encoded { keys: tiles.keys(), features: vision.forward(dev, &tiles.pixels, &mut ())? })
}

/// Encodes a clip with `audio`, one chunk after the other.
///
/// # Errors
/// [`EngineError::Model`] if the features are not of the tower's size.
pub fn encode_sound<D: Device>(dev: &D, audio: &Audio<D>, sound: &Sound) -> Result<Encoded<D::Tensor>, EngineError> {
    let mut rows = None;
    for chunk in sound.chunks() {
        rows = append(dev, rows, encode_chunk(dev, audio, chunk, &mut AudioStream::default())?)?;
    }
    let features = rows.ok_or_else(|| EngineError::Prompt("a clip without a chunk".into()))?;
    Ok(Encoded { keys: sound.keys(), features })
}

/// Encodes what `stream` has not of `chunk`, of which it took the pieces before in.
pub(crate) fn encode_chunk<D: Device>(
    dev: &D,
    audio: &Audio<D>,
    chunk: &SoundChunk,
    stream: &mut AudioStream<D>,
) -> Result<Option<D::Tensor>, LlamaError> {
    let n_done = stream.n_columns(audio) * audio.encoder().n_mels();
    let rest = chunk.columns().get(n_done..).unwrap_or(&[]);
    match chunk.is_open() {
        true => stream.push(dev, audio, rest, &mut ()),
        false => std::mem::take(stream).commit(dev, audio, rest, chunk.n_valid(), &mut ()),
    }
}

/// `rows` and then `more`.
pub(crate) fn append<D: Device>(
    dev: &D,
    rows: Option<D::Tensor>,
    more: Option<D::Tensor>,
) -> Result<Option<D::Tensor>, LlamaError> {
    Ok(match (rows, more) {
        (Some(rows), Some(more)) => Some(dev.concat(&rows, &more)?),
        (rows, more) => rows.or(more),
    })
}

/// Lays out `pieces`, expanding the image or clip n to its block of separators and placeholders; every placeholder becomes
/// a row of its features.
///
/// # Errors
/// [`EngineError::Prompt`] if a piece names what is not there or what the model does not take.
pub fn content<T: Clone>(
    pieces: &[Piece],
    media: &[(Encoded<T>, Extent)],
    layout: &Layout,
) -> Result<Content<T>, EngineError> {
    let mut known = Vec::new();
    for piece in pieces {
        match piece {
            Piece::Ids(ids) => known.extend(ids.iter().copied().map(Known::Token)),
            Piece::Media(index) => {
                let (_, extent) = media.get(*index).ok_or_else(|| {
                    EngineError::Prompt(format!("the prompt names image or clip {index}, which is not there"))
                })?;
                let mut rows = 0..;
                known.extend(layout.block(*extent)?.into_iter().map(|id| match id {
                    Some(id) => Known::Token(id),
                    None => Known::Media { media: *index, row: rows.next().unwrap_or(0) },
                }));
            }
        }
    }
    Ok(Content { known, media: media.iter().map(|(encoded, _)| encoded.clone()).collect() })
}
