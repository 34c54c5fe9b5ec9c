//! `POST /v1/completions`

use axum::extract::{Extension, State};
use axum::response::Response;
use engine::service::{Event, Job, Task, Usage};
use serde_json::Value;
use tokenizer::{Specials, Tokenizer};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::chat::FINGERPRINT;
use super::tokenize::encode;
use super::{json, model};
use crate::answer::{Answer, Answers, Keeps};
use crate::app::App;
use crate::body::Json;
use crate::error::{Error, Shape};
use crate::keys::Caller;
use crate::legacy::Lists;
use crate::prompt;
use crate::refusals::Refusals;
use crate::request_id::RequestId;
use crate::settings::{Asked, Settings};
use crate::sse::{self, Frames, Out};
use crate::tools::Hearing;
use crate::wire::Whole;
use crate::wire::completions::{Choice, Completion, Prompt, Request};
use crate::work::Work;
use crate::{constraint, id};

/// Tokens of an answer where the request does not say, as this interface documents it.
const MAX_TOKENS: i128 = 16;

/// The routes of this file.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::default().routes(routes!(completions))
}

/// Continues texts
#[utoipa::path(
    post, path = "/v1/completions", tag = "completions", request_body = Request,
    responses(
        (status = 200, description = "the answers, or their pieces if stream is true", content(
            (Completion = "application/json"), (Value = "text/event-stream"),
        )),
        Refusals,
    ),
)]
async fn completions(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    Extension(RequestId(request_id)): Extension<RequestId>,
    Json(mut request): Json<Request>,
) -> Result<Response, Error> {
    model(request.model.as_deref(), &app)?;
    let is_stream = request.stream.unwrap_or(false);
    if request.stream_options.is_some() && !is_stream {
        return Err(Error::field("stream_options", "needs stream to be true"));
    }
    let with_usage = request.stream_options.as_ref().and_then(|options| options.include_usage).unwrap_or(false);
    let is_echo = request.echo.unwrap_or(false);
    let with_begin = request.add_special_tokens.unwrap_or(true);
    let format = constraint::response_format(request.response_format.take(), app.limits())?;
    let (mut settings, texts) = parse(request, &app)?;
    settings.constraint = constraint::compile(format, &app).await?;
    let prompts = ids("prompt", texts, with_begin, &app).await?;
    let jobs = prompts.iter().map(|ids| job(ids, &settings, caller, &app)).collect::<Result<Vec<_>, _>>()?;
    let work = Work::begin(&app, jobs)?;
    let echo = is_echo.then(|| prompts.iter().map(|ids| app.model().tokenizer.decode(ids, Specials::Skip)).collect());
    let head = Completion {
        id: id::fresh("cmpl-"),
        object: "text_completion",
        created: app.now(),
        model: app.model().id.clone(),
        choices: Vec::new(),
        usage: None,
        system_fingerprint: FINGERPRINT,
    };
    let reply = Reply::new(&app, head, &settings, prompts, echo);
    if is_stream {
        return Ok(sse::stream(&app, work, Stream { reply, with_usage }, request_id));
    }
    Ok(json(&reply.whole(work).await?))
}

fn parse(request: Request, app: &App) -> Result<(Settings, Prompt), Error> {
    let limits = app.limits();
    if request.suffix.as_ref().is_some_and(|suffix| !suffix.is_empty()) {
        return Err(Error::unsupported("suffix", "is not supported: the model only writes forward"));
    }
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
        max_tokens: ("max_tokens", Some(request.max_tokens.unwrap_or(Whole::Is(MAX_TOKENS)))),
        cache_salt: request.cache_salt,
        ignore_eos: request.ignore_eos.unwrap_or(false),
    };
    let mut settings = asked.check(app)?;
    let best_of: Option<u32> = request.best_of.map(|n| n.within("best_of", 0, limits.n.into())).transpose()?;
    if best_of.is_some_and(|best_of| best_of > settings.n) {
        return Err(Error::unsupported("best_of", "must not be more than n: the best of more answers are not chosen"));
    }
    let most = i128::try_from(limits.top_logprobs).unwrap_or(i128::MAX);
    let logprobs: Option<usize> = request.logprobs.map(|n| n.within("logprobs", 0, most)).transpose()?;
    // The likeliest token is always there: greedy choice is told by it.
    settings.logprobs = logprobs.map(|n| n.max(1));
    settings.prompt_logprobs = settings.logprobs.filter(|_| request.echo.unwrap_or(false));
    let n_prompts = match &request.prompt {
        Prompt::Texts(texts) => texts.len(),
        Prompt::Ids(lists) => lists.len(),
    };
    if n_prompts == 0 || n_prompts > limits.prompts {
        let why = format!("has {n_prompts} prompts; it must have 1 to {}", limits.prompts);
        return Err(Error::field("prompt", why));
    }
    let n_answers = n_prompts * usize::try_from(settings.n).unwrap_or(usize::MAX);
    if n_answers > limits.answers {
        let why = format!("and n ask for {n_answers} answers; the limit is {}", limits.answers);
        return Err(Error::field("prompt", why));
    }
    Ok((settings, request.prompt))
}

