//! `puna serve`.

use std::io::IsTerminal;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use anyhow::{Context, Result};
use clap::builder::{PossibleValuesParser, TypedValueParser};
use cpu::Cpu;
use engine::sampling::SamplingParams;
use engine::service::{self, Admission, Handle, Options as ServiceOptions, Parts, Stopped};
use formats::{Checkpoint, GenerationConfig, Lora};
use llama::Model;
use server::{App, Fetch, Keys, Limits, Names, Outcome, Page, ReasoningField, Run, Store, TlsFiles};
use tensor::KvFormat;

use crate::built_in;
use crate::experts::{ExpertArguments, Placement, warn_unlocked};
use crate::failure::{INTERNAL, usage};
use crate::interrupt;
use crate::memory::{free_bytes, size};
use crate::model::{self, AudioArguments, CacheArguments, DeviceArguments, LoraArguments, PrecisionArgument};
use crate::plan::Demand;
use crate::running;

/// Most sequences that room is made for where `--parallel` is absent.
const PARALLEL: usize = 8;

/// Serve a model over HTTP, in OpenAI's and Anthropic's shapes
#[derive(clap::Args)]
#[command(mut_arg("precision", |precision| precision.hide(true)))] // rarely wanted; docs/config.md
pub struct Serve {
    /// A GGUF file or a Hugging Face folder; nano is the model that is part of this program
    #[arg(short, long, env = "PUNA_MODEL", default_value = built_in::NAME)]
    model: PathBuf,
    /// A GGUF file with the vision tower and the audio encoder, if it does not lie beside the model
    #[arg(long, value_name = "FILE")]
    mmproj: Option<PathBuf>,
    #[command(flatten)]
    lora: LoraArguments,
    /// The model's name on the wire; by default its file's or folder's
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Another name that it answers to; may be given several times
    #[arg(long, value_name = "NAME")]
    alias: Vec<String>,
    /// Refuse requests that name another model, instead of answering them
    #[arg(long)]
    strict_names: bool,
    /// The address to listen at; any but this machine's own needs --api-key-file
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1", help_heading = "Network")]
    host: IpAddr,
    /// The port to listen at; 0 for any that is free
    #[arg(long, default_value_t = 8080, help_heading = "Network")]
    port: u16,
    /// A file with the keys that may ask, one a line
    #[arg(long, value_name = "FILE", env = "PUNA_API_KEY_FILE", help_heading = "Network")]
    api_key_file: Option<PathBuf>,
    /// A certificate in PEM, for HTTPS
    #[arg(long, value_name = "FILE", requires = "tls_key", help_heading = "Network")]
    tls_cert: Option<PathBuf>,
    /// The certificate's private key in PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert", help_heading = "Network")]
    tls_key: Option<PathBuf>,
    /// Fetch images from public addresses that requests name
    #[arg(long, help_heading = "Network")]
    allow_image_urls: bool,
    /// Leave out the chat page
    #[arg(long, help_heading = "Network")]
    no_ui: bool,
    /// Conversations of --ctx tokens to have room for; as many as a quarter of the free memory holds, at most 8, if absent
    #[arg(long, value_name = "N")]
    parallel: Option<usize>,
    /// Seconds that running requests still have when the server is told to end
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    drain: u64,
    /// Where stored responses, files and batches are kept; "none" for in memory only
    #[arg(long, value_name = "FILE|none", env = "PUNA_STATE")]
    state: Option<PathBuf>,
    /// Tokens that an answer may think at most, whatever requests ask for
    #[arg(long, value_name = "N", help_heading = "Thinking")]
    reasoning_max: Option<usize>,
    /// What the field is called in which chats show thoughts
    #[arg(long, value_name = "NAME", default_value = "both", value_parser = field_parser(), help_heading = "Thinking")]
    reasoning_field: ReasoningField,
    /// Print the plan and end
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    cache: CacheArguments,
    #[command(flatten)]
    audio: AudioArguments,
    #[command(flatten)]
    experts: ExpertArguments,
    #[command(flatten)]
    device: DeviceArguments,
    #[command(flatten)]
    precision: PrecisionArgument,
}

