//! `POST /v1/chat/completions`

use axum::extract::{Extension, State};
use axum::response::Response;
use engine::service::{Channel, Event, Token, Usage};
use serde_json::Value;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::stored::Keeping;
use super::{json, model};
use crate::answer::{Answer, Answers, Keeps, logprob};
use crate::app::App;
use crate::body::Json;
use crate::constraint;
use crate::conversation::conversation;
use crate::error::{Error, Shape};
use crate::id;
use crate::keys::Caller;
use crate::prompt::Conversation;
use crate::refusals::Refusals;
use crate::request_id::RequestId;
use crate::settings::{Asked, Settings, top_logprobs};
use crate::sse::{self, Closing, Frames, Out};
use crate::thinking::Fields;
use crate::tools::{Hearing, Piece, Tools, Wanted};
use crate::unsupported;
use crate::wire::chat::{
    AnswerMessage, AnswerToolCall, Choice, Chunk, ChunkChoice, Completion, Delta, FinishReason, FunctionCall,
    FunctionDelta, Logprobs, Request, StreamOptions, ToolCallDelta,
};
use crate::work::Work;

/// The build that answers.
pub const FINGERPRINT: &str = concat!("puna-", env!("CARGO_PKG_VERSION"));

/// The routes of this file.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::default().routes(routes!(chat_completions))
}

/// Answers a conversation
#[utoipa::path(
    post, path = "/v1/chat/completions", tag = "chat", request_body = Request,
    responses(
        (status = 200, description = "the answer, or its pieces if stream is true", content(
            (Completion = "application/json"), (Value = "text/event-stream"),
        )),
        Refusals,
    ),
)]
async fn chat_completions(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    Extension(request_id): Extension<RequestId>,
    Json(request): Json<Request>,
) -> Result<Response, Error> {
    model(request.model.as_deref(), &app)?;
    let is_stream = request.stream.unwrap_or(false);
    let options = request.stream_options.clone();
    if options.is_some() && !is_stream {
        return Err(Error::field("stream_options", "needs stream to be true"));
    }
    let keeping = Keeping::of(&request, caller, &request_id);
    let (settings, conversation, hearing) = parse(request, &app).await?;
    let prompt = conversation.prompt("messages", &app).await?;
    let job = settings.job(&prompt, caller, &app)?;
    let work = Work::answer(&app, job, prompt)?;
    let head = Head { id: id::fresh("chatcmpl-"), created: app.now(), model: app.model().id.clone() };
    if is_stream {
        let frames = Stream::new(&app, head, &settings, (options.unwrap_or_default(), keeping), &hearing);
        return Ok(sse::stream(&app, work, frames, request_id.0));
    }
    let completion = whole(&app, work, &settings, head, &hearing).await?;
    if let Some(keeping) = keeping {
        app.pool().run(keeping.closing(&app, &completion)).await??;
    }
    Ok(json(&completion))
}

/// What is the same in all pieces of an answer.
#[derive(Debug, Clone)]
struct Head {
    id: String,
    created: u64,
    model: String,
}

async fn parse(request: Request, app: &App) -> Result<(Settings, Conversation, Hearing), Error> {
    unsupported::chat(&request, app.limits())?;
    let wanted = Wanted::parse(request.tool_choice.as_ref())?;
    let is_parallel = request.parallel_tool_calls.unwrap_or(true);
    let mut tools = Tools::parse(request.tools.unwrap_or_default(), wanted, is_parallel, app.limits())?;
    let (name, max_tokens) = match (request.max_completion_tokens, request.max_tokens) {
        (Some(_), Some(_)) => return Err(Error::field("max_tokens", "is given beside max_completion_tokens")),
        (Some(value), None) => ("max_completion_tokens", Some(value)),
        (None, value) => ("max_tokens", value),
    };
    let thoughts = Fields {
        reasoning: request.reasoning.as_ref(),
        token_budget: request.thinking_token_budget,
        thinking: request.thinking.as_ref(),
        effort: request.reasoning_effort.as_deref().map(|effort| ("reasoning_effort", effort)),
        arguments: request.chat_template_kwargs.as_ref(),
    };
    let thoughts = thoughts.check(app)?;
    let asked = Asked {
        temperature: request.temperature,
        top_p: request.top_p,
        top_k: request.top_k,
        min_p: request.min_p,
        repetition_penalty: request.repetition_penalty,
        frequency_penalty: request.frequency_penalty,
        presence_penalty: request.presence_penalty,
        logit_bias: request.logit_bias,
        seed: request.seed,
        n: request.n,
        stop: ("stop", request.stop),
        max_tokens: (name, max_tokens),
        cache_salt: request.cache_salt,
        ignore_eos: request.ignore_eos.unwrap_or(false),
    };
    let mut settings = asked.check(app)?;
    settings.logprobs = top_logprobs(request.logprobs, request.top_logprobs, app.limits())?;
    let format = constraint::response_format(request.response_format, app.limits())?;
    let conversation = conversation(request.messages, app.limits())?;
    let conversation = Conversation { tools: tools.shown.clone(), thoughts, ..conversation };
    settings.constraint = constraint::compile(tools.language(format)?, app).await?;
    Ok((settings, conversation, Hearing::new(&tools.names, "call_")))
}

