//! HTTP: wire types, routes, streams, the web page. The only crate that knows how OpenAI and Anthropic write things.
//!
//! A request's way: [`root`] (name, key, time) → a route → its wire type → a check against [`Limits`] →
//! [`engine::service::Job`] → [`engine::service::Handle::submit`]; events come back through [`work`] and become JSON or
//! frames ([`sse`]). Knows no tensors.

pub mod answer;
pub mod app;
pub mod audio;
pub mod background;
pub mod batch;
pub mod blocks;
pub mod body;
pub mod clock;
pub mod connection;
pub mod constraint;
pub mod conversation;
pub mod error;
pub mod fetch;
pub mod form;
pub mod id;
pub mod image;
pub mod items;
pub mod keys;
pub mod legacy;
pub mod limits;
pub mod list;
pub mod metrics;
pub mod pool;
pub mod prompt;
pub mod realtime;
pub mod refusals;
pub mod replay;
pub mod request_id;
pub mod respond;
pub mod root;
pub mod routes;
pub mod serve;
pub mod settings;
pub mod sse;
pub mod store;
pub mod thinking;
pub mod tls;
pub mod tools;
pub mod unsupported;
pub mod web;
pub mod wire;
pub mod work;

pub use app::{App, Fetch, Model, Names, Options, Page, ReasoningField};
pub use clock::Clock;
pub use keys::{Caller, KeyError, Keys};
pub use limits::Limits;
pub use root::router;
pub use serve::{Outcome, Run, run};
pub use store::{Store, StoreError};
pub use tls::TlsFiles;