fn field_parser() -> impl TypedValueParser<Value = ReasoningField> {
    PossibleValuesParser::new(["both", "reasoning", "reasoning_content"]).map(|name| match name.as_str() {
        "reasoning" => ReasoningField::Reasoning,
        "reasoning_content" => ReasoningField::ReasoningContent,
        _ => ReasoningField::Both,
    })
}

/// What the pages are for.
#[derive(Debug, Clone, Copy)]
struct Room {
    context: usize,
    parallel: usize,
    kv: KvFormat,
}

impl Serve {
    pub fn run(self) -> Result<ExitCode> {
        let keys = self.keys()?;
        if !self.host.is_loopback() && keys.is_open() {
            let message = format!("--host {} can be reached from elsewhere, and nobody would need a key", self.host);
            return Err(usage(message, "give --api-key-file FILE with a key a line, or leave out --host"));
        }
        let checkpoint = self.audio.apply(model::open_checkpoint(&self.model, self.mmproj.as_deref())?)?;
        if checkpoint.tensors.is_empty() {
            let message = format!("{} holds no weights, a config alone", self.model.display());
            return Err(usage(message, "name the folder or the GGUF file with the weights"));
        }
        let lora = self.lora.open()?;
        let files = (&checkpoint, lora.as_ref());
        let (room, demand) = self.room(files)?;
        let placement = self.experts.place_demand(&demand)?;
        let table = self.table(&room, &demand, placement, &keys);
        if self.dry_run {
            crate::output::write(&table)?;
            return Ok(ExitCode::SUCCESS);
        }
        // The socket first: a port that is taken should not cost the time of loading.
        let listener = self.listen()?;
        let address = listener.local_addr()?;
        let store = self.store(address.port())?;
        eprint!("{table}");
        let options = self.options(keys);
        let (model, engine) = self.load(files, room, placement, &options.limits)?;
        drop(demand);
        let app = App::new(model, options, store);
        eprint!("{}", self.ready(address));
        let status = running::file();
        let run = Run { listener, tls: self.tls(), drain: Duration::from_secs(self.drain), status };
        // Colours are for people: a file gets plain lines.
        let is_terminal = std::io::stderr().is_terminal();
        tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(is_terminal).with_target(false).init();
        // The server's own signals drain it; a second Ctrl-C ends the process.
        let _watch = interrupt::Watch::begin();
        let outcome = server::run(&app, run, || !engine.is_finished()).context("serving")?;
        Ok(match outcome {
            Outcome::Drained => ExitCode::SUCCESS,
            Outcome::Stuck => ExitCode::from(INTERNAL),
            Outcome::EngineStopped => {
                if let Ok(Err(stopped)) = engine.join() {
                    eprintln!("error: {stopped}");
                }
                ExitCode::from(INTERNAL)
            }
        })
    }

    fn keys(&self) -> Result<Keys> {
        let Some(path) = &self.api_key_file else { return Ok(Keys::default()) };
        let wrong = |why: String| usage(format!("--api-key-file {}: {why}", path.display()), "write one key a line");
        let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
        Keys::parse(&text).map_err(|error| wrong(error.to_string()))
    }