fn keeps(settings: &Settings) -> Keeps {
    if settings.logprobs.is_some() { Keeps::Tokens } else { Keeps::Text }
}

async fn whole(app: &App, work: Work, settings: &Settings, head: Head, hearing: &Hearing) -> Result<Completion, Error> {
    let mut answers = Answers::new(1, settings.n, keeps(settings), hearing);
    work.each(|job, event| drop(answers.take(job, event))).await?;
    Ok(completion(answers.list, answers.usage, settings.logprobs.is_some(), head, app))
}

fn completion(list: Vec<Answer>, usage: Usage, with_logprobs: bool, head: Head, app: &App) -> Completion {
    let choices = (0..).zip(list).map(|(index, answer)| choice(index, answer, with_logprobs, app));
    Completion {
        choices: choices.collect(),
        id: head.id,
        object: "chat.completion",
        created: head.created,
        model: head.model,
        usage: usage.into(),
        service_tier: "default",
        system_fingerprint: FINGERPRINT,
    }
}

fn choice(index: u32, answer: Answer, with_logprobs: bool, app: &App) -> Choice {
    let finish_reason = answer.finish_reason();
    let is_silent = answer.content.is_empty() && (!answer.reasoning.is_empty() || !answer.calls.is_empty());
    let (reasoning_content, reasoning) = match answer.reasoning.is_empty() {
        true => (None, None),
        false => app.reasoning_field().named(answer.reasoning),
    };
    let calls = answer.calls.into_iter().map(|call| AnswerToolCall {
        id: call.id,
        kind: "function",
        function: FunctionCall { name: call.name, arguments: call.arguments },
    });
    let logprobs = with_logprobs.then(|| Logprobs {
        content: answer.tokens.iter().map(|token| logprob(token, &app.model().tokenizer)).collect(),
        refusal: None,
    });
    Choice {
        index,
        message: AnswerMessage {
            role: "assistant",
            content: (!is_silent).then_some(answer.content),
            refusal: None,
            annotations: Vec::new(),
            reasoning_content,
            reasoning,
            tool_calls: calls.collect(),
        },
        logprobs,
        finish_reason,
    }
}

/// Makes chunks of events.
struct Stream {
    app: App,
    head: Head,
    n: u32,
    with_logprobs: bool,
    with_usage: bool,
    is_begun: bool,
    answers: Answers,
    /// If the completion is to be stored.
    keeping: Option<Keeping>,
}

impl Stream {
    fn new(
        app: &App,
        head: Head,
        settings: &Settings,
        (options, keeping): (StreamOptions, Option<Keeping>),
        hearing: &Hearing,
    ) -> Self {
        // What was sent is needed again only for the store.
        let keeps = if keeping.is_some() { keeps(settings) } else { Keeps::Text };
        Self {
            app: app.clone(),
            head,
            n: settings.n,
            with_logprobs: settings.logprobs.is_some(),
            with_usage: options.include_usage.unwrap_or(false),
            is_begun: false,
            answers: Answers::new(1, settings.n, keeps, hearing),
            keeping,
        }
    }

