//! Requests with audio: chats, transcripts, and conversations over a WebSocket.

#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::net::SocketAddr;
use std::num::NonZero;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::Request;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use engine::media::Media;
use engine::media::audio::{AudioShape, ClipConfig, MelSettings, PaddingMode};
use engine::service::Job;
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use server::serve::Outcome;
use server::{Limits, Options};
use support::{KEYS, Server, Setup, answer, run};
use tokenizer::Piece;
use tokio_tungstenite::MaybeTlsStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

/// How long requests have to end.
const DRAIN: Duration = Duration::from_secs(10);

/// Chunks of 2 s, four frames a token: 25 tokens.
fn clips() -> ClipConfig {
    let settings = MelSettings { n_mels: 8, chunk_frames: 200, ..MelSettings::default() };
    let count = |n| NonZero::new(n).unwrap();
    let shape = AudioShape { chunk_frames: count(200), stack: count(4), padding: PaddingMode::Valid, block: None };
    ClipConfig::parse(settings, shape, &engine::Limits::default()).unwrap()
}

fn hearing(limits: Limits) -> Setup {
    let options = Options { limits, ..Options::default() };
    Setup { clips: Some(clips()), options, ..Setup::default() }
}

fn server() -> Server {
    hearing(Limits::default()).start()
}

/// 16-bit samples at 16 kHz: a tone.
fn pcm(seconds: f32) -> Vec<u8> {
    let n = (seconds * 16_000.0) as usize;
    (0..n).flat_map(|i| (((i as f32 * 0.3).sin() * 8000.0) as i16).to_le_bytes()).collect()
}

/// A WAV file of these samples.
fn wav(pcm: &[u8]) -> Vec<u8> {
    let n = u32::try_from(pcm.len()).unwrap();
    let mut file = b"RIFF".to_vec();
    file.extend((36 + n).to_le_bytes());
    file.extend(b"WAVEfmt \x10\0\0\0\x01\0\x01\0\x80\x3e\0\0\0\x7d\0\0\x02\0\x10\0data");
    file.extend(n.to_le_bytes());
    file.extend(pcm);
    file
}

fn input(bytes: &[u8], format: &str) -> Value {
    json!({"type": "input_audio", "input_audio": {"data": STANDARD.encode(bytes), "format": format}})
}

fn chat(role: &str, content: Value) -> Value {
    json!({"messages": [{"role": "user", "content": "x"}, {"role": role, "content": content}]})
}

/// Rows of each clip of a job.
fn rows(job: &Job) -> Vec<usize> {
    let rows = |media: &Media| match media {
        Media::Audio(sound) => sound.n_rows(),
        Media::Image(_) => 0,
    };
    job.media.iter().map(rows).collect()
}

#[tokio::test]
async fn a_chat_takes_clips_between_its_texts() {
    let server = server();
    let url = format!("data:audio/wav;base64,{}", STANDARD.encode(wav(&pcm(0.5))));
    let content = json!([
        {"type": "text", "text": "a"}, input(&wav(&pcm(1.0)), "wav"), {"type": "text", "text": "b"},
        {"type": "audio_url", "audio_url": {"url": url}}, input(&pcm(2.01), "pcm16"),
    ]);
    let reply = server.post("/v1/chat/completions", &chat("user", content)).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    let job = server.last_job();
    // 50, 25 and 100 + 1 frames of 20 ms.
    assert_eq!(rows(&job), [13, 7, 25 + 1]);
    let places: Vec<usize> =
        job.pieces.iter().filter_map(|piece| if let Piece::Media(n) = piece { Some(*n) } else { None }).collect();
    assert_eq!(places, [0, 1, 2]);
    // A start and an end token around each.
    let text: usize = job.pieces.iter().map(|piece| if let Piece::Ids(ids) = piece { ids.len() } else { 0 }).sum();
    assert_eq!(server.app.model().handle.n_positions(&job.pieces, &job.media), text + 13 + 7 + 26 + 6);
    let tool = json!({"messages": [
        {"role": "user", "content": "x"},
        {"role": "assistant", "content": null, "tool_calls": [
            {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}]},
        {"role": "tool", "tool_call_id": "c", "content": [input(&wav(&pcm(0.1)), "wav")]},
    ]});
    assert_eq!(server.post("/v1/chat/completions", &tool).await.status, 200);
    let body = json!({"input": [{"role": "user", "content": [input(&wav(&pcm(1.0)), "wav")]}]});
    assert_eq!(server.post("/v1/responses", &body).await.status, 200);
    assert_eq!(rows(&server.last_job()), [13]);
    let models = server.get("/v1/models").await.json();
    assert_eq!(models["data"][0]["modalities"], json!(["text", "audio"]));
}

