//! Batches: files of requests, worked off in the background. Every answer is on the disk before the next one counts: a
//! process that ends in between goes on where it was.

use std::collections::BTreeSet;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode, header};
use futures_util::stream::{self, StreamExt};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tower::ServiceExt;
use utoipa::ToSchema;

use crate::app::{App, Phase};
use crate::error::{Error, Shape};
use crate::keys::Caller;
use crate::limits::Limits;
use crate::request_id::RequestId;
use crate::routes::files::{self, NewFile};
use crate::store::Kind;
use crate::{body, id, root};

/// Where the requests of a batch may go.
pub const ENDPOINTS: [&str; 5] =
    ["/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses", "/v1/moderations"];

/// Batches of one caller.
const BATCHES: usize = 10_000;
/// Until a batch has to be done, in seconds.
const WINDOW_S: u64 = 24 * 3600;
/// Mistakes of a file that are shown.
const SHOWN: usize = 16;

/// A batch.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Batch {
    /// Its name.
    pub id: String,
    /// `batch`
    pub object: String,
    /// Where its requests go.
    pub endpoint: String,
    /// Its requests.
    pub input_file_id: String,
    /// `24h`
    pub completion_window: String,
    /// `in_progress`, `finalizing`, `completed`, `cancelling`, `cancelled`, `expired` or `failed`
    pub status: String,
    /// Answers of status 200, when it is done.
    pub output_file_id: Option<String>,
    /// Other answers, when it is done and there are any.
    pub error_file_id: Option<String>,
    /// What is wrong with the file.
    #[schema(value_type = Option<Object>)]
    pub errors: Option<Value>,
    /// Seconds since 1970, as all times here.
    pub created_at: u64,
    /// When it began.
    pub in_progress_at: Option<u64>,
    /// When it has to be done.
    pub expires_at: u64,
    /// When all requests were answered.
    pub finalizing_at: Option<u64>,
    /// When it was done.
    pub completed_at: Option<u64>,
    /// When it was given up.
    pub failed_at: Option<u64>,
    /// When its time was over.
    pub expired_at: Option<u64>,
    /// When somebody asked for its end.
    pub cancelling_at: Option<u64>,
    /// When it ended because of that.
    pub cancelled_at: Option<u64>,
    /// How many requests it has.
    pub request_counts: Counts,
    /// As given.
    #[schema(value_type = Option<std::collections::BTreeMap<String, String>>)]
    pub metadata: Option<Value>,
    /// Seconds until its output and error files expire, from when they are made; absent for never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_expires_after: Option<u64>,
}

/// How many requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct Counts {
    /// In all.
    pub total: usize,
    /// Answered with status 200.
    pub completed: usize,
    /// Answered otherwise.
    pub failed: usize,
}

/// A request of a batch.
#[derive(Debug, Clone, Deserialize)]
pub struct Line {
    /// Its name in the batch.
    pub custom_id: String,
    /// `POST`
    pub method: String,
    /// The batch's endpoint.
    pub url: String,
    /// What is asked.
    pub body: Value,
}

impl Line {
    /// Checks all lines and counts them.
    ///
    /// # Errors
    /// [`Error::Field`] naming the first lines that are wrong.
    pub fn check_all(bytes: &[u8], endpoint: &str, limits: &Limits) -> Result<usize, Error> {
        let (mut names, mut wrong, mut n_lines) = (BTreeSet::new(), Vec::new(), 0);
        for (number, line) in lines(bytes) {
            n_lines += 1;
            let why = match body::parse::<Self>(line, limits.json_depth) {
                Err(Error::Field { param, why, .. }) => format!("{param} {why}"),
                Err(Error::Malformed(why)) => why,
                Err(_) => "can not be read".into(),
                Ok((line, _)) if line.method != "POST" => "method must be POST".into(),
                Ok((line, _)) if line.url != endpoint => format!("url must be {endpoint}"),
                Ok((line, _)) if line.body.get("stream").is_some_and(|stream| *stream != false) => {
                    "body.stream must be false".into()
                }
                Ok((line, _)) if !names.insert(line.custom_id.clone()) => "custom_id is given twice".into(),
                Ok(_) => continue,
            };
            if wrong.len() < SHOWN {
                wrong.push(format!("line {}: {why}", number + 1));
            }
        }
        if n_lines == 0 || n_lines > limits.batch_lines {
            let why = format!("names a file of {n_lines} requests; it must have 1 to {}", limits.batch_lines);
            return Err(Error::field("input_file_id", why));
        }
        if wrong.is_empty() {
            return Ok(n_lines);
        }
        Err(Error::field("input_file_id", format!("names a file with mistakes: {}", wrong.join("; "))))
    }
}

