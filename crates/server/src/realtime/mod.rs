//! `/v1/realtime`: a conversation over a WebSocket, whose questions are spoken piece by piece.

mod events;
mod session;
mod settings;

pub use session::run;
