//! A response of `/v1/responses` while it is made.

use engine::service::{Channel, Event, Finish, Token};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::answer::{Answer, Answers, Keeps, logprob};
use crate::app::App;
use crate::error::{Error, Shape};
use crate::id;
use crate::keys::Caller;
use crate::settings::Settings;
use crate::sse::{Closing, Frames, Out};
use crate::store::Kind;
use crate::tools::{Hearing, Piece};
use crate::wire::chat::TokenLogprob;
use crate::wire::responses::{IncompleteDetails, Item, Output, OutputContent, Reasoning, Request, Response, Status};
use crate::work::Work;

/// A response as it is kept.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Kept {
    /// As it was answered.
    pub response: Value,
    /// What it answered, without what earlier responses held.
    pub input: Vec<Item>,
    /// What it said, as items that another one can go on from.
    pub output: Vec<Item>,
}

/// A response while it is made.
pub struct Responding {
    app: App,
    caller: Caller,
    response: Response,
    input: Vec<Item>,
    with_logprobs: bool,
    answers: Answers,
    /// Number of the next event.
    sequence: u64,
    is_begun: bool,
    /// What is open.
    open: Option<Open>,
    /// What was streamed of it so far.
    text: String,
    logprobs: Vec<TokenLogprob>,
}

/// What of a response is being made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Open {
    Thoughts,
    Text,
    /// The call of this number.
    Call(usize),
}

impl Responding {
    /// Of `request`, whose own items are `input`.
    pub fn new(
        app: &App,
        caller: Caller,
        request: Request,
        (settings, hearing): (&Settings, &Hearing),
        mut input: Vec<Item>,
    ) -> Self {
        input.iter_mut().for_each(Item::complete);
        let text = request.text.and_then(|text| text.format).unwrap_or_else(|| json!({"type": "text"}));
        let response = Response {
            id: id::fresh("resp_"),
            object: "response",
            created_at: app.now(),
            completed_at: None,
            status: Status::InProgress,
            background: request.background.unwrap_or(false),
            error: None,
            incomplete_details: None,
            instructions: request.instructions,
            max_output_tokens: settings.max_tokens.1,
            max_tool_calls: None,
            model: app.model().id.clone(),
            output: Vec::new(),
            parallel_tool_calls: request.parallel_tool_calls.unwrap_or(true),
            previous_response_id: request.previous_response_id,
            prompt_cache_key: request.prompt_cache_key,
            reasoning: request.reasoning.map_or_else(Reasoning::default, |asked| Reasoning {
                effort: asked.effort,
                summary: asked.summary.or(asked.generate_summary),
            }),
            safety_identifier: request.safety_identifier,
            service_tier: "default",
            store: request.store.unwrap_or(true),
            temperature: settings.sampling.temperature,
            text: json!({"format": text, "verbosity": "medium"}),
            tool_choice: request.tool_choice.unwrap_or_else(|| "auto".into()),
            tools: request.tools.unwrap_or_default(),
            top_logprobs: settings.logprobs.unwrap_or(0),
            top_p: settings.sampling.top_p,
            truncation: "disabled",
            usage: None,
            user: request.user,
            metadata: request.metadata.unwrap_or_else(|| json!({})),
        };
        let with_logprobs = settings.logprobs.is_some();
        let keeps = if with_logprobs { Keeps::Tokens } else { Keeps::Text };
        Self {
            app: app.clone(),
            caller,
            response,
            input,
            with_logprobs,
            answers: Answers::new(1, 1, keeps, hearing),
            sequence: 0,
            is_begun: false,
            open: None,
            text: String::new(),
            logprobs: Vec::new(),
        }
    }

    /// The response, when its answer has ended, kept if that was asked.
    ///
    /// # Errors
    /// Whatever ends the work, or keeps the store from keeping.
    pub async fn whole(self, work: Work) -> Result<Response, Error> {
        let this = self.done(work).await?;
        if let Some(keep) = this.keep() {
            this.app.pool().run(keep).await??;
        }
        Ok(this.response)
    }

    /// The same, when its answer has ended.
    ///
    /// # Errors
    /// Whatever ends the work.
    pub async fn done(mut self, work: Work) -> Result<Self, Error> {
        work.each(|job, event| drop(self.answers.take(job, event))).await?;
        let answer = self.answers.list.pop().unwrap_or_else(|| Answer::new(Hearing::new(&[], "")));
        if !answer.reasoning.is_empty() {
            self.response.output.push(reasoning(answer.reasoning.clone()));
        }
        if !answer.content.is_empty() || (answer.reasoning.is_empty() && answer.calls.is_empty()) {
            let tokens = answer.tokens.iter().filter(|token| token.channel == Channel::Content);
            let logprobs = tokens.map(|token| logprob(token, &self.app.model().tokenizer)).collect();
            self.response.output.push(message(answer.content.clone(), logprobs, status(&answer).0));
        }
        let calls = answer.calls.iter().map(|call| {
            let [id, name, arguments] = [&call.id, &call.name, &call.arguments].map(Clone::clone);
            function_call(id, name, arguments, status(&answer).0)
        });
        self.response.output.extend(calls);
        self.complete(&answer);
        Ok(self)
    }

