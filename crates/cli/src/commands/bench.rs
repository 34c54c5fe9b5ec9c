//! `puna bench`.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Result;
use cpu::Cpu;
use engine::media::audio::RATE_HZ;
use formats::Checkpoint;

use crate::bench::cpu_time::Reading;
use crate::bench::load::{self, Seen};
use crate::bench::ours::Ours;
use crate::bench::peer::LlamaCpp;
use crate::bench::report::{self, Load, Row, Runs};
use crate::bench::server::{Address, Key, Server};
use crate::bench::{CLIP_SECONDS, Engine, Test, median};
use crate::built_in;
use crate::failure::usage;
use crate::output::line;
use crate::plan::forecast::{Ask, Memory, Speed};
use crate::plan::subject::Subject;
use crate::plan::{self, learned};
use crate::{experts, memory, model};

/// Measure speed: reading prompts, decoding, loading, and the share of what the machine allows
///
/// Roofs (memory, int8, f32) are measured in the same run. With --against, another engine runs the same tests in
/// alternation, and ratios of neighbouring runs are printed with their spread. "others" is the processor time that
/// other programs took in all runs of a test together: figures beside which it is large are disturbed.
///
/// Of a server, a prompt's time ends with the first streamed token, each prompt begins with other tokens than the ones
/// before it, and decoding is timed from the first token of the earliest stream to the last of all.
#[derive(clap::Args)]
pub struct Bench {
    /// A GGUF file or a Hugging Face folder; nano is the model that is part of this program
    #[arg(short, long, env = "PUNA_MODEL", default_value = built_in::NAME)]
    model: PathBuf,
    /// Only measure what the machine allows
    #[arg(long)]
    roofs: bool,
    /// A server's URL: --batch clients chat with it at a time for --seconds, their prompts of --prefill tokens in turns,
    /// their answers of --tokens; with --against URL another server gets the same, in alternation
    #[arg(long, value_name = "URL", conflicts_with_all = ["roofs", "model"])]
    load: Option<String>,
    /// How long --load begins new requests
    #[arg(long, value_name = "N", default_value_t = 20, requires = "load")]
    seconds: u64,
    /// Lengths of prompts to read
    #[arg(long, value_name = "TOKENS", value_delimiter = ',', default_value = "64,512,2048")]
    prefill: Vec<usize>,
    /// Tokens already there when decoding
    #[arg(long, value_name = "TOKENS", value_delimiter = ',', default_value = "0,2048,8192")]
    depth: Vec<usize>,
    /// Sequences that decode together
    #[arg(long, value_name = "N", value_delimiter = ',', default_value = "1,2,4,8,16")]
    batch: Vec<usize>,
    /// Steps of a decoding test
    #[arg(long, value_name = "N", default_value_t = 64)]
    tokens: usize,
    /// Only one tile of an image through the vision tower
    #[arg(long, conflicts_with_all = ["prefill", "depth", "batch", "tokens", "against"])]
    image_tile: bool,
    /// Only 30 s of audio through features, encoder and projector
    #[arg(long, conflicts_with_all = ["prefill", "depth", "batch", "tokens", "against", "image_tile"])]
    audio_clip: bool,
    /// A GGUF file with the vision tower
    #[arg(long, value_name = "FILE")]
    mmproj: Option<PathBuf>,
    /// Runs of each test, after one that does not count
    #[arg(long, value_name = "N", default_value_t = 5)]
    runs: usize,
    /// Another engine to alternate with: xllamacpp (llama.cpp, from the Python wheel of this name, with its best
    /// settings), or the URL of a server with OpenAI's API that has the same model
    #[arg(long, value_name = "xllamacpp|URL")]
    against: Option<Peer>,
    /// The model's name at the server; by default the name of -m, or the only one there is
    #[arg(long, value_name = "NAME", requires = "against")]
    against_model: Option<String>,
    /// The server's key; OPENAI_API_KEY is read, too
    #[arg(long, value_name = "KEY", env = "PUNA_API_KEY", hide_env_values = true)]
    api_key: Option<String>,
    /// The Python that has the other engine
    #[arg(long, value_name = "PROGRAM", default_value = "python3")]
    python: String,
    /// Forecast each figure first, from rates measured in the same minute, and print both
    #[arg(long)]
    forecast: bool,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
    /// How keys and values are stored
    #[command(flatten)]
    cache: model::CacheArguments,
    #[command(flatten)]
    audio: model::AudioArguments,
    #[command(flatten)]
    experts: experts::ExpertArguments,
    #[command(flatten)]
    device: model::DeviceArguments,
    #[command(flatten)]
    precision: model::PrecisionArgument,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Peer {
    /// llama.cpp, from the Python wheel of this name.
    Xllamacpp,
    /// A server with OpenAI's API.
    Url(String),
}

/// A loaded model, what is known of it, and what loading it took.
struct Loaded {
    ours: Ours,
    subject: Subject,
    key: learned::Key,
    load: Load,
}

impl std::str::FromStr for Peer {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "xllamacpp" => Ok(Self::Xllamacpp),
            url if url.starts_with("http://") || url.starts_with("https://") => Ok(Self::Url(url.to_owned())),
            _ => Err("it takes xllamacpp, or a URL that begins with http:// or https://".to_owned()),
        }
    }
}

