//! `/v1/files`: kept, listed, read, taken away.

use axum::extract::multipart::{Multipart, MultipartRejection};
use axum::extract::{DefaultBodyLimit, Extension, Path, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouterExt};
use utoipa_axum::routes;

use super::json;
use crate::app::App;
use crate::body::Params;
use crate::error::Error;
use crate::form::{self, Field};
use crate::id;
use crate::keys::Caller;
use crate::limits::Limits;
use crate::list::{Deleted, List, paging};
use crate::refusals::Refusals;
use crate::store::{Kind, PageOf};
use crate::wire::Whole;

/// What files may be for.
const PURPOSES: [&str; 6] = ["assistants", "batch", "fine-tune", "vision", "user_data", "evals"];
/// Files of one caller.
const FILES: usize = 10_000;

/// The routes of this file.
pub fn routes() -> OpenApiRouter<App> {
    // Each route that reads a body counts its bytes itself.
    OpenApiRouter::default()
        .routes(routes!(upload, list).layer(DefaultBodyLimit::disable()))
        .routes(routes!(show, delete))
        .routes(routes!(content))
}

/// A file's description.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct File {
    /// Its name here.
    pub id: String,
    /// `file`
    pub object: String,
    /// How many bytes it has.
    pub bytes: usize,
    /// Seconds since 1970.
    pub created_at: u64,
    /// Seconds since 1970; `null` for never.
    pub expires_at: Option<u64>,
    /// Its name where it came from.
    pub filename: String,
    /// What it is for.
    pub purpose: String,
    /// `processed`
    pub status: String,
    /// Always `null`.
    pub status_details: Option<String>,
}

impl File {
    /// Whether its time is over: it is gone then, and its room is free at the next upload.
    fn is_expired(&self, now: u64) -> bool {
        self.expires_at.is_some_and(|at| at <= now)
    }
}

/// A form with a file.
#[derive(ToSchema)]
#[allow(dead_code, reason = "describes the form in the document")]
struct Form {
    /// The file.
    #[schema(value_type = String, format = Binary)]
    file: Vec<u8>,
    /// What it is for.
    #[schema(pattern = "^(assistants|batch|fine-tune|vision|user_data|evals)$")]
    purpose: String,
    /// `created_at`, with `expires_after[seconds]`.
    #[schema(rename = "expires_after[anchor]")]
    anchor: Option<String>,
    /// Until the file expires, 3600 to 2592000; it stays until it is deleted if absent.
    #[schema(rename = "expires_after[seconds]", minimum = 3600, maximum = 2_592_000)]
    seconds: Option<u64>,
}

/// When files expire that are made now.
#[derive(Debug, Clone, Deserialize, ToSchema)]
pub struct ExpiresAfter {
    /// Only `created_at`.
    #[schema(pattern = "^created_at$")]
    anchor: String,
    /// So many seconds after it.
    #[schema(value_type = i64, minimum = 3600, maximum = 2_592_000)]
    seconds: Whole,
}

impl ExpiresAfter {
    /// The seconds.
    ///
    /// # Errors
    /// [`Error::Field`] naming what is wrong in `field`.
    pub fn check(&self, field: &str, limits: &Limits) -> Result<u64, Error> {
        if self.anchor != "created_at" {
            return Err(Error::field(format!("{field}.anchor"), "must be created_at"));
        }
        let [least, most] = limits.expiry.map(|time| i128::from(time.as_secs()));
        self.seconds.within(&format!("{field}.seconds"), least, most)
    }
}

/// Keeps a file
#[utoipa::path(
    post, path = "/v1/files", tag = "files", request_body(content = Form, content_type = "multipart/form-data"),
    responses((status = 200, description = "the file", body = File), Refusals),
)]
async fn upload(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    form: Result<Multipart, MultipartRejection>,
) -> Result<Response, Error> {
    let new = read(form::fields(form, app.limits().file_bytes, &app).await?, app.limits())?;
    if !PURPOSES.contains(&new.purpose.as_str()) {
        return Err(Error::field("purpose", format!("must be one of {}", PURPOSES.join(", "))));
    }
    Ok(json(&keep(&app, caller, new).await?))
}

/// A file that is to be kept.
#[derive(Debug)]
pub struct NewFile {
    /// Its name where it came from.
    pub filename: String,
    /// What it is for.
    pub purpose: String,
    /// What stands in it.
    pub bytes: Bytes,
    /// Seconds until it expires; `None` for never.
    pub expires_after: Option<u64>,
}

/// The file of a form.
fn read(fields: Vec<Field>, limits: &Limits) -> Result<NewFile, Error> {
    let (mut file, mut purpose, mut anchor, mut seconds) = (None, None, None, None);
    for field in fields {
        match field.name.as_str() {
            "file" => file = Some((field.filename.unwrap_or_else(|| "file".into()), field.bytes)),
            "purpose" => purpose = field.text().ok(),
            "expires_after[anchor]" => anchor = field.text().ok(),
            "expires_after[seconds]" => {
                let number = field.text().ok().and_then(|text| text.parse().ok());
                seconds = Some(number.map_or(Whole::IsNot(f64::NAN), Whole::Is));
            }
            other => return Err(form::unknown(other, "file, purpose and expires_after")),
        }
    }
    let expires_after = match (anchor, seconds) {
        (None, None) => None,
        (Some(anchor), Some(seconds)) => Some(ExpiresAfter { anchor, seconds }.check("expires_after", limits)?),
        (None, Some(_)) => return Err(Error::missing("expires_after[anchor]")),
        (Some(_), None) => return Err(Error::missing("expires_after[seconds]")),
    };
    let (filename, bytes) = file.ok_or_else(|| Error::missing("file"))?;
    let purpose = purpose.ok_or_else(|| Error::missing("purpose"))?;
    Ok(NewFile { filename, purpose, bytes: bytes.into(), expires_after })
}

