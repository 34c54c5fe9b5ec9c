//! `puna eval`.

use std::io::Cursor;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use comfy_table::{CellAlignment, Table, presets};
use cpu::Cpu;
use engine::sampling::SamplingParams;
use engine::{FinishReason, Request};
use generators::{Generator, Part, Role, Sample, Split, Turn};
use image::RgbImage;
use serde_json::json;
use train::data::Makers;

use crate::answer::Answer;
use crate::attachments::{Attachment, Kind};
use crate::chat::{Chat, Files};
use crate::failure::usage;
use crate::interrupt::INTERRUPTED;
use crate::output::{line, token_bar};
use crate::{built_in, experts, model};

/// The 97.5th percentile of the normal distribution: 95 % lie within so many deviations.
const DEVIATIONS: f64 = 1.959_964;

/// Score a model on tasks that it was not trained on
///
/// Every question is a held-out sample of a generator, asked alone, and answered with the likeliest tokens. Shows the share
/// of right answers with its 95 % interval (Wilson's), what a blind guess reaches, and with --swap the same questions with
/// another sample's pictures and sounds, which a model that looks and listens can not answer.
#[derive(clap::Args)]
pub struct Eval {
    /// A GGUF file or a Hugging Face folder; nano is the model that is part of this program
    #[arg(short, long, env = "PUNA_MODEL", default_value = built_in::NAME)]
    model: PathBuf,
    /// Tasks: generators or groups of them (tasks, conversation, pictures, sounds, speech)
    #[arg(long, value_name = "NAME", num_args = 1.., default_values = ["tasks", "pictures", "sounds"])]
    suite: Vec<String>,
    /// Questions of each
    #[arg(long, default_value_t = 100)]
    limit: u64,
    /// Think before each answer: on or off; as the model does by itself if absent
    #[arg(long, value_name = "LEVEL")]
    think: Option<String>,
    /// Ask again with the pictures and sounds of other samples
    #[arg(long)]
    swap: bool,
    /// Tokens of an answer at most, its thinking included
    #[arg(long, default_value_t = 512)]
    max_tokens: usize,
    /// A folder of outline fonts for pictures
    #[arg(long, value_name = "FOLDER")]
    fonts: Option<PathBuf>,
    /// A folder of pictures that are called what they show
    #[arg(long, value_name = "FOLDER")]
    icons: Option<PathBuf>,
    /// One JSON object a task
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    device: model::DeviceArguments,
    #[command(flatten)]
    precision: model::PrecisionArgument,
    #[command(flatten)]
    cache: model::CacheArguments,
    #[command(flatten)]
    experts: experts::ExpertArguments,
}

/// What became of a task's questions.
#[derive(Default)]
struct Score {
    n: u64,
    n_right: u64,
    /// Words of right answers, and what separates the given ones from them.
    n_words: usize,
    n_word_errors: usize,
}

impl Score {
    fn share(&self) -> f64 {
        self.n_right as f64 / self.n.max(1) as f64
    }

    /// Wilson's interval. <https://doi.org/10.1080/01621459.1927.10502953>
    fn interval(&self) -> [f64; 2] {
        let (n, p, z2) = (self.n.max(1) as f64, self.share(), DEVIATIONS * DEVIATIONS);
        let middle = (p + z2 / (2.0 * n)) / (1.0 + z2 / n);
        let half = DEVIATIONS / (1.0 + z2 / n) * (p * (1.0 - p) / n + z2 / (4.0 * n * n)).sqrt();
        [(middle - half).max(0.0), (middle + half).min(1.0)]
    }

    fn word_error(&self) -> f64 {
        self.n_word_errors as f64 / self.n_words.max(1) as f64
    }
}

impl Eval {
    pub fn run(self) -> Result<ExitCode> {
        let makers = Makers { fonts: self.fonts.clone(), icons: self.icons.clone(), ..Makers::default() };
        let suites = self
            .suite
            .iter()
            .map(|name| makers.named(name).map_err(|error| usage(error.to_string(), "name tasks with --suite")));
        let tasks: Vec<Box<dyn Generator>> = suites.collect::<Result<Vec<_>>>()?.into_iter().flatten().collect();
        let lora = model::LoraArguments::default();
        let files = Files { model: &self.model, mmproj: None, lora: &lora, audio: model::AudioArguments::default() };
        let mut chat = Chat::open(files, self.device.open_with(self.precision), (self.cache, self.experts))?;
        if let Some(level) = &self.think {
            chat.think(level)?;
        }
        let mut table = Table::new();
        table.load_style(presets::UTF8_HORIZONTAL_ONLY);
        table.set_header(["task", "right", "95 % interval", "chance", "swapped", "word errors"]);
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        for task in &tasks {
            let Some(score) = self.score(&mut chat, task.as_ref(), false)? else {
                return Ok(ExitCode::from(INTERRUPTED));
            };
            let has_media = !media(&task.at(Split::HeldOut, 0)).is_empty();
            let swapped = if self.swap && has_media { self.score(&mut chat, task.as_ref(), true)? } else { None };
            let [low, high] = score.interval();
            if self.json {
                let all = json!({"task": task.name(), "n": score.n, "right": score.n_right, "share": score.share(),
                    "interval": [low, high], "chance": task.chance(), "swapped": swapped.as_ref().map(Score::share),
                    "word_error": (score.n_words > 0).then(|| score.word_error()), "think": self.think});
                line(&all.to_string())?;
            }
            let percent = |share: f64| format!("{:.1} %", 100.0 * share);
            table.add_row([
                task.name().to_owned(),
                percent(score.share()),
                format!("{:.1}–{:.1} %", 100.0 * low, 100.0 * high),
                percent(task.chance()),
                swapped.map_or(String::new(), |swapped| percent(swapped.share())),
                if score.n_words > 0 { percent(score.word_error()) } else { String::new() },
            ]);
        }
        if !self.json {
            line(&table.to_string())?;
        }
        Ok(ExitCode::SUCCESS)
    }

