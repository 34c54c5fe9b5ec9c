//! One session: what was said so far, what is being said, the answer being made.

use axum::extract::ws::{CloseFrame, Message as Frame, WebSocket, close_code};
use engine::media::audio::{AudioFormat, Change, Gate, Pcm16Stream, RATE_HZ};
use engine::service::{Event, Finish};
use serde_json::{Value, json};
use tokenizer::{Message, Part, Role};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::events::{self, Told, event};
use super::settings::{SessionSettings, asked};
use crate::answer::{Answers, Keeps};
use crate::app::{App, Phase};
use crate::audio;
use crate::connection::Alive;
use crate::error::{Code, Error};
use crate::id;
use crate::image;
use crate::keys::Caller;
use crate::prompt::{Conversation, Kind, Medium, Source};
use crate::settings::Asked;
use crate::tools::{Hearing, Piece};
use crate::wire::Whole;
use crate::work::{Next, Work};

/// Bytes of a sample.
const SAMPLE_BYTES: usize = 2;

/// Whether the session goes on.
enum Flow {
    GoesOn,
    /// The client left, or takes nothing.
    Ends,
}

/// An answer that is being made.
struct Active {
    work: Work,
    answers: Answers,
    told: Told,
}

struct Session {
    app: App,
    caller: Caller,
    id: String,
    settings: SessionSettings,
    messages: Vec<Message>,
    media: Vec<Medium>,
    /// Bytes of all clips, those being said included.
    n_bytes: usize,
    /// What is being said, and which sample it begins with.
    buffer: Vec<u8>,
    begin: usize,
    /// What listens for the end of it.
    ear: Option<(Gate, Pcm16Stream)>,
    /// The item that it becomes.
    item: String,
    last_item: Option<String>,
    active: Option<Active>,
    /// Chunks of what is being said that were computed ahead of the answer, and the task that does it.
    n_ahead: usize,
    ahead: Option<JoinHandle<()>>,
}

/// Talks with a client until it leaves, is silent for too long, or the server ends. Holds the place of its connection.
pub async fn run(mut socket: WebSocket, app: App, caller: Caller, alive: Option<Alive>) {
    let (id, phases) = (id::fresh("sess_"), app.phases());
    let mut session = Session {
        app,
        caller,
        id,
        settings: SessionSettings::default(),
        messages: Vec::new(),
        media: Vec::new(),
        n_bytes: 0,
        buffer: Vec::new(),
        begin: 0,
        ear: None,
        item: id::fresh("item_"),
        last_item: None,
        active: None,
        n_ahead: 0,
        ahead: None,
    };
    session.talk(&mut socket, phases).await;
    drop(alive);
}

impl Session {
    async fn talk(&mut self, socket: &mut WebSocket, mut phases: watch::Receiver<Phase>) {
        let created = event("session.created", json!({"session": self.json()}));
        if let Flow::Ends = self.send(socket, created).await {
            return;
        }
        loop {
            let idle = self.app.limits().total_time;
            let flow = tokio::select! {
                // Answers that are being made are ended by their own look at the phase.
                ended = ended(&mut phases, self.active.is_some()) => {
                    let error = if ended { Error::ShuttingDown } else { Error::internal() };
                    self.close(socket, &error).await;
                    return;
                }
                next = next(&mut self.active, idle) => self.advance(socket, next).await,
                frame = timeout(idle, socket.recv()) => match frame {
                    Ok(Some(Ok(Frame::Text(text)))) => self.hear(socket, text.as_str()).await,
                    Ok(Some(Ok(Frame::Binary(_)))) => {
                        let error = Error::Malformed("events are texts of JSON; audio is base64 in them".into());
                        self.send(socket, events::error(&error, None)).await
                    }
                    Ok(Some(Ok(Frame::Ping(_) | Frame::Pong(_)))) => Flow::GoesOn,
                    Ok(Some(Ok(Frame::Close(_)) | Err(_)) | None) => Flow::Ends,
                    Err(_) if self.active.is_some() => Flow::GoesOn,
                    Err(_) => {
                        self.close(socket, &Error::Deadline).await;
                        return;
                    }
                },
            };
            if let Flow::Ends = flow {
                return;
            }
        }
    }

    fn json(&self) -> Value {
        self.settings.json(&self.id, &self.app.model().id)
    }