/// Keeps a file's description and bytes.
///
/// # Errors
/// [`Error::Field`] if there is no room for it.
pub async fn keep(app: &App, caller: Caller, new: NewFile) -> Result<File, Error> {
    let NewFile { filename, purpose, bytes, expires_after } = new;
    let now = app.now();
    let file = File {
        id: id::fresh("file-"),
        object: "file".into(),
        bytes: bytes.len(),
        created_at: now,
        expires_at: expires_after.map(|seconds| now.saturating_add(seconds)),
        filename,
        purpose,
        status: "processed".into(),
        status_details: None,
    };
    let (app_, kept) = (app.clone(), file.clone());
    let keep = move || -> Result<(), Error> {
        let store = app_.store();
        for (caller, old) in store.all::<File>(Kind::File)? {
            if old.is_expired(app_.now()) {
                store.delete(Kind::File, caller, &old.id)?;
            }
        }
        let limit = app_.limits().files_bytes;
        let size = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        if store.files_bytes()?.saturating_add(size) > limit {
            let why = format!("does not fit: all files together may have {limit} bytes; delete some");
            return Err(Error::field("file", why));
        }
        store.put_bytes(&kept.id, &bytes)?;
        Ok(store.put(Kind::File, caller, (&kept.id, &kept), FILES)?)
    };
    app.pool().run(keep).await??;
    Ok(file)
}

/// Which files.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct ListQuery {
    /// Those for this.
    purpose: Option<String>,
    /// So many at most; 20 if absent.
    #[param(minimum = 0, maximum = 10_000)]
    limit: Option<usize>,
    /// `asc` or `desc`, by their time; `desc` if absent.
    #[param(pattern = "^(asc|desc)$")]
    order: Option<String>,
    /// After the file of this name.
    after: Option<String>,
}

/// Lists files
#[utoipa::path(
    get, path = "/v1/files", tag = "files", params(ListQuery),
    responses((status = 200, description = "the files", body = List), Refusals),
)]
async fn list(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    Params(query): Params<ListQuery>,
) -> Result<Response, Error> {
    let (limit, is_ascending) = paging(query.limit, query.order.as_deref(), FILES)?;
    // Files of another purpose do not count.
    let page = PageOf { after: query.after, limit: FILES, is_ascending };
    let listed = app.listed::<File>(Kind::File, caller, page).await?;
    let listed = listed.ok_or_else(|| Error::NotFound("after names no file".into()))?;
    let is_wanted = |file: &File| query.purpose.as_ref().is_none_or(|purpose| file.purpose == **purpose);
    let files = listed.list.into_iter().filter(|file| !file.is_expired(app.now()) && is_wanted(file));
    Ok(json(&List::first(files.filter_map(|file| serde_json::to_value(file).ok()).collect(), limit)))
}

async fn find(id: String, caller: Caller, app: &App) -> Result<File, Error> {
    let file: Option<File> = app.stored(Kind::File, caller, id).await?;
    file.filter(|file| !file.is_expired(app.now()))
        .ok_or_else(|| Error::NotFound("there is no file of this name".into()))
}

/// Describes a file
#[utoipa::path(
    get, path = "/v1/files/{file_id}", tag = "files", params(("file_id" = String, Path)),
    responses((status = 200, description = "the file", body = File), Refusals),
)]
async fn show(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<Response, Error> {
    Ok(json(&find(id, caller, &app).await?))
}

/// Takes a file away
#[utoipa::path(
    delete, path = "/v1/files/{file_id}", tag = "files", params(("file_id" = String, Path)),
    responses((status = 200, description = "it is gone", body = Deleted), Refusals),
)]
async fn delete(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<Response, Error> {
    if !app.unstore(Kind::File, caller, id.clone()).await? {
        return Err(Error::NotFound("there is no file of this name".into()));
    }
    Ok(json(&Deleted { id, object: "file", deleted: true }))
}

/// A file's bytes, if it is the caller's.
///
/// # Errors
/// [`Error::NotFound`].
pub async fn bytes(id: String, caller: Caller, app: &App) -> Result<(File, Vec<u8>), Error> {
    let file = find(id.clone(), caller, app).await?;
    let app_ = app.clone();
    let bytes = app.pool().run(move || app_.store().bytes(&id)).await??;
    bytes.map(|bytes| (file, bytes)).ok_or_else(|| Error::NotFound("the file's bytes are gone".into()))
}

/// Reads a file
#[utoipa::path(
    get, path = "/v1/files/{file_id}/content", tag = "files", params(("file_id" = String, Path)),
    responses(
        (status = 200, description = "its bytes", body = String, content_type = "application/octet-stream"),
        Refusals,
    ),
)]
async fn content(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<Response, Error> {
    let (_, bytes) = bytes(id, caller, &app).await?;
    // What somebody uploaded is never shown as a page of this server.
    let headers = [(header::CONTENT_TYPE, "application/octet-stream"), (header::CONTENT_DISPOSITION, "attachment")];
    Ok((headers, bytes).into_response())
}
