//! `puna data show`.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use generators::Split;
use tokenizer::{Message, Part, Role};
use train::data::{Columns, Conversation, Place, Row, Rows, Source};

use super::{media, sources};
use crate::output::line;

/// Print samples as text
#[derive(clap::Args)]
pub struct Show {
    /// Files of rows, or generators as generator:NAME; the name of a group means all of it
    #[arg(required = true)]
    sources: Vec<String>,
    /// Samples of each
    #[arg(short, long, default_value_t = 3)]
    n: u64,
    /// Samples of generators that are held out to measure
    #[arg(long)]
    held_out: bool,
    /// A folder to write images and clips to
    #[arg(long, value_name = "FOLDER")]
    media: Option<PathBuf>,
}

impl Show {
    pub fn run(self) -> Result<()> {
        if let Some(folder) = &self.media {
            std::fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
        }
        let mut n_media = 0;
        let named = self.sources.iter().map(|name| sources(name)).collect::<Result<Vec<_>>>()?;
        for source in named.into_iter().flatten() {
            let name = source.name();
            match source {
                Source::File(path) => {
                    for raw in Rows::open(&path, Columns::OfSamples)?.take(usize::try_from(self.n)?) {
                        let raw = raw?;
                        self.show(&raw.place, &raw.parse()?, &mut n_media)?;
                    }
                }
                Source::Generator(generator) => {
                    let split = if self.held_out { Split::HeldOut } else { Split::Train };
                    for row in 0..self.n {
                        let place = Place { source: name.as_str().into(), row };
                        self.show(&place, &generator.at(split, row).into(), &mut n_media)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn show(&self, place: &Place, row: &Row, n_media: &mut usize) -> Result<()> {
        line(&format!("--- {place}"))?;
        match row {
            Row::Document(text) => line(text)?,
            Row::Conversation(conversation) => self.conversation(conversation, 0, n_media)?,
            Row::Preference { chosen, rejected } => {
                self.conversation(chosen, 0, n_media)?;
                line("[rejected instead]")?;
                self.conversation(rejected, rejected.n_given, n_media)?;
            }
        }
        Ok(())
    }

    fn conversation(&self, conversation: &Conversation, first: usize, n_media: &mut usize) -> Result<()> {
        for tool in conversation.tools.iter().filter(|_| first == 0) {
            line(&format!("[tool] {tool}"))?;
        }
        let mut media = conversation.media.iter();
        for (i, message) in conversation.messages.iter().enumerate() {
            let mut shown = Vec::new();
            for part in &message.content {
                shown.push(match part {
                    Part::Text(text) => text.clone(),
                    Part::Json(value) => value.to_string(),
                    Part::Image | Part::Audio => {
                        let medium = media.next().context("fewer images and clips than places for them")?;
                        let folder: Option<&Path> = self.media.as_deref().filter(|_| i >= first);
                        let kind = if *part == Part::Image { "image" } else { "clip" };
                        match folder {
                            Some(folder) => {
                                *n_media += 1;
                                format!("[{kind}: {}]", media::write(medium, folder, &n_media.to_string())?.display())
                            }
                            None => format!("[{kind}]"),
                        }
                    }
                });
            }
            if i >= first {
                print_message(message, &shown.concat())?;
            }
        }
        Ok(())
    }
}

fn print_message(message: &Message, text: &str) -> Result<()> {
    let role = match message.role {
        Role::System => "system",
        Role::User => "user",
        Role::Assistant => "assistant",
        Role::Tool => "tool",
    };
    if let Some(thoughts) = &message.reasoning {
        line(&format!("[{role} thinks] {thoughts}"))?;
    }
    line(&format!("[{role}] {text}"))?;
    for call in &message.tool_calls {
        line(&format!("[{role} calls] {} {}", call.name, call.arguments))?;
    }
    Ok(())
}