#[tokio::test]
async fn audio_that_can_not_be_used_is_refused_by_name() {
    let mut limits = Limits::default();
    (limits.engine.audio_seconds, limits.engine.audio_bytes, limits.engine.audios_per_prompt) = (2, 100_000, 2);
    let server = hearing(limits).start();
    let part = |bytes: &[u8], format: &str| chat("user", json!([input(bytes, format)]));
    let clip = || input(&wav(&pcm(0.1)), "wav");
    let long = wav(&pcm(2.5));
    let cases = [
        ("junk", part(b"this is no audio at all", "wav"), "audio_decode_failed"),
        ("another format", part(&wav(&pcm(0.1)), "flac"), "audio_decode_failed"),
        ("cut off", part(&wav(&pcm(0.5))[..30], "wav"), "audio_decode_failed"),
        ("nothing", part(&wav(&[]), "wav"), "audio_empty"),
        ("no bytes", part(b"", "wav"), "audio_empty"),
        ("too long", part(&long, "wav"), "audio_too_long"),
        ("too large", part(&wav(&pcm(3.5)), "wav"), "audio_too_large"),
        ("too many", chat("user", json!([clip(), clip(), clip()])), "too_many_audios"),
        ("an unknown format", part(b"x", "opus"), "invalid_value"),
        (
            "no base64",
            chat("user", json!([{"type": "input_audio", "input_audio": {"data": "?", "format": "wav"}}])),
            "invalid_value",
        ),
        (
            "no data",
            chat("user", json!([{"type": "input_audio", "input_audio": {"format": "wav"}}])),
            "missing_required_parameter",
        ),
        (
            "an address",
            chat("user", json!([{"type": "audio_url", "audio_url": {"url": "http://example.com/a.wav"}}])),
            "unsupported_parameter",
        ),
        ("the assistant", chat("assistant", json!([clip()])), "invalid_value"),
        ("the system", chat("system", json!([clip()])), "invalid_value"),
    ];
    let n_cases = cases.len();
    for (what, body, code) in cases {
        let reply = server.post("/v1/chat/completions", &body).await;
        assert_eq!(
            (reply.status.as_u16(), &reply.json()["error"]["code"]),
            (400, &json!(code)),
            "{what}: {}",
            reply.text()
        );
    }
    assert!(server.jobs.lock().unwrap().is_empty(), "nothing of it reached the engine");
    let deaf = support::server();
    let reply = deaf.post("/v1/chat/completions", &part(&wav(&pcm(0.1)), "wav")).await;
    assert_eq!((reply.status.as_u16(), &reply.json()["error"]["code"]), (400, &json!("audio_not_supported")));
    println!("{n_cases} kinds of audio refused by name");
}

fn form(path: &str, file: &[u8], fields: &[(&str, &str)]) -> Request<Body> {
    let mut body = b"--B\r\ncontent-disposition: form-data; name=\"file\"; filename=\"a.wav\"\r\n\r\n".to_vec();
    body.extend(file);
    for (name, value) in fields {
        body.extend(format!("\r\n--B\r\ncontent-disposition: form-data; name=\"{name}\"\r\n\r\n{value}").bytes());
    }
    body.extend(b"\r\n--B--\r\n");
    let request = Request::post(path).header("content-type", "multipart/form-data; boundary=B");
    request.body(Body::from(body)).unwrap()
}