impl Bench {
    pub fn run(self) -> Result<()> {
        if let Some(url) = &self.load {
            return self.load_server(url);
        }
        let dev = self.device.open_with(self.precision);
        let (threads, isa) = (dev.threads(), dev.isa());
        if self.roofs {
            let roofs = dev.roofs(Duration::from_secs(2));
            return report::print_roofs(&roofs, threads, &format!("{isa:?}"), self.json);
        }
        let process_bytes = plan::process_bytes();
        let checkpoint = self.audio.apply(model::open_checkpoint(self.model_path(), self.mmproj.as_deref())?)?;
        let tests = self.tests(&checkpoint)?;
        let context = tests.iter().map(|test| test.n_positions()).max().unwrap_or(0) + tensor::PAGE_LEN;
        let Loaded { mut ours, subject, key, mut load } = self.load(dev, &checkpoint, context, process_bytes)?;
        let mut theirs = self.open_peer(&checkpoint, &ours, threads, context)?;
        let mut rows = Vec::new();
        let mut peak = memory::process("VmHWM:");
        for test in tests {
            let row = self.measure(test, &mut ours, theirs.as_deref_mut(), &subject)?;
            // Counted anew since the roofs were measured, whose buffers are not the model's.
            peak = peak.max(memory::process("VmHWM:"));
            if self.json {
                line(&row.json(threads).to_string())?;
            }
            rows.push(row);
        }
        let figure = |row: &Row| learned::Figure { test: row.test, seconds: median(&row.ours.seconds) };
        learned::store(key, &rows.iter().map(figure).collect::<Vec<_>>());
        load.memory = report::Memory { peak, work: ours.work_bytes(), ..load.memory.now() };
        if self.json {
            return Ok(line(&load.json(threads).to_string())?);
        }
        report::print_table(&rows)?;
        Ok(line(&format!("{}, {threads} threads, {isa:?}", load.text()))?)
    }

    /// Starts or finds the other engine, and says which it is.
    fn open_peer(
        &self,
        checkpoint: &Checkpoint,
        ours: &Ours,
        threads: usize,
        context: usize,
    ) -> Result<Option<Box<dyn Engine>>> {
        let path = self.model_path();
        Ok(match &self.against {
            None => None,
            Some(Peer::Xllamacpp) if model::is_built_in(path) => {
                let message = format!("another engine can not read {}, which is part of this program", built_in::NAME);
                return Err(usage(message, "name its file with -m: models/nano/nano.gguf in the repository"));
            }
            Some(Peer::Xllamacpp) => {
                let peer = LlamaCpp::start(&self.python, path, threads, context)?;
                eprintln!("against llama.cpp {}", peer.version());
                Some(Box::new(peer))
            }
            Some(Peer::Url(url)) => {
                let name = |part: Option<&std::ffi::OsStr>| part.map(|part| part.to_string_lossy().into_owned());
                let whole = name(Some(path.as_os_str()));
                let address = Address {
                    url: url.clone(),
                    model: self.against_model.clone(),
                    file_names: [whole, name(path.file_name()), name(path.file_stem())].into_iter().flatten().collect(),
                    key: self.key(),
                };
                // A model without a tokenizer is measured with ids, or with numbers as text.
                let tokenizer = model::tokenizer_of(checkpoint).ok();
                let peer = Server::connect(address, tokenizer, ours.n_vocab())?;
                eprintln!("against {}", peer.describe());
                Some(Box::new(peer))
            }
        })
    }

