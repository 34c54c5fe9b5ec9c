//! `/v1/realtime`: a conversation over a WebSocket, whose questions are spoken piece by piece.

mod ear;
mod events;
mod item;
mod session;
mod settings;

pub use session::run;