/// Lines that are not empty, by their numbers from 0.
fn lines(bytes: &[u8]) -> impl Iterator<Item = (u64, &[u8])> {
    let lines = (0..).zip(bytes.split(|byte| *byte == b'\n'));
    lines.map(|(number, line)| (number, line.trim_ascii())).filter(|(_, line)| !line.is_empty())
}

impl Batch {
    /// A batch that begins `now`.
    pub fn new(input_file_id: String, endpoint: String, metadata: Option<Value>, n_lines: usize, now: u64) -> Self {
        Self {
            id: id::fresh("batch_"),
            object: "batch".into(),
            endpoint,
            input_file_id,
            completion_window: "24h".into(),
            status: "in_progress".into(),
            output_file_id: None,
            error_file_id: None,
            errors: None,
            created_at: now,
            in_progress_at: Some(now),
            expires_at: now + WINDOW_S,
            finalizing_at: None,
            completed_at: None,
            failed_at: None,
            expired_at: None,
            cancelling_at: None,
            cancelled_at: None,
            request_counts: Counts { total: n_lines, ..Counts::default() },
            metadata,
            output_expires_after: None,
        }
    }

    fn is_open(&self) -> bool {
        ["in_progress", "finalizing", "cancelling"].contains(&self.status.as_str())
    }
}

/// Keeps a batch as it is now.
///
/// # Errors
/// [`Error::Internal`] if the store fails.
pub async fn save(app: &App, caller: Caller, batch: Batch) -> Result<(), Error> {
    let app_ = app.clone();
    let save = move || app_.store().put(Kind::Batch, caller, (&batch.id, &batch), BATCHES);
    Ok(app.pool().run(save).await??)
}

/// A batch of the caller's.
///
/// # Errors
/// [`Error::NotFound`].
pub async fn find(app: &App, caller: Caller, id: String) -> Result<Batch, Error> {
    app.stored(Kind::Batch, caller, id).await?.ok_or_else(|| Error::NotFound("there is no batch of this name".into()))
}

/// Asks for the end of a batch.
///
/// # Errors
/// [`Error::NotFound`], and [`Error::Conflict`] if it has ended.
pub async fn cancel(app: &App, caller: Caller, id: String) -> Result<Batch, Error> {
    // Nobody else changes batches meanwhile.
    let _changes = app.batch_changes().lock().await;
    let mut batch = find(app, caller, id).await?;
    if !batch.is_open() {
        return Err(Error::Conflict(format!("the batch has ended: it is {}", batch.status)));
    }
    batch.status = "cancelling".into();
    batch.cancelling_at.get_or_insert_with(|| app.now());
    save(app, caller, batch.clone()).await?;
    app.batches().notify_one();
    Ok(batch)
}

