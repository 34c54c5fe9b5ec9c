//! Any server that speaks OpenAI's API under the same measurement, by what it streams.

use std::io::{BufRead, BufReader, Read};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use tokenizer::{Specials, Tokenizer};
use ureq::http::Uri;
use ureq::{Agent, Body};

use super::{Ids, Test};
use crate::failure::usage;

/// Waiting longer than this for a connection means that nobody is there.
const CONNECT: Duration = Duration::from_secs(10);
/// A long prompt on a slow machine takes minutes before its first token.
const SILENCE: Duration = Duration::from_secs(900);
/// Bytes of an answer; a token's event has a few hundred.
const ANSWER_BYTES: u64 = 64 << 20;
/// Bytes of a refusal that are looked at.
const REFUSAL_BYTES: u64 = 16 << 10;

/// What opens a server. It has no `Debug`, so that no message can show it.
#[derive(Clone)]
pub struct Key(pub String);

/// Where a server is and what to ask it for.
pub struct Address {
    /// Its URL, with or without `/v1`.
    pub url: String,
    /// The model's name there, if it was said.
    pub model: Option<String>,
    /// Names of the file that we run, one of which may be the model's there.
    pub file_names: Vec<String>,
    /// The key, if there is one.
    pub key: Option<Key>,
}

/// How a prompt is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// Token ids to `/completions`.
    Ids,
    /// Text to `/completions`.
    Text,
    /// A user's message to `/chat/completions`.
    Chat,
}

/// Whether a request asks for what OpenAI's API has no word for, or had none for at first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Extras {
    /// `ignore_eos` and the usage at the end of a stream.
    Asked,
    None,
}

/// A server that has the model.
pub struct Server {
    agent: Agent,
    base: String,
    key: Option<Key>,
    model: String,
    form: Form,
    extras: Extras,
    prompts: Prompts,
}

impl Server {
    /// Finds the model and how the server takes prompts, by asking for one token.
    ///
    /// # Errors
    /// Exit code 2 if nobody answers, the key is refused, or the model is not there.
    pub fn connect(address: Address, tokenizer: Option<Tokenizer>, n_vocab: u32) -> Result<Self> {
        Self::of_forms(address, Prompts::new(tokenizer, n_vocab), &[Form::Ids, Form::Text, Form::Chat])
    }

    /// The same for chats, whose prompts are numbers as text.
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    pub fn connect_to_chat(address: Address) -> Result<Self> {
        let mut this = Self::of_forms(address, Prompts::new(None, 1000), &[Form::Chat])?;
        // What a number more makes of a prompt, without what the chat's form takes.
        let [few, many] = [16, 80].map(|n| this.prompts.make(n, Form::Chat));
        let read = |prompt: &Prompt| anyhow::Ok(this.stream(prompt, 1)?.n_prompt);
        if let (Some(few), Some(many)) = (read(&few)?, read(&many)?) {
            this.prompts.tokens_a_word = (many.saturating_sub(few) as f64 / 64.0).max(1.0);
        }
        Ok(this)
    }

    fn of_forms(address: Address, prompts: Prompts, forms: &[Form]) -> Result<Self> {
        let base = base(&address.url)?;
        let agent = agent(&base);
        let mut this = Self {
            agent,
            base,
            key: address.key,
            model: String::new(),
            form: Form::Ids,
            extras: Extras::Asked,
            prompts,
        };
        this.model = this.find_model(address.model, &address.file_names)?;
        this.probe(forms)?;
        Ok(this)
    }

    /// Its address, the model's name there and how prompts are sent.
    pub fn describe(&self) -> String {
        let form = match self.form {
            Form::Ids => "token ids",
            Form::Text => "text",
            Form::Chat => "chat messages",
        };
        format!("\"{}\" at {}, prompts as {form}", self.model, self.base)
    }