    /// What is kept of it as it is now.
    ///
    /// # Errors
    /// [`Error::Internal`]; own types always serialise.
    pub fn kept(&self) -> Result<Kept, Error> {
        let output = self.response.output.iter().filter_map(|output| {
            let value = serde_json::to_value(output).ok()?;
            serde_json::from_value(value).ok()
        });
        let response = serde_json::to_value(&self.response).map_err(|_| Error::internal())?;
        Ok(Kept { response, input: self.input.clone(), output: output.collect() })
    }

    fn complete(&mut self, answer: &Answer) {
        let (status, details) = status(answer);
        self.response.status = status;
        self.response.incomplete_details = details;
        self.response.completed_at = (status == Status::Completed).then(|| self.app.now());
        self.response.usage = Some(self.answers.usage.into());
    }

    /// What keeps the response; `None` if it is not to be kept.
    fn keep(&self) -> Option<Closing> {
        if !self.response.store {
            return None;
        }
        let kept = self.kept().ok()?;
        let (app, caller, id) = (self.app.clone(), self.caller, self.response.id.clone());
        Some(Box::new(move || {
            let limit = app.limits().stored_responses;
            Ok(app.store().put(Kind::Response, caller, (&id, &kept), limit)?)
        }))
    }

    fn send(&mut self, out: &mut Out, name: &str, mut fields: Value) {
        if let Value::Object(map) = &mut fields {
            map.insert("type".into(), name.into());
            map.insert("sequence_number".into(), self.sequence.into());
        }
        self.sequence += 1;
        out.event(name, &fields);
    }

    fn begin(&mut self, out: &mut Out) {
        if !std::mem::replace(&mut self.is_begun, true) {
            let response = json!({"response": self.response});
            self.send(out, "response.created", response.clone());
            self.send(out, "response.in_progress", response);
        }
    }

    fn index(&self) -> usize {
        self.response.output.len().saturating_sub(1)
    }

    fn item_id(&self) -> String {
        match self.response.output.last() {
            Some(Output::Reasoning { id, .. } | Output::Message { id, .. } | Output::FunctionCall { id, .. }) => {
                id.clone()
            }
            None => String::new(),
        }
    }

    /// Opens `item`, unless it is open.
    fn open(&mut self, open: Open, item: impl FnOnce() -> Output, out: &mut Out) {
        if self.open == Some(open) {
            return;
        }
        self.close(Status::Completed, out);
        self.open = Some(open);
        let item = item();
        let mut shown = json!(item);
        if let Some(content) = shown.get_mut("content") {
            *content = json!([]);
        }
        self.response.output.push(item);
        let (index, id) = (self.index(), self.item_id());
        self.send(out, "response.output_item.added", json!({"output_index": index, "item": shown}));
        let part = match open {
            Open::Thoughts => OutputContent::ReasoningText { text: String::new() },
            Open::Text => OutputContent::OutputText { text: String::new(), annotations: vec![], logprobs: vec![] },
            Open::Call(_) => return,
        };
        let fields = json!({"item_id": id, "output_index": index, "content_index": 0, "part": part});
        self.send(out, "response.content_part.added", fields);
    }

    fn thoughts(&mut self, text: &str, out: &mut Out) {
        self.open(Open::Thoughts, || reasoning(String::new()), out);
        self.text.push_str(text);
        let fields = json!({
            "item_id": self.item_id(), "output_index": self.index(), "content_index": 0, "delta": text,
        });
        self.send(out, "response.reasoning_text.delta", fields);
    }

    /// More text, with the token that it came with.
    fn said(&mut self, text: &str, token: Option<&Token>, out: &mut Out) {
        let token = token.filter(|_| self.with_logprobs);
        if text.is_empty() && token.is_none() {
            return;
        }
        self.open(Open::Text, || message(String::new(), Vec::new(), Status::InProgress), out);
        self.text.push_str(text);
        let logprobs: Vec<_> = token.into_iter().map(|token| logprob(token, &self.app.model().tokenizer)).collect();
        let fields = json!({
            "item_id": self.item_id(), "output_index": self.index(), "content_index": 0, "delta": text,
            "logprobs": logprobs,
        });
        self.logprobs.extend(logprobs);
        self.send(out, "response.output_text.delta", fields);
    }

    fn piece(&mut self, piece: Piece, token: Option<&Token>, out: &mut Out) {
        match piece {
            Piece::Text(text) => self.said(&text, token, out),
            Piece::Call { index, id, name } => {
                self.open(Open::Call(index), || function_call(id, name, String::new(), Status::InProgress), out);
            }
            Piece::Arguments { text, .. } => {
                self.text.push_str(&text);
                let fields = json!({"item_id": self.item_id(), "output_index": self.index(), "delta": text});
                self.send(out, "response.function_call_arguments.delta", fields);
            }
        }
    }

