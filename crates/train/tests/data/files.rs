use std::sync::Arc;

use anyhow::{Context, Result};
use parquet::basic::Compression;
use parquet::data_type::{ByteArray, ByteArrayType};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use tokenizer::{Message, Part, Role};
use train::data::{At, Columns, DOCUMENT_BYTES, Kind, Row, Rows};

use super::{file, gzip, prose, rows, zstd};

/// A column of a Parquet file: values and their levels.
pub struct Column {
    pub values: Vec<&'static str>,
    pub definitions: Vec<i16>,
    pub repetitions: Option<Vec<i16>>,
}

pub fn parquet(schema: &str, columns: &[Column], compression: Compression) -> Result<Vec<u8>> {
    let schema = Arc::new(parse_message_type(schema)?);
    let properties = WriterProperties::builder().set_compression(compression).build();
    let mut bytes = Vec::new();
    let mut writer = SerializedFileWriter::new(&mut bytes, schema, Arc::new(properties))?;
    let mut group = writer.next_row_group()?;
    for column in columns {
        let mut out = group.next_column()?.context("a column of the schema")?;
        let values: Vec<ByteArray> = column.values.iter().map(|value| ByteArray::from(*value)).collect();
        out.typed::<ByteArrayType>().write_batch(&values, Some(&column.definitions), column.repetitions.as_deref())?;
        out.close()?;
    }
    group.close()?;
    writer.close()?;
    Ok(bytes)
}

pub const TEXTS: &str = "message m { optional binary text (UTF8); optional binary other (UTF8); }";

pub fn texts() -> [Column; 2] {
    [
        Column { values: vec!["one", "two"], definitions: vec![1, 1], repetitions: None },
        Column { values: vec!["a"], definitions: vec![1, 0], repetitions: None },
    ]
}

const MESSAGES: &str = "message m { optional group messages (LIST) { repeated group list { optional group element {
    optional binary role (UTF8); optional binary content (UTF8); } } } }";

fn messages() -> [Column; 2] {
    let column = |values| Column { values, definitions: vec![4; 4], repetitions: Some(vec![0, 1, 0, 1]) };
    [column(vec!["user", "assistant", "user", "assistant"]), column(vec!["hello?", "hello.", "\"who\"?", "me\n."])]
}

fn document(text: &str) -> Result<Row, String> {
    Ok(Row::Document(text.into()))
}

#[test]
fn a_row_is_the_same_in_every_kind_of_file_and_packing() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let lines = b"\xef\xbb\xbf{\"text\": \"one\"}\r\n\n{\"other\": [1], \"text\": \"two\"}".as_slice();
    let plain = parquet(TEXTS, &texts(), Compression::UNCOMPRESSED)?;
    let snappy = parquet(TEXTS, &texts(), Compression::SNAPPY)?;
    let zipped = parquet(TEXTS, &texts(), Compression::GZIP(Default::default()))?;
    // Two members and two frames, as parallel compressors write them.
    let (front, back) = lines.split_at(20);
    let mut n_files = 0;
    for (name, content) in [
        ("a.jsonl", lines.to_vec()),
        ("b.jsonl.gz", gzip(lines)?),
        ("c.jsonl.zst", zstd(lines)),
        ("d.ndjson.gz", [gzip(front)?, gzip(back)?].concat()),
        ("e.json.zst", [zstd(front), zstd(back)].concat()),
        ("f.parquet", plain.clone()),
        ("g.parquet", snappy),
        ("h.parquet", zipped),
        ("i.parquet.zst", zstd(&plain)),
        ("j.parquet.gz", gzip(&plain)?),
    ] {
        assert_eq!(rows(&file(folder.path(), name, &content)?), [document("one"), document("two")], "{name}");
        n_files += 1;
    }
    for (name, content) in [("k.txt", b"one\n".to_vec()), ("l.txt.gz", gzip(b"\n\none")?), ("m", zstd(b"one\r\n"))] {
        assert_eq!(rows(&file(folder.path(), name, &content)?), [document("one")], "{name}");
        n_files += 1;
    }
    println!("{n_files} files");
    Ok(())
}

#[test]
fn conversations_are_read_from_lists_of_parquet_as_from_lines() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let lines = br#"{"messages": [{"role": "user", "content": "hello?"}, {"role": "assistant", "content": "hello."}]}
{"messages": [{"role": "user", "content": "\"who\"?"}, {"role": "assistant", "content": [{"type": "text", "text": "me\n."}]}]}"#;
    let lines = rows(&file(folder.path(), "a.jsonl", lines)?);
    let lists = parquet(MESSAGES, &messages(), Compression::SNAPPY)?;
    assert_eq!(lines.len(), 2);
    assert_eq!(rows(&file(folder.path(), "b.parquet", &lists)?), lines);
    let Ok(Row::Conversation(second)) = &lines[1] else { panic!("{lines:?}") };
    assert_eq!(second.messages, [Message::text(Role::User, "\"who\"?"), Message::text(Role::Assistant, "me\n.")]);
    Ok(())
}