    /// The server's key, if there is one.
    fn key(&self) -> Option<Key> {
        let key = self.api_key.clone().or_else(|| std::env::var("OPENAI_API_KEY").ok());
        key.filter(|key| !key.is_empty()).map(Key)
    }

    /// Clients of a server, or of two in alternation.
    fn load_server(&self, url: &str) -> Result<()> {
        self.check_counts()?;
        let mut urls = vec![url];
        match &self.against {
            None => {}
            Some(Peer::Url(url)) => urls.push(url),
            Some(Peer::Xllamacpp) => {
                return Err(usage("--load measures servers", "start the other engine's server and give its URL"));
            }
        }
        let connect = |(i, url): (usize, &&str)| {
            let model = self.against_model.clone().filter(|_| i == 1);
            let address = Address { url: (*url).to_owned(), model, file_names: Vec::new(), key: self.key() };
            Server::connect_to_chat(address)
        };
        let mut servers = urls.iter().enumerate().map(connect).collect::<Result<Vec<_>>>()?;
        for n_clients in self.batch.iter().copied() {
            let duration = Duration::from_secs(self.seconds);
            let load = load::Load { n_clients, duration, prompts: self.prefill.clone(), tokens: self.tokens };
            let mut runs: Vec<Seen> = Vec::new();
            for _ in 0..self.runs {
                for (server, url) in servers.iter_mut().zip(&urls) {
                    let seen = load::run(server, &load)?;
                    if self.json {
                        line(&seen.json(url, &load).to_string())?;
                    }
                    runs.push(seen);
                }
            }
            if !self.json {
                let rows: Vec<_> = urls.iter().copied().cycle().zip(&runs).collect();
                load::print_table(&rows, &load)?;
            }
        }
        Ok(())
    }

    fn model_path(&self) -> &Path {
        &self.model
    }

    fn check_counts(&self) -> Result<()> {
        let empty = self.batch.is_empty() || self.prefill.is_empty();
        if empty || self.runs == 0 || self.tokens == 0 || self.batch.contains(&0) || self.prefill.contains(&0) {
            return Err(usage("--runs, --tokens, --batch and --prefill count from 1", "leave out what is not wanted"));
        }
        Ok(())
    }

    fn tests(&self, checkpoint: &Checkpoint) -> Result<Vec<Test>> {
        self.check_counts()?;
        if self.image_tile {
            let vision = checkpoint.config.vision.as_ref().ok_or_else(|| {
                let message = format!("{} has no vision tower", checkpoint.path.display());
                usage(message, "name a model that takes images, or give its --mmproj")
            })?;
            return Ok(vec![Test::Tile { tokens: vision.tokens_per_tile() }]);
        }
        if self.audio_clip {
            let clips = model::clip_config(checkpoint)?.ok_or_else(|| {
                let message = format!("{} has no audio tower", checkpoint.path.display());
                usage(message, "name a model that takes audio; puna graft-audio makes one")
            })?;
            let cost = clips.cost(u64::from(CLIP_SECONDS * RATE_HZ));
            return Ok(vec![Test::Clip { tokens: usize::try_from(cost.tokens)? }]);
        }
        let mut tests: Vec<Test> =
            self.prefill.iter().map(|tokens| Test::Prefill { tokens: *tokens, depth: 0 }).collect();
        let tokens = self.tokens;
        tests.extend(self.depth.iter().map(|depth| Test::Decode { tokens, depth: *depth, batch: 1 }));
        let batches = self.batch.iter().filter(|batch| **batch > 1 || !self.depth.contains(&0));
        tests.extend(batches.map(|batch| Test::Decode { tokens, depth: 0, batch: *batch }));
        Ok(tests)
    }

