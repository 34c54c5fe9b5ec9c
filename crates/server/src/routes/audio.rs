//! `POST /v1/audio/transcriptions` and `/v1/audio/translations`: the chat model is asked for the words of a file.

use axum::extract::multipart::MultipartRejection;
use axum::extract::{DefaultBodyLimit, Extension, Multipart, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use engine::media::Media;
use engine::media::audio::RATE_HZ;
use engine::service::{Event, Usage};
use serde::Serialize;
use serde_json::Value;
use tokenizer::{Message, Part, Role};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{json, model};
use crate::answer::{Answers, Keeps};
use crate::app::App;
use crate::body::Notes;
use crate::error::{Error, Shape};
use crate::form::{self, Field};
use crate::keys::Caller;
use crate::prompt::{Conversation, Kind, Medium, Source};
use crate::refusals::Refusals;
use crate::request_id::RequestId;
use crate::settings::Asked;
use crate::sse::{self, Frames, Out};
use crate::tools::{Hearing, Piece};
use crate::wire::Real;
use crate::work::Work;

/// Most characters of `prompt`, and of `language`.
const TEXT_CHARS: [usize; 2] = [4096, 32];

/// The routes of this file.
pub fn routes() -> OpenApiRouter<App> {
    // Fields are counted by themselves.
    OpenApiRouter::default()
        .routes(routes!(transcriptions))
        .routes(routes!(translations))
        .layer(DefaultBodyLimit::disable())
}

/// What is to be written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Task {
    Transcribe,
    Translate,
}

/// A form with audio.
#[derive(ToSchema)]
#[allow(dead_code, reason = "describes the form in the document")]
struct Form {
    /// The audio: WAV, FLAC, MP3, Ogg Vorbis or AAC in MP4.
    #[schema(value_type = String, format = Binary)]
    file: Vec<u8>,
    /// The model.
    model: Option<String>,
    /// The language that is spoken, a name or a code. Not of translations.
    #[schema(max_length = 32)]
    language: Option<String>,
    /// What helps to understand it: names that occur, what came before.
    #[schema(max_length = 4096)]
    prompt: Option<String>,
    /// `json` if absent.
    #[schema(pattern = "^(json|text|verbose_json)$")]
    response_format: Option<String>,
    /// 0 if absent.
    #[schema(minimum = 0, maximum = 2)]
    temperature: Option<f64>,
    /// Whether pieces come as they are made. Not of translations.
    stream: Option<bool>,
}

/// What was said.
#[derive(Debug, Serialize, ToSchema)]
struct Transcript {
    /// With `verbose_json`: `transcribe` or `translate`.
    #[serde(skip_serializing_if = "Option::is_none")]
    task: Option<&'static str>,
    /// With `verbose_json`, if it was given.
    #[serde(skip_serializing_if = "Option::is_none")]
    language: Option<String>,
    /// With `verbose_json`: seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    duration: Option<f64>,
    /// The words.
    text: String,
    /// What it took.
    usage: Counts,
}

/// What a transcript took.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = TranscriptUsage)]
struct Counts {
    /// `tokens`
    #[serde(rename = "type")]
    kind: &'static str,
    /// Tokens of the prompt.
    input_tokens: usize,
    /// Of those, for the audio and for the instruction.
    input_token_details: InputDetails,
    /// Tokens of the answer.
    output_tokens: usize,
    /// Both.
    total_tokens: usize,
}

/// What a transcript's prompt consists of.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = TranscriptInputDetails)]
struct InputDetails {
    /// Of the audio and around it.
    audio_tokens: usize,
    /// Of everything else.
    text_tokens: usize,
}

impl From<Usage> for Counts {
    fn from(usage: Usage) -> Self {
        Self {
            kind: "tokens",
            input_tokens: usage.n_prompt,
            input_token_details: InputDetails {
                audio_tokens: usage.n_audio,
                text_tokens: usage.n_prompt.saturating_sub(usage.n_audio),
            },
            output_tokens: usage.n_completion,
            total_tokens: usage.n_prompt + usage.n_completion,
        }
    }
}

