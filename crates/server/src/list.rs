//! What all lists of stored things have in common.

use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::error::Error;

/// A page of a list.
#[derive(Debug, Serialize, ToSchema)]
pub struct List {
    /// `list`
    pub object: &'static str,
    /// What stands on it.
    #[schema(value_type = Vec<Object>)]
    pub data: Vec<Value>,
    /// The name of the first.
    pub first_id: Option<String>,
    /// The name of the last.
    pub last_id: Option<String>,
    /// Whether others follow.
    pub has_more: bool,
}

impl List {
    /// A page of these.
    pub fn of(data: Vec<Value>, has_more: bool) -> Self {
        let id = |value: Option<&Value>| Some(value?.get("id")?.as_str()?.to_owned());
        Self { object: "list", first_id: id(data.first()), last_id: id(data.last()), data, has_more }
    }

    /// The page of `all`, oldest first, that [`paging`] and `after` ask for.
    ///
    /// # Errors
    /// [`Error::NotFound`] if `after` names none.
    pub fn page(mut all: Vec<Value>, after: Option<&str>, (limit, is_ascending): (usize, bool)) -> Result<Self, Error> {
        if !is_ascending {
            all.reverse();
        }
        if let Some(after) = after {
            let at = all.iter().position(|one| one.get("id").and_then(Value::as_str) == Some(after));
            let at = at.ok_or_else(|| Error::NotFound("after names nothing in this list".into()))?;
            all.drain(..=at);
        }
        Ok(Self::first(all, limit))
    }

    /// The first `limit` of `all`.
    pub fn first(mut all: Vec<Value>, limit: usize) -> Self {
        let has_more = all.len() > limit;
        all.truncate(limit);
        Self::of(all, has_more)
    }
}

/// `limit` and `order` of lists: how many, and whether the oldest come first.
///
/// # Errors
/// [`Error::Field`] for another value.
pub fn paging(limit: Option<usize>, order: Option<&str>, most: usize) -> Result<(usize, bool), Error> {
    let limit = limit.unwrap_or(20);
    if limit > most {
        return Err(Error::field("limit", format!("is {limit}; it must be a whole number from 0 to {most}")));
    }
    match order {
        None | Some("desc") => Ok((limit, false)),
        Some("asc") => Ok((limit, true)),
        Some(_) => Err(Error::field("order", "must be asc or desc")),
    }
}

/// That something is gone.
#[derive(Debug, Serialize, ToSchema)]
pub struct Deleted {
    /// What.
    pub id: String,
    /// Of what kind.
    pub object: &'static str,
    /// True.
    pub deleted: bool,
}