    fn find_model(&self, wanted: Option<String>, file_names: &[String]) -> Result<String> {
        let request = self.authorised(self.agent.get(format!("{}/models", self.base)));
        let mut response = request.call().map_err(|error| self.unreachable(&error))?;
        let status = response.status().as_u16();
        if let Some(error) = self.refused_key(status) {
            return Err(error);
        }
        if !(200..300).contains(&status) {
            // The list is optional for those who know the name.
            return wanted.ok_or_else(|| {
                let message = format!("{}/models answers {status}: {}", self.base, refusal(response.body_mut()));
                usage(message, "is this an OpenAI-compatible server's address? name the model with --against-model")
            });
        }
        let list: Value = response.body_mut().with_config().limit(ANSWER_BYTES).read_json().map_err(|error| {
            let message = format!("{}/models gives no JSON: {error}", self.base);
            usage(message, "give the address of an OpenAI-compatible server, such as http://127.0.0.1:8080/v1")
        })?;
        let data = list["data"].as_array().map(Vec::as_slice).unwrap_or_default();
        let ids: Vec<&str> = data.iter().filter_map(|model| model["id"].as_str()).collect();
        let names = || ids.iter().map(|id| format!("\"{id}\"")).collect::<Vec<_>>().join(", ");
        match wanted {
            Some(name) if ids.is_empty() || ids.contains(&name.as_str()) => Ok(name),
            Some(name) => {
                let message = format!("{} has no model \"{name}\"", self.base);
                Err(usage(message, format!("--against-model takes one of {}", names())))
            }
            None => match (file_names.iter().find(|name| ids.contains(&name.as_str())), &ids[..]) {
                (Some(name), _) => Ok(name.clone()),
                (None, [only]) => Ok((*only).to_owned()),
                (None, []) => {
                    Err(usage(format!("{} has no models", self.base), "start it with the model that -m names"))
                }
                (None, _) => {
                    let message = format!("{} has several models: {}", self.base, names());
                    Err(usage(message, "name the one to measure with --against-model"))
                }
            },
        }
    }

    /// Settles on the first form that the server takes.
    fn probe(&mut self, forms: &[Form]) -> Result<()> {
        let mut last = None;
        for form in forms.iter().copied() {
            for extras in [Extras::Asked, Extras::None] {
                (self.form, self.extras) = (form, extras);
                let prompt = self.prompts.make(4, form);
                match self.stream(&prompt, 1) {
                    Ok(_) => return Ok(()),
                    Err(error) => match error.downcast_ref::<Refused>() {
                        Some(Refused { status: 400 | 404 | 405 | 415 | 422 | 500 | 501, .. }) => last = Some(error),
                        _ => return Err(error),
                    },
                }
            }
        }
        let why = last.map(|error| error.to_string()).unwrap_or_default();
        Err(usage(
            format!("{} completes nothing for the model \"{}\": {why}", self.base, self.model),
            "is it the name that the server knows? --against-model says another",
        ))
    }

    /// One streamed answer of at most `n_tokens`.
    fn stream(&self, prompt: &Prompt, n_tokens: usize) -> Result<Answer> {
        let mut request = json!({"model": self.model, "max_tokens": n_tokens, "temperature": 0, "stream": true});
        if self.extras == Extras::Asked {
            request["ignore_eos"] = json!(true);
            request["stream_options"] = json!({"include_usage": true});
        }
        let path = match self.form {
            Form::Chat => {
                request["messages"] = json!([{"role": "user", "content": prompt.value}]);
                "chat/completions"
            }
            Form::Ids | Form::Text => {
                request["prompt"] = prompt.value.clone();
                "completions"
            }
        };
        let post = self.authorised(self.agent.post(format!("{}/{path}", self.base)));
        let began = Instant::now();
        let mut response = post.send_json(&request).map_err(|error| self.unreachable(&error))?;
        let status = response.status().as_u16();
        if let Some(error) = self.refused_key(status) {
            return Err(error);
        }
        if !(200..300).contains(&status) {
            let retry_s = response.headers().get("retry-after").and_then(|value| value.to_str().ok()?.parse().ok());
            return Err(Refused { path, status, retry_s, why: refusal(response.body_mut()) }.into());
        }
        let reader = BufReader::new(response.into_body().into_with_config().limit(ANSWER_BYTES).reader());
        Answer::read(reader, began).with_context(|| format!("{}/{path}", self.base))
    }

    /// A prompt of about `n_tokens`.
    pub fn prompt(&mut self, n_tokens: usize) -> Prompt {
        self.prompts.make(n_tokens, self.form)
    }

    /// An answer of exactly `n_tokens`.
    ///
    /// # Errors
    /// [`Refused`] where the server says no; anything else where the stream is not what was asked for.
    pub fn whole_stream(&self, prompt: &Prompt, n_tokens: usize) -> Result<Answer> {
        let answer = self.stream(prompt, n_tokens)?;
        if answer.n_tokens < n_tokens {
            return Err(usage(
                format!("{}: the stream ended after {} of {n_tokens} tokens", self.base, answer.n_tokens),
                "its model ends its answers early and the server takes no \"ignore_eos\"; or its context is too short: \
                 give fewer --tokens",
            ));
        }
        Ok(answer)
    }