    /// Asks the held-out questions of `task`, `swapped` with the next one's pictures and sounds; `None` if it was
    /// interrupted.
    fn score(&self, chat: &mut Chat<Cpu>, task: &dyn Generator, swapped: bool) -> Result<Option<Score>> {
        let request = Request {
            sampling: SamplingParams { temperature: 0.0, ..SamplingParams::default() },
            stop: Vec::new(),
            max_tokens: Some(self.max_tokens),
            end_tokens: chat.end_tokens().to_vec(),
            forbidden: chat.layout().unwritten().collect(),
            thinking: None,
        };
        let bar = token_bar(task.name(), usize::try_from(self.limit)?);
        let mut score = Score::default();
        for index in 0..self.limit {
            let sample = task.at(Split::HeldOut, index);
            let other = swapped.then(|| task.at(Split::HeldOut, index + self.limit));
            chat.clear();
            ask(chat, &sample, other.as_ref())?;
            let answer = Answer::stream(chat, chat.render()?, &request, false)?;
            if answer.finished.reason == FinishReason::Cancelled {
                return Ok(None);
            }
            let text = answer.text.trim();
            score.n += 1;
            score.n_right += u64::from(task.is_correct(&sample, text));
            // What was said or printed is read word by word.
            if !media(&sample).is_empty() && task.chance() == 0.0 && task.choices(&sample).is_empty() {
                let (wanted, given) = (words(&sample.answer()), words(text));
                score.n_words += wanted.len();
                score.n_word_errors += distance(&wanted, &given);
            }
            bar.set_position(index + 1);
        }
        bar.finish_and_clear();
        Ok(Some(score))
    }
}

/// Says the turns of `sample` but the last, with the media of `other` in their places if there is one.
fn ask(chat: &mut Chat<Cpu>, sample: &Sample, other: Option<&Sample>) -> Result<()> {
    let mut own = media(other.unwrap_or(sample)).into_iter();
    let mut system = None;
    let turns = sample.turns.split_last().map_or(&[][..], |(_, turns)| turns);
    for turn in turns {
        match turn.role {
            Role::System => system = Some(turn.to_text()),
            Role::Assistant => chat.assistant(turn.to_text()),
            Role::User => {
                let n = media_of(turn).count();
                let attached = own.by_ref().take(n).map(attachment).collect::<Result<Vec<_>>>()?;
                chat.user(system.as_deref(), &turn.to_text(), &attached)?;
            }
        }
    }
    Ok(())
}

fn media_of(turn: &Turn) -> impl Iterator<Item = &Part> {
    turn.content.iter().filter(|part| !matches!(part, Part::Text(_)))
}

fn media(sample: &Sample) -> Vec<&Part> {
    sample.turns.iter().flat_map(media_of).collect()
}

/// A made picture or sound as the file that a user would give.
fn attachment(part: &Part) -> Result<Attachment> {
    let (kind, bytes) = match part {
        Part::Image(made) => {
            let (width, height) = (u32::try_from(made.width)?, u32::try_from(made.height)?);
            let picture = RgbImage::from_raw(width, height, made.rgb.clone()).context("a picture of another size")?;
            let mut bytes = Vec::new();
            picture.write_to(&mut Cursor::new(&mut bytes), image::ImageFormat::Png)?;
            (Kind::Image, bytes)
        }
        Part::Sound(made) => (Kind::Audio, made.to_wav()),
        Part::Text(text) => (Kind::Image, text.clone().into_bytes()),
    };
    Ok(Attachment { kind, path: "a sample".into(), bytes, declared: None })
}

fn words(text: &str) -> Vec<String> {
    let letters = |word: &str| word.trim_matches(|c: char| !c.is_alphanumeric()).to_lowercase();
    text.split_whitespace().map(letters).filter(|word| !word.is_empty()).collect()
}

/// Words that have to be put in, taken out or replaced to make one of the other (Levenshtein).
fn distance(from: &[String], to: &[String]) -> usize {
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, word) in from.iter().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, other) in to.iter().enumerate() {
            let replaced = diagonal + usize::from(word != other);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_compared_as_they_are_said() {
        let of = |a: &str, b: &str| distance(&words(a), &words(b));
        assert_eq!(of("one two three", "One, two three."), 0);
        assert_eq!(of("one two three", "one three"), 1);
        assert_eq!(of("", "four five"), 2);
        assert_eq!(of("a b c d", "b c d e"), 2);
    }

    #[test]
    fn an_interval_is_wilsons() {
        // Computed with statsmodels: proportion_confint(85, 100, method="wilson").
        let [low, high] = Score { n: 100, n_right: 85, ..Score::default() }.interval();
        assert!((low - 0.767_17).abs() < 1e-4 && (high - 0.906_94).abs() < 1e-4, "{low} {high}");
        assert_eq!(Score { n: 10, n_right: 0, ..Score::default() }.interval()[0], 0.0);
    }
}
