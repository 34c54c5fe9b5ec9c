//! A server whose engine is a script: what is asked can be looked at, what is answered is known.

#![allow(dead_code, reason = "each test uses a part")]
#![allow(clippy::unwrap_used, clippy::panic)]

use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Request, StatusCode};
use base64::Engine as _;
use engine::Layout;
use engine::sampling::SamplingParams;
use engine::service::{
    About, Admission, Alternative, Channel, Event, Finish, Handle, Job, Submitted, Task, Token, Usage,
};
use engine::thinking::{Markers, Reasoning};
use serde_json::Value;
use server::serve::{Outcome, Run, serve};
use server::{App, Keys, Limits, Model, Options, Store, router};
use tokenizer::{AudioIds, ChatFormat, ImageIds, Llama4Chat, Piece, SpecialTokens, Tokenizer};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tower::ServiceExt;

/// What the engine answers where no script says otherwise.
pub const ANSWER: &str = "Hello, you!";

/// A tokenizer of bytes, with Llama 4's control tokens after them.
pub fn tokenizer() -> Tokenizer {
    let ranks: String = (0..=255u8)
        .map(|byte| format!("{} {byte}\n", base64::engine::general_purpose::STANDARD.encode([byte])))
        .collect();
    Tokenizer::from_ranks("bytes", ranks.as_bytes(), SpecialTokens::llama4()).expect("a tokenizer of bytes")
}

/// The tokens of a clip of audio, as Llama 4 with audio has them.
pub const AUDIO_IDS: AudioIds = AudioIds { start: Some(300), audio: 301, end: Some(302) };

/// What is done with a job.
pub type Script = Arc<dyn Fn(Submitted, &Handle) + Send + Sync>;

/// A server with a script.
pub struct Server {
    pub app: App,
    pub router: Router,
    /// All jobs so far.
    pub jobs: Arc<Mutex<Vec<Job>>>,
}

/// Settings of a test's server.
pub struct Setup {
    pub options: Options,
    pub script: Script,
    pub context: usize,
    pub store: Store,
    pub admission: Admission,
    pub tiles: Option<engine::media::TileConfig>,
    pub clips: Option<engine::media::audio::ClipConfig>,
    /// Whether the model thinks where a request does not say; `None` for one that can not think.
    pub thinks: Option<bool>,
}

impl Default for Setup {
    fn default() -> Self {
        let limits = Limits::default();
        Self {
            options: Options::default(),
            script: Arc::new(|submitted, _| answer(submitted, ANSWER)),
            context: 4096,
            store: Store::in_memory().expect("a store"),
            admission: Admission {
                jobs: limits.jobs,
                positions: 1 << 20,
                jobs_per_key: limits.jobs_per_key,
                channel_events: limits.channel_events,
            },
            tiles: None,
            clips: None,
            thinks: None,
        }
    }
}

impl Setup {
    pub fn start(self) -> Server {
        let tokenizer = tokenizer();
        let about = About {
            context: self.context,
            capacity: self.context,
            n_vocab: tokenizer.vocab_size(),
            width: 4,
            layout: Layout {
                image: ImageIds::of(&tokenizer)
                    .zip(self.tiles.as_ref().map(engine::media::TileConfig::tokens_per_tile)),
                audio: self.clips.is_some().then_some(AUDIO_IDS),
            },
        };
        let (handle, mut receiver) = Handle::new(about, self.admission);
        let jobs = Arc::new(Mutex::new(Vec::new()));
        let (kept, script, shared) = (Arc::clone(&jobs), self.script, handle.clone());
        std::thread::spawn(move || {
            while let Some(submitted) = receiver.blocking_recv() {
                kept.lock().unwrap().push(submitted.job.clone());
                let (script, handle) = (Arc::clone(&script), shared.clone());
                std::thread::spawn(move || script(submitted, &handle));
            }
        });
        let format = Llama4Chat::new(&tokenizer).expect("Llama 4's format");
        let end_tokens = vec![tokenizer.eot().unwrap()];
        let reasoning = self.thinks.map(|is_on| reasoning(&tokenizer, is_on));
        let format = match &reasoning {
            Some(known) => format.with_markers(known.markers.start.clone(), known.markers.end.clone()),
            None => format,
        };
        let model = Model {
            id: "toy".into(),
            aliases: vec!["other-name".into()],
            created: 1_700_000_000,
            tokenizer: Arc::new(tokenizer),
            format: Some(ChatFormat::Llama4(format)),
            end_tokens,
            tiles: self.tiles,
            clips: self.clips,
            reasoning,
            sampling: SamplingParams::default(),
            handle,
        };
        let app = App::new(model, self.options, self.store);
        Server { router: router(&app), app, jobs }
    }
}

