//! Every bound of the server on what comes from outside. What a prompt, an image or a sampling parameter may be stands in
//! [`engine::Limits`], which this contains. No other file states a bound.

use std::time::Duration;

/// What a connection, a request and its parts may be at most, and how long they may take. One value, made at start; the
/// defaults are those of [`Limits::default`]. What is beyond a bound is refused with the status in brackets.
#[derive(Debug, Clone, PartialEq)]
pub struct Limits {
    /// Bounds that the engine's own parsers hold. (400)
    pub engine: engine::Limits,
    /// Bytes of a request's head. Default 16 KiB. (431)
    pub head_bytes: usize,
    /// Headers of a request. Default 64. (431)
    pub headers: usize,
    /// Until a head is complete, idle time between two requests included. Default 10 s. [the connection is closed]
    pub head_time: Duration,
    /// Bytes of a body of JSON. Default 8 MiB. (413)
    pub body_bytes: usize,
    /// Bytes of a body that may hold images. Default 24 MiB. (413)
    pub body_with_images_bytes: usize,
    /// The same where audio is allowed: the longest file, in base64, and the rest. Default 40 MiB. (413)
    pub body_with_audio_bytes: usize,
    /// Until a body is complete. Default 30 s. (408)
    pub body_time: Duration,
    /// Lists and objects inside each other in a body. Default 64. (400)
    pub json_depth: usize,
    /// Messages of one request. Default 1024. (400)
    pub messages: usize,
    /// Content parts of all messages of one request. Default 64. (400)
    pub parts: usize,
    /// Answers to one prompt. Default 8. (400)
    pub n: u32,
    /// Prompts of one request. Default 16. (400)
    pub prompts: usize,
    /// Inputs of one request for embeddings; they are computed a few at a time. Default 2048. (400)
    pub inputs: usize,
    /// Answers to all prompts of one request. Default 32. (400)
    pub answers: usize,
    /// Alternatives with every token. Default 20. (400)
    pub top_logprobs: usize,
    /// Tools of one request. Default 128. (400)
    pub tools: usize,
    /// Characters of a tool's name, each a letter, a digit, `_` or `-`. Default 64. (400)
    pub tool_name_chars: usize,
    /// Entries of `metadata`. Default 16. (400)
    pub metadata_entries: usize,
    /// Characters of a key and of a value of `metadata`. Default 64 and 512. (400)
    pub metadata_chars: [usize; 2],
    /// Bytes of an image that is fetched. Default 10 MiB. (400)
    pub fetch_bytes: u64,
    /// Until an image is fetched. Default 10 s. (400)
    pub fetch_time: Duration,
    /// Redirects on the way to an image. Default 3. (400)
    pub fetch_hops: u32,
    /// Images that are fetched at a time, in all. Default 4; further ones wait.
    pub fetches: usize,
    /// Bytes of decoded images and clips that requests hold, in all. Default 512 MiB. (429)
    pub media_bytes: usize,
    /// Tokens of an answer where the request does not say; the rest of the context if that is less. Default 4096.
    pub default_max_tokens: usize,
    /// Requests that wait or run. Default 64. (429)
    pub jobs: usize,
    /// Tokens that these may come to need, as a multiple of what the pages hold. Default 4. (429)
    pub jobs_capacity: usize,
    /// Requests of one key that wait or run. Default 16; `puna serve` has no such limit where nobody needs a key. (429)
    pub jobs_per_key: usize,
    /// Connections. Default 512; further ones wait to be accepted.
    pub connections: usize,
    /// Connections of one peer address. Default 64. (503)
    pub connections_per_peer: usize,
    /// Until a request's first step. Default 60 s. (503)
    pub queue_time: Duration,
    /// Without a byte that the client takes. Default 30 s. [the connection is closed]
    pub stall_time: Duration,
    /// From the first byte of a request to the last of its answer. Default 600 s. (504)
    pub total_time: Duration,
    /// Between two comments of a stream that has nothing to say. Default 15 s.
    pub comment_time: Duration,
    /// Events of a stream that wait for its client. Default 64; then the sequence pauses.
    pub channel_events: usize,
    /// Without a step although something waits: not ready. Default 10 s.
    pub unready_time: Duration,
    /// Without a step although something waits: the process ends. Default 60 s.
    pub stuck_time: Duration,
    /// Bytes of one stored file. Default 64 MiB. (413)
    pub file_bytes: usize,
    /// Bytes of all stored files. Default 4 GiB. (400)
    pub files_bytes: u64,
    /// Lines of a batch. Default 50,000. (400)
    pub batch_lines: usize,
    /// Lines of a batch that run at a time. Default 4.
    pub batch_parallel: usize,
    /// Stored responses of one key; the oldest goes. Default 1000.
    pub stored_responses: usize,
    /// Stored chat completions of one key; the oldest goes. Default 1000.
    pub stored_completions: usize,
    /// Tokens that an answer may think at most, whatever a request asks for. Default: no limit but the answer's own.
    pub thinking_tokens: usize,
    /// Until stored files expire, where a request says so, at least and at most. Default 1 hour and 30 days. (400)
    pub expiry: [Duration; 2],
}

impl Default for Limits {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            engine: engine::Limits::default(),
            head_bytes: 16 << 10,
            headers: 64,
            head_time: seconds(10),
            body_bytes: 8 << 20,
            body_with_images_bytes: 24 << 20,
            body_with_audio_bytes: 40 << 20,
            body_time: seconds(30),
            json_depth: 64,
            messages: 1024,
            parts: 64,
            n: 8,
            prompts: 16,
            inputs: 2048,
            answers: 32,
            top_logprobs: 20,
            tools: 128,
            tool_name_chars: 64,
            metadata_entries: 16,
            metadata_chars: [64, 512],
            fetch_bytes: 10 << 20,
            fetch_time: seconds(10),
            fetch_hops: 3,
            fetches: 4,
            media_bytes: 512 << 20,
            default_max_tokens: 4096,
            jobs: 64,
            jobs_capacity: 4,
            jobs_per_key: 16,
            connections: 512,
            connections_per_peer: 64,
            queue_time: seconds(60),
            stall_time: seconds(30),
            total_time: seconds(600),
            comment_time: seconds(15),
            channel_events: 64,
            unready_time: seconds(10),
            stuck_time: seconds(60),
            file_bytes: 64 << 20,
            files_bytes: 4 << 30,
            batch_lines: 50_000,
            batch_parallel: 4,
            stored_responses: 1000,
            stored_completions: 1000,
            thinking_tokens: usize::MAX,
            expiry: [seconds(3600), seconds(30 * 24 * 3600)],
        }
    }
}
