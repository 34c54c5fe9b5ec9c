//! A prompt as a list of segments: what is control is never text, and the other way round.

use crate::Tokenizer;

/// A part of a prompt. Only this crate's chat formats make [`Segment::Control`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Segment {
    /// A control token.
    Control(u32),
    /// Text, encoded by itself and with nothing in it taken for control.
    Text(String),
    /// The place of an image or a clip: its number in the conversation, from 0, both counted together.
    Media(usize),
}

/// A part of an encoded prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// Ids.
    Ids(Vec<u32>),
    /// The place of an image or a clip: its number in the conversation, from 0, both counted together.
    Media(usize),
}

/// Encodes segments, each text by itself; neighbouring ids come in one piece.
pub fn encode_segments(tokenizer: &Tokenizer, segments: &[Segment]) -> Vec<Piece> {
    let mut pieces = Vec::new();
    for segment in segments {
        let new = match segment {
            Segment::Control(id) => vec![*id],
            Segment::Text(text) => tokenizer.encode(text),
            Segment::Media(media) => {
                pieces.push(Piece::Media(*media));
                continue;
            }
        };
        match pieces.last_mut() {
            Some(Piece::Ids(ids)) => ids.extend(new),
            _ if new.is_empty() => {}
            _ => pieces.push(Piece::Ids(new)),
        }
    }
    pieces
}
