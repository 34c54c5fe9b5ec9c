//! `POST /v1/messages`, `POST /v1/messages/count_tokens`

use axum::extract::{Extension, State};
use axum::response::Response;
use engine::service::{Channel, Event, Finish, Usage as Counts};
use serde_json::{Value, json};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::model;
use crate::answer::{Answer, Answers, Keeps};
use crate::app::App;
use crate::blocks;
use crate::body::Json;
use crate::constraint::Asked;
use crate::error::{Error, Shape};
use crate::keys::Caller;
use crate::prompt::Conversation;
use crate::refusals::Refusals;
use crate::request_id::RequestId;
use crate::settings::{self, Settings};
use crate::sse::{self, Frames, Out};
use crate::thinking::Fields;
use crate::tools::{Hearing, Piece, Tools, Wanted};
use crate::unsupported;
use crate::wire::OneOrMany;
use crate::wire::messages::{Answer as Message, AnswerBlock, Request, StopReason, TokenCount, Usage};
use crate::work::Work;
use crate::{constraint, id};

/// The routes of this file.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::default().routes(routes!(messages)).routes(routes!(count_tokens))
}

/// Answers a conversation, in Anthropic's shape
#[utoipa::path(
    post, path = "/v1/messages", tag = "messages", request_body = Request,
    responses(
        (status = 200, description = "the answer, or its pieces if stream is true", content(
            (Message = "application/json"), (Value = "text/event-stream"),
        )),
        Refusals,
    ),
)]
async fn messages(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    Extension(RequestId(request_id)): Extension<RequestId>,
    Json(mut request): Json<Request>,
) -> Result<Response, Error> {
    model(request.model.as_deref(), &app)?;
    let is_stream = request.stream.unwrap_or(false);
    let mut settings = settings(&mut request, &app)?;
    let format = format(&request, &app)?;
    let (mut tools, conversation) = conversation(request, &app)?;
    settings.constraint = constraint::compile(tools.language(format)?, &app).await?;
    let prompt = conversation.prompt("messages", &app).await?;
    let job = settings.job(&prompt, caller, &app)?;
    let work = Work::answer(&app, job, prompt)?;
    let hearing = Hearing::new(&tools.names, "toolu_");
    let head = Message {
        id: id::fresh("msg_"),
        kind: "message",
        role: "assistant",
        model: app.model().id.clone(),
        content: Vec::new(),
        stop_reason: None,
        stop_sequence: None,
        usage: Usage::default(),
    };
    if is_stream {
        let answers = Answers::new(1, 1, Keeps::Text, &hearing);
        let stream = Stream { head, answers, block: None, n_blocks: 0, is_begun: false };
        return Ok(sse::stream(&app, work, stream, request_id));
    }
    Ok(super::json(&whole(work, head, &hearing).await?))
}

/// Counts the tokens of a conversation
#[utoipa::path(
    post, path = "/v1/messages/count_tokens", tag = "messages", request_body = Request,
    responses((status = 200, description = "the count", body = TokenCount), Refusals),
)]
async fn count_tokens(State(app): State<App>, Json(request): Json<Request>) -> Result<Response, Error> {
    model(request.model.as_deref(), &app)?;
    format(&request, &app)?;
    let prompt = conversation(request, &app)?.1.prompt("messages", &app).await?;
    Ok(super::json(&TokenCount { input_tokens: prompt.n_positions }))
}

/// A request's tools and its messages.
fn conversation(mut request: Request, app: &App) -> Result<(Tools, Conversation), Error> {
    unsupported::messages(&request)?;
    let (wanted, is_parallel) = Wanted::parse_anthropic(request.tool_choice.as_ref())?;
    let tools = request.tools.take().unwrap_or_default().into_iter().map(blocks::tool).collect();
    let tools = Tools::parse(tools, wanted, is_parallel, app.limits())?;
    let effort = effort(&request, app)?;
    let thoughts = Fields { thinking: request.thinking.as_ref(), effort, ..Fields::default() }.check(app)?;
    let conversation = blocks::conversation(request, app.limits())?;
    let conversation = Conversation { tools: tools.shown.clone(), thoughts, ..conversation };
    Ok((tools, conversation))
}

