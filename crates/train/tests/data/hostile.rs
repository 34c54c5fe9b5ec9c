use anyhow::Result;
use parquet::basic::Compression;
use train::data::Row;

use super::files::{Column, TEXTS, parquet, texts};
use super::{file, gzip, rows, zstd};

#[test]
fn every_error_names_the_file_the_line_the_field_and_the_way_out() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let user = r#"{"role": "user", "content": "a"}"#;
    let part = |part: &str| {
        format!(r#"{{"messages": [{{"role": "user", "content": [{part}]}}, {{"role": "assistant", "content": "b"}}]}}"#)
    };
    let cases = [
        ("{".into(), "EOF while parsing an object at column 1"),
        ("[]".into(), "is no JSON object"),
        (r#"{"text": 1}"#.into(), "text: invalid type: integer `1`, expected a string at column 10"),
        ("{}".into(), "a row has text, or messages, or prompt with chosen and rejected, and none of the others"),
        (
            r#"{"text": "a", "messages": []}"#.into(),
            "a row has text, or messages, or prompt with chosen and rejected, and none of the others",
        ),
        (
            format!(r#"{{"messages": [{user}, {{"role": "robot", "content": "b"}}]}}"#),
            "messages[1].role: unknown variant `robot`, expected one of `system`, `developer`, `user`, `assistant`, \
             `tool`, `function` at column 64",
        ),
        (
            format!(r#"{{"messages": [{user}]}}"#),
            "messages: has no assistant's message, so nothing could be learnt from it",
        ),
        (
            part(r#"{"type": "video"}"#),
            "messages[0].content[0].type: is \"video\", not text, image_url, audio_url or input_audio",
        ),
        (
            part(r#"{"type": "image_url", "image_url": {"url": "https://a/b.png"}}"#),
            "messages[0].content[0].image_url.url: is an address; fetch it, and name the file from this one's folder",
        ),
        (
            part(r#"{"type": "image_url", "image_url": {"url": "../b.png"}}"#),
            "messages[0].content[0].image_url.url: leaves the folder of its file; name a file beneath it",
        ),
        (
            part(r#"{"type": "audio_url", "audio_url": {"url": "/etc/passwd"}}"#),
            "messages[0].content[0].audio_url.url: leaves the folder of its file; name a file beneath it",
        ),
        (
            part(r#"{"type": "image_url", "image_url": {"url": "data:image/png;base64,*"}}"#),
            "messages[0].content[0].image_url: is no base64: invalid symbol 42, offset 0.",
        ),
        (
            part(r#"{"type": "text", "text": "a"}, "b""#),
            "messages[0].content[1]: invalid type: string \"b\", expected struct WirePart at column 77",
        ),
    ];
    let lines: Vec<&str> = cases.iter().map(|(line, _)| line.as_str()).collect();
    let all = rows(&file(folder.path(), "a.jsonl", lines.join("\n").as_bytes())?);
    assert_eq!(all.len(), cases.len());
    for (i, (row, (_, why))) in all.iter().zip(&cases).enumerate() {
        assert_eq!(row, &Err(format!("a.jsonl:{}: {why}", i + 1)));
    }
    println!("{} errors", cases.len());
    Ok(())
}

#[test]
fn a_line_of_100_megabytes_is_refused_and_those_behind_it_are_read() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let long = ["{\"text\": \"".as_bytes(), &vec![b'a'; 100_000_000], b"\"}\n{\"text\": \"b\"}\n"].concat();
    let all = rows(&file(folder.path(), "a.jsonl.gz", &gzip(&long)?)?);
    assert_eq!(all, [Err("a.jsonl.gz:1: is longer than 32 MiB; cut it".into()), Ok(Row::Document("b".into()))]);
    Ok(())
}

#[test]
fn too_many_messages_are_refused_before_they_are_held() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let message = r#"{"role":"user","content":""}"#;
    let line = format!(r#"{{"messages":[{}]}}"#, vec![message; 100_000].join(","));
    let all = rows(&file(folder.path(), "a.jsonl", line.as_bytes())?);
    let [Err(why)] = all.as_slice() else { panic!("{} rows", all.len()) };
    assert!(why.starts_with("a.jsonl:1: messages") && why.contains("more than 1024 entries"), "{why}");
    let tools = format!(r#"{{"text": "a", "tools": [{}0]}}"#, "[],".repeat(100_000));
    let all = rows(&file(folder.path(), "b.jsonl", tools.as_bytes())?);
    assert_eq!(all, [Err("b.jsonl:1: tools: has 300003 bytes; the limit is 65536".into())]);
    Ok(())
}

#[test]
fn what_is_not_utf_8_is_one_rows_error() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let all = rows(&file(folder.path(), "a.jsonl", b"{\"text\": \"a\xff\"}\n{\"text\": \"b\"}")?);
    let why = "a.jsonl:1: is not UTF-8 at byte 12; convert the file";
    assert_eq!(all, [Err(why.into()), Ok(Row::Document("b".into()))]);
    let all = rows(&file(folder.path(), "a.txt", b"a\nb\xff")?);
    assert_eq!(all, [Err("a.txt:2: is not UTF-8, nor is its document read; convert the file".into())]);
    Ok(())
}

#[test]
fn a_packed_file_that_is_cut_off_gives_its_front_and_then_an_error() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let lines: String = (0..2000).map(|i| format!("{{\"text\": \"row {i} {}\"}}\n", i * 7919 % 1000)).collect();
    let mut n_cut = 0;
    for (name, packed) in [("a.jsonl.gz", gzip(lines.as_bytes())?), ("a.jsonl.zst", zstd(lines.as_bytes()))] {
        for keep in [5, 20, packed.len() / 2, packed.len() - 5, packed.len() - 1] {
            let all = rows(&file(folder.path(), name, &packed[..keep])?);
            let (last, front) = all.split_last().expect("an error at least");
            assert!(last.is_err(), "{name} {keep}");
            let is_front = |(i, row): (usize, &Result<Row, String>)| {
                *row == Ok(Row::Document(format!("row {i} {}", i * 7919 % 1000)))
            };
            assert!(front.iter().enumerate().all(is_front), "{name} {keep}");
            n_cut += 1;
        }
    }
    println!("{n_cut} files cut off");
    Ok(())
}

#[test]
fn a_zstandard_file_whose_content_was_changed_fails_its_checksum() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut packed = zstd(b"{\"text\": \"abc\"}\n");
    let at = packed.windows(3).position(|three| three == b"abc").expect("stored as it is");
    packed[at] = b'x';
    let all = rows(&file(folder.path(), "a.jsonl.zst", &packed)?);
    assert!(matches!(all.last(), Some(Err(why)) if why.contains("its checksum is another")), "{all:?}");
    Ok(())
}

#[test]
fn a_parquet_file_with_any_byte_changed_or_cut_off_anywhere_gives_rows_or_an_error() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let sound = parquet(TEXTS, &texts(), Compression::SNAPPY)?;
    // The decoder's panics are caught; here they would fill the report.
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let (mut n_read, mut n_refused) = (0, 0);
    for i in 0..sound.len() {
        for value in [0, 0x7f, 0xff, sound[i] ^ 1] {
            let mut changed = sound.clone();
            changed[i] = value;
            let all = rows(&file(folder.path(), "a.parquet", &changed)?);
            match all.iter().any(Result::is_err) {
                true => n_refused += 1,
                false => n_read += 1,
            }
        }
        let all = rows(&file(folder.path(), "a.parquet", &sound[..i])?);
        assert!(i < 4 || all.last().is_some_and(Result::is_err), "{i}");
    }
    std::panic::set_hook(hook);
    println!("{n_read} read, {n_refused} refused of {} bytes", sound.len());
    assert!(n_refused > sound.len() / 2);
    Ok(())
}

#[test]
fn a_parquet_page_that_claims_more_than_a_page_may_have_is_refused_before_it_is_unpacked() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let text: &'static str = Box::leak("a".repeat(3 << 20).into_boxed_str());
    let columns = [
        Column { values: vec![text], definitions: vec![1], repetitions: None },
        Column { values: vec![], definitions: vec![0], repetitions: None },
    ];
    let mut bytes = parquet(TEXTS, &columns, Compression::SNAPPY)?;
    // Behind the file's magic: a page's kind, then its size unpacked: four bytes of seven bits, that of the sign last.
    assert!(bytes[4] == 0x15 && bytes[6] == 0x15 && bytes[9] >= 0x80 && bytes[10] < 0x80, "{:x?}", &bytes[..16]);
    bytes[7..11].copy_from_slice(&[0xfe, 0xff, 0xff, 0x7f]);
    let all = rows(&file(folder.path(), "a.parquet", &bytes)?);
    let why = "a.parquet: row group 0, column text: a page claims 134217727 bytes; write pages of at most 64 MiB";
    assert_eq!(all, [Err(why.into())]);
    Ok(())
}

#[test]
fn a_parquet_file_without_a_known_column_says_which_it_has() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let schema = "message m { optional binary question (UTF8); optional binary other (UTF8); }";
    let bytes = parquet(schema, &texts(), Compression::SNAPPY)?;
    let all = rows(&file(folder.path(), "a.parquet", &bytes)?);
    let why = "a.parquet: has the columns question, other; name one of them text or messages, or three prompt, chosen \
               and rejected";
    assert_eq!(all, [Err(why.into())]);
    Ok(())
}
