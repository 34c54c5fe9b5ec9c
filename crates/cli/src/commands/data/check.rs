//! `puna data check`.

use std::collections::HashSet;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use engine::Limits;
use serde_json::json;
use train::data::{Benchmarks, Columns, Contamination, DataError, Encoder, Kind, Raw, Row, Rows, Unit, clip, image};

use crate::model;
use crate::output::{line, thousands};

/// Errors of one file that are printed.
const SHOWN: u64 = 10;

/// Read every row: count, and find what is wrong, twice there, or in a benchmark
///
/// Every image and clip is decoded. Ends with exit code 1 if a row can not be used or has thirteen words in a row of a
/// benchmark.
#[derive(clap::Args)]
pub struct Check {
    /// Files of rows
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Files of benchmarks' items, of any form
    #[arg(long, value_name = "BENCHMARK", num_args = 1..)]
    against: Vec<PathBuf>,
    /// A model, to count tokens as it takes them
    #[arg(short, long, env = "PUNA_MODEL")]
    model: Option<PathBuf>,
    /// One JSON object
    #[arg(long)]
    json: bool,
}

/// What a file has.
#[derive(Default, serde::Serialize)]
struct Count {
    rows: u64,
    documents: u64,
    conversations: u64,
    preferences: u64,
    images: u64,
    clips: u64,
    text_bytes: u64,
    /// Positions as the model takes them, and those of them that are learnt; 0 without a model.
    tokens: u64,
    learnt: u64,
    duplicates: u64,
    errors: u64,
}

/// What all files are looked at with.
struct Looking {
    encoder: Option<Encoder>,
    benchmarks: Benchmarks,
    found: Contamination,
    seen: HashSet<u64>,
    messages: Vec<String>,
}

