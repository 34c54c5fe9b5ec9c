//! What is being said: from bytes to a clip.

use engine::Limits;
use engine::media::audio::{AudioError, Change, ClipConfig, Gate, Listener, Pcm16Stream, RATE_HZ, Sound};

use super::settings::SessionSettings;

/// Milliseconds of quiet that are kept beside the padding: as much as it takes to notice speech.
const NOTICED_MS: u64 = 500;

/// Hears what is being said.
pub struct Ear {
    config: ClipConfig,
    limits: Limits,
    stream: Pcm16Stream,
    /// What notices speech, and how many samples before it may yet belong to it.
    gate: Option<(Gate, usize)>,
    said: Said,
    /// Samples at 16 kHz since it was tuned; what is being said may have begun before.
    n_heard: usize,
}

enum Said {
    /// Nobody speaks.
    Quiet(Vec<f32>),
    Speech(Box<Listener>),
}

impl Ear {
    /// An ear that has heard nothing.
    ///
    /// # Errors
    /// [`AudioError::Rate`].
    pub fn new(settings: &SessionSettings, config: &ClipConfig, limits: &Limits) -> Result<Self, AudioError> {
        let stream = Pcm16Stream::new(settings.rate_hz, limits)?;
        let (config, limits, said) = (config.clone(), limits.clone(), Said::Quiet(Vec::new()));
        let mut ear = Self { config, limits, stream, gate: None, said, n_heard: 0 };
        ear.tune(settings)?;
        Ok(ear)
    }

    /// Listens in another way from now on, to what is being said.
    ///
    /// # Errors
    /// [`AudioError::Rate`].
    pub fn tune(&mut self, settings: &SessionSettings) -> Result<(), AudioError> {
        self.stream = Pcm16Stream::new(settings.rate_hz, &self.limits)?;
        self.gate = settings.turns.map(|turns| {
            let ms = usize::try_from(turns.gate.padding_ms + NOTICED_MS).unwrap_or(usize::MAX);
            (Gate::new(turns.gate), ms.saturating_mul(RATE_HZ as usize) / 1000)
        });
        self.n_heard = 0;
        Ok(())
    }

    /// Samples at 16 kHz of what is being said.
    pub fn n_samples(&self) -> usize {
        match &self.said {
            Said::Quiet(samples) => samples.len(),
            Said::Speech(listener) => listener.n_samples(),
        }
    }

    /// Takes bytes in, and tells when somebody began or ceased to speak.
    ///
    /// # Errors
    /// [`AudioError::TooLong`]; then they are not part of what is being said.
    pub fn push(&mut self, bytes: &[u8]) -> Result<Vec<Change>, AudioError> {
        let samples = self.stream.push(bytes);
        self.n_heard += samples.len();
        match &mut self.said {
            Said::Quiet(kept) => kept.extend_from_slice(&samples),
            Said::Speech(listener) => listener.push(&samples)?,
        }
        let Some((gate, n_kept)) = &mut self.gate else {
            self.speak()?;
            return Ok(Vec::new());
        };
        let (changes, n_kept) = (gate.push(&samples), *n_kept);
        let is_speech = gate.is_speech() || !changes.is_empty();
        if let Some(Change::Began(at)) = changes.first() {
            self.forget_until(*at);
        }
        match is_speech {
            true => self.speak()?,
            false => self.forget_until(self.n_heard.saturating_sub(n_kept)),
        }
        Ok(changes)
    }

    /// From now on what is heard is part of a clip.
    fn speak(&mut self) -> Result<(), AudioError> {
        if let Said::Quiet(samples) = &self.said {
            self.said = Said::Speech(Box::new(self.listened(samples)?));
        }
        Ok(())
    }

    fn listened(&self, samples: &[f32]) -> Result<Listener, AudioError> {
        let mut listener = self.config.listen(&self.limits);
        listener.push(samples)?;
        Ok(listener)
    }

    /// Lets go of the quiet before sample `at` of all that was heard.
    fn forget_until(&mut self, at: usize) {
        if let Said::Quiet(samples) = &mut self.said {
            let n_before = (at + samples.len()).saturating_sub(self.n_heard);
            samples.drain(..n_before.min(samples.len()));
        }
    }

    /// What is certain of the clip, if that is more than `n_known` pieces, and how many they are.
    pub fn begun(&self, n_known: usize) -> Option<(Sound, usize)> {
        match &self.said {
            Said::Speech(listener) if listener.n_certain() > n_known => Some((listener.begun()?, listener.n_certain())),
            Said::Speech(_) | Said::Quiet(_) => None,
        }
    }

    /// Ends the clip; half a sample says nothing. Goes on to listen.
    ///
    /// # Errors
    /// [`AudioError::Empty`] if nothing was said.
    pub fn commit(&mut self) -> Result<Sound, AudioError> {
        let mut listener = match std::mem::replace(&mut self.said, Said::Quiet(Vec::new())) {
            Said::Speech(listener) => *listener,
            Said::Quiet(samples) => self.listened(&samples)?,
        };
        // Where speech is noticed, what the resampler holds back is the beginning of what comes.
        if self.gate.is_none() {
            listener.push(&self.stream.finish())?;
        }
        listener.commit()
    }
}