/// The prompts' ids. A client's own ids may not be control, except for the first, which may begin or end texts.
///
/// # Errors
/// [`Error::Field`] naming the place in `field` where it is wrong.
pub async fn ids(field: &str, prompt: Prompt, with_begin: bool, app: &App) -> Result<Vec<Vec<u32>>, Error> {
    let tokenizer = &app.model().tokenizer;
    match prompt {
        Prompt::Texts(texts) => {
            let mut lists = Vec::with_capacity(texts.len());
            for text in texts {
                lists.push(encode(text, with_begin, app).await?);
            }
            Ok(lists)
        }
        Prompt::Ids(lists) => {
            let n_vocab = app.model().handle.about().n_vocab.min(tokenizer.vocab_size());
            let is_one = lists.len() == 1;
            for (number, list) in lists.iter().enumerate() {
                for (index, id) in list.iter().enumerate() {
                    let at =
                        || if is_one { format!("{field}[{index}]") } else { format!("{field}[{number}][{index}]") };
                    if usize::try_from(*id).map_or(true, |id| id >= n_vocab) {
                        return Err(Error::field(at(), format!("is {id}; it must be a whole number below {n_vocab}")));
                    }
                    let may_begin = index == 0 && begins(*id, tokenizer);
                    if tokenizer.is_control(*id) && !may_begin {
                        return Err(Error::field(
                            at(),
                            format!("is {id}, a control token, which requests may not send"),
                        ));
                    }
                }
            }
            Ok(lists)
        }
    }
}

/// Whether a token begins or ends whole texts.
fn begins(id: u32, tokenizer: &Tokenizer) -> bool {
    [tokenizer.bos(), tokenizer.eos()].contains(&Some(id))
}

fn job(ids: &[u32], settings: &Settings, caller: Caller, app: &App) -> Result<Job, Error> {
    let mut job = settings.job(&prompt::Prompt::of_ids("prompt", ids.to_vec()), caller, app)?;
    if let (Some(_), Task::Generate { stop, .. }) = (settings.prompt_logprobs, &mut job.task)
        && stop.max_tokens <= 1
    {
        // Who scores a prompt reads one token after it, whatever that is: also an end has its entry then.
        stop.tokens.clear();
    }
    Ok(job)
}

/// What answers a request.
struct Reply {
    app: App,
    head: Completion,
    n: u32,
    prompts: Vec<Vec<u32>>,
    /// The prompts' texts, if they stand before the answers.
    echo: Option<Vec<String>>,
    with_logprobs: bool,
    /// Where the answers to each prompt begin, and what stands before them.
    begun: Vec<Lists>,
    /// One list an answer, of what was not given out yet.
    lists: Vec<Lists>,
    answers: Answers,
}

impl Reply {
    fn new(
        app: &App,
        head: Completion,
        settings: &Settings,
        prompts: Vec<Vec<u32>>,
        echo: Option<Vec<String>>,
    ) -> Self {
        let (n_prompts, n) = (prompts.len(), settings.n);
        let answers = Answers::new(n_prompts, n, Keeps::Text, &Hearing::new(&[], ""));
        Self {
            app: app.clone(),
            head,
            n,
            prompts,
            echo,
            with_logprobs: settings.logprobs.is_some(),
            begun: vec![Lists::default(); n_prompts],
            lists: vec![Lists::default(); answers.list.len()],
            answers,
        }
    }