/// What a model knows of thinking that has Llama 4's markers and two efforts.
fn reasoning(tokenizer: &Tokenizer, is_on: bool) -> Reasoning {
    let one = |name: &str| vec![tokenizer.control(name).expect("a control token")];
    let markers = Markers {
        start: one("<|reasoning_thinking_start|>"),
        end: one("<|reasoning_thinking_end|>"),
        implicit_end: one("<|python_start|>"),
        budget_message: tokenizer.encode("!!"),
        extend_message: tokenizer.encode("Wait"),
        end_tokens: tokenizer.eot().into_iter().collect(),
    };
    let efforts = [("low".to_owned(), Some(100)), ("max".to_owned(), None)];
    Reasoning { markers: Arc::new(markers), is_on, prefill_start: true, efforts: efforts.into() }
}

/// Keeps the engine of a script busy until something has happened; it has no runtime to wait with.
pub fn hold(until: impl Fn() -> bool) {
    while !until() {
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// A server on a socket of its own.
pub struct Running {
    pub address: SocketAddr,
    /// Tells it to end.
    pub stop: mpsc::Sender<()>,
    /// How it ended.
    pub ended: JoinHandle<std::io::Result<Outcome>>,
    pub server: Server,
}

/// Starts a server that gives requests so long to end.
pub fn run(setup: Setup, drain: Duration) -> Running {
    let server = setup.start();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stops) = mpsc::channel(2);
    let app = server.app.clone();
    let ended = tokio::spawn(async move {
        let run = Run { listener, tls: None, drain, status: None };
        serve(&app, run, stops, || true).await
    });
    Running { address, stop, ended, server }
}

/// The keys of two callers.
pub const KEYS: [&str; 2] = ["sk-aaaaaaaaaaaaaaaaaaaa", "sk-bbbbbbbbbbbbbbbbbbbb"];

/// A server with two callers.
pub fn server_with_keys() -> Server {
    let options = Options { keys: Keys::parse(&KEYS.join("\n")).unwrap(), ..Options::default() };
    Setup { options, ..Setup::default() }.start()
}

/// A server with nothing special.
pub fn server() -> Server {
    Setup::default().start()
}

/// Positions of a job's prompt; images count as one.
pub fn n_prompt(job: &Job) -> usize {
    job.pieces.iter().map(|piece| if let Piece::Ids(ids) = piece { ids.len() } else { 1 }).sum()
}

/// The ids of a job's prompt.
pub fn ids(job: &Job) -> Vec<u32> {
    job.pieces.iter().flat_map(|piece| if let Piece::Ids(ids) = piece { ids.clone() } else { Vec::new() }).collect()
}

fn alternative(id: u32, rank: usize) -> Alternative {
    Alternative { id, logprob: -0.25 * (rank as f32 + 1.0) }
}

fn alternatives(id: u32, n: usize) -> Vec<Alternative> {
    (0..n).map(|rank| alternative(if rank == 0 { id } else { 48 + rank as u32 }, rank)).collect()
}

/// Answers `text`, one byte a token, as often as is asked, at most as long as is asked.
pub fn answer(submitted: Submitted, text: &str) {
    tell(submitted, &[(Channel::Content, text)]);
}

/// Answers with texts and thoughts, one byte a token, as often as is asked, at most as long as is asked.
pub fn tell(submitted: Submitted, texts: &[(Channel, &str)]) {
    let Submitted { job, events, place, .. } = submitted;
    let send = |event| events.blocking_send(event).is_ok();
    let n_prompt = n_prompt(&job);
    let mut usage = Usage { n_prompt, ..Usage::default() };
    send(Event::Started { n_prompt, n_cached: 0, n_stored: 0 });
    if let Some(n) = job.prompt_logprobs {
        let ids = ids(&job);
        let entries = ids.iter().enumerate().map(|(index, id)| {
            Some(if index == 0 { (None, Vec::new()) } else { (Some(alternative(*id, 1)), alternatives(32, n)) })
        });
        send(Event::PromptLogprobs(entries.collect()));
    }
    match &job.task {
        Task::Embed => {
            send(Event::Embedding(vec![0.5, -0.5, 0.5, -0.5]));
        }
        Task::Generate { n_samples, stop, logprobs, .. } => {
            for sample in 0..*n_samples {
                let bytes = texts.iter().flat_map(|(channel, text)| text.bytes().map(|byte| (*channel, byte)));
                let bytes: Vec<(Channel, u8)> = bytes.collect();
                for (channel, byte) in bytes.iter().copied().take(stop.max_tokens) {
                    let id = u32::from(byte);
                    let token = Token {
                        id,
                        text: char::from(byte).to_string(),
                        logprob: -0.25,
                        alternatives: alternatives(id, logprobs.unwrap_or(0)),
                        channel,
                        is_forced: false,
                    };
                    usage.n_completion += 1;
                    usage.n_reasoning += usize::from(channel == Channel::Reasoning);
                    if !send(Event::Token { sample, token }) {
                        return;
                    }
                }
                let finish = if stop.max_tokens > bytes.len() {
                    usage.n_completion += 1;
                    Finish::EndToken(stop.tokens.first().copied().unwrap_or(0))
                } else {
                    Finish::Length
                };
                send(Event::SampleFinished { sample, finish, tail: String::new(), channel: Channel::Content });
            }
        }
    }
    send(Event::Finished(usage));
    drop(place);
}

/// An answer, read whole.
#[derive(Debug)]
pub struct Reply {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

impl Reply {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {:?}", String::from_utf8_lossy(&self.body)))
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

impl Server {
    pub fn last_job(&self) -> Job {
        self.jobs.lock().unwrap().last().expect("a job").clone()
    }

    /// The prompt of the last job, as a text.
    pub fn last_prompt(&self) -> String {
        let bytes: Vec<u8> = ids(&self.last_job()).iter().filter_map(|id| u8::try_from(*id).ok()).collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// What `key` may do.
    pub async fn call(&self, key: &str, method: &str, path: &str, body: Value) -> Reply {
        let request = Request::builder().method(method).uri(path).header("x-api-key", key);
        let request = request.header("content-type", "application/json");
        self.send(request.body(Body::from(body.to_string())).unwrap()).await
    }

    pub async fn send(&self, request: Request<Body>) -> Reply {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = to_bytes(body, 64 << 20).await.unwrap().to_vec();
        Reply { status: parts.status, headers: parts.headers, body }
    }

    pub async fn get(&self, path: &str) -> Reply {
        self.send(Request::get(path).body(Body::empty()).unwrap()).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Reply {
        self.post_bytes(path, body.to_string().into_bytes()).await
    }

    pub async fn post_bytes(&self, path: &str, body: Vec<u8>) -> Reply {
        let request = Request::post(path).header("content-type", "application/json");
        self.send(request.body(Body::from(body)).unwrap()).await
    }
}

/// The text with what differs from run to run replaced: ids, times, seeds.
pub fn steady(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    let marks = [
        "chatcmpl-",
        "cmpl-",
        "resp_",
        "msg_",
        "req_",
        "rs_",
        "file-",
        "batch_",
        "call_",
        "batch_req_",
        "fc_",
        "toolu_",
    ];
    while !rest.is_empty() {
        let mark = marks.iter().find(|mark| {
            rest.strip_prefix(**mark)
                .is_some_and(|after| after.bytes().take(24).filter(u8::is_ascii_hexdigit).count() == 24)
        });
        if let Some(mark) = mark {
            out.push_str(mark);
            out.push_str("ID");
            rest = &rest[mark.len() + 24..];
            continue;
        }
        let time = ["\"created\":", "\"created_at\":", "\"completed_at\":", "\"expires_at\":", "\"in_progress_at\":"];
        if let Some(key) = time.iter().find(|key| rest.starts_with(**key)) {
            let value = &rest[key.len()..];
            let len = value.bytes().take_while(u8::is_ascii_digit).count();
            out.push_str(key);
            out.push_str(if len > 0 { "0" } else { "" });
            rest = &value[len..];
            continue;
        }
        let c = rest.chars().next().unwrap();
        out.push(c);
        rest = &rest[c.len_utf8()..];
    }
    out
}

/// JSON over several lines, steady.
pub fn shown(value: &Value) -> String {
    serde_json::to_string_pretty(&serde_json::from_str::<Value>(&steady(&value.to_string())).unwrap()).unwrap()
}

/// Waits until `holds`; fails after ten seconds.
pub async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..10_000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    panic!("never: {what}");
}

/// The same for a question whose answer has to be waited for.
pub async fn until_async(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    for _ in 0..1_000 {
        if holds().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("never: {what}");
}
