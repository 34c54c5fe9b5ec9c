//! Llama 4's own tokenizer file against ids that Meta's reference gives.
//!
//! The file is not part of this repository: `PUNA_LLAMA4_TOKENIZER` names it (it is `llama_models/llama4/tokenizer.model`
//! inside the wheel `llama-models` on PyPI). Without the variable the test says that it did not run.

use tokenizer::{Ending, Segment, SpecialTokens, Specials, Tokenizer, encode_segments};

const VECTORS: [(&str, &[u32]); 19] = [
    ("Hello, world!", &[19873, 24, 3817, 13]),
    ("I'm here; they'LL go.", &[23752, 2863, 39, 1451, 19, 10962, 1142, 26]),
    ("  leading\tspace\n\nnew", &[220, 10855, 197, 6972, 368, 1590]),
    ("1234567 and 3.14159", &[7235, 19596, 35, 341, 220, 31, 26, 13944, 3933]),
    ("Ünïcödé ñandú ÉCOLE", &[20665, 90, 14323, 79, 20003, 397, 131440, 429, 1270, 9800, 5351, 1351]),
    ("日本語のテスト", &[21764, 16728, 1169, 107459]),
    ("🙂👍🏽", &[5796, 247, 224, 65906, 235, 73601, 134]),
    ("def f(x):\n    return x**2\n", &[1251, 288, 2595, 1960, 277, 677, 831, 442, 30, 198]),
    ("a/b//c\r\n\r\nd", &[77, 4790, 405, 79, 57966, 80]),
    ("     x", &[257, 831]),
    ("don’t", &[21414, 2705]),
    ("مرحبا بالعالم", &[17224, 2307, 57896, 12996, 35935, 850]),
    ("नमस्ते दुनिया", &[1479, 2511, 23194, 790, 106801]),
    ("<|eot|>", &[40, 104, 81, 359, 159276]),
    ("\n\n", &[368]),
    ("user", &[1556]),
    ("assistant", &[140680]),
    ("system", &[15651]),
    ("ipython", &[607, 6934]),
];

#[test]
fn the_published_tokenizer_gives_the_published_ids() {
    let Ok(path) = std::env::var("PUNA_LLAMA4_TOKENIZER") else {
        println!("did not run: PUNA_LLAMA4_TOKENIZER does not name Llama 4's tokenizer.model");
        return;
    };
    let bytes = std::fs::read(&path).expect("PUNA_LLAMA4_TOKENIZER names a file");
    let tokenizer = Tokenizer::from_ranks("tokenizer.model", &bytes, SpecialTokens::llama4()).expect("it is sound");
    assert_eq!(tokenizer.vocab_size(), 202_048);
    for (text, ids) in VECTORS {
        assert_eq!(tokenizer.encode(text), ids, "{text:?}");
        assert_eq!(tokenizer.decode(ids, Specials::Skip), text);
    }
    for (name, id) in [
        ("<|begin_of_text|>", 200_000),
        ("<|eot|>", 200_008),
        ("<|finetune_right_pad|>", 200_018),
        ("<|image_start|>", 200_080),
        ("<|patch|>", 200_092),
        ("<|reserved_special_token_903|>", 202_047),
    ] {
        assert_eq!(tokenizer.control(name), Some(id));
    }
    assert_eq!((tokenizer.bos(), tokenizer.eos()), (Some(200_000), Some(200_001)));
    assert_eq!((tokenizer.eom(), tokenizer.eot()), (Some(200_007), Some(200_008)));
    assert_eq!(tokenizer.pad(), Some(200_018));
    check_a_turn(&tokenizer);
    println!("{} texts, 6 control tokens and a turn compared", VECTORS.len());
}

fn check_a_turn(tokenizer: &Tokenizer) {
    let chat = tokenizer::ChatFormat::Llama4(tokenizer::Llama4Chat::new(tokenizer).expect("all names are there"));
    let hi = [tokenizer::Message::text(tokenizer::Role::User, "Hi")];
    let segments: Vec<Segment> = chat.render(&hi, None, Ending::Message).expect("a plain turn");
    let expected = vec![200_000, 200_005, 1556, 200_006, 368, 25181, 200_008];
    assert_eq!(encode_segments(tokenizer, &segments), [tokenizer::Piece::Ids(expected)]);
}
