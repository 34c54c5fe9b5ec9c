//! How tokens are to be chosen, from any interface's fields.

use engine::constraint::Constraint;
use engine::limits::Bounds;
use engine::sampling::SamplingParams;
use engine::service::{Job, Owner, Stop, Task};
use sha2::{Digest, Sha256};

use crate::app::App;
use crate::error::Error;
use crate::id;
use crate::keys::Caller;
use crate::limits::Limits;
use crate::prompt::Prompt;
use crate::wire::{Bias, OneOrMany, Real, Whole};

/// Most characters of a salt.
const SALT_CHARS: usize = 256;

/// What a request says, as it came.
#[derive(Debug, Clone, Default)]
pub struct Asked {
    /// `temperature`
    pub temperature: Option<Real>,
    /// `top_p`
    pub top_p: Option<Real>,
    /// `top_k`
    pub top_k: Option<Whole>,
    /// `min_p`
    pub min_p: Option<Real>,
    /// `repetition_penalty`
    pub repetition_penalty: Option<Real>,
    /// `frequency_penalty`
    pub frequency_penalty: Option<Real>,
    /// `presence_penalty`
    pub presence_penalty: Option<Real>,
    /// `logit_bias`
    pub logit_bias: Option<Bias>,
    /// `seed`
    pub seed: Option<Whole>,
    /// `n`
    pub n: Option<Whole>,
    /// Texts that end an answer, and what the interface calls them.
    pub stop: (&'static str, Option<OneOrMany<String>>),
    /// Tokens of an answer at most, and what the interface calls that.
    pub max_tokens: (&'static str, Option<Whole>),
    /// `cache_salt`
    pub cache_salt: Option<String>,
    /// `ignore_eos`
    pub ignore_eos: bool,
}

/// What a request says, checked.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How to choose tokens.
    pub sampling: SamplingParams,
    /// Answers to each prompt.
    pub n: u32,
    /// Texts that end an answer.
    pub stop: Vec<String>,
    /// Tokens of an answer at most, and the field that says so.
    pub max_tokens: (&'static str, Option<usize>),
    /// Whether an answer goes on when the model would end it.
    pub ignore_eos: bool,
    /// Separates what is cached.
    pub salt: u64,
    /// Alternatives with every token of an answer.
    pub logprobs: Option<usize>,
    /// Alternatives with every token of the prompt.
    pub prompt_logprobs: Option<usize>,
    /// What an answer has to be.
    pub constraint: Option<Constraint>,
}

impl Asked {
    /// Checks every field; where one is missing, the model's own value holds.
    ///
    /// # Errors
    /// [`Error::Field`] naming the field and its bounds.
    pub fn check(self, app: &App) -> Result<Settings, Error> {
        let (limits, own) = (app.limits(), &app.model().sampling);
        let bounds = &limits.engine;
        let most = |n: u32| i128::from(n);
        let top_k = match self.top_k {
            Some(Whole::Is(-1)) => Some(0),
            Some(top_k) => Some(top_k.within("top_k", -1, most(bounds.top_k))?),
            None => None,
        };
        let real = |field, value, bounds, own| real(field, value, bounds).map(|value| value.unwrap_or(own));
        let sampling = SamplingParams {
            temperature: real("temperature", self.temperature, bounds.temperature, own.temperature)?,
            top_k: top_k.unwrap_or(own.top_k),
            top_p: real("top_p", self.top_p, bounds.top_p, own.top_p)?,
            min_p: real("min_p", self.min_p, bounds.min_p, own.min_p)?,
            repetition_penalty: real(
                "repetition_penalty",
                self.repetition_penalty,
                bounds.repetition_penalty,
                own.repetition_penalty,
            )?,
            frequency_penalty: real(
                "frequency_penalty",
                self.frequency_penalty,
                bounds.penalty,
                own.frequency_penalty,
            )?,
            presence_penalty: real("presence_penalty", self.presence_penalty, bounds.penalty, own.presence_penalty)?,
            logit_bias: bias(self.logit_bias, app)?,
            // A negative seed is as good as any other.
            seed: match self.seed {
                Some(seed) => seed.within::<i64>("seed", i64::MIN.into(), i64::MAX.into())?.cast_unsigned(),
                None => id::seed(),
            },
            sample: 0,
        };
        let (name, max_tokens) = self.max_tokens;
        let max_tokens = max_tokens.map(|value| value.within(name, 0, i32::MAX.into())).transpose()?;
        Ok(Settings {
            sampling,
            n: self.n.map_or(Ok(1), |n| n.within("n", 1, most(limits.n)))?,
            stop: stop(self.stop, limits)?,
            max_tokens: (name, max_tokens),
            ignore_eos: self.ignore_eos,
            salt: salt(self.cache_salt)?,
            logprobs: None,
            prompt_logprobs: None,
            constraint: None,
        })
    }
}

fn real(field: &str, value: Option<Real>, bounds: Bounds) -> Result<Option<f32>, Error> {
    let Some(Real(value)) = value else { return Ok(None) };
    let number = value as f32;
    // What rounds into the bounds is not inside of them.
    let inside = bounds.contains(number) && {
        let (Bounds::From(low, high) | Bounds::Above(low, high)) = bounds;
        (f64::from(low)..=f64::from(high)).contains(&value)
    };
    if inside { Ok(Some(number)) } else { Err(Error::field(field, format!("is {value}; it must be {bounds}"))) }
}

fn bias(bias: Option<Bias>, app: &App) -> Result<Vec<(u32, f32)>, Error> {
    let entries = bias.map(|bias| bias.0).unwrap_or_default();
    let bounds = &app.limits().engine;
    if entries.len() > bounds.logit_bias_entries {
        let why = format!("has {} entries; the limit is {}", entries.len(), bounds.logit_bias_entries);
        return Err(Error::field("logit_bias", why));
    }
    let n_vocab = app.model().handle.about().n_vocab;
    for (token, value) in &entries {
        if usize::try_from(*token).map_or(true, |token| token >= n_vocab) {
            return Err(Error::field("logit_bias", format!("names token {token}; the model has {n_vocab} tokens")));
        }
        if !bounds.logit_bias.contains(*value) {
            return Err(Error::field("logit_bias", format!("has {value}; it must be {}", bounds.logit_bias)));
        }
    }
    Ok(entries)
}

fn stop((field, stop): (&str, Option<OneOrMany<String>>), limits: &Limits) -> Result<Vec<String>, Error> {
    let texts = match stop {
        None => Vec::new(),
        Some(OneOrMany::One(text)) => vec![text],
        Some(OneOrMany::Many(texts)) => texts,
    };
    let bounds = &limits.engine;
    if texts.len() > bounds.stop_strings {
        return Err(Error::field(field, format!("has {} texts; the limit is {}", texts.len(), bounds.stop_strings)));
    }
    for text in &texts {
        if text.is_empty() || text.len() > bounds.stop_bytes {
            let why = format!("has a text of {} bytes; it must have 1 to {}", text.len(), bounds.stop_bytes);
            return Err(Error::field(field, why));
        }
    }
    Ok(texts)
}

fn salt(salt: Option<String>) -> Result<u64, Error> {
    let Some(salt) = salt else { return Ok(0) };
    if salt.chars().count() > SALT_CHARS {
        return Err(Error::field("cache_salt", format!("has more than {SALT_CHARS} characters")));
    }
    let hash: [u8; 32] = Sha256::digest(salt.as_bytes()).into();
    Ok(hash.first_chunk::<8>().map_or(1, |first| u64::from_le_bytes(*first)))
}

/// `logprobs` and `top_logprobs` of chats: how many alternatives every token gets.
///
/// # Errors
/// [`Error::Field`] for a number out of bounds, or one without `logprobs`.
pub fn top_logprobs(logprobs: Option<bool>, top: Option<Whole>, limits: &Limits) -> Result<Option<usize>, Error> {
    let most = i128::try_from(limits.top_logprobs).unwrap_or(i128::MAX);
    let top: Option<usize> = top.map(|top| top.within("top_logprobs", 0, most)).transpose()?;
    match (logprobs.unwrap_or(false), top) {
        (true, top) => Ok(Some(top.unwrap_or(0))),
        (false, None | Some(0)) => Ok(None),
        (false, Some(_)) => Err(Error::field("top_logprobs", "needs logprobs to be true")),
    }
}

impl Settings {
    /// The job of answering `prompt` for `caller`.
    ///
    /// # Errors
    /// [`Error::Field`] for a prompt that leaves no room for an answer, or one without tokens.
    pub fn job(&self, prompt: &Prompt, caller: Caller, app: &App) -> Result<Job, Error> {
        let model = app.model();
        let about = model.handle.about();
        let context = about.context.min(about.capacity);
        if prompt.n_positions == 0 {
            return Err(Error::field(prompt.field, "has no tokens"));
        }
        let room = context.saturating_sub(prompt.n_positions);
        let (field, asked) = self.max_tokens;
        let max_tokens = match asked {
            Some(asked) => asked,
            None if room == 0 => return Err(too_long(prompt.field, prompt.n_positions, 1, context)),
            None => room.min(app.limits().default_max_tokens),
        };
        if max_tokens > room {
            let field = if room == 0 { prompt.field } else { field };
            return Err(too_long(field, prompt.n_positions, max_tokens, context));
        }
        if self.ignore_eos && self.constraint.is_some() {
            return Err(Error::field("ignore_eos", "can not be true where the answer's form says when it is whole"));
        }
        if self.logprobs.is_some() && prompt.thoughts.as_ref().is_some_and(|thoughts| thoughts.are_hidden) {
            let why = "can not be true with log-probabilities, which spell every token of the thoughts";
            return Err(Error::field("reasoning.exclude", why));
        }
        let end_tokens = if self.ignore_eos { Vec::new() } else { model.end_tokens.clone() };
        Ok(Job {
            pieces: prompt.pieces.clone(),
            media: prompt.media.clone(),
            task: Task::Generate {
                n_samples: self.n,
                sampling: self.sampling.clone(),
                constraint: self.constraint.clone(),
                stop: Stop { max_tokens, texts: self.stop.clone(), tokens: end_tokens },
                logprobs: self.logprobs,
                thinking: prompt.thoughts.as_ref().zip(model.reasoning.as_ref()).map(|(thoughts, reasoning)| {
                    Box::new(reasoning.thinking(&thoughts.ask, max_tokens, app.limits().thinking_tokens))
                }),
            },
            prompt_logprobs: self.prompt_logprobs,
            owner: Owner { key: caller.0, salt: self.salt },
            deadline: app.limits().total_time,
        })
    }
}

/// What a prompt is answered with that does not fit, with its answer.
pub fn too_long(field: &str, prompt: usize, answer: usize, context: usize) -> Error {
    Error::Field {
        param: field.into(),
        why: format!(
            "does not fit: the prompt has {prompt} tokens and the answer may have {answer}; the context holds {context}"
        ),
        code: crate::error::Code::ContextLength,
    }
}