/// Works off batches, oldest first, until the server drains.
pub async fn work(app: App) {
    let (router, _) = root::bare(&app);
    while app.phase() == Phase::Serving {
        let app_ = app.clone();
        let all = app.pool().run(move || app_.store().all::<Batch>(Kind::Batch)).await;
        let mut open: Vec<(Caller, Batch)> = match all {
            Ok(Ok(all)) => all.into_iter().filter(|(_, batch)| batch.is_open()).collect(),
            Ok(Err(error)) => {
                tracing::error!(%error, "batches can not be read");
                return;
            }
            Err(_) => return,
        };
        open.sort_by_key(|(_, batch)| batch.created_at);
        for (caller, batch) in open {
            if app.phase() != Phase::Serving {
                return;
            }
            let id = batch.id.clone();
            if let Err(error) = run(&app, &router, caller, batch).await {
                tracing::error!(%id, ?error, "a batch could not be worked off");
            }
        }
        app.batches().notified().await;
    }
}

/// What became of a request.
#[derive(Debug, Serialize, Deserialize)]
struct Done {
    status: u16,
    request_id: String,
    custom_id: String,
    body: Value,
}

/// Works off what is left of a batch.
async fn run(app: &App, router: &Router, caller: Caller, batch: Batch) -> Result<(), Error> {
    let (_, bytes) = match files::bytes(batch.input_file_id.clone(), caller, app).await {
        Ok(file) => file,
        Err(_) => return fail(app, caller, batch).await,
    };
    let done = answered(app, &batch.id).await?;
    let numbers: BTreeSet<u64> = done.iter().map(|(number, _)| *number).collect();
    let depth = app.limits().json_depth;
    let left: Vec<(u64, Line)> = lines(&bytes)
        .filter(|(number, _)| !numbers.contains(number))
        .filter_map(|(number, line)| Some((number, body::parse::<Line>(line, depth).ok()?.0)))
        .collect();
    drop(bytes);
    let answers = stream::iter(left).map(|(number, line)| one(app, router, caller, &batch, number, line));
    let mut answers = std::pin::pin!(answers.buffer_unordered(app.limits().batch_parallel));
    let mut counts = count(&done, batch.request_counts.total);
    while let Some(answer) = answers.next().await {
        // Asked to end, out of time or draining: what is left stays.
        let Some(done) = answer? else { continue };
        let status = done.status;
        if status == 200 {
            counts.completed += 1
        } else {
            counts.failed += 1
        }
        let _changes = app.batch_changes().lock().await;
        let now = find(app, caller, batch.id.clone()).await?;
        save(app, caller, Batch { request_counts: counts, ..now }).await?;
    }
    let now = find(app, caller, batch.id.clone()).await?;
    let is_answered = counts.completed + counts.failed >= counts.total;
    // Whatever else ends the work, the server does: what is left is for the next process.
    let is_over = is_answered || now.status != "in_progress" || app.now() >= now.expires_at;
    if app.phase() != Phase::Serving || !is_over {
        return Ok(());
    }
    finish(app, caller, &batch.id).await
}

fn count(done: &[(u64, Done)], total: usize) -> Counts {
    let completed = done.iter().filter(|(_, done)| done.status == 200).count();
    Counts { total, completed, failed: done.len() - completed }
}

async fn answered(app: &App, id: &str) -> Result<Vec<(u64, Done)>, Error> {
    let (app_, id) = (app.clone(), id.to_owned());
    let lines = app.pool().run(move || app_.store().lines(&id)).await??;
    Ok(lines.into_iter().filter_map(|(number, line)| Some((number, serde_json::from_slice(&line).ok()?))).collect())
}