impl Check {
    pub fn run(self) -> Result<ExitCode> {
        let mut benchmarks = Benchmarks::default();
        for path in &self.against {
            for raw in Rows::open(path, Columns::All)? {
                benchmarks.add(&raw?)?;
            }
        }
        let encoder = match &self.model {
            Some(path) => Some(model::encoder(&model::open_checkpoint(path, None)?)?),
            None => None,
        };
        let (found, seen) = (Contamination::default(), HashSet::new());
        let mut looking = Looking { encoder, benchmarks, found, seen, messages: Vec::new() };
        let mut counts = Vec::new();
        for path in &self.files {
            let count = looking.count(path);
            if !self.json {
                self.report(path, &count, &std::mem::take(&mut looking.messages))?;
            }
            counts.push((path, count));
        }
        let Looking { benchmarks, found, messages, .. } = &looking;
        if self.json {
            let files = counts.iter().map(|(path, count)| json!({"file": path, "count": count}));
            let overlap = |overlap: &train::data::Overlap| json!({"at": overlap.place.to_string(), "item": overlap.item.to_string(), "words": overlap.words});
            let overlaps: Vec<_> = found.examples.iter().map(overlap).collect();
            let all = json!({"files": files.collect::<Vec<_>>(), "errors": messages, "items": benchmarks.n_items(),
                "short_items": benchmarks.n_short(), "contaminated_rows": found.n_rows_found, "overlaps": overlaps});
            line(&all.to_string())?;
        } else if !self.against.is_empty() {
            report_overlaps(benchmarks, found)?;
        }
        let is_sound = counts.iter().all(|(_, count)| count.errors == 0) && found.n_rows_found == 0;
        Ok(if is_sound { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    fn report(&self, path: &std::path::Path, count: &Count, messages: &[String]) -> Result<()> {
        let mut parts = vec![format!("{} rows", thousands(count.rows))];
        for (n, what) in [
            (count.documents, "documents"),
            (count.conversations, "conversations"),
            (count.preferences, "preference pairs"),
            (count.images, "images"),
            (count.clips, "clips"),
            (count.text_bytes, "bytes of text"),
            (count.tokens, "tokens"),
            (count.learnt, "of them learnt"),
            (count.duplicates, "duplicates"),
            (count.errors, "errors"),
        ] {
            if n > 0 {
                parts.push(format!("{} {what}", thousands(n)));
            }
        }
        line(&format!("{}: {}", path.display(), parts.join(", ")))?;
        messages.iter().try_for_each(|message| line(&format!("  error: {message}")))?;
        if count.errors > SHOWN {
            line(&format!("  and {} more errors", thousands(count.errors - SHOWN)))?;
        }
        Ok(())
    }
}

fn report_overlaps(benchmarks: &Benchmarks, found: &Contamination) -> Result<()> {
    let n = |n: usize| thousands(u64::try_from(n).unwrap_or(u64::MAX));
    line(&format!(
        "benchmarks: {} items, {} of them too short to look for; {} of {} rows have 13 words in a row of one",
        n(benchmarks.n_items()),
        n(benchmarks.n_short()),
        thousands(found.n_rows_found),
        thousands(found.n_rows)
    ))?;
    for overlap in &found.examples {
        line(&format!("  {} has of {}: {:?}", overlap.place, overlap.item, overlap.words))?;
    }
    Ok(())
}

impl Looking {
    fn count(&mut self, path: &std::path::Path) -> Count {
        let mut count = Count::default();
        let looked = Rows::open(path, Columns::OfSamples).map(|rows| {
            for raw in rows {
                count.rows += 1;
                if let Err(error) = raw.map_err(Into::into).and_then(|raw| self.look(&raw, &mut count)) {
                    self.note(&error, &mut count);
                }
            }
        });
        if let Err(error) = looked {
            self.note(&error.into(), &mut count);
        }
        count
    }

    fn note(&mut self, error: &anyhow::Error, count: &mut Count) {
        count.errors += 1;
        if count.errors <= SHOWN {
            self.messages.push(format!("{error:#}"));
        }
    }

    fn look(&mut self, raw: &Raw, count: &mut Count) -> Result<()> {
        let row = raw.parse()?;
        *match &row {
            Row::Document(_) => &mut count.documents,
            Row::Conversation(_) => &mut count.conversations,
            Row::Preference { .. } => &mut count.preferences,
        } += 1;
        let text = row.text();
        count.text_bytes += text.len() as u64;
        count.duplicates += u64::from(!self.seen.insert(row.hash()));
        if self.benchmarks.n_items() > 0 {
            self.found.look(&self.benchmarks, &raw.place, &text);
        }
        let refused = |why| DataError::Row { place: raw.place.clone(), why };
        for medium in row.media() {
            *if matches!(medium.kind, Kind::Audio(_)) { &mut count.clips } else { &mut count.images } += 1;
        }
        match &self.encoder {
            Some(encoder) => {
                let encoded = encoder.encode(&row, usize::MAX).map_err(refused)?;
                for unit in &encoded.units {
                    let both = match unit {
                        Unit::One(sequence) => [Some(sequence), None],
                        Unit::Pair { chosen, rejected } => [Some(chosen), Some(rejected)],
                    };
                    // A position has the token before the one that it says, so that each sequence has one more.
                    count.tokens += both.iter().flatten().map(|sequence| sequence.len() as u64 + 1).sum::<u64>();
                    count.learnt += both.iter().flatten().map(|sequence| sequence.weight() as u64).sum::<u64>();
                }
            }
            None => {
                let limits = Limits::default();
                for medium in row.media() {
                    let decoded = match medium.kind {
                        Kind::Audio(_) => clip(medium, &limits).map(drop),
                        Kind::Image | Kind::ImageInOneTile => image(medium, &limits).map(drop),
                    };
                    let field = || medium.field.clone();
                    decoded.map_err(anyhow::Error::msg).with_context(field).with_context(|| raw.place.to_string())?;
                }
            }
        }
        Ok(())
    }
}
