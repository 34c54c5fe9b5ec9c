use super::*;

fn pieces(pattern: Pattern, text: &str) -> Vec<String> {
    let mut pieces = Vec::new();
    Splitter::new(pattern).each(text, &mut |p| pieces.push(p.to_owned()));
    pieces
}

fn check(pattern: Pattern, text: &str, expected: &str) {
    assert_eq!(pieces(pattern, text).join("|"), expected, "{pattern:?} of {text:?}");
}

#[test]
fn o200k_cuts_at_changes_of_case_and_keeps_contractions() {
    check(Pattern::O200k, "HelloWorld FOOBar they'LL go.", "Hello|World| FOOBar| they'LL| go|.");
    check(Pattern::O200k, "1234567 and", "123|456|7| and");
    check(Pattern::O200k, "a/b//c\r\n\r\nd", "a|/b|//|c|\r\n\r\n|d");
    check(Pattern::O200k, "  x\n\n \ty", " | x|\n\n| |\ty");
    check(Pattern::O200k, "e\u{301}tude ªAb it'ſ", "e\u{301}tude| ªAb| it'ſ");
}

#[test]
fn the_other_patterns_cut_as_published() {
    check(Pattern::Llama3, "HelloWorld they'LL go.\n1234", "HelloWorld| they|'LL| go|.\n|123|4");
    check(Pattern::Qwen2, "x123", "x|1|2|3");
    check(Pattern::Gpt2, "they'll 'LL  123 x\n\n y", "they|'ll| '|LL| | 123| x|\n\n| y");
    check(Pattern::SmolLm, "a  12 b's", "a|  |1|2| b|'s");
    check(Pattern::Default, "a 12345,b $x", "a| |123|45|,|b| |$|x");
}

/// The same pattern, handed to a backtracking regular-expression engine by way of the `tokenizers` crate.
fn by_regex(expression: &str, text: &str) -> Vec<String> {
    use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
    use tokenizers::{OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer, SplitDelimiterBehavior};
    let split =
        Split::new(SplitPattern::Regex(expression.into()), SplitDelimiterBehavior::Isolated, false).expect("valid");
    let mut pretokenized = PreTokenizedString::from(text);
    split.pre_tokenize(&mut pretokenized).expect("within the limits");
    let splits = pretokenized.get_splits(OffsetReferential::Original, OffsetType::Byte);
    splits.into_iter().map(|(piece, _, _)| piece.to_owned()).filter(|p| !p.is_empty()).collect()
}

const O200K: &str = concat!(
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|",
    r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);
const LLAMA3: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|",
    r"\s*[\r\n]+|\s+(?!\S)|\s+"
);
const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";

/// Texts dense in the characters at which the patterns decide.
fn tricky() -> impl proptest::strategy::Strategy<Value = String> {
    let alphabet: Vec<char> =
        "aAbZéÉǅʰ日\u{301}ªſ's'S'tTrReEvVmMlLdD1٣½9  \t\n\r\u{a0}\u{2028}/!$.-🙂\u{1c}".chars().collect();
    proptest::strategy::Strategy::prop_map(
        proptest::collection::vec(proptest::sample::select(alphabet), 0..40),
        |chars| chars.into_iter().collect(),
    )
}

proptest::proptest! {
    #![proptest_config(proptest::test_runner::Config::with_cases(2000))]
    #[test]
    fn the_scanner_equals_the_regular_expressions(text in tricky()) {
        proptest::prop_assert_eq!(pieces(Pattern::O200k, &text), by_regex(O200K, &text));
        proptest::prop_assert_eq!(pieces(Pattern::Llama3, &text), by_regex(LLAMA3, &text));
        proptest::prop_assert_eq!(pieces(Pattern::Qwen2, &text), by_regex(&LLAMA3.replace("{1,3}", ""), &text));
        proptest::prop_assert_eq!(pieces(Pattern::Gpt2, &text), by_regex(GPT2, &text));
    }

    #[test]
    fn pieces_are_the_text(text in "\\PC*") {
        for pattern in [
            Pattern::O200k, Pattern::Llama3, Pattern::Qwen2, Pattern::Gpt2, Pattern::SmolLm, Pattern::Default,
        ] {
            proptest::prop_assert_eq!(pieces(pattern, &text).concat(), text.clone());
        }
    }
}

#[test]
fn long_runs_are_scanned_in_linear_time() {
    // A quadratic scanner would read 10^10 characters here and not end within the test's minute.
    for unit in [" ", "A", "ª", "a", "\u{301}", "!", " A", "\n ", "1"] {
        let text = unit.repeat(100_000);
        for pattern in [Pattern::O200k, Pattern::Llama3, Pattern::Gpt2, Pattern::SmolLm, Pattern::Default] {
            assert_eq!(pieces(pattern, &text).iter().map(String::len).sum::<usize>(), text.len());
        }
    }
}