/// Answers one request, again and again while the server is busy; `None` if it is not to be answered any more.
async fn one(
    app: &App,
    router: &Router,
    caller: Caller,
    batch: &Batch,
    number: u64,
    line: Line,
) -> Result<Option<Done>, Error> {
    let name = RequestId(id::fresh("req_"));
    loop {
        let now = find(app, caller, batch.id.clone()).await?;
        if now.status != "in_progress" || app.now() >= batch.expires_at || app.phase() != Phase::Serving {
            return Ok(None);
        }
        let mut request = Request::post(&batch.endpoint)
            .header(header::CONTENT_TYPE, "application/json")
            .body(Body::from(line.body.to_string()))
            .map_err(|_| Error::internal())?;
        request.extensions_mut().insert(caller);
        request.extensions_mut().insert(name.clone());
        let mut response = router.clone().oneshot(request).await.unwrap_or_else(|never| match never {});
        if let Some(error) = response.extensions_mut().remove::<Error>() {
            match error {
                Error::Busy { retry_after, .. } => {
                    pause(app, retry_after).await;
                    continue;
                }
                // It was cut off, not answered: after the restart it is asked again.
                Error::ShuttingDown => return Ok(None),
                Error::QueueTime => {
                    pause(app, Duration::from_secs(1)).await;
                    continue;
                }
                error => response = error.response(Shape::of(&batch.endpoint), &name.0),
            }
        }
        let status = response.status().as_u16();
        let bytes = to_bytes(response.into_body(), usize::MAX).await.map_err(|_| Error::internal())?;
        let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        let done = Done { status, request_id: name.0, custom_id: line.custom_id, body };
        let json = serde_json::to_vec(&done).map_err(|_| Error::internal())?;
        let (app_, id) = (app.clone(), batch.id.clone());
        app.pool().run(move || app_.store().put_line(&id, number, &json)).await??;
        return Ok(Some(done));
    }
}

/// Waits for `time`, or until the server ends.
async fn pause(app: &App, time: Duration) {
    let mut phases = app.phases();
    // Without the app, which is there as long as its batches are, there is nothing to wait for either.
    let _ = tokio::time::timeout(time, phases.wait_for(|phase| *phase != Phase::Serving)).await;
}

async fn fail(app: &App, caller: Caller, batch: Batch) -> Result<(), Error> {
    let errors = json!({"object": "list", "data": [{
        "code": "input_file_gone", "message": "the input file is gone", "param": "input_file_id", "line": null,
    }]});
    let now = Some(app.now());
    save(app, caller, Batch { status: "failed".into(), failed_at: now, errors: Some(errors), ..batch }).await
}

/// Writes the files of a batch whose requests are answered, or not to be answered any more.
async fn finish(app: &App, caller: Caller, id: &str) -> Result<(), Error> {
    let _changes = app.batch_changes().lock().await;
    let mut batch = find(app, caller, id.to_owned()).await?;
    let done = answered(app, id).await?;
    batch.request_counts = count(&done, batch.request_counts.total);
    let file = |is_good: bool| -> Vec<u8> {
        let lines = done.iter().filter(|(_, done)| (done.status == StatusCode::OK.as_u16()) == is_good);
        let lines = lines.map(|(_, done)| {
            json!({
                "id": format!("batch_req_{}", done.request_id.trim_start_matches("req_")),
                "custom_id": done.custom_id,
                "response": {"status_code": done.status, "request_id": done.request_id, "body": done.body},
                "error": null,
            })
        });
        lines.flat_map(|line| format!("{line}\n").into_bytes()).collect()
    };
    for (is_good, name, slot) in
        [(true, "output", &mut batch.output_file_id), (false, "errors", &mut batch.error_file_id)]
    {
        let bytes = file(is_good);
        if !bytes.is_empty() {
            let filename = format!("{id}_{name}.jsonl");
            let (purpose, expires_after) = ("batch_output".into(), batch.output_expires_after);
            let new = NewFile { filename, purpose, bytes: bytes.into(), expires_after };
            *slot = Some(files::keep(app, caller, new).await?.id);
        }
    }
    let now = Some(app.now());
    let n_done = batch.request_counts.completed + batch.request_counts.failed;
    if batch.status == "cancelling" {
        (batch.status, batch.cancelled_at) = ("cancelled".into(), now);
    } else if n_done < batch.request_counts.total {
        (batch.status, batch.expired_at) = ("expired".into(), now);
    } else {
        (batch.status, batch.finalizing_at, batch.completed_at) = ("completed".into(), now, now);
    }
    save(app, caller, batch).await
}
