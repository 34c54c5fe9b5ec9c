//! How much an answer may think, from any interface's fields.

use engine::thinking::Ask;

use crate::app::App;
use crate::error::Error;
use crate::unsupported;
use crate::wire::Whole;
use crate::wire::thinking::{Reasoning, TemplateArguments, Thinking};

/// Most tokens that a request may ask to be thought at least.
const MIN_TOKENS: i128 = 1 << 20;
/// Most times that thoughts are gone on with.
const EXTENSIONS: i128 = 16;

const NO_THOUGHTS: &str = "asks for thinking, which this model was not trained for; leave it out";

/// The fields of a request that say something of thinking.
#[derive(Debug, Default)]
pub struct Fields<'a> {
    /// `reasoning`
    pub reasoning: Option<&'a Reasoning>,
    /// `thinking_token_budget`
    pub token_budget: Option<Whole>,
    /// `thinking`
    pub thinking: Option<&'a Thinking>,
    /// `reasoning_effort`, or what the interface calls it.
    pub effort: Option<(&'static str, &'a str)>,
    /// `chat_template_kwargs`
    pub arguments: Option<&'a TemplateArguments>,
}

/// What a request says of thinking, checked.
#[derive(Debug, Clone, Default)]
pub struct Thoughts {
    /// What it asks for.
    pub ask: Ask,
    /// Whether thoughts are left out of the answer.
    pub are_hidden: bool,
    /// Whether thoughts of earlier turns stay in the prompt.
    pub are_kept: bool,
}

/// What is wanted.
enum Wish<'a> {
    Off,
    /// Thoughts of so many tokens at most, if there is a limit.
    On(Option<usize>),
    Effort(&'a str),
}

impl Fields<'_> {
    /// Checks every field. Of several that say how much, the one that says it most exactly holds.
    ///
    /// # Errors
    /// [`Error::Field`] naming what is out of bounds, not supported, or asks a model to think that can not.
    pub fn check(&self, app: &App) -> Result<Thoughts, Error> {
        let mut thoughts = Thoughts { are_kept: self.keeps(), ..Thoughts::default() };
        let ask = &mut thoughts.ask;
        if let Some(reasoning) = self.reasoning {
            if reasoning.parallel.is_some() {
                return Err(Error::unsupported("reasoning.parallel", "is not supported; use n"));
            }
            for (field, summary) in [("summary", &reasoning.summary), ("generate_summary", &reasoning.generate_summary)]
            {
                unsupported::one_of(&format!("reasoning.{field}"), summary.as_deref(), &["auto"])?;
            }
            let within =
                |value: Option<Whole>, field, most| value.map(|value| value.within(field, 0, most)).transpose();
            ask.min_tokens =
                within(reasoning.min_tokens, "reasoning.min_tokens", MIN_TOKENS)?.unwrap_or(ask.min_tokens);
            ask.max_extensions =
                within(reasoning.max_extensions, "reasoning.max_extensions", EXTENSIONS)?.unwrap_or(ask.max_extensions);
            thoughts.are_hidden = reasoning.exclude.unwrap_or(false);
        }
        if let Some(thinking) = self.thinking {
            unsupported::one_of("thinking.type", Some(&thinking.kind), &["enabled", "adaptive", "disabled"])?;
            unsupported::one_of("thinking.display", thinking.display.as_deref(), &["summarized", "omitted"])?;
            thoughts.are_hidden |= thinking.display.as_deref() == Some("omitted");
        }
        let Some((field, wish)) = self.wish()? else { return Ok(thoughts) };
        let wish = match wish {
            Wish::Effort("none") => Wish::Off,
            wish => wish,
        };
        ask.is_on = Some(!matches!(wish, Wish::Off));
        match (wish, &app.model().reasoning) {
            (Wish::Off, _) => {}
            (_, None) => return Err(Error::unsupported(field, NO_THOUGHTS)),
            (Wish::On(budget), Some(_)) => ask.budget = budget,
            (Wish::Effort(name), Some(model)) => {
                ask.budget = model.effort(name).map_err(|known| {
                    let shown: String = name.chars().take(32).collect();
                    Error::field(field, format!("is {shown:?}; this model knows none, {known}"))
                })?;
                ask.effort = Some(name.to_owned());
            }
        }
        Ok(thoughts)
    }

    fn keeps(&self) -> bool {
        self.arguments.and_then(|arguments| arguments.keep_reasoning).unwrap_or(false)
    }

    /// The first field that says how much to think.
    fn wish(&self) -> Result<Option<(&'static str, Wish<'_>)>, Error> {
        let none = (Reasoning::default(), Thinking::default(), TemplateArguments::default());
        let reasoning = self.reasoning.unwrap_or(&none.0);
        let thinking = self.thinking.unwrap_or(&none.1);
        let arguments = self.arguments.unwrap_or(&none.2);
        if reasoning.enabled == Some(false) {
            return Ok(Some(("reasoning.enabled", Wish::Off)));
        }
        for (field, value) in
            [("reasoning.max_tokens", reasoning.max_tokens), ("thinking_token_budget", self.token_budget)]
        {
            if let Some(value) = value {
                return Ok(Some((field, Wish::On(budget(field, value)?))));
            }
        }
        if thinking.kind == "disabled" {
            return Ok(Some(("thinking", Wish::Off)));
        }
        if let Some(value) = thinking.budget_tokens {
            let field = "thinking.budget_tokens";
            return Ok(Some((field, Wish::On(Some(value.within(field, 0, i32::MAX.into())?)))));
        }
        let effort = self.reasoning.and_then(|reasoning| reasoning.effort.as_deref());
        if let Some((field, name)) = effort.map(|name| ("reasoning.effort", name)).or(self.effort) {
            return Ok(Some((field, Wish::Effort(name))));
        }
        if reasoning.enabled == Some(true) {
            return Ok(Some(("reasoning.enabled", Wish::On(None))));
        }
        if !thinking.kind.is_empty() {
            return Ok(Some(("thinking", Wish::On(None))));
        }
        let field = "chat_template_kwargs.thinking_budget";
        let limit = arguments.thinking_budget.map(|value| budget(field, value)).transpose()?;
        Ok(match (arguments.enable_thinking.or(arguments.thinking), limit) {
            (Some(false), _) => Some(("chat_template_kwargs", Wish::Off)),
            (Some(true), limit) => Some(("chat_template_kwargs", Wish::On(limit.flatten()))),
            (None, Some(limit)) => Some((field, Wish::On(limit))),
            (None, None) => None,
        })
    }
}

/// Tokens; -1 is no limit.
fn budget(field: &str, value: Whole) -> Result<Option<usize>, Error> {
    Ok(usize::try_from(value.within::<i64>(field, -1, i32::MAX.into())?).ok())
}
