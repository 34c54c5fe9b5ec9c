//! The table of all tokens: what bytes an id stands for, and whether it is control.

use std::collections::HashMap;

use crate::TokenizerError;

/// What a token is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// No token has this id.
    Gap,
    /// Ordinary text.
    Text,
    /// Text that is recognised whole before anything is split, in whoever's text it stands.
    Added,
    /// A control token: never made from text.
    Control,
}

/// All tokens of a tokenizer by id.
#[derive(Debug, Default)]
pub(crate) struct Vocabulary {
    bytes: Vec<u8>,
    ends: Vec<u32>,
    kinds: Vec<Kind>,
    control_by_name: HashMap<String, u32>,
}

impl Vocabulary {
    /// Appends the token with the next id.
    ///
    /// # Errors
    /// [`TokenizerError::Corrupt`] if the table outgrows 4 GiB or a control token's spelling is taken or not text.
    pub fn push(&mut self, file: &str, bytes: &[u8], kind: Kind) -> Result<u32, TokenizerError> {
        let too_large = || TokenizerError::corrupt(file, "tokens: more than 4 GiB of them");
        let id = u32::try_from(self.ends.len()).map_err(|_| too_large())?;
        self.bytes.extend_from_slice(bytes);
        self.ends.push(u32::try_from(self.bytes.len()).map_err(|_| too_large())?);
        self.kinds.push(kind);
        if kind == Kind::Control {
            let name = String::from_utf8_lossy(bytes).into_owned();
            // GGUF files repeat fillers; the first of them answers to the name.
            self.control_by_name.entry(name).or_insert(id);
        }
        Ok(id)
    }

    /// How many ids there are, gaps included.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// The bytes of a token, unless the id is a gap or past the end.
    pub fn bytes(&self, id: u32) -> Option<&[u8]> {
        let at = usize::try_from(id).ok()?;
        if *self.kinds.get(at)? == Kind::Gap {
            return None;
        }
        let end = usize::try_from(*self.ends.get(at)?).ok()?;
        let begin = match at.checked_sub(1) {
            Some(before) => usize::try_from(*self.ends.get(before)?).ok()?,
            None => 0,
        };
        self.bytes.get(begin..end)
    }

    /// What a token is for; [`Kind::Gap`] past the end.
    pub fn kind(&self, id: u32) -> Kind {
        usize::try_from(id).ok().and_then(|at| self.kinds.get(at).copied()).unwrap_or(Kind::Gap)
    }

    /// The control token with this spelling.
    pub fn control(&self, name: &str) -> Option<u32> {
        self.control_by_name.get(name).copied()
    }

    /// All control tokens by spelling, in no order.
    pub fn controls(&self) -> impl Iterator<Item = (&str, u32)> {
        self.control_by_name.iter().map(|(name, &id)| (name.as_str(), id))
    }
}

/// Whether a spelling is of the kind that the Llama family gives to control tokens.
///
/// Some files mark such tokens as ordinary added text; taking them as control is what keeps a user from writing them.
pub(crate) fn looks_like_control(spelling: &str) -> bool {
    spelling.len() > 4 && spelling.starts_with("<|") && spelling.ends_with("|>")
}