    /// Takes an event in.
    fn take(&mut self, job: usize, event: Event) {
        let tokenizer = &self.app.model().tokenizer;
        match &event {
            Event::PromptLogprobs(entries) => {
                if let (Some(lists), Some(ids)) = (self.begun.get_mut(job), self.prompts.get(job)) {
                    for (id, entry) in ids.iter().zip(entries) {
                        let (own, likeliest) = entry.as_ref().map_or((None, &[][..]), |(own, list)| (*own, list));
                        lists.prompt(*id, own, likeliest, tokenizer);
                    }
                    let n_chars = lists.n_chars();
                    for sample in 0..self.n {
                        let index = self.answers.index(job, sample);
                        if let Some(lists) = self.lists.get_mut(index) {
                            *lists = Lists::after(n_chars);
                        }
                    }
                }
            }
            Event::Token { sample, token } if self.with_logprobs => {
                let index = self.answers.index(job, *sample);
                if let Some(lists) = self.lists.get_mut(index) {
                    lists.token(token, tokenizer);
                }
            }
            _ => {}
        }
        drop(self.answers.take(job, event));
    }

    /// All answers, when all have ended.
    async fn whole(mut self, work: Work) -> Result<Completion, Error> {
        work.each(|job, event| self.take(job, event)).await?;
        let n = usize::try_from(self.n).unwrap_or(1).max(1);
        let answers = std::mem::take(&mut self.answers.list).into_iter().enumerate();
        let choices = answers.map(|(index, answer)| {
            let prompt = index / n;
            let echo = self.echo.as_ref().and_then(|texts| texts.get(prompt)).map_or("", String::as_str);
            let logprobs = self.with_logprobs.then(|| {
                let mut lists = self.begun.get(prompt).cloned().unwrap_or_default().logprobs;
                let own = self.lists.get(index).cloned().unwrap_or_default().logprobs;
                lists.tokens.extend(own.tokens);
                lists.token_logprobs.extend(own.token_logprobs);
                lists.top_logprobs.extend(own.top_logprobs);
                lists.text_offset.extend(own.text_offset);
                lists
            });
            let finish_reason = Some(answer.finish_reason());
            let text = format!("{echo}{}{}", answer.reasoning, answer.content);
            Choice { index, text, logprobs, finish_reason }
        });
        let choices = choices.collect();
        Ok(Completion { choices, usage: Some(Some(self.answers.usage.into())), ..self.head })
    }
}

/// Makes chunks of events.
struct Stream {
    reply: Reply,
    with_usage: bool,
}

impl Stream {
    fn chunk(&self, choices: Vec<Choice>, usage: Option<Usage>) -> Completion {
        let usage = self.with_usage.then(|| usage.map(Into::into));
        Completion { choices, usage, ..self.reply.head.clone() }
    }

    /// What came of one answer since the last piece.
    fn piece(&mut self, index: usize, text: String, finish: Option<crate::wire::chat::FinishReason>, out: &mut Out) {
        let logprobs = match self.reply.lists.get_mut(index) {
            Some(lists) if self.reply.with_logprobs => {
                let n_chars = lists.n_chars();
                Some(std::mem::replace(lists, Lists::after(n_chars)).logprobs)
            }
            _ => None,
        };
        out.data(&self.chunk(vec![Choice { index, text, logprobs, finish_reason: finish }], None));
    }

    /// The prompt before its answers, once.
    fn echo(&mut self, job: usize, out: &mut Out) {
        let Some(text) = self.reply.echo.as_mut().and_then(|texts| texts.get_mut(job)).map(std::mem::take) else {
            return;
        };
        if text.is_empty() {
            return;
        }
        let logprobs =
            self.reply.begun.get(job).filter(|_| self.reply.with_logprobs).map(|lists| lists.logprobs.clone());
        for sample in 0..self.reply.n {
            let index = self.reply.answers.index(job, sample);
            let choice = Choice { index, text: text.clone(), logprobs: logprobs.clone(), finish_reason: None };
            out.data(&self.chunk(vec![choice], None));
        }
    }
}

impl Frames for Stream {
    fn event(&mut self, job: usize, event: Event, out: &mut Out) {
        self.reply.take(job, event.clone());
        match event {
            Event::Token { sample, token } => {
                self.echo(job, out);
                if !token.text.is_empty() || self.reply.with_logprobs {
                    self.piece(self.reply.answers.index(job, sample), token.text, None, out);
                }
            }
            Event::SampleFinished { sample, tail, .. } => {
                self.echo(job, out);
                let index = self.reply.answers.index(job, sample);
                let reason = self.reply.answers.list.get(index).map(Answer::finish_reason);
                self.piece(index, tail, reason, out);
            }
            Event::Finished(_)
            | Event::Started { .. }
            | Event::PromptLogprobs(_)
            | Event::Embedding(_)
            | Event::Failed(_) => {}
        }
    }

    fn end(&mut self, out: &mut Out) {
        if self.with_usage {
            out.data(&self.chunk(Vec::new(), Some(self.reply.answers.usage)));
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
