//! Multipart forms: fields with their bytes, counted while they arrive.

use axum::extract::Multipart;
use axum::extract::multipart::{MultipartError, MultipartRejection};

use crate::app::App;
use crate::error::Error;

/// Most fields of a form.
const FIELDS: usize = 32;
/// Most bytes of a field that is no file.
const FIELD_BYTES: usize = 64 << 10;
/// Most characters of a file's name that are kept.
const NAME_CHARS: usize = 256;

/// A field of a form.
#[derive(Debug)]
pub struct Field {
    /// What it is called.
    pub name: String,
    /// What its file is called where it came from.
    pub filename: Option<String>,
    /// What stands in it.
    pub bytes: Vec<u8>,
}

impl Field {
    /// What stands in it, as text.
    ///
    /// # Errors
    /// [`Error::Field`] naming it, if it is none.
    pub fn text(self) -> Result<String, Error> {
        String::from_utf8(self.bytes).map_err(|_| Error::field(self.name, "is no text"))
    }
}

/// All fields of `form`, whose field `file` has at most `file_bytes`.
///
/// # Errors
/// [`Error::TooLarge`], [`Error::SlowBody`], and [`Error::Malformed`] for anything that is no form.
pub async fn fields(
    form: Result<Multipart, MultipartRejection>,
    file_bytes: usize,
    app: &App,
) -> Result<Vec<Field>, Error> {
    let form =
        form.map_err(|error| Error::Malformed(format!("the body is no multipart form: {}", error.body_text())))?;
    let reading = read(form, file_bytes);
    tokio::time::timeout(app.limits().body_time, reading).await.map_err(|_| Error::SlowBody)?
}

async fn read(mut form: Multipart, file_bytes: usize) -> Result<Vec<Field>, Error> {
    let broken = |error: MultipartError| Error::Malformed(error.body_text());
    let mut fields = Vec::new();
    while let Some(mut field) = form.next_field().await.map_err(broken)? {
        if fields.len() >= FIELDS {
            return Err(Error::Malformed(format!("the form has more than {FIELDS} fields")));
        }
        let name = field.name().unwrap_or_default().to_owned();
        let filename = field.file_name().map(|name| name.chars().take(NAME_CHARS).collect());
        let limit_bytes = if name == "file" { file_bytes } else { FIELD_BYTES };
        let mut bytes = Vec::new();
        while let Some(chunk) = field.chunk().await.map_err(broken)? {
            if bytes.len().saturating_add(chunk.len()) > limit_bytes {
                return Err(Error::TooLarge { limit_bytes });
            }
            bytes.extend_from_slice(&chunk);
        }
        fields.push(Field { name, filename, bytes });
    }
    Ok(fields)
}

/// What a field is answered that is not read, with those that are.
pub fn unknown(name: &str, known: &str) -> Error {
    let shown: String = name.chars().take(32).collect();
    Error::unsupported(shown, format!("is not supported; {known} are"))
}