#[test]
fn a_conversation_has_images_clips_thoughts_calls_and_tools() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let line = r#"{"tools": [{"type": "function", "function": {"name": "f"}}], "messages": [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AQI="}},
            {"type": "image_url", "image_url": {"url": "pictures/a.png", "detail": "low"}},
            {"type": "input_audio", "input_audio": {"data": "AwQ", "format": "wav"}},
            {"type": "audio_url", "audio_url": {"url": "a.flac"}}, {"type": "text", "text": "What?"}]},
        {"role": "assistant", "content": null, "reasoning_content": "Hm.",
            "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{\"a\": 1}"}}]},
        {"role": "tool", "tool_call_id": "1", "content": "2"},
        {"role": "assistant", "content": "Two."}]}"#;
    let all = rows(&file(folder.path(), "a.jsonl", line.replace('\n', " ").as_bytes())?);
    let [Ok(Row::Conversation(conversation))] = all.as_slice() else { panic!("{all:?}") };
    let at: Vec<_> = conversation.media.iter().map(|medium| (medium.kind, medium.at.clone())).collect();
    use engine::media::audio::AudioFormat;
    assert_eq!(
        at,
        [
            (Kind::Image, At::Bytes(vec![1, 2])),
            (Kind::ImageInOneTile, At::Path(folder.path().join("pictures/a.png"))),
            (Kind::Audio(Some(AudioFormat::Wav)), At::Bytes(vec![3, 4])),
            (Kind::Audio(None), At::Path(folder.path().join("a.flac"))),
        ]
    );
    let [system, user, call, result, answer] = conversation.messages.as_slice() else { panic!("{conversation:?}") };
    assert_eq!((system.role, result.role, answer.role), (Role::System, Role::Tool, Role::Assistant));
    assert_eq!(user.content, [Part::Image, Part::Image, Part::Audio, Part::Audio, Part::Text("What?".into())]);
    assert_eq!(call.reasoning.as_deref(), Some("Hm."));
    assert_eq!(call.tool_calls[0].arguments, serde_json::json!({"a": 1}));
    assert_eq!(conversation.tools.len(), 1);
    Ok(())
}

#[test]
fn preferences_are_texts_or_messages_and_may_repeat_their_prompt() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let lines = br#"{"prompt": "Why?", "chosen": "So.", "rejected": "No."}
{"prompt": [{"role": "user", "content": "Why?"}], "chosen": [{"role": "assistant", "content": "So."}], "rejected": [{"role": "assistant", "content": "No."}]}
{"prompt": "Why?", "chosen": [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}], "rejected": [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "No."}]}"#;
    let all = rows(&file(folder.path(), "a.jsonl", lines)?);
    assert_eq!(all.len(), 3);
    assert!(all[0] == all[1] && all[0] == all[2], "{all:?}");
    let Ok(Row::Preference { chosen, rejected }) = &all[0] else { panic!("{all:?}") };
    let question = Message::text(Role::User, "Why?");
    assert_eq!(chosen.messages, [question.clone(), Message::text(Role::Assistant, "So.")]);
    assert_eq!(rejected.messages, [question, Message::text(Role::Assistant, "No.")]);
    assert_eq!((chosen.n_given, rejected.n_given), (1, 1));
    Ok(())
}

#[test]
fn documents_of_a_long_text_are_the_text_cut_between_paragraphs() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let text = prose()?.repeat(1 + 5 * DOCUMENT_BYTES / prose()?.len());
    let path = file(folder.path(), "a.txt.zst", &zstd(text.as_bytes()))?;
    let mut n_documents = 0;
    let mut at = 0;
    for raw in Rows::open(&path, Columns::OfSamples)? {
        let raw = raw?;
        let Row::Document(document) = raw.parse()? else { panic!("{raw:?}") };
        assert!(document.len() <= DOCUMENT_BYTES && document.len() * 3 > DOCUMENT_BYTES || n_documents >= 5);
        let found = text[at..].find(&document).context("a document that is not in the text, or not in its order")?;
        assert!(text[at..at + found].trim_matches(['\n', '\r']).is_empty(), "nothing between documents is lost");
        let line = text[..at + found].bytes().filter(|byte| *byte == b'\n').count() as u64 + 1;
        assert_eq!(raw.place.row, line);
        at += found + document.len();
        n_documents += 1;
    }
    assert!(text[at..].trim().is_empty() && n_documents >= 5);
    println!("{n_documents} documents");
    Ok(())
}

#[test]
fn a_document_without_lines_is_cut_between_characters() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let text = "日本🙂".repeat(DOCUMENT_BYTES / 5);
    let all = rows(&file(folder.path(), "a.txt", text.as_bytes())?);
    let mut joined = String::new();
    for row in &all {
        let Ok(Row::Document(document)) = row else { panic!("{row:?}") };
        joined.push_str(document);
    }
    assert!(joined == text && all.len() == 2, "{} documents", all.len());
    Ok(())
}