#[tokio::test]
async fn files_are_written_down() {
    let server = server();
    let (transcriptions, translations) = ("/v1/audio/transcriptions", "/v1/audio/translations");
    let file = wav(&pcm(1.5));
    let fields = [("model", "toy"), ("language", "en"), ("prompt", "Puna"), ("temperature", "0.2")];
    let reply = server.send(form(transcriptions, &file, &fields)).await;
    assert_eq!((reply.status.as_u16(), &reply.json()["text"]), (200, &json!("Hello, you!")), "{}", reply.text());
    assert!(reply.json().get("duration").is_none());
    assert_eq!(rows(&server.last_job()), [19]);
    let text = server.last_prompt();
    assert!(text.contains("in the language \"en\"") && text.contains("Puna"), "{text}");
    let text = server.send(form(transcriptions, &file, &[("response_format", "text")])).await;
    assert_eq!((text.text(), text.header("content-type")), ("Hello, you!\n".into(), "text/plain; charset=utf-8"));
    let verbose = server.send(form(translations, &file, &[("response_format", "verbose_json")])).await.json();
    assert_eq!((&verbose["task"], &verbose["duration"]), (&json!("translate"), &json!(1.5)));
    assert!(server.last_prompt().contains("in English"));
    let stream = server.send(form(transcriptions, &file, &[("stream", "true")])).await.text();
    let events: Vec<Value> = stream
        .lines()
        .filter_map(|line| line.strip_prefix("data: "))
        .filter(|line| *line != "[DONE]")
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let deltas: String = events.iter().filter_map(|event| event["delta"].as_str()).collect();
    let last = events.last().unwrap();
    assert_eq!((deltas.as_str(), &last["type"]), ("Hello, you!", &json!("transcript.text.done")));
    assert_eq!(last["text"], "Hello, you!");
    for (fields, param) in [
        (vec![("response_format", "srt")], "response_format"),
        (vec![("response_format", "yaml")], "response_format"),
        (vec![("timestamp_granularities[]", "word")], "timestamp_granularities"),
        (vec![("temperature", "warm")], "temperature"),
        (vec![("temperature", "2.5")], "temperature"),
        (vec![("stream", "perhaps")], "stream"),
        (vec![("stream", "true"), ("response_format", "text")], "stream"),
        (vec![("chunking_strategy", "{}")], "chunking_strategy"),
        (vec![("include[]", "logprobs")], "include"),
    ] {
        let reply = server.send(form(transcriptions, &file, &fields)).await;
        assert_eq!((reply.status.as_u16(), &reply.json()["error"]["param"]), (400, &json!(param)), "{fields:?}");
    }
    let ignored = server.send(form(translations, &file, &[("language", "en")])).await;
    assert_eq!((ignored.status.as_u16(), ignored.header("x-ignored-params")), (200, "language"));
    let none = server.send(form(transcriptions, b"", &[])).await;
    assert_eq!(none.json()["error"]["code"], "audio_empty");
}

struct Talk(tokio_tungstenite::WebSocketStream<MaybeTlsStream<tokio::net::TcpStream>>);

impl Talk {
    async fn begin(address: SocketAddr) -> Self {
        let (socket, _) =
            tokio_tungstenite::connect_async(format!("ws://{address}/v1/realtime?model=toy")).await.unwrap();
        let mut talk = Self(socket);
        assert_eq!(talk.next().await["type"], "session.created");
        talk
    }

    async fn say(&mut self, event: Value) {
        self.0.send(Message::text(event.to_string())).await.unwrap();
    }

    async fn append(&mut self, pcm: &[u8]) {
        self.say(json!({"type": "input_audio_buffer.append", "audio": STANDARD.encode(pcm)})).await;
    }

    async fn next(&mut self) -> Value {
        loop {
            match self.0.next().await.expect("an event").unwrap() {
                Message::Text(text) => return serde_json::from_str(text.as_str()).unwrap(),
                Message::Close(_) => return json!({"type": "close"}),
                _ => {}
            }
        }
    }

    /// Events up to the first of this kind.
    async fn until(&mut self, kind: &str) -> Vec<Value> {
        let mut events = Vec::new();
        loop {
            let event = self.next().await;
            let is_last = event["type"] == kind || event["type"] == "close";
            events.push(event);
            if is_last {
                return events;
            }
        }
    }
}

