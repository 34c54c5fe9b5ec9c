//! Streams of events: frames, comments while nothing comes, one end.

use std::collections::VecDeque;
use std::convert::Infallible;

use axum::body::Body;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use engine::service::Event;
use futures_util::stream;
use serde::Serialize;
use tokio::time::Instant;

use crate::app::App;
use crate::error::{Error, Shape};
use crate::work::{Next, Work};

/// Work that has to be done before an answer is complete.
pub type Closing = Box<dyn FnOnce() -> Result<(), Error> + Send>;

/// What an interface makes of events.
pub trait Frames: Send + 'static {
    /// The frames of one event of the job of this number.
    fn event(&mut self, job: usize, event: Event, out: &mut Out);
    /// What has to be done off the runtime before the last frames; if it fails, they are those of a failure.
    fn closing(&mut self) -> Option<Closing> {
        None
    }
    /// The last frames, after all jobs have ended well.
    fn end(&mut self, out: &mut Out);
    /// The last frames, after `error`, whose body in the interface's shape is `body`.
    fn fail(&mut self, error: &Error, body: serde_json::Value, out: &mut Out);
    /// The interface's shape of errors.
    fn shape(&self) -> Shape;
}

/// Frames on their way to the client.
#[derive(Debug, Default)]
pub struct Out(VecDeque<Bytes>);

impl Out {
    /// `data: {json}`
    pub fn data(&mut self, value: &impl Serialize) {
        self.frame(None, value);
    }

    /// `event: name` and `data: {json}`
    pub fn event(&mut self, name: &str, value: &impl Serialize) {
        self.frame(Some(name), value);
    }

    fn frame(&mut self, name: Option<&str>, value: &impl Serialize) {
        // Own types always serialise.
        let json = serde_json::to_string(value).unwrap_or_default();
        let name = name.map(|name| format!("event: {name}\n")).unwrap_or_default();
        self.0.push_back(Bytes::from(format!("{name}data: {json}\n\n")));
    }

    /// `data: [DONE]`
    pub fn done(&mut self) {
        self.0.push_back(Bytes::from_static(b"data: [DONE]\n\n"));
    }

    fn comment(&mut self) {
        self.0.push_back(Bytes::from_static(b": waiting\n\n"));
    }
}

struct State<F> {
    app: App,
    /// `None` after the last frames are written.
    work: Option<Work>,
    frames: F,
    out: Out,
    id: String,
    /// When the last frame was taken.
    written: Instant,
}

/// The answer of `work`, as frames. When the client leaves, the work is dropped with the body.
pub fn stream<F: Frames>(app: &App, work: Work, frames: F, id: String) -> Response {
    let state = State { app: app.clone(), work: Some(work), frames, out: Out::default(), id, written: Instant::now() };
    let deadline = Instant::now() + app.limits().total_time;
    let body = stream::unfold((state, deadline), |(mut state, deadline)| async move {
        loop {
            if let Some(frame) = state.out.0.pop_front() {
                state.written = Instant::now();
                return Some((Ok::<_, Infallible>(frame), (state, deadline)));
            }
            state.work.as_ref()?;
            state.advance(deadline).await;
        }
    });
    events(Body::from_stream(body))
}

/// Frames that `made` makes, with comments until it has. An error is a frame too.
pub fn later(app: &App, made: impl Future<Output = Result<Out, Error>> + Send + 'static, id: String) -> Response {
    let wait = app.limits().comment_time;
    let state = (Some(Box::pin(made)), Out::default());
    let body = stream::unfold(state, move |(mut made, mut out)| {
        let id = id.clone();
        async move {
            if out.0.is_empty() {
                match tokio::time::timeout(wait, made.as_mut()?).await {
                    Err(_) => out.comment(),
                    Ok(all) => {
                        made = None;
                        out = all.unwrap_or_else(|error| {
                            let mut out = Out::default();
                            out.data(&error.body(Shape::OpenAi, &id));
                            out
                        });
                    }
                }
            }
            let frame = out.0.pop_front()?;
            Some((Ok::<_, Infallible>(frame), (made, out)))
        }
    });
    events(Body::from_stream(body))
}

impl<F: Frames> State<F> {
    fn fail(&mut self, error: &Error) {
        let body = error.body(self.frames.shape(), &self.id);
        self.frames.fail(error, body, &mut self.out);
    }

    /// Waits for the next event and writes its frames.
    async fn advance(&mut self, deadline: Instant) {
        let Some(work) = &mut self.work else { return };
        let wait = self.app.limits().comment_time;
        let next = tokio::time::timeout_at(deadline, work.next(wait)).await.unwrap_or(Err(Error::Deadline));
        match next {
            Ok(Next::Event(job, event)) => {
                self.frames.event(job, event, &mut self.out);
                // Events may show nothing for long: thoughts that are left out, a call that is not yet certain.
                if self.out.0.is_empty() && self.written.elapsed() >= wait {
                    self.out.comment();
                }
            }
            Ok(Next::Quiet) => self.out.comment(),
            Ok(Next::Done) => {
                self.work = None;
                let closed = match self.frames.closing() {
                    Some(closing) => self.app.pool().run(closing).await.and_then(|closed| closed),
                    None => Ok(()),
                };
                match closed {
                    Ok(()) => self.frames.end(&mut self.out),
                    Err(error) => self.fail(&error),
                }
            }
            Err(error) => {
                self.work = None;
                self.fail(&error);
            }
        }
    }
}

fn events(body: Body) -> Response {
    let mut response = body.into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    // Proxies that collect answers would hold a stream back.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}
