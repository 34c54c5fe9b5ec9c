//! When somebody speaks: an energy gate with hysteresis.

use super::RATE_HZ;

/// Samples of one look, 20 ms.
const LOOK: usize = RATE_HZ as usize / 50;
/// Milliseconds of one look.
const LOOK_MS: u64 = 20;
/// Loud looks in a row that begin speech; a click is shorter.
const BEGIN_LOOKS: u64 = 3;

/// How loud speech is, and how long a pause ends it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GateSettings {
    /// The root mean square of samples from which on a look is loud; below half of it, it is quiet. From 0 to 1.
    pub threshold: f32,
    /// Milliseconds of quiet that end speech.
    pub silence_ms: u64,
    /// Milliseconds before speech that belong to it.
    pub padding_ms: u64,
}

impl Default for GateSettings {
    fn default() -> Self {
        Self { threshold: 0.01, silence_ms: 500, padding_ms: 300 }
    }
}

/// What a gate noticed. Places are samples since its beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Speech begins here, its padding included.
    Began(usize),
    /// Speech is over; it lasted until here.
    Ended(usize),
}

/// Listens to samples at 16 kHz as they come. What it notices does not depend on how they are cut.
#[derive(Debug, Clone)]
pub struct Gate {
    settings: GateSettings,
    /// Samples of the look that is not complete, and their squares' sum.
    n_in_look: usize,
    energy: f64,
    n_samples: usize,
    is_speech: bool,
    n_loud: u64,
    n_quiet: u64,
}

impl Gate {
    /// A gate that has heard nothing.
    pub fn new(settings: GateSettings) -> Self {
        Self { settings, n_in_look: 0, energy: 0.0, n_samples: 0, is_speech: false, n_loud: 0, n_quiet: 0 }
    }

    /// Whether somebody speaks.
    pub fn is_speech(&self) -> bool {
        self.is_speech
    }

    /// Takes more samples.
    pub fn push(&mut self, samples: &[f32]) -> Vec<Change> {
        let mut changes = Vec::new();
        for sample in samples {
            self.energy += f64::from(*sample) * f64::from(*sample);
            self.n_in_look += 1;
            self.n_samples += 1;
            if self.n_in_look == LOOK {
                let rms = (self.energy / LOOK as f64).sqrt() as f32;
                changes.extend(self.look(rms));
                (self.n_in_look, self.energy) = (0, 0.0);
            }
        }
        changes
    }

    fn look(&mut self, rms: f32) -> Option<Change> {
        let GateSettings { threshold, silence_ms, padding_ms } = self.settings;
        if self.is_speech {
            self.n_quiet = if rms < 0.5 * threshold { self.n_quiet + 1 } else { 0 };
            if self.n_quiet * LOOK_MS < silence_ms {
                return None;
            }
            (self.is_speech, self.n_loud, self.n_quiet) = (false, 0, 0);
            return Some(Change::Ended(self.n_samples));
        }
        self.n_loud = if rms >= threshold { self.n_loud + 1 } else { 0 };
        if self.n_loud < BEGIN_LOOKS {
            return None;
        }
        (self.is_speech, self.n_loud, self.n_quiet) = (true, 0, 0);
        let before = BEGIN_LOOKS * LOOK_MS + padding_ms;
        let samples = usize::try_from(before * u64::from(RATE_HZ) / 1000).unwrap_or(usize::MAX);
        Some(Change::Began(self.n_samples.saturating_sub(samples)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seconds of silence, of a tone, of a quieter one, and so on.
    fn scene(parts: &[(f32, f32)]) -> Vec<f32> {
        let tone = |(seconds, loudness): &(f32, f32)| {
            let (n, loudness) = ((seconds * RATE_HZ as f32) as usize, *loudness);
            (0..n).map(move |i| loudness * (i as f32 * 0.3).sin())
        };
        parts.iter().flat_map(tone).collect()
    }

    #[test]
    fn speech_begins_with_its_padding_and_ends_after_a_pause() {
        let samples = scene(&[(1.0, 0.0), (1.0, 0.3), (0.3, 0.0), (0.5, 0.3), (1.0, 0.0)]);
        let whole = Gate::new(GateSettings::default()).push(&samples);
        // 0.3 s before one second, and half a second after 2.8.
        assert_eq!(whole, [Change::Began(16_000 - 4800), Change::Ended(44_800 + 8000)]);
        for cut in [1, 7, 320, 1000] {
            let mut gate = Gate::new(GateSettings::default());
            let pieces: Vec<Change> = samples.chunks(cut).flat_map(|piece| gate.push(piece)).collect();
            assert_eq!(pieces, whole, "{cut}");
        }
    }

    #[test]
    fn a_click_is_no_speech_and_what_fades_goes_on() {
        assert_eq!(Gate::new(GateSettings::default()).push(&scene(&[(0.5, 0.0), (0.04, 0.9), (1.0, 0.0)])), []);
        // Between the thresholds: not loud enough to begin, too loud to end.
        let between = 0.0075 * std::f32::consts::SQRT_2;
        assert_eq!(Gate::new(GateSettings::default()).push(&scene(&[(2.0, between)])), []);
        let mut gate = Gate::new(GateSettings::default());
        assert_eq!(gate.push(&scene(&[(1.0, 0.3), (2.0, between)])).len(), 1);
        assert!(gate.is_speech());
    }
}