    async fn send(&self, socket: &mut WebSocket, value: Value) -> Flow {
        let sending = socket.send(Frame::Text(value.to_string().into()));
        match timeout(self.app.limits().stall_time, sending).await {
            Ok(Ok(())) => Flow::GoesOn,
            Ok(Err(_)) | Err(_) => Flow::Ends,
        }
    }

    async fn send_all(&self, socket: &mut WebSocket, values: impl IntoIterator<Item = Value>) -> Flow {
        for value in values {
            if let Flow::Ends = self.send(socket, value).await {
                return Flow::Ends;
            }
        }
        Flow::GoesOn
    }

    /// Says why the session ends.
    async fn close(&self, socket: &mut WebSocket, error: &Error) {
        if let Flow::GoesOn = self.send(socket, events::error(error, None)).await {
            let frame = CloseFrame { code: close_code::AWAY, reason: "".into() };
            let _ = timeout(self.app.limits().stall_time, socket.send(Frame::Close(Some(frame)))).await;
        }
    }

    /// Takes an event of the client's in. A mistake in one is told and does not end the session.
    async fn hear(&mut self, socket: &mut WebSocket, text: &str) -> Flow {
        let parsed = serde_json::from_str::<Value>(text);
        let cause = parsed.as_ref().ok().and_then(|value| value.get("event_id")?.as_str()).map(str::to_owned);
        let told = match parsed {
            Err(error) => Err(Error::Malformed(format!("the event is no JSON: {error}"))),
            Ok(value) => self.take(value).await,
        };
        match told {
            Ok(values) => self.send_all(socket, values).await,
            Err(error) => self.send(socket, events::error(&error, cause.as_deref())).await,
        }
    }

    async fn take(&mut self, value: Value) -> Result<Vec<Value>, Error> {
        let kind = value.get("type").and_then(Value::as_str).ok_or_else(|| Error::missing("type"))?;
        match kind {
            "session.update" => {
                let session = value.get("session").ok_or_else(|| Error::missing("session"))?;
                self.settings.update(session)?;
                self.listen()?;
                Ok(vec![event("session.updated", json!({"session": self.json()}))])
            }
            "input_audio_buffer.append" => {
                let data = value.get("audio").and_then(Value::as_str).ok_or_else(|| Error::missing("audio"))?;
                let bytes = image::base64(data, "audio")?;
                self.append(&bytes).await
            }
            "input_audio_buffer.commit" => self.commit(),
            "input_audio_buffer.clear" => {
                self.n_bytes -= self.buffer.len();
                self.buffer.clear();
                self.listen()?;
                Ok(vec![event("input_audio_buffer.cleared", json!({}))])
            }
            "conversation.item.create" => self.item(value.get("item").ok_or_else(|| Error::missing("item"))?),
            "response.create" => self.respond(value.get("response")).await,
            "response.cancel" => match self.active.take() {
                Some(active) => {
                    let reason = json!({"type": "cancelled", "reason": "client_cancelled"});
                    Ok(active.told.end("cancelled", &reason, active.answers.usage).into())
                }
                None => Err(Error::Conflict("there is no response to cancel".into())),
            },
            other => {
                let shown: String = other.chars().take(64).collect();
                let why = format!(
                    "is {shown:?}, which is not supported; session.update, input_audio_buffer.append, .commit and .clear, \
                     conversation.item.create, response.create and .cancel are"
                );
                Err(Error::unsupported("type", why))
            }
        }
    }

    /// Begins to listen, from a buffer that is empty or as long as it is.
    fn listen(&mut self) -> Result<(), Error> {
        self.begin = 0;
        self.ear = match self.settings.turns {
            None => None,
            Some(turns) => {
                let stream = Pcm16Stream::new(self.settings.rate_hz, &self.app.limits().engine);
                let stream = stream.map_err(|error| audio::refused("session.audio.input.format.rate", &error))?;
                Some((Gate::new(turns.gate), stream))
            }
        };
        Ok(())
    }