    /// How many sequences of how many tokens, and what that takes.
    fn room<'a>(&self, files: (&'a Checkpoint, Option<&'a Lora>)) -> Result<(Room, Demand<'a>)> {
        let context = self.cache.context(files.0.config.text.max_positions)?;
        let kv = self.cache.kv(context);
        let demand = |parallel| Demand::of_many(files, context, parallel, kv);
        if let Some(parallel) = self.parallel {
            if !(1..=256).contains(&parallel) {
                return Err(usage(
                    format!("--parallel {parallel} is not from 1 to 256"),
                    "leave it out for a good number",
                ));
            }
            return Ok((Room { context, parallel, kv }, demand(parallel)?));
        }
        let free = free_bytes().and_then(|bytes| usize::try_from(bytes).ok()).unwrap_or(usize::MAX);
        for parallel in (2..=PARALLEL).rev() {
            let demand = demand(parallel)?;
            if demand.memory.kv <= free / 4 && demand.memory.need() <= free / 10 * 9 {
                return Ok((Room { context, parallel, kv }, demand));
            }
        }
        Ok((Room { context, parallel: 1, kv }, demand(1)?))
    }

    fn listen(&self) -> Result<TcpListener> {
        let address = SocketAddr::new(self.host, self.port);
        TcpListener::bind(address).map_err(|error| {
            let hint = match error.kind() {
                std::io::ErrorKind::AddrInUse => "another program listens there: give another --port, or 0 for any",
                std::io::ErrorKind::PermissionDenied => "ports below 1024 are the system's: give a higher --port",
                _ => "give an address of this machine as --host",
            };
            usage(format!("{address}: {error}"), hint)
        })
    }

    fn store(&self, port: u16) -> Result<Store> {
        let path = match &self.state {
            Some(path) if path == Path::new("none") => return Ok(Store::in_memory()?),
            Some(path) => path.clone(),
            None => match running::state_folder() {
                Some(folder) => folder.join(format!("serve-{port}.redb")),
                None => return Ok(Store::in_memory()?),
            },
        };
        if let Some(folder) = path.parent() {
            running::make_private(folder).with_context(|| format!("making {}", folder.display()))?;
        }
        Store::open(&path).map_err(|error| {
            usage(format!("{}: {error}", path.display()), "give another file as --state, or none to keep nothing")
        })
    }

    fn options(&self, keys: Keys) -> server::Options {
        let mut limits = Limits::default();
        // Where nobody needs a key, all are one caller: only the queue as a whole bounds them.
        if keys.is_open() {
            limits.jobs_per_key = usize::MAX;
        }
        limits.thinking_tokens = self.reasoning_max.unwrap_or(limits.thinking_tokens);
        server::Options {
            keys,
            limits,
            names: if self.strict_names { Names::Own } else { Names::Any },
            fetch: if self.allow_image_urls { Fetch::Public } else { Fetch::Never },
            page: if self.no_ui { Page::Hidden } else { Page::Shown },
            reasoning_field: self.reasoning_field,
            clock: server::Clock::default(),
        }
    }

    fn tls(&self) -> Option<TlsFiles> {
        let (certificate, key) = (self.tls_cert.clone()?, self.tls_key.clone()?);
        Some(TlsFiles { certificate, key })
    }

    /// The model's name on the wire.
    fn name(&self) -> String {
        let own = || self.model.file_stem().unwrap_or(self.model.as_os_str()).to_string_lossy().into_owned();
        self.name.clone().unwrap_or_else(own)
    }

    fn load(
        &self,
        (checkpoint, lora): (&Checkpoint, Option<&Lora>),
        room: Room,
        placement: Placement,
        limits: &Limits,
    ) -> Result<(server::Model, std::thread::JoinHandle<Result<(), Stopped>>)> {
        let tokenizer = Arc::new(model::tokenizer_of(checkpoint)?);
        let format = model::chat_format(checkpoint, &tokenizer)?;
        let end_tokens = model::end_tokens(checkpoint, &tokenizer);
        let senses = model::Senses::of(checkpoint, &tokenizer)?;
        let dev = placement.apply(self.device.open_with(self.precision));
        let loaded = model::load_with(&dev, checkpoint, lora)?;
        warn_unlocked(dev.expert_stats());
        let (handle, thread) =
            spawn((dev, loaded), Arc::clone(&tokenizer), &senses, service_options(room, placement, limits))?;
        let model = server::Model {
            id: self.name(),
            aliases: self.alias.clone(),
            created: created(&self.model),
            format,
            end_tokens,
            reasoning: model::reasoning(checkpoint, &tokenizer),
            tiles: senses.tiles,
            clips: senses.clips,
            sampling: sampling(&checkpoint.generation),
            tokenizer,
            handle,
        };
        Ok((model, thread))
    }

    /// What is about to be done.
    fn table(&self, room: &Room, demand: &Demand<'_>, placement: Placement, keys: &Keys) -> String {
        let memory = &demand.memory;
        let of = |bytes: usize| size(bytes as u64);
        let experts = match placement.cache_bytes {
            Some(bytes) => format!("{} of {} experts cached", size(bytes), of(memory.experts)),
            None => format!("{} weights", of(memory.always + memory.experts)),
        };
        let state = match &self.state {
            Some(path) => path.display().to_string(),
            None => "the user's own folder".into(),
        };
        let keys =
            if keys.is_open() { "none needed (this machine only)".into() } else { format!("{} accepted", keys.len()) };
        let kv = match room.kv {
            KvFormat::F32 => "f32",
            KvFormat::F16 => "f16",
            KvFormat::Q8 => "q8",
        };
        let lora = demand.lora.map(|lora| format!("lora     {}\n", model::describe_lora(lora))).unwrap_or_default();
        format!(
            "model    {} ({})\n{lora}memory   {experts} + {} keys and values ({} × {} tokens, {kv}) + {} work\n\
             keys     {keys}\nstate    {state}\n",
            self.name(),
            self.model.display(),
            of(memory.kv),
            room.parallel,
            room.context,
            of(memory.work),
        )
    }

    /// Where it answers, and what to try first.
    fn ready(&self, address: SocketAddr) -> String {
        let url = server::serve::url(address, self.tls_cert.is_some());
        let key = if self.api_key_file.is_some() { " -H \"authorization: Bearer $KEY\"" } else { "" };
        format!(
            "address  {url}/v1\ntry      curl {url}/v1/chat/completions{key} -H 'content-type: application/json' \
             -d '{{\"messages\":[{{\"role\":\"user\",\"content\":\"Hello\"}}]}}'\n"
        )
    }
}