/// What the answer has to be, by either name of the field.
fn format(request: &Request, app: &App) -> Result<Option<Asked>, Error> {
    let new = request.output_config.as_ref().and_then(|config| config.format.as_ref());
    match (new, &request.output_format) {
        (Some(_), Some(_)) => Err(Error::field("output_format", "is output_config.format by its older name: give one")),
        (Some(format), None) => constraint::messages_format(format, "output_config.format", app.limits()).map(Some),
        (None, Some(format)) => constraint::messages_format(format, "output_format", app.limits()).map(Some),
        (None, None) => Ok(None),
    }
}

/// The effort of thinking. Where there is no thinking, effort is spent on nothing else: what would change nothing is
/// accepted, what would be ignored is refused.
fn effort<'a>(request: &'a Request, app: &App) -> Result<Option<(&'static str, &'a str)>, Error> {
    const FIELD: &str = "output_config.effort";
    let effort = request.output_config.as_ref().and_then(|config| config.effort.as_deref());
    let Some(effort) = effort else { return Ok(None) };
    if request.thinking.as_ref().is_some_and(|thinking| thinking.kind != "disabled") {
        return Ok(Some((FIELD, effort)));
    }
    unsupported::one_of(FIELD, Some(effort), &["low", "medium", "high", "xhigh", "max"])?;
    // The documented default.
    if effort == "high" || app.model().reasoning.is_none() {
        return Ok(None);
    }
    Err(Error::unsupported(FIELD, "needs thinking of type adaptive or enabled: this model's effort goes into thoughts"))
}

fn settings(request: &mut Request, app: &App) -> Result<Settings, Error> {
    let max_tokens = request.max_tokens.ok_or_else(|| Error::missing("max_tokens"))?;
    let asked = settings::Asked {
        temperature: request.temperature,
        top_p: request.top_p,
        top_k: request.top_k,
        stop: ("stop_sequences", request.stop_sequences.take().map(OneOrMany::Many)),
        max_tokens: ("max_tokens", Some(max_tokens)),
        ..settings::Asked::default()
    };
    asked.check(app)
}

/// Why an answer ended, and the text that ended it.
fn stop_reason(answer: &Answer) -> (StopReason, Option<String>) {
    match &answer.finish {
        Some(Finish::Length) | None => (StopReason::MaxTokens, None),
        Some(_) if !answer.calls.is_empty() => (StopReason::ToolUse, None),
        Some(Finish::EndToken(_) | Finish::Complete) => (StopReason::EndTurn, None),
        Some(Finish::StopText(text)) => (StopReason::StopSequence, Some(text.clone())),
    }
}

async fn whole(work: Work, head: Message, hearing: &Hearing) -> Result<Message, Error> {
    let mut answers = Answers::new(1, 1, Keeps::Text, hearing);
    work.each(|job, event| drop(answers.take(job, event))).await?;
    let answer = answers.list.pop().unwrap_or_else(|| Answer::new(hearing.clone()));
    let (reason, stop_sequence) = stop_reason(&answer);
    let mut content = Vec::new();
    if !answer.reasoning.is_empty() {
        content.push(AnswerBlock::Thinking { thinking: answer.reasoning, signature: String::new() });
    }
    if !answer.content.is_empty() || answer.calls.is_empty() {
        content.push(AnswerBlock::Text { text: answer.content });
    }
    content.extend(answer.calls.into_iter().map(|call| AnswerBlock::ToolUse {
        id: call.id,
        name: call.name,
        // An answer that was cut off may end inside of its arguments.
        input: serde_json::from_str(&call.arguments).unwrap_or_else(|_| json!({})),
    }));
    Ok(Message { content, stop_reason: Some(reason), stop_sequence, usage: answers.usage.into(), ..head })
}

/// Makes events of events.
struct Stream {
    head: Message,
    answers: Answers,
    /// The block that is open.
    block: Option<Block>,
    n_blocks: usize,
    is_begun: bool,
}