    async fn append(&mut self, bytes: &[u8]) -> Result<Vec<Value>, Error> {
        if self.app.model().clips.is_none() {
            return Err(audio::not_supported("audio"));
        }
        let limit = self.app.limits().engine.audio_bytes;
        if self.n_bytes.saturating_add(bytes.len()) > limit {
            let why = format!("makes more than {limit} bytes of audio in one session; begin another");
            return Err(Error::Field { param: "audio".into(), why, code: Code::Audio("audio_too_large") });
        }
        self.buffer.extend_from_slice(bytes);
        self.n_bytes += bytes.len();
        if let Err(error) = self.compute_ahead().await {
            // The answer will say so, if it is still so.
            tracing::debug!(?error, "nothing is computed ahead");
        }
        let Some((gate, stream)) = &mut self.ear else { return Ok(Vec::new()) };
        let samples = stream.push(bytes);
        let changes = gate.push(&samples);
        let mut told = Vec::new();
        for change in changes {
            match change {
                Change::Began(at) => {
                    self.forget_until(at);
                    let ms = at as u64 * 1000 / u64::from(RATE_HZ);
                    let fields = json!({"audio_start_ms": ms, "item_id": self.item});
                    told.push(event("input_audio_buffer.speech_started", fields));
                }
                Change::Ended(at) => {
                    let ms = at as u64 * 1000 / u64::from(RATE_HZ);
                    let fields = json!({"audio_end_ms": ms, "item_id": self.item});
                    told.push(event("input_audio_buffer.speech_stopped", fields));
                    told.extend(self.commit()?);
                    if self.settings.turns.is_some_and(|turns| turns.creates_response) && self.active.is_none() {
                        told.extend(self.respond(None).await?);
                    }
                }
            }
        }
        if let (Some((gate, _)), Some(turns)) = (&self.ear, self.settings.turns)
            && !gate.is_speech()
        {
            // What may yet belong to speech that begins: its padding, and as much as it takes to notice it.
            let kept = (turns.gate.padding_ms as usize + 500) * RATE_HZ as usize / 1000;
            let heard = self.begin + self.samples_16k();
            self.forget_until(heard.saturating_sub(kept));
        }
        Ok(told)
    }

    /// Has the full chunks of what is being said encoded and computed, so that an answer waits only for the rest.
    async fn compute_ahead(&mut self) -> Result<(), Error> {
        let Some(clips) = &self.app.model().clips else { return Ok(()) };
        let n_full = clips.n_certain(self.samples_16k());
        let is_busy = self.active.is_some() || self.ahead.as_ref().is_some_and(|task| !task.is_finished());
        if n_full <= self.n_ahead || is_busy {
            return Ok(());
        }
        self.n_ahead = n_full;
        let mut messages = self.asked_messages(&self.settings);
        messages.push(Message::new(Role::User, vec![Part::Audio]));
        let mut media = self.media.clone();
        let kind = Kind::Begun(AudioFormat::Pcm16 { rate_hz: self.settings.rate_hz });
        media.push(Medium { field: "audio".into(), source: Source::Bytes(self.buffer.clone()), kind });
        let conversation = Conversation { messages, media, ..Conversation::default() };
        let mut prompt = conversation.prompt("conversation", &self.app).await?;
        // What stands behind the clip is not certain.
        let end = prompt.pieces.iter().rposition(|piece| matches!(piece, tokenizer::Piece::Media(_)));
        prompt.pieces.truncate(end.map_or(0, |end| end + 1));
        prompt.n_positions = self.app.model().handle.n_positions(&prompt.pieces, &prompt.media);
        let nothing = Asked { max_tokens: ("max_output_tokens", Some(Whole::Is(0))), ..Asked::default() };
        let job = nothing.check(&self.app)?.job(&prompt, self.caller, &self.app)?;
        let work = Work::answer(&self.app, job, prompt)?;
        // Whatever becomes of it, the answer does without.
        self.ahead = Some(tokio::spawn(async move { drop(work.each(|_, _| {}).await) }));
        Ok(())
    }

    /// Samples at 16 kHz that the buffer comes to.
    fn samples_16k(&self) -> usize {
        (self.buffer.len() / SAMPLE_BYTES) * RATE_HZ as usize / self.settings.rate_hz as usize
    }

    /// Lets go of what was said before the sample `at`, counted at 16 kHz.
    fn forget_until(&mut self, at: usize) {
        let n = at.saturating_sub(self.begin);
        let n_bytes = n * self.settings.rate_hz as usize / RATE_HZ as usize * SAMPLE_BYTES;
        let n_bytes = n_bytes.min(self.buffer.len() / SAMPLE_BYTES * SAMPLE_BYTES);
        self.buffer.drain(..n_bytes);
        self.n_bytes -= n_bytes;
        self.begin += n_bytes / SAMPLE_BYTES * RATE_HZ as usize / self.settings.rate_hz as usize;
    }