/// Writes down what is said in an audio file
#[utoipa::path(
    post, path = "/v1/audio/transcriptions", tag = "audio",
    request_body(content = Form, content_type = "multipart/form-data"),
    responses(
        (status = 200, description = "the words; text with response_format text, events if stream is true", content(
            (Transcript = "application/json"), (String = "text/plain"), (Value = "text/event-stream"),
        )),
        Refusals,
    ),
)]
async fn transcriptions(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    Extension(request_id): Extension<RequestId>,
    Extension(notes): Extension<Notes>,
    form: Result<Multipart, MultipartRejection>,
) -> Result<Response, Error> {
    let wanted = Wanted::read(form, Task::Transcribe, &notes, &app).await?;
    answer(&app, caller, request_id, wanted).await
}

/// Writes down in English what is said in an audio file
#[utoipa::path(
    post, path = "/v1/audio/translations", tag = "audio",
    request_body(content = Form, content_type = "multipart/form-data"),
    responses(
        (status = 200, description = "the words; text with response_format text", content(
            (Transcript = "application/json"), (String = "text/plain"),
        )),
        Refusals,
    ),
)]
async fn translations(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    Extension(request_id): Extension<RequestId>,
    Extension(notes): Extension<Notes>,
    form: Result<Multipart, MultipartRejection>,
) -> Result<Response, Error> {
    let wanted = Wanted::read(form, Task::Translate, &notes, &app).await?;
    answer(&app, caller, request_id, wanted).await
}

/// How the words are answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Json,
    Text,
    Verbose,
}

/// What a form asks for.
#[derive(Debug)]
struct Wanted {
    task: Task,
    bytes: Vec<u8>,
    model: Option<String>,
    language: Option<String>,
    prompt: Option<String>,
    form: Format,
    temperature: Option<Real>,
    is_stream: bool,
}

impl Wanted {
    async fn read(
        form: Result<Multipart, MultipartRejection>,
        task: Task,
        notes: &Notes,
        app: &App,
    ) -> Result<Self, Error> {
        let fields = form::fields(form, app.limits().engine.audio_bytes, app).await?;
        let mut file = None;
        let (mut model, mut language, mut prompt, mut temperature) = (None, None, None, None);
        let (mut form, mut is_stream) = (Format::Json, false);
        for field in fields {
            match (field.name.as_str(), task) {
                ("file", _) => file = Some(field.bytes),
                ("model", _) => model = Some(field.text()?),
                ("language", Task::Transcribe) => language = Some(bounded(field, TEXT_CHARS[1])?),
                ("prompt", _) => prompt = Some(bounded(field, TEXT_CHARS[0])?),
                ("temperature", _) => temperature = Some(number(field)?),
                ("response_format", _) => form = form_of(&field.text()?)?,
                ("stream", Task::Transcribe) => is_stream = flag(field)?,
                ("timestamp_granularities[]", _) => {
                    let why = "is not supported: the model gives words without their times";
                    return Err(Error::unsupported("timestamp_granularities", why));
                }
                ("include[]" | "include", _) => {
                    return Err(Error::unsupported("include", "is not supported; /v1/chat/completions has logprobs"));
                }
                ("chunking_strategy", Task::Transcribe) => {
                    let text = field.text()?;
                    if text.trim().trim_matches('"') != "auto" {
                        return Err(Error::unsupported("chunking_strategy", "must be auto: the model hears all of it"));
                    }
                }
                (other, _) => notes.ignored(other),
            }
        }
        let bytes = file.ok_or_else(|| Error::missing("file"))?;
        if is_stream && form != Format::Json {
            return Err(Error::field("stream", "can only be true where response_format is json"));
        }
        Ok(Self { task, bytes, model, language, prompt, form, temperature, is_stream })
    }

    /// What the model is told to do.
    fn instruction(&self) -> String {
        let mut text = String::from(match self.task {
            Task::Transcribe => "Write down exactly what is said in this recording",
            Task::Translate => "Write down in English what is said in this recording",
        });
        if let Some(language) = &self.language {
            text += &format!(", in the language \"{language}\"");
        }
        text += ". Answer with the words alone.";
        if let Some(prompt) = &self.prompt {
            text += &format!("\nWhat may help to understand it: {prompt}");
        }
        text
    }
}

fn bounded(field: Field, most: usize) -> Result<String, Error> {
    let name = field.name.clone();
    let text = field.text()?;
    let got = text.chars().count();
    match got > most {
        true => Err(Error::field(name, format!("has {got} characters; the limit is {most}"))),
        false => Ok(text),
    }
}