    /// Closes the item that is open.
    fn close(&mut self, status: Status, out: &mut Out) {
        let Some(open) = self.open.take() else { return };
        let (text, logprobs) = (std::mem::take(&mut self.text), std::mem::take(&mut self.logprobs));
        let (index, id) = (self.index(), self.item_id());
        let at = json!({"item_id": id, "output_index": index, "content_index": 0});
        let with = |name: &str, value: Value| {
            let mut fields = at.clone();
            fields[name] = value;
            fields
        };
        let part = match open {
            Open::Thoughts => {
                self.send(out, "response.reasoning_text.done", with("text", json!(text)));
                Some(OutputContent::ReasoningText { text: text.clone() })
            }
            Open::Text => {
                let mut fields = with("text", json!(text));
                fields["logprobs"] = json!(logprobs);
                self.send(out, "response.output_text.done", fields);
                Some(OutputContent::OutputText { text: text.clone(), annotations: Vec::new(), logprobs })
            }
            Open::Call(_) => {
                let fields = json!({"item_id": id, "output_index": index, "arguments": text});
                self.send(out, "response.function_call_arguments.done", fields);
                None
            }
        };
        if let Some(part) = &part {
            self.send(out, "response.content_part.done", with("part", json!(part)));
        }
        match self.response.output.last_mut() {
            Some(Output::Reasoning { content, .. }) => *content = part.into_iter().collect(),
            Some(Output::Message { content, status: own, .. }) => {
                *content = part.into_iter().collect();
                *own = status;
            }
            Some(Output::FunctionCall { arguments, status: own, .. }) => {
                *arguments = text;
                *own = status;
            }
            None => {}
        }
        let item = json!(self.response.output.last());
        self.send(out, "response.output_item.done", json!({"output_index": index, "item": item}));
    }
}

fn reasoning(text: String) -> Output {
    Output::Reasoning {
        id: id::fresh("rs_"),
        summary: Vec::new(),
        content: vec![OutputContent::ReasoningText { text }],
    }
}

fn function_call(call_id: String, name: String, arguments: String, status: Status) -> Output {
    Output::FunctionCall { id: id::fresh("fc_"), status, call_id, name, arguments }
}

fn message(text: String, logprobs: Vec<TokenLogprob>, status: Status) -> Output {
    Output::Message {
        id: id::fresh("msg_"),
        status,
        role: "assistant",
        content: vec![OutputContent::OutputText { text, annotations: Vec::new(), logprobs }],
    }
}

/// How an answer's end is called.
fn status(answer: &Answer) -> (Status, Option<IncompleteDetails>) {
    match &answer.finish {
        Some(Finish::EndToken(_) | Finish::StopText(_) | Finish::Complete) => (Status::Completed, None),
        Some(Finish::Length) | None => (Status::Incomplete, Some(IncompleteDetails { reason: "max_output_tokens" })),
    }
}

impl Frames for Responding {
    fn event(&mut self, job: usize, event: Event, out: &mut Out) {
        self.begin(out);
        let pieces = self.answers.take(job, event.clone());
        let (text, channel, token) = match &event {
            Event::Token { token, .. } => (token.text.as_str(), token.channel, Some(token)),
            Event::SampleFinished { tail, channel, .. } => (tail.as_str(), *channel, None),
            _ => return,
        };
        if channel == Channel::Reasoning && !text.is_empty() {
            self.thoughts(text, out);
        }
        let mut token = token.filter(|token| token.channel == Channel::Content);
        if pieces.is_empty() {
            self.said("", token, out);
        }
        for piece in pieces {
            self.piece(piece, token.take(), out);
        }
        if let Event::SampleFinished { finish, .. } = &event {
            // A response has at least one item, be it empty.
            if self.response.output.is_empty() {
                self.open(Open::Text, || message(String::new(), Vec::new(), Status::InProgress), out);
            }
            let ended = if *finish == Finish::Length { Status::Incomplete } else { Status::Completed };
            self.close(ended, out);
        }
    }

    fn closing(&mut self) -> Option<Closing> {
        let answer = self.answers.list.pop()?;
        self.complete(&answer);
        self.keep()
    }

    fn end(&mut self, out: &mut Out) {
        let name = if self.response.status == Status::Completed { "response.completed" } else { "response.incomplete" };
        let response = json!({"response": self.response});
        self.send(out, name, response);
    }

    fn fail(&mut self, error: &Error, body: Value, out: &mut Out) {
        self.begin(out);
        self.response.status = Status::Failed;
        let detail = body.get("error").cloned().unwrap_or_default();
        let code = if error.status().is_server_error() { json!("server_error") } else { detail["code"].clone() };
        self.response.error = Some(json!({"code": code, "message": detail["message"]}));
        let response = json!({"response": self.response});
        self.send(out, "response.failed", response);
    }

    fn shape(&self) -> Shape {
        Shape::OpenAi
    }
}