    fn authorised<B>(&self, request: ureq::RequestBuilder<B>) -> ureq::RequestBuilder<B> {
        match &self.key {
            Some(Key(key)) => request.header("authorization", format!("Bearer {key}")),
            None => request,
        }
    }

    fn unreachable(&self, error: &ureq::Error) -> anyhow::Error {
        let hint = match self.base.starts_with("https:") {
            true => {
                "is it running, and does it speak TLS with a certificate that browsers trust? or does it want http://"
            }
            false => "start it, and give the address and port it listens on",
        };
        usage(format!("no server answers at {}: {error}", self.base), hint)
    }

    fn refused_key(&self, status: u16) -> Option<anyhow::Error> {
        if status != 401 && status != 403 {
            return None;
        }
        let which = if self.key.is_some() { "this key" } else { "requests without a key" };
        let message = format!("{} refuses {which} ({status})", self.base);
        Some(usage(message, "set PUNA_API_KEY or OPENAI_API_KEY, or give --api-key"))
    }

    /// Seconds that a prompt of `tokens` takes to its first token.
    fn prefill(&mut self, tokens: usize) -> Result<f64> {
        let prompt = self.prompts.make(tokens, self.form);
        let answer = self.stream(&prompt, 1)?;
        let n_read = answer.n_prompt.unwrap_or(prompt.n_tokens);
        // Text becomes a few tokens more or less on the other side.
        Ok(answer.first_s * tokens as f64 / n_read.max(1) as f64)
    }

    /// Seconds that `batch` streams take for `tokens` after each one's first.
    fn decode(&mut self, tokens: usize, depth: usize, batch: usize) -> Result<f64> {
        let prompts: Vec<Prompt> = (0..batch).map(|_| self.prompts.make(depth.max(1), self.form)).collect();
        let this = &*self;
        let answers: Vec<Answer> = std::thread::scope(|scope| {
            let start = |prompt| scope.spawn(move || this.whole_stream(prompt, tokens + 1));
            let threads: Vec<_> = prompts.iter().map(start).collect();
            let joined = threads.into_iter().map(|thread| thread.join());
            joined.map(|answer| answer.unwrap_or_else(|_| bail!("reading a stream failed"))).collect::<Result<_>>()
        })?;
        let first = answers.iter().map(|answer| answer.began + Duration::from_secs_f64(answer.first_s)).min();
        let last = answers.iter().map(|answer| answer.last).max();
        let (first, last) = first.zip(last).context("there are no streams")?;
        let seconds = last.duration_since(first).as_secs_f64();
        if seconds <= 0.0 {
            bail!("{} sends all tokens of a stream at once: there is nothing to measure", self.base);
        }
        Ok(seconds)
    }
}

impl super::Engine for Server {
    fn run(&mut self, test: Test) -> Result<f64> {
        match test {
            Test::Prefill { tokens, depth: 0 } => self.prefill(tokens),
            Test::Prefill { .. } => bail!("a server reads prompts from their beginning"),
            Test::Tile { .. } | Test::Clip { .. } => bail!("a server is not asked to look at images or to listen"),
            Test::Decode { tokens, depth, batch } => self.decode(tokens, depth, batch),
        }
    }
}

/// A status that is no success.
#[derive(Debug)]
pub struct Refused {
    path: &'static str,
    /// The status.
    pub status: u16,
    /// When to come back, in seconds, where the server says.
    pub retry_s: Option<f64>,
    why: String,
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "/{} answers {}: {}", self.path, self.status, self.why)
    }
}

impl std::error::Error for Refused {}

/// What a refusal says, short.
fn refusal(body: &mut Body) -> String {
    let mut text = Vec::new();
    // What can not be read says nothing.
    let _ = body.as_reader().take(REFUSAL_BYTES).read_to_end(&mut text);
    let text = String::from_utf8_lossy(&text).into_owned();
    let json: Value = serde_json::from_str(&text).unwrap_or_default();
    let message = json["error"]["message"].as_str().or(json["error"].as_str()).or(json["detail"].as_str());
    message.unwrap_or(text.trim()).chars().filter(|c| !c.is_control()).take(300).collect()
}

