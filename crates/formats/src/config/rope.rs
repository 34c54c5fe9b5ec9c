//! Rotary position embedding settings.

use crate::FormatError;
use crate::json::Section;

/// Frequencies of rotation: pair m turns by θ^(−2m/C) radians a position before scaling.
#[derive(Debug, Clone, PartialEq)]
pub struct Rope {
    /// The base θ.
    pub theta: f32,
    /// What is done to the frequencies.
    pub scaling: RopeScaling,
}

/// Scaling of frequencies for contexts longer than trained.
#[derive(Debug, Clone, PartialEq)]
pub enum RopeScaling {
    /// None.
    None,
    /// All are divided by `factor`.
    Linear {
        /// The divisor.
        factor: f32,
    },
    /// By wavelength: kept below `original / high`, divided by `factor` above `original / low`, blended between.
    Llama3 {
        /// The divisor of long wavelengths.
        factor: f32,
        /// `low_freq_factor`.
        low: f32,
        /// `high_freq_factor`; not below `low`.
        high: f32,
        /// Positions of the original training.
        original: usize,
    },
    /// Each pair is divided by its entry in the tensor `rope_freqs.weight`, C/2 long: GGUF files.
    Divisors,
}

/// Reads both generations: `rope_scaling` beside `rope_theta`, or `rope_parameters` around it.
pub(super) fn parse(section: &Section<'_>, default_theta: f32) -> Result<Rope, FormatError> {
    // The reference looks at the older key first.
    let scaling = match section.section("rope_scaling")? {
        Some(scaling) => Some(scaling),
        None => section.section("rope_parameters")?,
    };
    let outer_theta = section.positive("rope_theta", default_theta)?;
    let Some(scaling) = scaling else {
        check_partial(section)?;
        return Ok(Rope { theta: outer_theta, scaling: RopeScaling::None });
    };
    for by_type in ["chunked_attention", "full_attention", "sliding_attention"] {
        if scaling.given(by_type).is_some() {
            return Err(scaling.unsupported(by_type, "settings by layer type are not supported; one set for all is"));
        }
    }
    check_partial(section)?;
    check_partial(&scaling)?;
    let theta = scaling.positive("rope_theta", outer_theta)?;
    let key = if scaling.given("rope_type").is_some() { "rope_type" } else { "type" };
    let scaling = match scaling.text(key)?.unwrap_or("default") {
        "default" | "none" => RopeScaling::None,
        "linear" => RopeScaling::Linear { factor: scaling.required_positive("factor")? },
        "llama3" => llama3(&scaling)?,
        other => {
            let why = format!("\"{other}\" is not supported; \"default\", \"linear\" and \"llama3\" are");
            return Err(scaling.unsupported(key, why));
        }
    };
    Ok(Rope { theta, scaling })
}

fn llama3(scaling: &Section<'_>) -> Result<RopeScaling, FormatError> {
    let factor = scaling.required_positive("factor")?;
    let low = scaling.required_positive("low_freq_factor")?;
    let high = scaling.required_positive("high_freq_factor")?;
    if high < low {
        return Err(scaling.corrupt("high_freq_factor", format!("is {high}, below the low_freq_factor {low}")));
    }
    let key = "original_max_position_embeddings";
    if scaling.given(key).is_none() {
        return Err(scaling.missing(key));
    }
    let original = scaling.size(key, 0, super::POSITIONS_LIMIT)?;
    Ok(RopeScaling::Llama3 { factor, low, high, original })
}

/// Refuses heads of which only a part turns.
fn check_partial(section: &Section<'_>) -> Result<(), FormatError> {
    match section.number("partial_rotary_factor")? {
        Some(part) if part != 1.0 => {
            Err(section.unsupported("partial_rotary_factor", format!("{part} is not supported; 1 is")))
        }
        _ => Ok(()),
    }
}