fn service_options(room: Room, placement: Placement, limits: &Limits) -> ServiceOptions {
    let options = ServiceOptions::new(room.context, room.kv, room.parallel);
    let positions = room.context.saturating_mul(room.parallel).saturating_mul(limits.jobs_capacity);
    ServiceOptions {
        prompt_rows: placement.step_rows,
        admission: Admission {
            jobs: limits.jobs + options.running,
            positions,
            jobs_per_key: limits.jobs_per_key,
            channel_events: limits.channel_events,
        },
        longest_wait: limits.queue_time,
        longest_block: limits.stall_time,
        ..options
    }
}

fn spawn(
    (dev, model): (Cpu, Model<Cpu>),
    tokenizer: Arc<tokenizer::Tokenizer>,
    senses: &model::Senses,
    options: ServiceOptions,
) -> Result<(Handle, std::thread::JoinHandle<Result<(), Stopped>>)> {
    let (image_ids, audio_ids) = (senses.image_ids, senses.audio_ids);
    Ok(service::spawn(Parts { dev, model, tokenizer, image_ids, audio_ids }, options)?)
}

/// How tokens are chosen where a request does not say: as the model's makers recommend, else as the interface documents.
fn sampling(own: &GenerationConfig) -> SamplingParams {
    let none = SamplingParams::default();
    if own.do_sample == Some(false) {
        return SamplingParams { temperature: 0.0, ..none };
    }
    SamplingParams {
        temperature: own.temperature.unwrap_or(none.temperature),
        top_p: own.top_p.unwrap_or(none.top_p),
        top_k: own.top_k.and_then(|k| u32::try_from(k).ok()).unwrap_or(none.top_k),
        repetition_penalty: own.repetition_penalty.unwrap_or(none.repetition_penalty),
        ..none
    }
}

/// When a model's files were made, in seconds since 1970. One that is part of the program is as old as that.
fn created(path: &Path) -> u64 {
    let program = model::is_built_in(path).then(|| std::env::current_exe().ok()).flatten();
    let modified = std::fs::metadata(program.as_deref().unwrap_or(path)).and_then(|data| data.modified()).ok();
    modified.and_then(|time| time.duration_since(UNIX_EPOCH).ok()).map_or(0, |since| since.as_secs())
}
