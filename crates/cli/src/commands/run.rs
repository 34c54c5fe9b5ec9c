//! `puna run`.

use std::io::{IsTerminal, Read};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use cpu::Cpu;
use engine::sampling::SamplingParams;
use engine::{FinishReason, Request};
use serde_json::json;

use crate::answer::Answer;
use crate::attachments::{Attachment, Attachments};
use crate::built_in;
use crate::chat::{Chat, Files};
use crate::failure::usage;
use crate::interrupt::INTERRUPTED;
use crate::output::{line, write};
use crate::plan::learned;
use crate::{experts, memory, model, repl};

/// Answer a prompt, or hold a conversation
///
/// Without a model named, the small one that is part of this program answers: it reads, sees and hears.
/// The prompt is the argument, or standard input where that is no terminal. A terminal without a prompt gets a
/// conversation with history and editing.
#[derive(clap::Args)]
#[command(mut_arg("precision", |precision| precision.hide(true)))] // rarely wanted; docs/config.md
pub struct Run {
    /// The prompt
    prompt: Option<String>,
    /// A GGUF file or a Hugging Face folder; nano is the model that is part of this program
    #[arg(short, long, env = "PUNA_MODEL", default_value = built_in::NAME)]
    model: PathBuf,
    #[command(flatten)]
    attachments: Attachments,
    /// The system message
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
    /// Continue the prompt as plain text, without the model's chat format
    #[arg(long)]
    raw: bool,
    /// A GGUF file with the vision tower and the audio encoder, if it does not lie beside the model
    #[arg(long, value_name = "FILE")]
    mmproj: Option<PathBuf>,
    #[command(flatten)]
    lora: model::LoraArguments,
    #[command(flatten)]
    cache: model::CacheArguments,
    #[command(flatten)]
    experts: experts::ExpertArguments,
    /// Think before the answer: on, off, low, medium, high or what else the model knows, or a number of tokens; as the model
    /// does by itself if absent
    #[arg(long, value_name = "LEVEL", num_args = 0..=1, require_equals = true, default_missing_value = "on", conflicts_with = "raw")]
    think: Option<String>,
    /// One JSON object with the answer and its counts instead of the text
    #[arg(long)]
    json: bool,
    /// Print token counts, speed and memory to standard error
    #[arg(long)]
    stats: bool,
    #[command(flatten)]
    sampling: SamplingArguments,
    #[command(flatten)]
    device: model::DeviceArguments,
    #[command(flatten)]
    precision: model::PrecisionArgument,
}

/// How tokens are chosen.
#[derive(clap::Args, Debug, Clone)]
#[command(next_help_heading = "Sampling")]
pub struct SamplingArguments {
    /// 0 takes the likeliest token; the model's own default if absent
    #[arg(long, visible_alias = "temperature")]
    temp: Option<f32>,
    /// Choose among the K likeliest tokens; 0 for all
    #[arg(long, value_name = "K")]
    top_k: Option<u32>,
    /// Choose among the likeliest tokens that together have probability P
    #[arg(long, value_name = "P")]
    top_p: Option<f32>,
    /// Leave out tokens less likely than P times the likeliest
    #[arg(long, value_name = "P")]
    min_p: Option<f32>,
    /// Divide the logits of tokens seen before; 1 is off
    #[arg(long, value_name = "X")]
    repetition_penalty: Option<f32>,
    /// Subtract X for every time a token stands in the answer
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    frequency_penalty: Option<f32>,
    /// Subtract X from tokens that stand in the answer
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    presence_penalty: Option<f32>,
    /// Add X to a token's logit; may be given several times
    #[arg(long, value_name = "ID=X", value_parser = parse_bias)]
    logit_bias: Vec<(u32, f32)>,
    /// The same seed gives the same answer; a new one each time if absent
    #[arg(long)]
    seed: Option<u64>,
    /// A text that ends the answer; may be given several times
    #[arg(long, value_name = "TEXT")]
    stop: Vec<String>,
    /// Tokens of the answer at most
    #[arg(long, value_name = "N")]
    max_tokens: Option<usize>,
}

fn parse_bias(text: &str) -> Result<(u32, f32), String> {
    let (id, bias) = text.split_once('=').ok_or_else(|| format!("\"{text}\" is not ID=X, such as 1234=-5"))?;
    let id = id.trim().parse().map_err(|_| format!("\"{id}\" is no token id"))?;
    let bias = bias.trim().parse().map_err(|_| format!("\"{bias}\" is no number"))?;
    Ok((id, bias))
}

