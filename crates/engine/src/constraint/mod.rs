//! What an answer may be: a language, compiled once and off the engine's thread, then asked before every token.
//!
//! The automata are llguidance's. What is ours is the border: bounds on what comes from a request, errors that name the
//! place, and the tokenizer's tokens as the automata see them.

mod calls;
mod schema;
mod vocabulary;

use std::sync::Arc;

use llguidance::api::{GrammarInit, TopLevelGrammar};
use llguidance::toktrie::{InferenceCapabilities, TokEnv};
use llguidance::{Logger, Matcher, ParserFactory};
use tokenizer::Tokenizer;

use crate::limits::Limits;
use crate::tools::{Choice, Tool};

/// A language that an answer has to belong to.
#[derive(Debug, Clone, PartialEq)]
pub enum Language {
    /// JSON that a schema, given as JSON text, accepts.
    JsonSchema(String),
    /// Any JSON object.
    JsonObject,
    /// Texts that a regular expression matches as a whole.
    Regex(String),
    /// A context-free grammar in Lark's notation.
    Grammar(String),
    /// Calls of tools as JSON, `{"name": …, "parameters": {…}}`, whose arguments are as declared. Where the model need not
    /// call, also any text that does not begin so.
    Calls {
        /// The tools, one at least.
        tools: Vec<Tool>,
        /// Whether it has to call.
        choice: Choice,
        /// Whether there may be several calls.
        is_parallel: bool,
    },
}

/// Why a language was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConstraintError {
    /// A place in a JSON schema.
    #[error("{why} (at \"{pointer}\" in the schema)")]
    Schema {
        /// JSON pointer to it; empty for the whole schema.
        pointer: String,
        /// What is wrong, and what would do.
        why: String,
    },
    /// The language can not be read, or takes too much to compile.
    #[error("{0}")]
    Language(String),
}

/// A language's automaton broke while an answer was made: it needs more steps or states than it may.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the answer's grammar takes too much to follow: {0}")]
pub struct Broken(String);

/// Compiles languages for one tokenizer.
pub struct Compiler {
    factory: ParserFactory,
    end_tokens: Arc<[u32]>,
    limits: Limits,
}

/// A compiled language and how far an answer has come in it. A copy goes on from the same state.
#[derive(Clone)]
pub struct Constraint {
    matcher: Box<Matcher>,
    /// Tokens that end an answer, allowed together when it may end. The first is the one that the automaton knows.
    end_tokens: Arc<[u32]>,
    /// One of them came.
    has_ended: bool,
}

impl Compiler {
    /// For answers of `n_vocab` scores a position whose ids `tokenizer` knows, ended by one of `end_tokens`.
    ///
    /// # Errors
    /// [`ConstraintError::Language`] if there is no token that ends an answer.
    pub fn new(
        tokenizer: &Tokenizer,
        n_vocab: u32,
        end_tokens: &[u32],
        limits: &Limits,
    ) -> Result<Self, ConstraintError> {
        let end = end_tokens.iter().copied().find(|id| *id < n_vocab);
        let end = end.ok_or_else(|| ConstraintError::Language("the model has no token that ends an answer".into()))?;
        let env: TokEnv = Arc::new(vocabulary::Vocabulary::new(tokenizer, n_vocab, end));
        // No slices: they trade memory for speed on automata that are used for long, and a server sees many.
        let mut factory = ParserFactory::new_simple(&env).map_err(language)?;
        factory.quiet();
        let parser = factory.limits_mut();
        parser.initial_lexer_fuel = limits.grammar_steps;
        parser.max_grammar_size = limits.grammar_symbols;
        parser.max_lexer_states = limits.grammar_states;
        parser.verbose_errors = false;
        Ok(Self { factory, end_tokens: end_tokens.into(), limits: limits.clone() })
    }