    fn chunk(&self, choices: Vec<ChunkChoice>, usage: Option<Usage>) -> Chunk {
        Chunk {
            id: self.head.id.clone(),
            object: "chat.completion.chunk",
            created: self.head.created,
            model: self.head.model.clone(),
            choices,
            usage: self.with_usage.then(|| usage.map(Into::into)),
            service_tier: "default",
            system_fingerprint: FINGERPRINT,
        }
    }

    fn delta(&self, out: &mut Out, index: u32, delta: Delta, token: Option<&Token>, finish: Option<FinishReason>) {
        let logprobs = token
            .filter(|_| self.with_logprobs)
            .map(|token| Logprobs { content: vec![logprob(token, &self.app.model().tokenizer)], refusal: None });
        out.data(&self.chunk(vec![ChunkChoice { index, delta, logprobs, finish_reason: finish }], None));
    }

    fn thoughts(&self, text: String) -> Delta {
        let (reasoning_content, reasoning) = self.app.reasoning_field().named(text);
        Delta { reasoning_content, reasoning, ..Delta::default() }
    }

    /// The first chunk of every answer names the role.
    fn begin(&mut self, out: &mut Out) {
        if !std::mem::replace(&mut self.is_begun, true) {
            for index in 0..self.n {
                let delta = Delta { role: Some("assistant"), content: Some(String::new()), ..Delta::default() };
                self.delta(out, index, delta, None, None);
            }
        }
    }
}

/// A piece of an answer.
fn delta(piece: Piece) -> Delta {
    let call = |index: usize, id, kind, name, arguments| {
        let function = FunctionDelta { name, arguments };
        Delta { tool_calls: vec![ToolCallDelta { index, id, kind, function }], ..Delta::default() }
    };
    match piece {
        Piece::Text(text) => Delta { content: Some(text), ..Delta::default() },
        Piece::Call { index, id, name } => call(index, Some(id), Some("function"), Some(name), Some(String::new())),
        Piece::Arguments { index, text } => call(index, None, None, None, Some(text)),
    }
}

impl Frames for Stream {
    fn event(&mut self, job: usize, event: Event, out: &mut Out) {
        self.begin(out);
        let pieces = self.answers.take(job, event.clone());
        match event {
            Event::Token { sample, token } => {
                let mut deltas: Vec<Delta> = pieces.into_iter().map(delta).collect();
                if token.channel == Channel::Reasoning && !token.text.is_empty() {
                    deltas.push(self.thoughts(token.text.clone()));
                }
                // A token that shows nothing yet has a probability all the same.
                if deltas.is_empty() && self.with_logprobs {
                    deltas.push(Delta { content: Some(String::new()), ..Delta::default() });
                }
                let mut token = Some(&token);
                for delta in deltas {
                    self.delta(out, sample, delta, token.take(), None);
                }
            }
            Event::SampleFinished { sample, tail, channel, .. } => {
                if channel == Channel::Reasoning && !tail.is_empty() {
                    self.delta(out, sample, self.thoughts(tail), None, None);
                }
                for piece in pieces {
                    self.delta(out, sample, delta(piece), None, None);
                }
                let answer = self.answers.list.get(self.answers.index(job, sample));
                let reason = answer.map_or(FinishReason::Stop, Answer::finish_reason);
                self.delta(out, sample, Delta::default(), None, Some(reason));
            }
            Event::Started { .. }
            | Event::Finished(_)
            | Event::PromptLogprobs(_)
            | Event::Embedding(_)
            | Event::Failed(_) => {}
        }
    }

    fn closing(&mut self) -> Option<Closing> {
        let keeping = self.keeping.take()?;
        let list = std::mem::take(&mut self.answers.list);
        let completion = completion(list, self.answers.usage, self.with_logprobs, self.head.clone(), &self.app);
        Some(keeping.closing(&self.app, &completion))
    }

    fn end(&mut self, out: &mut Out) {
        if self.with_usage {
            out.data(&self.chunk(Vec::new(), Some(self.answers.usage)));
        }
        out.done();
    }

    fn fail(&mut self, _error: &Error, body: Value, out: &mut Out) {
        out.data(&body);
        out.done();
    }

    fn shape(&self) -> Shape {
        Shape::OpenAi
    }
}
