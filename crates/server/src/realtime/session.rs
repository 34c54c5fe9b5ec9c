//! One session: what was said so far, what is being said, the answer being made.

use axum::extract::ws::{CloseFrame, Message as Frame, WebSocket, close_code};
use engine::media::Media;
use engine::media::audio::{AudioError, Change, RATE_HZ, Sound};
use engine::service::{Event, Finish};
use serde_json::{Value, json};
use tokenizer::{Message, Part, Role};
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::ear::Ear;
use super::events::{self, Told, event};
use super::item::Item;
use super::settings::{SessionSettings, asked};
use crate::answer::{Answers, Keeps};
use crate::app::{App, Phase};
use crate::audio;
use crate::connection::Alive;
use crate::error::{Code, Error};
use crate::id;
use crate::image;
use crate::keys::Caller;
use crate::prompt::{Conversation, Kind, Medium, prepare};
use crate::settings::Asked;
use crate::tools::{Hearing, Piece};
use crate::wire::Whole;
use crate::work::{Next, Work};

/// Bytes of a sample as it comes, and in memory.
const SAMPLE_BYTES: [usize; 2] = [size_of::<i16>(), size_of::<f32>()];

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
    /// Ready, each made once for all answers, and the memory that they take.
    media: Vec<Medium>,
    memory: Option<OwnedSemaphorePermit>,
    /// Bytes of all clips and images as they came, those of what is being said included.
    n_bytes: usize,
    /// What hears what is being said, and its memory.
    ear: Option<Ear>,
    heard: Option<OwnedSemaphorePermit>,
    /// The item that it becomes.
    item: String,
    last_item: Option<String>,
    active: Option<Active>,
    /// Pieces of what is being said that were computed ahead of the answer, and the task that does it.
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
        memory: None,
        n_bytes: 0,
        ear: None,
        heard: None,
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
                self.append(bytes).await
            }
            "input_audio_buffer.commit" => self.commit().await,
            "input_audio_buffer.clear" => {
                self.n_bytes -= self.said_bytes();
                (self.ear, self.heard, self.n_ahead) = (None, None, 0);
                Ok(vec![event("input_audio_buffer.cleared", json!({}))])
            }
            "conversation.item.create" => self.item(value.get("item").ok_or_else(|| Error::missing("item"))?).await,
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

    /// Listens as the settings say.
    fn listen(&mut self) -> Result<(), Error> {
        let Some(clips) = &self.app.model().clips else { return Ok(()) };
        let tuned = match &mut self.ear {
            Some(ear) => ear.tune(&self.settings),
            None => Ear::new(&self.settings, clips, &self.app.limits().engine).map(|ear| self.ear = Some(ear)),
        };
        tuned.map_err(|error| audio::refused("session.audio.input.format.rate", &error))
    }

    async fn append(&mut self, bytes: Vec<u8>) -> Result<Vec<Value>, Error> {
        let Some(clips) = self.app.model().clips.clone() else { return Err(audio::not_supported("audio")) };
        let limit = self.app.limits().engine.audio_bytes;
        if self.n_bytes.saturating_add(bytes.len()) > limit {
            let why = format!("makes more than {limit} bytes of audio in one session; begin another");
            return Err(Error::Field { param: "audio".into(), why, code: Code::Audio("audio_too_large") });
        }
        if self.ear.is_none() {
            self.listen()?;
        }
        let before = self.said_bytes();
        // Samples, or the features that they become.
        let n_new = bytes.len() / SAMPLE_BYTES[0] * RATE_HZ as usize / self.settings.rate_hz as usize + 1;
        let n_samples = self.n_samples() + n_new;
        self.hold(n_samples)?;
        let n_ahead = self.n_ahead;
        let wanted = clips.n_certain(n_samples) > n_ahead && !self.is_busy();
        let ahead = if wanted { self.memory_for(n_samples).ok() } else { None };
        let wanted = ahead.is_some();
        let mut ear = self.ear.take().ok_or_else(Error::internal)?;
        let hear = move || {
            let changes = ear.push(&bytes);
            let begun = if wanted { ear.begun(n_ahead) } else { None };
            (ear, changes, begun)
        };
        let (ear, changes, begun) = self.app.pool().run(hear).await?;
        self.ear = Some(ear);
        let changes = changes.map_err(|error| audio::refused("audio", &error));
        self.n_bytes = self.n_bytes - before + self.said_bytes();
        self.hold(self.n_samples())?;
        if let Some((sound, n_pieces)) = begun
            && let Err(error) = self.compute_ahead(sound, n_pieces, ahead).await
        {
            // The answer will say so, if it is still so.
            tracing::debug!(?error, "nothing is computed ahead");
        }
        let mut told = Vec::new();
        for change in changes? {
            let ms = |at: usize| at as u64 * 1000 / u64::from(RATE_HZ);
            match change {
                Change::Began(at) => {
                    let fields = json!({"audio_start_ms": ms(at), "item_id": self.item});
                    told.push(event("input_audio_buffer.speech_started", fields));
                }
                Change::Ended(at) => {
                    let fields = json!({"audio_end_ms": ms(at), "item_id": self.item});
                    told.push(event("input_audio_buffer.speech_stopped", fields));
                    told.extend(self.commit().await?);
                    if self.settings.turns.is_some_and(|turns| turns.creates_response) && self.active.is_none() {
                        told.extend(self.respond(None).await?);
                    }
                }
            }
        }
        Ok(told)
    }

    /// Samples at 16 kHz of what is being said.
    fn n_samples(&self) -> usize {
        self.ear.as_ref().map_or(0, Ear::n_samples)
    }

    /// Its bytes, as 16-bit samples.
    fn said_bytes(&self) -> usize {
        SAMPLE_BYTES[0] * self.n_samples()
    }

    /// Holds the memory of so many samples that are being said, no more and no less.
    fn hold(&mut self, n_samples: usize) -> Result<(), Error> {
        let wanted = self.app.pool().media_units(SAMPLE_BYTES[1].saturating_mul(n_samples));
        let held = self.heard.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        if wanted > held {
            let more = self.app.media_memory((wanted - held) << 10, "what is being said needs")?;
            merge(&mut self.heard, Some(more));
        } else if let Some(permit) = &mut self.heard {
            drop(permit.split(held - wanted));
        }
        Ok(())
    }

    /// Memory for the features of a clip of so many samples.
    fn memory_for(&self, n_samples: usize) -> Result<OwnedSemaphorePermit, Error> {
        let size_bytes = self.app.model().clips.as_ref().map_or(0, |clips| clips.feature_bytes(n_samples as u64));
        self.app.media_memory(size_bytes, "the clip needs")
    }

    /// Whether something is being made already.
    fn is_busy(&self) -> bool {
        self.active.is_some() || self.ahead.as_ref().is_some_and(|task| !task.is_finished())
    }

    /// Has what is certain of what is being said encoded and computed, so that an answer waits only for the rest.
    async fn compute_ahead(
        &mut self,
        sound: Sound,
        n_pieces: usize,
        memory: Option<OwnedSemaphorePermit>,
    ) -> Result<(), Error> {
        self.n_ahead = n_pieces;
        let mut messages = self.asked_messages(&self.settings);
        messages.push(Message::new(Role::User, vec![Part::Audio]));
        let mut media = self.media.clone();
        media.push(Medium { field: "audio".into(), kind: Kind::Ready(Media::Audio(sound)) });
        let conversation = Conversation { messages, media, ..Conversation::default() };
        let mut prompt = conversation.prompt("conversation", &self.app).await?;
        // What stands behind the clip is not certain.
        let end = prompt.pieces.iter().rposition(|piece| matches!(piece, tokenizer::Piece::Media(_)));
        prompt.pieces.truncate(end.map_or(0, |end| end + 1));
        prompt.n_positions = self.app.model().handle.n_positions(&prompt.pieces, &prompt.media);
        prompt.memory = memory;
        let nothing = Asked { max_tokens: ("max_output_tokens", Some(Whole::Is(0))), ..Asked::default() };
        let job = nothing.check(&self.app)?.job(&prompt, self.caller, &self.app)?;
        let work = Work::answer(&self.app, job, prompt)?;
        // Whatever becomes of it, the answer does without.
        self.ahead = Some(tokio::spawn(async move { drop(work.each(|_, _| {}).await) }));
        Ok(())
    }

    /// Makes a message of what was said.
    async fn commit(&mut self) -> Result<Vec<Value>, Error> {
        let refused = |error: AudioError| match error {
            AudioError::Empty => {
                let why = "holds no samples; append audio first".into();
                Error::Field { param: "input_audio_buffer".into(), why, code: Code::Audio("audio_empty") }
            }
            error => audio::refused("input_audio_buffer", &error),
        };
        let memory = self.memory_for(self.n_samples() + RATE_HZ as usize / 100)?;
        let mut ear = self.ear.take().ok_or_else(|| refused(AudioError::Empty))?;
        let before = SAMPLE_BYTES[0] * ear.n_samples();
        let (ear, sound) = self
            .app
            .pool()
            .run(move || {
                let sound = ear.commit();
                (ear, sound)
            })
            .await?;
        self.ear = Some(ear);
        self.n_bytes -= before;
        let sound = sound.map_err(refused)?;
        self.n_bytes += SAMPLE_BYTES[0] * sound.n_samples();
        (self.n_ahead, self.heard) = (0, None);
        merge(&mut self.memory, Some(memory));
        let field = format!("conversation.item.{}", self.item);
        self.media.push(Medium { field, kind: Kind::Ready(Media::Audio(sound)) });
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
    async fn item(&mut self, item: &Value) -> Result<Vec<Value>, Error> {
        let limits = self.app.limits();
        if self.messages.len() >= limits.messages {
            return Err(Error::field("item", format!("is one message too many; the limit is {}", limits.messages)));
        }
        let Item { role, content, media, n_bytes } = Item::read(item, self.settings.rate_hz)?;
        let limit = limits.engine.audio_bytes;
        if self.n_bytes.saturating_add(n_bytes) > limit {
            return Err(Error::field("item", format!("makes more than {limit} bytes in one session; begin another")));
        }
        let fields: Vec<String> = media.iter().map(|medium| medium.field.clone()).collect();
        let (media, memory) = prepare(media, &self.app).await?;
        merge(&mut self.memory, memory);
        self.n_bytes += n_bytes;
        let ready = |(field, media)| Medium { field, kind: Kind::Ready(media) };
        self.media.extend(fields.into_iter().zip(media).map(ready));
        self.messages.push(Message::new(role, content));
        let name = item.get("role").and_then(Value::as_str).unwrap_or_default();
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

fn merge(held: &mut Option<OwnedSemaphorePermit>, more: Option<OwnedSemaphorePermit>) {
    match (held, more) {
        (Some(held), Some(more)) => held.merge(more),
        (held @ None, more) => *held = more,
        (Some(_), None) => {}
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
