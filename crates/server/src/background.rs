//! Responses that are made in the background: kept from their beginning, asked for until they are done.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Mutex, PoisonError};

use futures_util::FutureExt;
use serde_json::{Value, json};
use tokio::sync::{Mutex as AsyncMutex, watch};

use crate::app::App;
use crate::error::{Error, Shape};
use crate::keys::Caller;
use crate::respond::{Kept, Responding};
use crate::store::Kind;
use crate::work::Work;

/// Those that are being made, each with what is told when it is not any more.
#[derive(Debug, Default)]
pub struct Background {
    running: Mutex<BTreeMap<String, watch::Sender<bool>>>,
    /// Held by whoever decides how one ends.
    changes: AsyncMutex<()>,
}

impl Background {
    fn add(&self, id: &str) -> watch::Receiver<bool> {
        let (sender, receiver) = watch::channel(false);
        self.lock().insert(id.to_owned(), sender);
        receiver
    }

    /// Whether it is being made, and what tells of its end.
    pub fn end_of(&self, id: &str) -> Option<watch::Receiver<bool>> {
        self.lock().get(id).map(|sender| sender.subscribe())
    }

    /// Ends it; says whether it was being made.
    fn end(&self, id: &str) -> bool {
        match self.lock().remove(id) {
            Some(sender) => {
                sender.send_replace(true);
                true
            }
            None => false,
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, watch::Sender<bool>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Begins to make a response in the background. When this returns, it is kept as one that is being made.
///
/// # Errors
/// [`Error::Internal`] if it can not be kept.
pub async fn begin(app: &App, caller: Caller, responding: Responding, work: Work) -> Result<Value, Error> {
    let begun = responding.kept()?;
    let shown = begun.response.clone();
    let id = shown["id"].as_str().unwrap_or_default().to_owned();
    let mut ended = app.background().add(&id);
    if let Err(error) = save(app, caller, id.clone(), begun.clone()).await {
        app.background().end(&id);
        return Err(error);
    }
    let app = app.clone();
    tokio::spawn(async move {
        let making = AssertUnwindSafe(responding.done(work)).catch_unwind();
        let made = tokio::select! {
            made = making => made.unwrap_or_else(|_| Err(Error::internal())),
            // Whoever ended it has written what became of it.
            _ = ended.wait_for(|is_ended| *is_ended) => return,
        };
        let kept = match made.and_then(|responding| responding.kept()) {
            Ok(kept) => kept,
            Err(error) => failed(begun, &error),
        };
        let _changes = app.background().changes.lock().await;
        // It may have been ended while this waited.
        if app.background().end_of(&id).is_none() {
            return;
        }
        if let Err(error) = save(&app, caller, id.clone(), kept).await {
            tracing::error!(%id, ?error, "a response that was made in the background could not be kept");
        }
        app.background().end(&id);
    });
    Ok(shown)
}

fn failed(begun: Kept, error: &Error) -> Kept {
    let body = error.body(Shape::OpenAi, "");
    with_error(begun, &body["error"]["message"])
}

fn with_error(mut kept: Kept, message: &Value) -> Kept {
    kept.response["status"] = json!("failed");
    kept.response["error"] = json!({"code": "server_error", "message": message});
    kept
}

async fn save(app: &App, caller: Caller, id: String, kept: Kept) -> Result<(), Error> {
    let (app_, limit) = (app.clone(), app.limits().stored_responses);
    let save = move || app_.store().put(Kind::Response, caller, (&id, &kept), limit);
    Ok(app.pool().run(save).await??)
}

/// A response that is kept. One that is said to be in the making and is not was cut off by the end of a process.
///
/// # Errors
/// [`Error::NotFound`].
pub async fn find(app: &App, caller: Caller, name: String) -> Result<Kept, Error> {
    let is_running = app.background().end_of(&name).is_some();
    let kept: Option<Kept> = app.stored(Kind::Response, caller, name).await?;
    let kept = kept.ok_or_else(|| Error::NotFound("there is no response of this name".into()))?;
    if kept.response["status"] == "in_progress" && !is_running {
        return Ok(with_error(kept, &json!("the server ended before the response was done")));
    }
    Ok(kept)
}

/// Ends a response that was to be made in the background; one that is done stays as it is.
///
/// # Errors
/// [`Error::NotFound`], and [`Error::Field`] for one that was not made in the background.
pub async fn cancel(app: &App, caller: Caller, name: String) -> Result<Value, Error> {
    let _changes = app.background().changes.lock().await;
    let mut kept = find(app, caller, name.clone()).await?;
    if kept.response["background"] != true {
        let why = "names a response that was not made in the background: it can not be cancelled";
        return Err(Error::field("response_id", why));
    }
    if kept.response["status"] == "in_progress" {
        kept.response["status"] = json!("cancelled");
        save(app, caller, name.clone(), kept.clone()).await?;
        app.background().end(&name);
    }
    Ok(kept.response)
}

/// Takes a response away, in the making or not.
///
/// # Errors
/// [`Error::NotFound`].
pub async fn delete(app: &App, caller: Caller, name: String) -> Result<(), Error> {
    let _changes = app.background().changes.lock().await;
    if !app.unstore(Kind::Response, caller, name.clone()).await? {
        return Err(Error::NotFound("there is no response of this name".into()));
    }
    app.background().end(&name);
    Ok(())
}