    /// Makes a message of what was said.
    fn commit(&mut self) -> Result<Vec<Value>, Error> {
        if self.buffer.len() < SAMPLE_BYTES {
            let why = "holds no samples; append audio first".into();
            return Err(Error::Field { param: "input_audio_buffer".into(), why, code: Code::Audio("audio_empty") });
        }
        self.n_ahead = 0;
        let mut bytes = std::mem::take(&mut self.buffer);
        // Half a sample says nothing.
        self.n_bytes -= bytes.len() % SAMPLE_BYTES;
        bytes.truncate(bytes.len() / SAMPLE_BYTES * SAMPLE_BYTES);
        self.begin += bytes.len() / SAMPLE_BYTES * RATE_HZ as usize / self.settings.rate_hz as usize;
        let kind = Kind::Audio(Some(AudioFormat::Pcm16 { rate_hz: self.settings.rate_hz }));
        let field = format!("conversation.item.{}", self.item);
        self.media.push(Medium { field, source: Source::Bytes(bytes), kind });
        self.messages.push(Message::new(Role::User, vec![Part::Audio]));
        let item = std::mem::replace(&mut self.item, id::fresh("item_"));
        let fields = json!({"item_id": item, "previous_item_id": self.last_item});
        let committed = event("input_audio_buffer.committed", fields);
        Ok(vec![committed, self.added(item, json!([{"type": "input_audio"}]), "user")])
    }

    fn added(&mut self, id: String, content: Value, role: &str) -> Value {
        let item = json!({
            "id": id, "object": "realtime.item", "type": "message", "role": role, "status": "completed",
            "content": content,
        });
        let previous = self.last_item.replace(id);
        event("conversation.item.added", json!({"item": item, "previous_item_id": previous}))
    }

    /// Adds a message that the client wrote.
    fn item(&mut self, item: &Value) -> Result<Vec<Value>, Error> {
        if item.get("type").is_some_and(|kind| kind != "message") {
            return Err(Error::unsupported("item.type", "must be message"));
        }
        let limits = self.app.limits();
        if self.messages.len() >= limits.messages {
            return Err(Error::field("item", format!("is one message too many; the limit is {}", limits.messages)));
        }
        let (role, name) = match item.get("role").and_then(Value::as_str) {
            Some("user") => (Role::User, "user"),
            Some("assistant") => (Role::Assistant, "assistant"),
            Some("system") => (Role::System, "system"),
            _ => return Err(Error::field("item.role", "must be user, assistant or system")),
        };
        let parts = item.get("content").and_then(Value::as_array).ok_or_else(|| Error::missing("item.content"))?;
        let (mut content, mut media, mut n_bytes) = (Vec::new(), Vec::new(), 0);
        for (index, part) in parts.iter().enumerate() {
            let field = format!("item.content[{index}]");
            match part.get("type").and_then(Value::as_str) {
                Some("input_text" | "output_text" | "text") => {
                    let text = part.get("text").and_then(Value::as_str);
                    content.push(Part::Text(text.ok_or_else(|| Error::missing(format!("{field}.text")))?.to_owned()));
                }
                Some("input_audio") => {
                    let data = part.get("audio").and_then(Value::as_str);
                    let bytes = image::base64(
                        data.ok_or_else(|| Error::missing(format!("{field}.audio")))?,
                        &format!("{field}.audio"),
                    )?;
                    n_bytes += bytes.len();
                    let kind = Kind::Audio(Some(AudioFormat::Pcm16 { rate_hz: self.settings.rate_hz }));
                    media.push(Medium { field, source: Source::Bytes(bytes), kind });
                    content.push(Part::Audio);
                }
                Some("input_image") => {
                    let url = part.get("image_url").and_then(Value::as_str);
                    let name = format!("{field}.image_url");
                    let source = image::source(url.ok_or_else(|| Error::missing(name.clone()))?, &name)?;
                    n_bytes += if let Source::Bytes(bytes) = &source { bytes.len() } else { 0 };
                    let kind = Kind::Image(image::detail(part.get("detail").and_then(Value::as_str), &field)?);
                    media.push(Medium { field: name, source, kind });
                    content.push(Part::Image);
                }
                _ => {
                    return Err(Error::field(
                        format!("{field}.type"),
                        "must be input_text, input_audio or input_image",
                    ));
                }
            }
        }
        let limit = limits.engine.audio_bytes;
        if self.n_bytes.saturating_add(n_bytes) > limit {
            return Err(Error::field("item", format!("makes more than {limit} bytes in one session; begin another")));
        }
        self.n_bytes += n_bytes;
        self.media.extend(media);
        self.messages.push(Message::new(role, content));
        let id = item.get("id").and_then(Value::as_str).map_or_else(|| id::fresh("item_"), str::to_owned);
        Ok(vec![self.added(id, item.get("content").cloned().unwrap_or_default(), name)])
    }

