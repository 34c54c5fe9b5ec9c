//! Strings at which the text ends.

use super::SamplingError;
use crate::limits::Limits;

/// Watches text as it comes for the first of some strings, and holds back what may be the beginning of one.
///
/// Text ends before the stop string whose last character comes first; of two that end together, before the longer
/// one. So the result depends on the text, never on how it was cut into pieces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StopMatcher {
    stops: Vec<String>,
    /// Text that was not yet given out: the longest end of the text so far that begins some stop string.
    held: String,
    /// The stop string that came.
    stopped_by: Option<usize>,
}

impl StopMatcher {
    /// A matcher for `stops`; without any it lets all text through at once.
    ///
    /// # Errors
    /// [`SamplingError`] for `stop`: too many strings, one too long or an empty one.
    pub fn new(stops: &[String], limits: &Limits) -> Result<Self, SamplingError> {
        SamplingError::check_count("stop", "strings", stops.len(), limits.stop_strings)?;
        for stop in stops {
            SamplingError::check_count("stop", "bytes in one string", stop.len(), limits.stop_bytes)?;
            if stop.is_empty() {
                let allowed = format!("1 to {} bytes long", limits.stop_bytes);
                return Err(SamplingError::OutOfRange { field: "stop", value: String::new(), allowed });
            }
        }
        Ok(Self::checked(stops.to_vec()))
    }

    /// A matcher for strings that were checked before; empty ones are left out.
    pub(crate) fn checked(mut stops: Vec<String>) -> Self {
        stops.retain(|stop| !stop.is_empty());
        Self { stops, held: String::new(), stopped_by: None }
    }

    /// Takes the next piece of text and gives the text that is sure to come before any stop string, possibly none.
    /// After a stop string every further piece is left out.
    pub fn push(&mut self, text: &str) -> String {
        if self.is_stopped() {
            return String::new();
        }
        for c in text.chars() {
            self.held.push(c);
            let ends_here = self.stops.iter().enumerate().filter(|(_, stop)| self.held.ends_with(stop.as_str()));
            if let Some((len, i)) = ends_here.map(|(i, stop)| (stop.len(), i)).max() {
                self.stopped_by = Some(i);
                self.held.truncate(self.held.len() - len);
                return std::mem::take(&mut self.held);
            }
        }
        let n_sure = self.held.len() - self.longest_beginning();
        let rest = self.held.split_off(n_sure);
        std::mem::replace(&mut self.held, rest)
    }

    /// Whether a stop string has come.
    pub fn is_stopped(&self) -> bool {
        self.stopped_by.is_some()
    }

    /// The stop string that has come.
    pub fn stopped_by(&self) -> Option<&str> {
        self.stops.get(self.stopped_by?).map(String::as_str)
    }

    /// Gives the text that is still held back, once no more will come.
    pub fn flush(&mut self) -> String {
        std::mem::take(&mut self.held)
    }

    /// Bytes at the end of the held text that begin a stop string.
    fn longest_beginning(&self) -> usize {
        let begins = |(at, _): &(usize, char)| self.stops.iter().any(|stop| stop.starts_with(&self.held[*at..]));
        self.held.char_indices().find(begins).map_or(0, |(at, _)| self.held.len() - at)
    }
}