fn kinds(events: &[Value]) -> Vec<&str> {
    events.iter().map(|event| event["type"].as_str().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_question_that_is_said_in_pieces_is_answered_as_it_is_made() {
    let running = run(hearing(Limits::default()), DRAIN);
    let mut talk = Talk::begin(running.address).await;
    talk.say(json!({"type": "session.update", "session": {"instructions": "Be brief.", "max_output_tokens": 64}}))
        .await;
    assert_eq!(talk.next().await["session"]["instructions"], "Be brief.");
    let said = pcm(1.0);
    for piece in said.chunks(999) {
        talk.append(piece).await;
    }
    talk.say(json!({"type": "input_audio_buffer.commit"})).await;
    assert_eq!(
        kinds(&talk.until("conversation.item.added").await),
        ["input_audio_buffer.committed", "conversation.item.added"]
    );
    talk.say(json!({"type": "response.create"})).await;
    let events = talk.until("response.done").await;
    let deltas: String = events.iter().filter_map(|event| event["delta"].as_str()).collect();
    assert_eq!(deltas, "Hello, you!");
    let done = &events.last().unwrap()["response"];
    assert_eq!(
        (&done["status"], &done["output"][0]["content"][0]["text"]),
        (&json!("completed"), &json!("Hello, you!"))
    );
    assert_eq!(rows(&running.server.last_job()), [13]);
    assert!(running.server.last_prompt().contains("Be brief."));
    // The same rows as the same samples in one piece.
    let hash = |job: &Job| job.media.last().map(Media::keys);
    let spoken = hash(&running.server.last_job());
    let whole = chat("user", json!([input(&said, "pcm16")]));
    running.server.post("/v1/chat/completions", &whole).await;
    assert_eq!(hash(&running.server.last_job()), spoken);
    // The conversation goes on from what was said and answered.
    talk.say(json!({"type": "conversation.item.create", "item": {"type": "message", "role": "user",
        "content": [{"type": "input_text", "text": "And now?"}]}}))
        .await;
    talk.until("conversation.item.added").await;
    talk.say(json!({"type": "response.create"})).await;
    talk.until("response.done").await;
    let text = running.server.last_prompt();
    assert!(text.contains("Hello, you!") && text.contains("And now?"), "{text}");
    drop(talk);
    running.stop.send(()).await.unwrap();
    assert_eq!(running.ended.await.unwrap().unwrap(), Outcome::Drained);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_certain_of_a_question_is_computed_before_its_end() {
    let running = run(hearing(Limits::default()), DRAIN);
    let mut talk = Talk::begin(running.address).await;
    // Two seconds are a chunk, which is certain 200 samples later.
    let said = pcm(2.5);
    for piece in said.chunks(8000) {
        talk.append(piece).await;
    }
    let jobs = Arc::clone(&running.server.jobs);
    support::until("the first chunk is computed", || jobs.lock().unwrap().len() == 1).await;
    let ahead = running.server.last_job();
    let engine::service::Task::Generate { stop, .. } = &ahead.task else { panic!("{:?}", ahead.task) };
    assert_eq!((stop.max_tokens, rows(&ahead)), (0, vec![25]));
    talk.say(json!({"type": "input_audio_buffer.commit"})).await;
    talk.say(json!({"type": "response.create"})).await;
    talk.until("response.done").await;
    let whole = running.server.last_job();
    assert_eq!(rows(&whole), [25 + 7]);
    // It begins as the answer's prompt does, and ends behind the rows of the chunk: there is no end token yet.
    assert_eq!(ahead.pieces, whole.pieces[..ahead.pieces.len()]);
    assert!(matches!(ahead.pieces.last(), Some(Piece::Media(0))));
    let handle = &running.server.app.model().handle;
    let before = handle.n_positions(&ahead.pieces[..1], &ahead.media);
    assert_eq!(handle.n_positions(&ahead.pieces, &ahead.media), before + 1 + 25);
    let first = |job: &Job| job.media[0].keys().of_row(0);
    assert_eq!(first(&ahead), first(&whole));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn blocks_of_a_question_are_computed_as_they_are_said_and_its_clip_is_made_once() {
    let settings = MelSettings { n_mels: 8, chunk_frames: 200, log_mel_max: Some(1.5), ..MelSettings::default() };
    let count = |n| NonZero::new(n).unwrap();
    let (chunk_frames, stack, padding) = (count(200), count(4), PaddingMode::Valid);
    let shape = AudioShape { chunk_frames, stack, padding, block: Some(count(20)) };
    let clips = ClipConfig::parse(settings, shape, &engine::Limits::default()).unwrap();
    let running = run(Setup { clips: Some(clips), ..hearing(Limits::default()) }, DRAIN);
    let mut talk = Talk::begin(running.address).await;
    // A block is 0.4 seconds, and certain 200 samples later.
    let said = pcm(0.7);
    let (begin, rest) = said.split_at(2 * (6400 + 199));
    talk.append(begin).await;
    talk.append(&rest[..2]).await;
    let jobs = Arc::clone(&running.server.jobs);
    support::until("the first block is computed", || jobs.lock().unwrap().len() == 1).await;
    let ahead = running.server.last_job();
    assert_eq!(rows(&ahead), [5]);
    talk.append(&rest[2..]).await;
    let commit = json!({"type": "input_audio_buffer.commit"});
    talk.say(commit.clone()).await;
    talk.say(json!({"type": "response.create"})).await;
    talk.until("response.done").await;
    let first = running.server.last_job();
    assert_eq!(rows(&first), [9]);
    assert_eq!(ahead.media[0].keys().of_row(4), first.media[0].keys().of_row(4));
    assert_ne!(ahead.media[0].keys().of_row(4), first.media[0].keys().of_row(5));

    talk.append(&pcm(0.2)).await;
    talk.say(commit).await;
    talk.say(json!({"type": "response.create"})).await;
    talk.until("response.done").await;
    let second = running.server.last_job();
    assert_eq!(rows(&second), [9, 3]);
    let columns = |job: &Job| match &job.media[0] {
        Media::Audio(sound) => sound.chunks().next().unwrap().columns().as_ptr(),
        Media::Image(_) => panic!("an image"),
    };
    assert_eq!(columns(&first), columns(&second), "the same features, not others that are equal");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pause_ends_a_question_where_that_is_asked() {
    let running = run(hearing(Limits::default()), DRAIN);
    let mut talk = Talk::begin(running.address).await;
    let turns = json!({"type": "server_vad", "silence_duration_ms": 200, "prefix_padding_ms": 100});
    talk.say(json!({"type": "session.update", "session": {"turn_detection": turns}})).await;
    assert_eq!(talk.next().await["session"]["audio"]["input"]["turn_detection"]["silence_duration_ms"], 200);
    let silence = |seconds: f32| vec![0; (seconds * 32_000.0) as usize];
    for said in [silence(3.0), pcm(1.0), silence(0.5)].concat().chunks(4000) {
        talk.append(said).await;
    }
    let events = talk.until("response.done").await;
    let kinds = kinds(&events);
    let order =
        ["input_audio_buffer.speech_started", "input_audio_buffer.speech_stopped", "input_audio_buffer.committed"];
    let places: Vec<usize> = order.iter().map(|kind| kinds.iter().position(|one| one == kind).unwrap()).collect();
    assert!(places.is_sorted(), "{kinds:?}");
    assert_eq!(events[places[0]]["audio_start_ms"], 2900);
    // The silence before it is gone: 0.1 s of padding, a second, and the pause that ended it.
    let rows = rows(&running.server.last_job())[0];
    assert!((16..=19).contains(&rows), "{rows} rows of 80 ms");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mistakes_are_told_and_the_session_goes_on() {
    let mut limits = Limits::default();
    limits.engine.audio_bytes = 40_000;
    let running = run(hearing(limits), DRAIN);
    let mut talk = Talk::begin(running.address).await;
    let cases = [
        (json!({"type": "no.such.event"}), "type"),
        (json!({"no": "type"}), "type"),
        (json!({"type": "input_audio_buffer.append"}), "audio"),
        (json!({"type": "input_audio_buffer.append", "audio": "?"}), "audio"),
        (json!({"type": "input_audio_buffer.commit"}), "input_audio_buffer"),
        (json!({"type": "response.create"}), "response"),
        (json!({"type": "response.create", "response": {"voice": "x"}}), "session.voice"),
        (json!({"type": "session.update", "session": {"temperature": "hot"}}), "session.temperature"),
        (json!({"type": "session.update", "session": {"output_modalities": ["audio"]}}), "session.output_modalities"),
        (json!({"type": "session.update", "session": {"tools": [{}]}}), "session.tools"),
        (json!({"type": "input_audio_buffer.append", "audio": STANDARD.encode(pcm(2.0))}), "audio"),
        (json!({"type": "conversation.item.create", "item": {"type": "message", "role": "tool"}}), "item.role"),
    ];
    let n_cases = cases.len();
    for (event, param) in cases {
        let mut event = event;
        event["event_id"] = json!("mine");
        talk.say(event.clone()).await;
        let told = talk.next().await;
        assert_eq!((&told["type"], &told["error"]["param"]), (&json!("error"), &json!(param)), "{event}: {told}");
        assert_eq!(told["error"]["event_id"], "mine");
    }
    talk.0.send(Message::text("{")).await.unwrap();
    assert_eq!(talk.next().await["error"]["code"], "invalid_body");
    talk.append(&pcm(0.5)).await;
    talk.say(json!({"type": "input_audio_buffer.commit"})).await;
    talk.until("conversation.item.added").await;
    talk.say(json!({"type": "response.create"})).await;
    assert_eq!(talk.until("response.done").await.last().unwrap()["response"]["status"], "completed");
    println!("{n_cases} mistakes told");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_is_cancelled_and_sessions_end_with_the_server() {
    let script: support::Script = Arc::new(|submitted, handle| {
        support::hold(|| handle.is_draining() || submitted.events.is_closed());
        answer(submitted, "late");
    });
    let running = run(Setup { script, ..hearing(Limits::default()) }, DRAIN);
    let mut talk = Talk::begin(running.address).await;
    talk.say(json!({"type": "conversation.item.create", "item": {"type": "message", "role": "user",
        "content": [{"type": "input_text", "text": "x"}]}}))
        .await;
    talk.until("conversation.item.added").await;
    talk.say(json!({"type": "response.create"})).await;
    talk.until("response.content_part.added").await;
    talk.say(json!({"type": "response.create"})).await;
    assert_eq!(talk.next().await["error"]["type"], "invalid_request_error");
    talk.say(json!({"type": "response.cancel"})).await;
    assert_eq!(talk.until("response.done").await.last().unwrap()["response"]["status"], "cancelled");
    let app = running.server.app.clone();
    support::until("the place is free", || app.model().handle.n_jobs() == 0).await;
    let mut idle = Talk::begin(running.address).await;
    running.stop.send(()).await.unwrap();
    for talk in [&mut talk, &mut idle] {
        let events = talk.until("close").await;
        assert_eq!(kinds(&events), ["error", "close"]);
    }
    drop((talk, idle));
    assert_eq!(running.ended.await.unwrap().unwrap(), Outcome::Drained);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_needs_a_key_that_a_browser_can_offer() {
    let keys = server::Keys::parse(&KEYS.join("\n")).unwrap();
    let running = run(Setup { options: Options { keys, ..Options::default() }, ..hearing(Limits::default()) }, DRAIN);
    let url = format!("ws://{}/v1/realtime", running.address);
    let connect = |protocols: Option<String>| {
        let mut request = url.as_str().into_client_request().unwrap();
        if let Some(protocols) = protocols {
            request.headers_mut().insert("sec-websocket-protocol", protocols.parse().unwrap());
        }
        tokio_tungstenite::connect_async(request)
    };
    assert!(connect(None).await.is_err());
    assert!(connect(Some("realtime, openai-insecure-api-key.sk-wrong-wrong-wrong".into())).await.is_err());
    let (_, response) = connect(Some(format!("realtime, openai-insecure-api-key.{}", KEYS[0]))).await.unwrap();
    assert_eq!(response.headers()["sec-websocket-protocol"], "realtime");
    // Not a WebSocket.
    let plain = running.server.call(KEYS[0], "GET", "/v1/realtime", Value::Null).await;
    assert_eq!(plain.status, 400);
}