/// `url` up to and with its `/v1`.
fn base(url: &str) -> Result<String> {
    let hint = "an address looks like http://127.0.0.1:8080/v1 or https://example.org/v1";
    let uri: Uri = url.parse().map_err(|e| usage(format!("--against \"{url}\" is no address: {e}"), hint))?;
    if uri.host().is_none_or(str::is_empty) || uri.query().is_some() {
        return Err(usage(format!("--against \"{url}\" is no server's address"), hint));
    }
    let url = url.trim_end_matches('/');
    Ok(if url.ends_with("/v1") { url.to_owned() } else { format!("{url}/v1") })
}

fn agent(base: &str) -> Agent {
    let host = base.parse::<Uri>().ok().and_then(|uri| uri.host().map(str::to_owned)).unwrap_or_default();
    let mut config = Agent::config_builder()
        .http_status_as_error(false)
        .timeout_connect(Some(CONNECT))
        .timeout_per_read(Some(SILENCE))
        .user_agent(concat!("puna/", env!("CARGO_PKG_VERSION")));
    // A proxy of the environment's does not know this machine's own ports.
    if host == "localhost" || host.starts_with("127.") || host == "[::1]" {
        config = config.proxy(None);
    }
    config.build().into()
}

/// What one stream gave, and when.
#[derive(Debug)]
pub struct Answer {
    /// When the request was sent.
    began: Instant,
    /// Seconds from there to the first token.
    pub first_s: f64,
    /// When the last event with a choice came.
    last: Instant,
    /// When each event with text came.
    pub events: Vec<Instant>,
    /// Tokens of the answer: as the server counts them, else events.
    pub n_tokens: usize,
    /// Tokens of the prompt, where the server says.
    pub n_prompt: Option<usize>,
}

impl Answer {
    /// Reads server-sent events to their end.
    fn read(events: impl BufRead, began: Instant) -> Result<Self> {
        let (mut first, mut last, mut texts, mut ended) = (None, began, Vec::new(), false);
        let (mut n_tokens, mut n_prompt) = (None, None);
        for line in events.lines() {
            let line = line.context("the stream broke off")?;
            let Some(data) = line.strip_prefix("data:").map(str::trim) else { continue };
            if data == "[DONE]" {
                ended = true;
                break;
            }
            let now = Instant::now();
            let event: Value = serde_json::from_str(data).context("an event that is no JSON")?;
            if let Some(error) = event.get("error") {
                bail!("the stream ended with an error: {}", error["message"].as_str().unwrap_or("of no description"));
            }
            let count = |key: &str| event["usage"][key].as_u64().and_then(|n| usize::try_from(n).ok());
            n_tokens = count("completion_tokens").or(n_tokens);
            n_prompt = count("prompt_tokens").or(n_prompt);
            let Some(choice) = event["choices"].get(0) else { continue };
            let text = choice["text"].as_str().or(choice["delta"]["content"].as_str());
            let finished = choice["finish_reason"].is_string();
            // A chat begins with an event that only names the role.
            let is_token = text.is_some_and(|text| !text.is_empty() || choice.get("delta").is_none()) && !finished
                || text.is_some_and(|text| !text.is_empty());
            ended |= finished;
            if is_token || finished {
                first.get_or_insert(now);
                last = now;
            }
            if is_token {
                texts.push(now);
            }
        }
        let n_events = texts.len();
        let first = first.filter(|_| ended).with_context(|| {
            format!("the stream broke off after {n_events} tokens, without a finish_reason and without [DONE]")
        })?;
        let first_s = first.duration_since(began).as_secs_f64();
        Ok(Self { began, first_s, last, events: texts, n_tokens: n_tokens.unwrap_or(n_events), n_prompt })
    }
}

/// A prompt in one form.
#[derive(Debug)]
pub struct Prompt {
    value: Value,
    n_tokens: usize,
}

/// Prompts that no server has seen: each begins with another token, so that none of it is in a prefix cache.
struct Prompts {
    tokenizer: Option<Tokenizer>,
    n_vocab: u32,
    /// Begins with the time, so that a second call of this program does not repeat the first one's.
    state: u32,
    /// Tokens of a number and what parts it from the next one, where there is no tokenizer to tell.
    tokens_a_word: f64,
}

