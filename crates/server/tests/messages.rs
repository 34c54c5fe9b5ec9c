//! Anthropic's shape: counts of cached tokens, formats, efforts.

#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::sync::Arc;

use engine::service::{Channel, Event, Finish, Submitted, Task, Usage};
use serde_json::{Value, json};
use support::{Server, Setup, answer};

const PATH: &str = "/v1/messages";
const COUNT: &str = "/v1/messages/count_tokens";

/// A request with `fields` beside a conversation.
fn body(fields: &Value) -> Value {
    let mut body = json!({"messages": [{"role": "user", "content": "x"}], "max_tokens": 400});
    body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    body
}

/// Asks for an answer and for a count, which have to be refused alike; the message.
async fn refused(server: &Server, fields: &Value) -> String {
    let [one, two] = [server.post(PATH, &body(fields)).await, server.post(COUNT, &body(fields)).await];
    assert_eq!((one.status.as_u16(), two.status.as_u16()), (400, 400), "{fields}: {}", one.text());
    assert_eq!(one.json()["error"], two.json()["error"], "{fields}");
    one.json()["error"]["message"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn the_counts_of_a_prompt_add_up_to_it_and_a_stream_says_so_from_its_beginning() {
    let script = |submitted: Submitted, _: &_| {
        let Submitted { events, place, .. } = submitted;
        let usage = Usage { n_prompt: 100, n_audio: 0, n_cached: 48, n_stored: 32, n_completion: 1, n_reasoning: 0 };
        let Usage { n_prompt, n_cached, n_stored, .. } = usage;
        let (finish, tail, channel) = (Finish::EndToken(0), String::new(), Channel::Content);
        for event in [
            Event::Started { n_prompt, n_cached, n_stored },
            Event::SampleFinished { sample: 0, finish, tail, channel },
            Event::Finished(usage),
        ] {
            events.blocking_send(event).unwrap();
        }
        drop(place);
    };
    let server = Setup { script: Arc::new(script), ..Setup::default() }.start();
    let counts = |output: usize| {
        json!({"input_tokens": 20, "output_tokens": output, "cache_creation_input_tokens": 32,
               "cache_read_input_tokens": 48})
    };
    assert_eq!(server.post(PATH, &body(&json!({}))).await.json()["usage"], counts(1));
    let text = server.post(PATH, &body(&json!({"stream": true}))).await.text();
    let events: Vec<Value> = text
        .lines()
        .filter_map(|line| line.strip_prefix("data: "))
        .map(|data| serde_json::from_str(data).unwrap())
        .collect();
    let of = |kind: &str| events.iter().find(|event| event["type"] == kind).unwrap();
    assert_eq!(of("message_start")["message"]["usage"], counts(0));
    assert_eq!(of("message_delta")["usage"], counts(1));
}

#[tokio::test]
async fn a_format_constrains_the_answer_by_either_name() {
    let server = Setup { script: Arc::new(|submitted, _| answer(submitted, "{\"a\":1}")), ..Setup::default() }.start();
    let schema = json!({"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]});
    let format = json!({"type": "json_schema", "schema": schema});
    let tool = json!([{"name": "f", "input_schema": schema}]);
    let is_constrained = |server: &Server| {
        let Task::Generate { constraint, .. } = server.last_job().task else { panic!("no answer") };
        constraint.is_some()
    };
    for (fields, expected) in [
        (json!({}), false),
        (json!({"output_config": {}}), false),
        (json!({"output_config": {"format": null}}), false),
        (json!({"output_config": {"format": format}}), true),
        (json!({"output_format": format}), true),
        (json!({"output_config": {"format": format}, "tools": tool, "tool_choice": {"type": "none"}}), true),
    ] {
        let reply = server.post(PATH, &body(&fields)).await;
        assert_eq!(reply.status, 200, "{fields}: {}", reply.text());
        assert_eq!(reply.header("x-ignored-params"), "", "{fields}");
        assert_eq!(is_constrained(&server), expected, "{fields}");
        assert_eq!(server.post(COUNT, &body(&fields)).await.status, 200, "{fields}");
    }
    for (fields, named) in [
        (json!({"output_config": {"format": {"type": "text"}}}), "output_config.format.type"),
        (json!({"output_config": {"format": {"type": "json_schema"}}}), "output_config.format.schema is required"),
        (json!({"output_config": {"format": {"type": "json_schema", "schema": 7}}}), "output_config.format.schema"),
        (json!({"output_format": {"type": "json_schema"}}), "output_format.schema is required"),
        (json!({"output_format": format, "output_config": {"format": format}}), "output_format is"),
        (json!({"output_config": {"task_budget": {"type": "tokens", "total": 9}}}), "output_config.task_budget"),
    ] {
        let message = refused(&server, &fields).await;
        assert!(message.starts_with(named), "{fields}: {message}");
    }
    // What only compiling shows.
    let not = json!({"output_config": {"format": {"type": "json_schema", "schema": {"not": {}}}}});
    let reply = server.post(PATH, &body(&not)).await;
    assert!(
        reply.status == 400 && reply.text().contains("output_config.format.schema can not be used"),
        "{}",
        reply.text()
    );
    let both = json!({"output_config": {"format": format}, "tools": tool});
    let reply = server.post(PATH, &body(&both)).await;
    assert!(reply.status == 400 && reply.text().contains("can not be followed beside tools"), "{}", reply.text());
    let reply = server.post(PATH, &body(&json!({"output_config": {"colour": "red"}}))).await;
    assert_eq!((reply.status.as_u16(), reply.header("x-ignored-params")), (200, "output_config.colour"));
}

#[tokio::test]
async fn effort_is_how_much_to_think_and_nothing_else() {
    let budget = |server: &Server| {
        let Task::Generate { thinking, .. } = server.last_job().task else { panic!("no answer") };
        thinking.map(|thinking| thinking.budget)
    };
    let thinker = |thinks: bool| Setup { thinks: Some(thinks), ..Setup::default() }.start();
    let effort = |effort: &str, thinking: Value| json!({"output_config": {"effort": effort}, "thinking": thinking});
    // Of 400 tokens 100 are kept for the answer, and what is written to end the thoughts takes three.
    for (fields, expected) in [
        (effort("low", json!({"type": "adaptive"})), 100),
        (effort("max", json!({"type": "adaptive"})), 297),
        (effort("low", json!({"type": "enabled"})), 100),
        (effort("low", json!({"type": "enabled", "budget_tokens": 64})), 64),
        // As if it were not there.
        (effort("high", json!(null)), 297),
        (effort("high", json!({"type": "disabled"})), 0),
    ] {
        let server = thinker(true);
        let reply = server.post(PATH, &body(&fields)).await;
        assert_eq!(reply.status, 200, "{fields}: {}", reply.text());
        assert_eq!(budget(&server), Some(expected), "{fields}");
    }
    let server = thinker(false);
    assert_eq!(server.post(PATH, &body(&effort("low", json!({"type": "adaptive"})))).await.status, 200);
    assert_eq!(budget(&server), Some(100));
    for thinks in [true, false] {
        let server = thinker(thinks);
        for (fields, why) in [
            (effort("low", json!(null)), "output_config.effort needs thinking"),
            (effort("low", json!({"type": "disabled"})), "output_config.effort needs thinking"),
            (effort("enormous", json!(null)), "output_config.effort is \"enormous\""),
            (effort("enormous", json!({"type": "adaptive"})), "output_config.effort is \"enormous\"; this model knows"),
        ] {
            let message = refused(&server, &fields).await;
            assert!(message.starts_with(why), "{fields}: {message}");
        }
    }
    let unable = support::server();
    for fields in [effort("low", json!(null)), effort("max", json!({"type": "disabled"}))] {
        assert_eq!(unable.post(PATH, &body(&fields)).await.status, 200, "{fields}");
        assert_eq!(budget(&unable), None, "{fields}");
    }
    for (fields, why) in [
        (effort("enormous", json!(null)), "output_config.effort is \"enormous\""),
        (effort("low", json!({"type": "adaptive"})), "output_config.effort asks for thinking"),
    ] {
        let message = refused(&unable, &fields).await;
        assert!(message.starts_with(why), "{fields}: {message}");
    }
}