/// What a block holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Block {
    Text,
    Thinking,
    /// The arguments of the call of this number.
    Call(usize),
}

impl Stream {
    fn begin(&mut self, out: &mut Out) {
        if !std::mem::replace(&mut self.is_begun, true) {
            out.event("message_start", &json!({"type": "message_start", "message": self.head}));
        }
    }

    /// Opens a block, which `shown` begins, unless it is open.
    fn open(&mut self, block: Block, shown: Value, out: &mut Out) {
        if self.block != Some(block) {
            self.close(out);
            let start = json!({"type": "content_block_start", "index": self.n_blocks, "content_block": shown});
            out.event("content_block_start", &start);
            self.block = Some(block);
        }
    }

    fn delta(&self, delta: Value, out: &mut Out) {
        let delta = json!({"type": "content_block_delta", "index": self.n_blocks, "delta": delta});
        out.event("content_block_delta", &delta);
    }

    fn close(&mut self, out: &mut Out) {
        if self.block.take().is_some() {
            let stop = json!({"type": "content_block_stop", "index": self.n_blocks});
            out.event("content_block_stop", &stop);
            self.n_blocks += 1;
        }
    }

    fn thoughts(&mut self, text: &str, out: &mut Out) {
        self.open(Block::Thinking, json!({"type": "thinking", "thinking": "", "signature": ""}), out);
        self.delta(json!({"type": "thinking_delta", "thinking": text}), out);
    }

    fn piece(&mut self, piece: Piece, out: &mut Out) {
        match piece {
            Piece::Text(text) => {
                self.open(Block::Text, json!({"type": "text", "text": ""}), out);
                self.delta(json!({"type": "text_delta", "text": text}), out);
            }
            Piece::Call { index, id, name } => {
                let shown = json!({"type": "tool_use", "id": id, "name": name, "input": {}});
                self.open(Block::Call(index), shown, out);
            }
            Piece::Arguments { text, .. } => self.delta(json!({"type": "input_json_delta", "partial_json": text}), out),
        }
    }
}

impl Frames for Stream {
    fn event(&mut self, job: usize, event: Event, out: &mut Out) {
        let pieces = self.answers.take(job, event.clone());
        if let Event::Started { n_prompt, n_cached, n_stored } = event {
            self.head.usage = Counts { n_prompt, n_cached, n_stored, ..Counts::default() }.into();
        }
        self.begin(out);
        let (text, channel) = match &event {
            Event::Token { token, .. } => (token.text.as_str(), token.channel),
            Event::SampleFinished { tail, channel, .. } => (tail.as_str(), *channel),
            _ => ("", Channel::Content),
        };
        if channel == Channel::Reasoning && !text.is_empty() {
            self.thoughts(text, out);
        }
        for piece in pieces {
            self.piece(piece, out);
        }
        match event {
            Event::SampleFinished { .. } => {
                // An answer has at least one block, be it empty.
                if self.n_blocks == 0 && self.block.is_none() {
                    self.open(Block::Text, json!({"type": "text", "text": ""}), out);
                }
                self.close(out);
                if let Some(answer) = self.answers.list.first() {
                    let (reason, sequence) = stop_reason(answer);
                    (self.head.stop_reason, self.head.stop_sequence) = (Some(reason), sequence);
                }
            }
            Event::Finished(usage) => self.head.usage = usage.into(),
            _ => {}
        }
    }

    fn end(&mut self, out: &mut Out) {
        let delta = json!({
            "type": "message_delta",
            "delta": {"stop_reason": self.head.stop_reason, "stop_sequence": self.head.stop_sequence},
            "usage": self.head.usage,
        });
        out.event("message_delta", &delta);
        out.event("message_stop", &json!({"type": "message_stop"}));
    }

    fn fail(&mut self, _error: &Error, body: Value, out: &mut Out) {
        out.event("error", &body);
    }

    fn shape(&self) -> Shape {
        Shape::Anthropic
    }
}