impl SamplingArguments {
    /// The flags over the model's own defaults; greedy where neither says anything.
    fn request(&self, chat: &Chat<Cpu>) -> Request {
        let own = chat.generation();
        let none = SamplingParams::default();
        let samples = own.do_sample.unwrap_or(false);
        let sampling = SamplingParams {
            temperature: self.temp.unwrap_or(if samples { own.temperature.unwrap_or(1.0) } else { 0.0 }),
            top_k: self
                .top_k
                .or(own.top_k.filter(|_| samples).and_then(|k| u32::try_from(k).ok()))
                .unwrap_or(none.top_k),
            top_p: self.top_p.or(own.top_p.filter(|_| samples)).unwrap_or(none.top_p),
            min_p: self.min_p.unwrap_or(none.min_p),
            repetition_penalty: self.repetition_penalty.or(own.repetition_penalty).unwrap_or(none.repetition_penalty),
            frequency_penalty: self.frequency_penalty.unwrap_or(none.frequency_penalty),
            presence_penalty: self.presence_penalty.unwrap_or(none.presence_penalty),
            logit_bias: self.logit_bias.clone(),
            seed: self.seed.unwrap_or_else(fresh_seed),
            sample: 0,
        };
        Request {
            sampling,
            stop: self.stop.clone(),
            max_tokens: self.max_tokens,
            end_tokens: chat.end_tokens().to_vec(),
            forbidden: chat.layout().unwritten().collect(),
            thinking: None,
        }
    }
}

/// A seed that differs from run to run; printed with `--json`, so that any answer can be had again.
fn fresh_seed() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    // 53 bits pass through any JSON reader unchanged.
    RandomState::new().hash_one(std::process::id()) >> 11
}

impl Run {
    pub fn run(self) -> Result<ExitCode> {
        let prompt = self.prompt()?;
        let is_conversation = prompt.is_none() && !self.json && self.attachments.is_empty();
        if !is_conversation && prompt.as_ref().is_none_or(String::is_empty) {
            return Err(usage("there is no prompt", "write one after the flags, or pipe it in"));
        }
        let attached = self.attachments.read()?;
        let files = Files {
            model: &self.model,
            mmproj: self.mmproj.as_deref(),
            lora: &self.lora,
            audio: model::AudioArguments::default(),
        };
        let mut chat = Chat::open(files, self.device.open_with(self.precision), (self.cache, self.experts))?;
        if let Some(level) = &self.think {
            chat.think(level)?;
        }
        let request = self.sampling.request(&chat);
        match prompt {
            Some(prompt) => self.answer(chat, &request, &prompt, &attached),
            None => {
                repl::hold(chat, &request, self.system.as_deref(), self.stats)?;
                Ok(ExitCode::SUCCESS)
            }
        }
    }

    /// The prompt, or `None` for a conversation.
    fn prompt(&self) -> Result<Option<String>> {
        if let Some(prompt) = &self.prompt {
            return Ok(Some(prompt.clone()));
        }
        if self.attachments.reads_standard_input() {
            return Err(usage(
                "standard input is the clip, and there is no prompt",
                "write the prompt after the flags",
            ));
        }
        if std::io::stdin().is_terminal() {
            return Ok(None);
        }
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).context("reading the prompt from standard input")?;
        // A pipe ends its text with a line break that nobody meant.
        Ok(Some(text.strip_suffix('\n').map_or(text.clone(), str::to_owned)))
    }

    fn answer(
        &self,
        mut chat: Chat<Cpu>,
        request: &Request,
        prompt: &str,
        attached: &[Attachment],
    ) -> Result<ExitCode> {
        let content = if self.raw {
            chat.raw(prompt, attached)?
        } else {
            chat.user(self.system.as_deref(), prompt, attached)?;
            chat.render()?
        };
        let answer = Answer::stream(&mut chat, content, request, !self.json)?;
        if self.json {
            line(&report(&answer, request).to_string())?;
        } else if !answer.text.ends_with('\n') {
            write("\n")?;
        }
        if self.stats {
            eprintln!("{}", answer.stats());
            if let Some(stats) = chat.expert_stats() {
                eprintln!("{}", experts::text(&stats));
            }
            if let Some((own, mapped)) = memory::resident_bytes() {
                eprintln!("memory: {} of its own, {} of mapped files", memory::size(own), memory::size(mapped));
            }
        }
        // What is learned is how fast the model alone is.
        if !self.lora.is_given() {
            let key = learned::Key::new(chat.device(), &self.model, chat.disk_bytes());
            learned::store(key, &answer.figures());
        }
        Ok(match answer.finished.reason {
            FinishReason::Cancelled => ExitCode::from(INTERRUPTED),
            FinishReason::Stop | FinishReason::Length => ExitCode::SUCCESS,
        })
    }
}

fn report(answer: &Answer, request: &Request) -> serde_json::Value {
    let finished = &answer.finished;
    json!({
        "version": 1,
        "text": answer.text,
        "reasoning": answer.reasoning,
        "ids": answer.ids,
        "finish_reason": match finished.reason {
            FinishReason::Stop => "stop",
            FinishReason::Length => "length",
            FinishReason::Cancelled => "cancelled",
        },
        "seed": request.sampling.seed,
        "usage": {
            "prompt_tokens": finished.n_prompt,
            "cached_tokens": finished.n_cached,
            "completion_tokens": finished.n_completion,
            "reasoning_tokens": finished.n_reasoning,
        },
    })
}
