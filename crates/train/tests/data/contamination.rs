use std::cell::Cell;

use anyhow::Result;
use proptest::prelude::*;
use train::data::{Benchmarks, Columns, Contamination, N_WORDS, Place, Rows};

use super::file;

fn place(row: u64) -> Place {
    Place { source: "train".into(), row }
}

fn benchmarks(lines: &str) -> Result<Benchmarks> {
    let folder = tempfile::tempdir()?;
    let path = file(folder.path(), "benchmark.jsonl", lines.as_bytes())?;
    let mut benchmarks = Benchmarks::default();
    for raw in Rows::open(&path, Columns::All)? {
        benchmarks.add(&raw?)?;
    }
    Ok(benchmarks)
}

#[test]
fn thirteen_words_are_found_whatever_their_case_and_punctuation_and_twelve_are_not() -> Result<()> {
    let question = "Natalia sold clips to 48 of her friends in April, and then she sold half.";
    let lines = format!("{}\n{}", serde_json::json!({"id": 1, "q": question}), serde_json::json!({"a": "too short"}));
    let benchmarks = benchmarks(&lines)?;
    assert_eq!((benchmarks.n_items(), benchmarks.n_short(), benchmarks.n_overlaps()), (2, 1, 3));
    let mut found = Contamination::default();
    found.look(&benchmarks, &place(1), "So: natalia -- SOLD clips\nto 48 of her 'friends' in april AND then, she!");
    found.look(&benchmarks, &place(2), "natalia sold clips to 48 of her friends in april and later");
    found.look(&benchmarks, &place(3), "");
    found.look(&benchmarks, &place(4), &format!("{question} {question}"));
    assert_eq!((found.n_rows, found.n_rows_found, found.n_found), (4, 2, 7));
    let examples: Vec<_> = found.examples.iter().map(|overlap| (overlap.place.row, overlap.item.row)).collect();
    assert_eq!(examples, [(1, 1), (4, 1)]);
    assert_eq!(found.examples[0].words, "natalia -- SOLD clips to 48 of her 'friends' in april AND then, she!");
    Ok(())
}

/// By definition: every row of thirteen normalised words of one that is a row of the other.
fn overlaps(benchmark: &str, text: &str) -> u64 {
    let words = |text: &str| {
        let words = text.split_whitespace();
        let plain = words.map(|word| word.chars().filter(|c| c.is_alphanumeric()).collect::<String>().to_lowercase());
        plain.filter(|word| !word.is_empty()).collect::<Vec<_>>()
    };
    let (benchmark, text) = (words(benchmark), words(text));
    text.windows(N_WORDS).filter(|row| benchmark.windows(N_WORDS).any(|other| other == *row)).count() as u64
}

#[test]
fn hashes_find_what_comparing_words_finds() -> Result<()> {
    let (n_found, n_none) = (Cell::new(0), Cell::new(0));
    // Three words only, so that rows of thirteen come again.
    proptest!(ProptestConfig::with_cases(300), |(benchmark in "((a|B!|-- c) ){10,40}", text in "((A|b|c) ){10,40}",
            at in 0..200usize, len in 0..200usize)| {
        let begin = at.min(benchmark.len());
        let text = format!("{text}{}", &benchmark[begin..(begin + len).min(benchmark.len())]);
        let found = &mut Contamination::default();
        found.look(&benchmarks(&serde_json::json!([benchmark]).to_string()).expect("a benchmark"), &place(1), &text);
        prop_assert_eq!(found.n_found, overlaps(&benchmark, &text));
        let counted = if found.n_found > 0 { &n_found } else { &n_none };
        counted.set(counted.get() + 1);
    });
    println!("{} with overlaps, {} without", n_found.get(), n_none.get());
    assert!(n_found.get() > 20 && n_none.get() > 20);
    Ok(())
}