    /// Begins to answer.
    async fn respond(&mut self, response: Option<&Value>) -> Result<Vec<Value>, Error> {
        if self.active.is_some() {
            return Err(Error::Conflict("a response is being made; wait for response.done or cancel it".into()));
        }
        let mut settings = self.settings.clone();
        if let Some(own) = response.filter(|response| !response.is_null()) {
            settings.update(own)?;
        }
        let messages = self.asked_messages(&settings);
        if self.messages.is_empty() {
            return Err(Error::field("response", "has nothing to answer; commit audio or create an item first"));
        }
        let asked = asked(&settings).check(&self.app)?;
        let conversation = Conversation { messages, media: self.media.clone(), ..Conversation::default() };
        let prompt = conversation.prompt("conversation", &self.app).await?;
        let job = asked.job(&prompt, self.caller, &self.app)?;
        let work = Work::answer(&self.app, job, prompt)?;
        let answers = Answers::new(1, 1, Keeps::Text, &Hearing::new(&[], ""));
        let told = Told::new();
        let begin = told.begin();
        self.active = Some(Active { work, answers, told });
        Ok(begin.into())
    }

    /// What was said, behind the instructions.
    fn asked_messages(&self, settings: &SessionSettings) -> Vec<Message> {
        let instructions = settings.instructions.iter().map(|text| Message::text(Role::System, text.clone()));
        instructions.chain(self.messages.iter().cloned()).collect()
    }

    /// Takes in what came of the answer.
    async fn advance(&mut self, socket: &mut WebSocket, next: Result<Next, Error>) -> Flow {
        let Some(active) = &mut self.active else { return Flow::GoesOn };
        let values: Vec<Value> = match next {
            Ok(Next::Quiet) => return Flow::GoesOn,
            Ok(Next::Event(job, event)) => texts(active, job, event),
            Ok(Next::Done) => {
                let Some(Active { answers, told, .. }) = self.active.take() else { return Flow::GoesOn };
                let finish = answers.list.first().and_then(|answer| answer.finish.as_ref());
                let (status, details) = match finish {
                    Some(Finish::Length) => {
                        ("incomplete", json!({"type": "incomplete", "reason": "max_output_tokens"}))
                    }
                    _ => ("completed", Value::Null),
                };
                self.messages.push(Message::text(Role::Assistant, told.text.clone()));
                self.last_item = Some(told.item.clone());
                told.end(status, &details, answers.usage).into()
            }
            Err(error) => {
                let Some(Active { answers, told, .. }) = self.active.take() else { return Flow::GoesOn };
                let details = json!({"type": "failed", "error": events::error(&error, None)["error"]});
                told.end("failed", &details, answers.usage).into()
            }
        };
        self.send_all(socket, values).await
    }
}

/// The pieces of text that are certain because of an event.
fn texts(active: &mut Active, job: usize, event: Event) -> Vec<Value> {
    let pieces = active.answers.take(job, event).into_iter().filter_map(|piece| match piece {
        Piece::Text(text) => Some(text),
        Piece::Call { .. } | Piece::Arguments { .. } => None,
    });
    pieces.map(|text| active.told.delta(&text)).collect()
}

/// The next event of the answer; never, if there is none.
async fn next(active: &mut Option<Active>, wait: std::time::Duration) -> Result<Next, Error> {
    match active {
        Some(active) => active.work.next(wait).await,
        None => std::future::pending().await,
    }
}

/// Waits until the server takes no further work, or, for a session that is being answered, until it ends. Whether the server
/// said so.
async fn ended(phases: &mut watch::Receiver<Phase>, is_answering: bool) -> bool {
    let ends = |phase: &Phase| match phase {
        Phase::Serving => false,
        Phase::Draining => !is_answering,
        Phase::Ending => true,
    };
    phases.wait_for(ends).await.is_ok()
}
