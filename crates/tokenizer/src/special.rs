//! The control tokens that a rank file leaves unsaid.

/// The spellings of the control tokens that follow a rank file's own tokens, in the order of their ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpecialTokens {
    names: Vec<String>,
}

impl SpecialTokens {
    /// Control tokens with these spellings; the first gets the id after the file's last rank.
    pub fn new(names: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self { names: names.into_iter().map(Into::into).collect() }
    }

    /// Llama 4's 2,048. With its file of 200,000 ranks they are the ids 200000 to 202047.
    ///
    /// Source: llama-models, `llama4/tokenizer.py`, `LLAMA4_SPECIAL_TOKENS` and `num_reserved_special_tokens`.
    pub fn llama4() -> Self {
        let mut names: Vec<String> =
            ["begin_of_text", "end_of_text", "fim_prefix", "fim_middle", "fim_suffix"].map(control).into();
        names.extend(["header_start", "header_end", "eom", "eot", "step"].map(control));
        names.extend(reserved("text_post_train_", 0..6));
        names.extend(["python_start", "python_end", "finetune_right_pad"].map(control));
        names.extend(reserved("text_post_train_", 8..69));
        names.extend(["image_start", "image_end"].map(control));
        names.extend(reserved("vision_", 0..2));
        names.extend(["tile_x_separator", "tile_y_separator"].map(control));
        names.extend(reserved("vision_", 2..6));
        names.push(control("image"));
        names.extend(reserved("vision_", 6..7));
        names.push(control("patch"));
        names.extend(reserved("vision_", 7..1048));
        names.extend(reserved("reasoning_", 0..8));
        names.extend(["reasoning_thinking_start", "reasoning_thinking_end"].map(control));
        names.extend(reserved("", 0..904));
        Self { names }
    }

    /// The spellings in the order of their ids.
    pub fn names(&self) -> &[String] {
        &self.names
    }
}

fn control(name: &str) -> String {
    format!("<|{name}|>")
}

fn reserved(prefix: &str, numbers: std::ops::Range<u32>) -> impl Iterator<Item = String> {
    numbers.map(move |n| format!("<|{prefix}reserved_special_token_{n}|>"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn llama_4_has_2048_different_control_tokens_at_the_published_places() {
        let specials = SpecialTokens::llama4();
        let names = specials.names();
        assert_eq!(names.len(), 2048);
        assert_eq!(names.iter().collect::<std::collections::HashSet<_>>().len(), 2048);
        for (n, name) in [
            (0, "begin_of_text"),
            (1, "end_of_text"),
            (4, "fim_suffix"),
            (5, "header_start"),
            (8, "eot"),
            (9, "step"),
            (10, "text_post_train_reserved_special_token_0"),
            (15, "text_post_train_reserved_special_token_5"),
            (16, "python_start"),
            (18, "finetune_right_pad"),
            (19, "text_post_train_reserved_special_token_8"),
            (79, "text_post_train_reserved_special_token_68"),
            (80, "image_start"),
            (81, "image_end"),
            (83, "vision_reserved_special_token_1"),
            (84, "tile_x_separator"),
            (85, "tile_y_separator"),
            (89, "vision_reserved_special_token_5"),
            (90, "image"),
            (91, "vision_reserved_special_token_6"),
            (92, "patch"),
            (93, "vision_reserved_special_token_7"),
            (1133, "vision_reserved_special_token_1047"),
            (1134, "reasoning_reserved_special_token_0"),
            (1141, "reasoning_reserved_special_token_7"),
            (1142, "reasoning_thinking_start"),
            (1143, "reasoning_thinking_end"),
            (1144, "reserved_special_token_0"),
            (2047, "reserved_special_token_903"),
        ] {
            assert_eq!(names[n], control(name), "id 200000 + {n}");
        }
    }
}