    fn load(&self, dev: Cpu, checkpoint: &Checkpoint, context: usize, process_bytes: usize) -> Result<Loaded> {
        let path = self.model_path();
        let began = Instant::now();
        let kv = self.cache.kv(context);
        let placement = self.experts.place(checkpoint, context, kv)?;
        let subject = Subject::stored("", checkpoint, None)?;
        let n_sequences = self.batch.iter().copied().max().unwrap_or(1);
        // All sequences share one context here, so the keys and values are those of one long sequence.
        let n_images = usize::from(self.image_tile);
        let ask = Ask { context, n_sequences: 1, kv, n_images, n_tiles: 1, process_bytes };
        let work = plan::forecast::work(&subject, &Ask { n_sequences, ..ask })?;
        let forecast = Memory { work, ..Memory::of(&subject, &ask)? };
        let key = learned::Key::new(&dev, path, subject.disk_bytes);
        let (dev, rows) = (placement.apply(dev), placement.step_rows);
        let loaded = model::load(&dev, checkpoint)?;
        experts::warn_unlocked(dev.expert_stats());
        let engine = engine::Engine::with_step_rows(dev, loaded, context, kv, rows)?;
        let seconds = began.elapsed().as_secs_f64();
        let clips = model::clip_config(checkpoint)?;
        let mut ours = Ours::new(engine, subject.footprint.clone(), &checkpoint.config, clips);
        ours.run(Test::Prefill { tokens: 1, depth: 0 })?;
        let first_token_s = began.elapsed().as_secs_f64();
        // A forecast is of a model whose experts are all in memory.
        let forecast = ours.expert_stats().is_none().then_some(forecast);
        let load = Load { seconds, first_token_s, memory: report::Memory::forecast(forecast) };
        Ok(Loaded { ours, subject, key, load })
    }

    fn measure(
        &self,
        test: Test,
        ours: &mut Ours,
        mut theirs: Option<&mut (dyn Engine + 'static)>,
        subject: &Subject,
    ) -> Result<Row> {
        // Of the same minute as the test: memory's rate drifts on shared machines.
        let roofs = ours.roofs(Duration::from_millis(400));
        let forecast = match self.forecast {
            true => {
                let kv = ours.kv();
                let machine = plan::probe::measure(ours.device(), &plan::formats(subject), kv)?;
                Some(Speed { subject, machine: &machine, kv, hit: 1.0 }.test(test)?)
            }
            false => None,
        };
        memory::reset_peak();
        let (mut mine, mut its) = (Runs::default(), theirs.as_ref().map(|_| Runs::default()));
        let mut before = ours.expert_stats();
        for run in 0..=self.runs {
            let counts = run > 0;
            if run == 1 {
                before = ours.expert_stats();
            }
            timed(test, ours, &mut mine, counts)?;
            if let (Some(theirs), Some(its)) = (theirs.as_deref_mut(), &mut its) {
                std::thread::sleep(SETTLING);
                timed(test, theirs, its, counts)?;
                std::thread::sleep(SETTLING);
            }
        }
        if matches!(self.against, Some(Peer::Url(_)))
            && let Some(its) = &mut its
        {
            its.others_s = None; // what a server takes and what others take is not told apart
        }
        let share = ours.share(test, median(&mine.seconds), &roofs)?;
        let experts = ours.expert_stats().zip(before).map(|(now, before)| now.since(&before));
        Ok(Row { test, ours: mine, theirs: its, share, roofs, experts, forecast })
    }
}

/// How long the threads of an engine that was just measured may spin for more work before the other one is measured.
const SETTLING: Duration = Duration::from_millis(250);

/// Runs a test once and, if it counts, adds it to `runs`.
fn timed(test: Test, engine: &mut dyn Engine, runs: &mut Runs, counts: bool) -> Result<()> {
    engine.warm(test)?;
    let begin = Reading::now(engine.process());
    let seconds = engine.run(test)?;
    if counts {
        runs.seconds.push(seconds);
        runs.setting = engine.setting().map(str::to_owned);
        let others_s = begin.zip(Reading::now(engine.process())).map(|(begin, end)| end.others_since(begin));
        runs.others_s = others_s.map(|others_s| runs.others_s.unwrap_or(0.0) + others_s);
    }
    Ok(())
}