fn number(field: Field) -> Result<Real, Error> {
    let name = field.name.clone();
    let text = field.text()?;
    text.trim().parse().map(Real).map_err(|_| Error::field(name, "is no number"))
}

fn flag(field: Field) -> Result<bool, Error> {
    let name = field.name.clone();
    match field.text()?.trim() {
        "true" | "True" | "1" => Ok(true),
        "false" | "False" | "0" => Ok(false),
        _ => Err(Error::field(name, "must be true or false")),
    }
}

fn form_of(name: &str) -> Result<Format, Error> {
    match name {
        "json" => Ok(Format::Json),
        "text" => Ok(Format::Text),
        "verbose_json" => Ok(Format::Verbose),
        "srt" | "vtt" | "diarized_json" => {
            let why =
                format!("is {name}: the model gives words without their times; json, text and verbose_json are there");
            Err(Error::unsupported("response_format", why))
        }
        _ => Err(Error::field("response_format", "must be json, text or verbose_json")),
    }
}

async fn answer(app: &App, caller: Caller, request_id: RequestId, mut wanted: Wanted) -> Result<Response, Error> {
    model(wanted.model.as_deref(), app)?;
    let asked = Asked { temperature: wanted.temperature.or(Some(Real(0.0))), ..Asked::default() };
    let settings = asked.check(app)?;
    let text = Part::Text(wanted.instruction());
    let kind = Kind::Clip(Source::Bytes(std::mem::take(&mut wanted.bytes)), None);
    let conversation = Conversation {
        messages: vec![Message::new(Role::User, vec![Part::Audio, text])],
        media: vec![Medium { field: "file".into(), kind }],
        ..Conversation::default()
    };
    let prompt = conversation.prompt("file", app).await?;
    let seconds = prompt.media.iter().map(|media| match media {
        Media::Audio(sound) => sound.n_samples() as f64 / f64::from(RATE_HZ),
        Media::Image(_) => 0.0,
    });
    let seconds = seconds.sum();
    let job = settings.job(&prompt, caller, app)?;
    let work = Work::answer(app, job, prompt)?;
    let answers = Answers::new(1, 1, Keeps::Text, &Hearing::new(&[], ""));
    if wanted.is_stream {
        return Ok(sse::stream(app, work, Stream { answers }, request_id.0));
    }
    whole(answers, work, wanted, seconds).await
}

async fn whole(mut answers: Answers, work: Work, wanted: Wanted, seconds: f64) -> Result<Response, Error> {
    work.each(|job, event| drop(answers.take(job, event))).await?;
    let text = words(&answers);
    if wanted.form == Format::Text {
        return Ok(([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], text + "\n").into_response());
    }
    let is_verbose = wanted.form == Format::Verbose;
    let task = match wanted.task {
        Task::Transcribe => "transcribe",
        Task::Translate => "translate",
    };
    Ok(json(&Transcript {
        task: is_verbose.then_some(task),
        language: wanted.language.filter(|_| is_verbose),
        duration: is_verbose.then_some(seconds),
        text,
        usage: answers.usage.into(),
    }))
}

/// The only answer, without the space around it.
fn words(answers: &Answers) -> String {
    answers.list.first().map(|answer| answer.content.trim().to_owned()).unwrap_or_default()
}

/// `transcript.text.delta` and `transcript.text.done`.
struct Stream {
    answers: Answers,
}

impl Frames for Stream {
    fn event(&mut self, job: usize, event: Event, out: &mut Out) {
        for piece in self.answers.take(job, event) {
            if let Piece::Text(delta) = piece {
                out.data(&serde_json::json!({"type": "transcript.text.delta", "delta": delta}));
            }
        }
    }

    fn end(&mut self, out: &mut Out) {
        let usage = Counts::from(self.answers.usage);
        let text = words(&self.answers);
        out.data(&serde_json::json!({"type": "transcript.text.done", "text": text, "usage": usage}));
        out.done();
    }

    fn fail(&mut self, _error: &Error, body: Value, out: &mut Out) {
        out.data(&body);
        out.done();
    }

    fn shape(&self) -> Shape {
        Shape::OpenAi
    }
}