impl Prompts {
    fn new(tokenizer: Option<Tokenizer>, n_vocab: u32) -> Self {
        #[allow(clippy::disallowed_methods, reason = "prompts that no earlier run had")]
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { tokenizer, n_vocab, state: now.subsec_nanos() ^ now.as_secs() as u32, tokens_a_word: 1.0 }
    }

    fn make(&mut self, n: usize, form: Form) -> Prompt {
        self.state = self.state.wrapping_add(1);
        let ids = Ids::from_state(self.state, self.n_vocab);
        match (&self.tokenizer, form) {
            (Some(tokenizer), Form::Ids) => {
                let ids: Vec<u32> = ids.filter(|id| !tokenizer.is_control(*id)).take(n).collect();
                Prompt { value: json!(ids), n_tokens: n }
            }
            (None, Form::Ids) => Prompt { value: json!(ids.take(n).collect::<Vec<_>>()), n_tokens: n },
            (Some(tokenizer), Form::Text | Form::Chat) => {
                let is_text = |id: &u32| {
                    !tokenizer.is_control(*id)
                        && tokenizer.token_bytes(*id).is_some_and(|bytes| std::str::from_utf8(bytes).is_ok())
                };
                let text = tokenizer.decode(&ids.filter(is_text).take(n).collect::<Vec<_>>(), Specials::Skip);
                let n_tokens = tokenizer.encode(&text).len();
                Prompt { value: json!(text), n_tokens }
            }
            // Numbers of up to three digits, each of which is a token of its own or two in most vocabularies.
            (None, Form::Text | Form::Chat) => {
                let n_words = (n as f64 / self.tokens_a_word).ceil() as usize;
                let words: Vec<String> = ids.take(n_words).map(|id| (id % 1000).to_string()).collect();
                Prompt { value: json!(words.join(" ")), n_tokens: n }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(stream: &str) -> Result<Answer> {
        Answer::read(stream.as_bytes(), Instant::now())
    }

    #[test]
    fn tokens_are_what_the_server_counts_or_events_with_a_text() {
        let token = "data: {\"choices\":[{\"text\":\"a\",\"finish_reason\":null}]}\n\n";
        let end = "data: {\"choices\":[{\"text\":\"\",\"finish_reason\":\"length\"}]}\n\ndata: [DONE]\n\n";
        let count = |stream: &str| read(stream).map(|answer| (answer.n_tokens, answer.n_prompt)).ok();
        assert_eq!(count(&format!("{token}: a comment\n\n{token}{end}")), Some((2, None)));
        let usage = "data: {\"choices\":[],\"usage\":{\"completion_tokens\":5,\"prompt_tokens\":9}}\n\n";
        assert_eq!(count(&format!("{token}{usage}{end}")), Some((5, Some(9))));
        let chat = "data: {\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"finish_reason\":null}]}\n\n\
                    data: {\"choices\":[{\"delta\":{\"content\":\"a\"},\"finish_reason\":null}]}\n\n\
                    data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n";
        assert_eq!(count(chat), Some((1, None)));
    }

    #[test]
    fn a_stream_that_just_stops_is_an_error() {
        let token = "data: {\"choices\":[{\"text\":\"a\",\"finish_reason\":null}]}\n\n";
        for (stream, words) in [
            (token, "broke off after 1 tokens"),
            ("", "broke off after 0 tokens"),
            ("data: {\"error\":{\"message\":\"no room\"}}\n\n", "no room"),
            ("data: {\n\n", "no JSON"),
        ] {
            let error = read(stream).map_or_else(|error| format!("{error:#}"), |_| "an answer".to_owned());
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn an_address_is_completed_or_refused() {
        for (url, want) in [
            ("http://127.0.0.1:8080", Some("http://127.0.0.1:8080/v1")),
            ("http://127.0.0.1:8080/", Some("http://127.0.0.1:8080/v1")),
            ("https://example.org/openai/v1/", Some("https://example.org/openai/v1")),
            ("http://", None),
            ("http://a b/", None),
            ("http://a/v1?key=b", None),
        ] {
            assert_eq!(base(url).ok().as_deref(), want, "{url}");
        }
    }

    #[test]
    fn no_two_prompts_begin_alike() {
        let mut prompts = Prompts::new(None, 32000);
        let firsts: std::collections::HashSet<u64> =
            (0..500).filter_map(|_| prompts.make(3, Form::Ids).value[0].as_u64()).collect();
        assert!(firsts.len() > 450, "{} of 500 first ids differ", firsts.len());
    }
}
