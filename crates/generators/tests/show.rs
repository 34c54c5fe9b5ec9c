//! x
#[test]
fn show() {
    for generator in generators::all() {
        if let Ok(name) = std::env::var("SHOW") {
            if name != generator.name() {
                continue;
            }
        }
        for i in 0..std::env::var("N").ok().and_then(|n| n.parse().ok()).unwrap_or(5) {
            let sample = generator.at(generators::Split::Train, i);
            println!("----- {} {i}", generator.name());
            for turn in &sample.turns {
                println!(
                    "{:?}: {}{}",
                    turn.role,
                    turn.thinking.as_ref().map(|t| format!("<{t}>")).unwrap_or_default(),
                    turn.to_text()
                );
            }
            println!("correct: {}", generator.is_correct(&sample, &sample.answer()));
        }
    }
}