    /// Compiles `language`. Takes up to tens of milliseconds: not for the engine's thread.
    ///
    /// # Errors
    /// [`ConstraintError`], with the place in a schema where there is one.
    pub fn compile(&self, language: &Language) -> Result<Constraint, ConstraintError> {
        let limits = &self.limits;
        let (text, what) = match language {
            Language::JsonSchema(text) => (text.as_str(), "schema"),
            Language::JsonObject => ("", "schema"),
            Language::Regex(text) => (text.as_str(), "regular expression"),
            Language::Grammar(text) => (text.as_str(), "grammar"),
            // Each schema is checked by itself.
            Language::Calls { .. } => ("", "tools"),
        };
        if text.len() > limits.grammar_bytes {
            let (got, most) = (text.len(), limits.grammar_bytes);
            return Err(ConstraintError::Language(format!("the {what} has {got} bytes; the limit is {most}")));
        }
        let grammar = match language {
            Language::JsonSchema(text) => {
                TopLevelGrammar::from_json_schema(schema::with_options(schema::read(text, limits)?))
            }
            Language::JsonObject => {
                TopLevelGrammar::from_json_schema(schema::with_options(serde_json::json!({ "type": "object" })))
            }
            Language::Regex(text) => TopLevelGrammar::from_regex(text),
            Language::Grammar(text) => TopLevelGrammar::from_lark(text.clone()),
            Language::Calls { tools, choice, is_parallel } => {
                TopLevelGrammar::from_lark(calls::grammar(tools, *choice, *is_parallel, limits)?)
            }
        };
        let parser = self.factory.create_parser_from_init_ext(
            GrammarInit::Serialized(grammar),
            Logger::new(0, 0),
            InferenceCapabilities::default(),
            self.factory.limits().clone(),
        );
        let parser = parser.map_err(|e| match language {
            Language::JsonSchema(_) => schema::refused(&e),
            _ => ConstraintError::Language(format!("the {what} can not be used: {}", first_line(&e))),
        })?;
        let mut matcher = Matcher::new(Ok(parser));
        // An empty language allows no first token; better said now than by an answer that never comes.
        match matcher.compute_mask_or_eos() {
            Ok(mask) if !mask.is_zero() => {}
            Ok(_) => return Err(ConstraintError::Language(format!("no text at all fits the {what}"))),
            Err(e) => return Err(ConstraintError::Language(format!("the {what} can not be used: {}", first_line(&e)))),
        }
        Ok(Constraint { matcher: Box::new(matcher), end_tokens: Arc::clone(&self.end_tokens), has_ended: false })
    }
}

impl Constraint {
    /// Gives −∞ to the score of every token that can not come next.
    ///
    /// # Errors
    /// [`Broken`]; the scores are then of no use.
    pub fn mask(&mut self, logits: &mut [f32]) -> Result<(), Broken> {
        let allowed = self.matcher.compute_mask_or_eos().map_err(broken)?;
        let may_end = self.end_tokens.iter().any(|id| allowed.is_allowed(*id));
        for (id, logit) in logits.iter_mut().enumerate() {
            if id >= allowed.len() || !allowed.get(id) {
                // The automaton knows one token that ends an answer; the others mean the same.
                let ends = may_end && u32::try_from(id).is_ok_and(|id| self.end_tokens.contains(&id));
                if !ends {
                    *logit = f32::NEG_INFINITY;
                }
            }
        }
        Ok(())
    }

    /// Goes on by one token that [`mask`](Self::mask) allowed.
    ///
    /// # Errors
    /// [`Broken`], also if it was not allowed.
    pub fn accept(&mut self, id: u32) -> Result<(), Broken> {
        if self.end_tokens.contains(&id) {
            self.has_ended = true;
            return Ok(());
        }
        self.matcher.consume_token(id).map_err(broken)
    }

    /// Whether nothing can follow: the answer is whole, and only an end token would be allowed.
    pub fn is_complete(&self) -> bool {
        self.has_ended || self.matcher.is_stopped()
    }
}

impl std::fmt::Debug for Constraint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Constraint").field("is_complete", &self.is_complete()).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Compiler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Compiler").finish_non_exhaustive()
    }
}

fn language(error: impl std::fmt::Display) -> ConstraintError {
    ConstraintError::Language(error.to_string())
}

fn broken(error: impl std::fmt::Display) -> Broken {
    Broken(first_line(&error))
}

/// What the automata's library says, without the states that it prints below, nor a whole text that it repeats.
fn first_line(error: &impl std::fmt::Display) -> String {
    const MOST: usize = 300;
    let text = error.to_string();
    let line = text.lines().next().unwrap_or_default().trim();
    match line.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line.to_owned(),
    }
}
