//! Training a byte-level BPE tokenizer with Llama 4's control tokens behind a vocabulary of its own size.

use serde_json::json;
use tokenizer::SpecialTokens;
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::processors::template::TemplateProcessing;
use tokenizers::{
    AddedToken, DecoderWrapper, NormalizerWrapper, PostProcessorWrapper, PreTokenizerWrapper, SplitDelimiterBehavior,
    TokenizerImpl,
};

use super::DataError;

/// How Llama 4 cuts text before merging: the o200k pattern.
///
/// Source: llama-models, `llama4/tokenizer.py`, `O200K_PATTERN`.
const PATTERN: &str = concat!(
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
);

/// The same with every digit alone: what merges are learnt from, so that there is none of digits and a number is written
/// digit by digit, as small models have to calculate. Where no merge is, the wider pattern cuts the same tokens.
fn learning_pattern() -> String {
    PATTERN.replace(r"\p{N}{1,3}", r"\p{N}")
}

const BEGIN: &str = "<|begin_of_text|>";
const CHAT_TEMPLATE: &str = include_str!("llama4.jinja");

/// The files of a tokenizer, as `transformers` and Puna read them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrainedTokenizer {
    /// `tokenizer.json`.
    pub tokenizer: String,
    /// `tokenizer_config.json`, the chat template in it.
    pub config: String,
    /// `chat_template.jinja`.
    pub chat_template: String,
    /// Tokens, the control tokens included: fewer than wanted where the texts have not so many pairs.
    pub n_tokens: usize,
}

/// The control tokens of a trained tokenizer, in their order: those of Llama 4 that have a name of their own, and those
/// of clips where Llama 4 has the first reserved ones.
fn controls() -> Vec<String> {
    let all = SpecialTokens::llama4();
    let named = all.names().iter().filter(|name| !name.contains("reserved_special_token"));
    named.cloned().chain(["<|audio_start|>", "<|audio|>", "<|audio_end|>"].map(str::to_owned)).collect()
}

/// Trains a tokenizer of `n_tokens`, control tokens included, on texts, in all of which control tokens are text. Each digit
/// is a token of its own.
///
/// Holds every different word of the texts.
///
/// # Errors
/// [`DataError`] of the first text that could not be read; [`DataError::Settings`] for fewer tokens than bytes and control
/// tokens.
pub fn train_tokenizer(
    texts: impl Iterator<Item = Result<String, DataError>> + Send,
    n_tokens: usize,
) -> Result<TrainedTokenizer, DataError> {
    let controls = controls();
    let least = 256 + controls.len();
    if n_tokens < least {
        return Err(DataError::Settings(format!("a tokenizer has at least {least} tokens; {n_tokens} were asked for")));
    }
    let failed = |error: tokenizers::Error| DataError::Settings(format!("the tokenizer could not be trained: {error}"));
    let byte_level = || ByteLevel::new(false, true, false);
    let steps = |pattern: String| -> Result<PreTokenizerWrapper, DataError> {
        let split = Split::new(SplitPattern::Regex(pattern), SplitDelimiterBehavior::Isolated, false);
        let steps = [split.map_err(failed)?.into(), byte_level().into()];
        Ok(PreTokenizerWrapper::from(Sequence::new(steps.into())))
    };
    let mut trained: TokenizerImpl<BPE, NormalizerWrapper, PreTokenizerWrapper, PostProcessorWrapper, DecoderWrapper> =
        TokenizerImpl::new(BPE::default());
    trained.with_pre_tokenizer(Some(steps(learning_pattern())?));
    trained.with_decoder(Some(DecoderWrapper::from(byte_level())));
    let mut trainer = BpeTrainer::builder()
        .show_progress(false)
        .vocab_size(n_tokens - controls.len())
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .build();
    let mut unread = None;
    let texts = texts.map_while(|text| text.map_err(|error| unread = Some(error)).ok());
    trained.train(&mut trainer, texts).map_err(failed)?;
    if let Some(error) = unread {
        return Err(error);
    }
    trained.with_pre_tokenizer(Some(steps(PATTERN.into())?));
    let added = controls.iter().map(|name| AddedToken::from(name.as_str(), true).normalized(false));
    trained.add_special_tokens(added.collect::<Vec<_>>()).map_err(failed)?;
    let begin = trained.token_to_id(BEGIN).ok_or_else(|| DataError::Settings("no beginning".into()))?;
    let processor = TemplateProcessing::builder()
        .try_single(format!("{BEGIN} $A"))
        .and_then(|builder| builder.try_pair(format!("{BEGIN} $A {BEGIN} $B:1")))
        .map_err(|error| failed(error.into()))?
        .special_tokens(vec![(BEGIN, begin)])
        .build();
    trained.with_post_processor(Some(PostProcessorWrapper::from(processor.map_err(|error| failed(error.into()))?)));
    let n_tokens = trained.get_vocab_size(true);
    Ok(TrainedTokenizer {
        tokenizer: trained.to_string(true).map_err(failed)?,
        config: config(),
        chat_template: CHAT_TEMPLATE.into(),
        n_tokens,
    })
}

fn config() -> String {
    let config = json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": BEGIN,
        "eos_token": "<|end_of_text|>",
        "pad_token": "<|finetune_right_pad|>",
        "clean_up_tokenization_spaces": false,
        "model_max_length": 1_000_000,
        "chat_template": CHAT_TEMPLATE,
    });
    format!("{config:#}\n")
}
