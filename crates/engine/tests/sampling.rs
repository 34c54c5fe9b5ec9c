//! Choosing tokens, seen from outside.
#![allow(clippy::unwrap_used)] // a test's way to fail

use std::cell::Cell;

use engine::limits::Limits;
use engine::sampling::{SampleError, Sampler, SamplingParams, StopMatcher, noise};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

fn params() -> SamplingParams {
    SamplingParams::default()
}

fn one(params: SamplingParams, logits: &[f32]) -> u32 {
    Sampler::new(params, &[]).sample(logits, 0).unwrap().id
}

fn softmax(scores: &[f64]) -> Vec<f64> {
    let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let weights: Vec<f64> = scores.iter().map(|score| (score - largest).exp()).collect();
    let total: f64 = weights.iter().sum();
    weights.iter().map(|weight| weight / total).collect()
}

/// The distribution after all steps in their stated order, in f64 and by sorting everything; `None` where a sum comes
/// too near its bound to say.
fn naive(params: &SamplingParams, logits: &[f32], prompt: &[u32], output: &[u32]) -> Option<Vec<f64>> {
    let mut scores: Vec<f64> = logits.iter().map(|score| f64::from(*score)).collect();
    for (id, bias) in &params.logit_bias {
        scores[*id as usize] += f64::from(*bias);
    }
    for (id, score) in scores.iter_mut().enumerate() {
        let count = output.iter().filter(|seen| **seen as usize == id).count();
        if count > 0 || prompt.contains(&(id as u32)) {
            let penalty = f64::from(params.repetition_penalty);
            *score = if *score > 0.0 { *score / penalty } else { *score * penalty };
        }
        *score -= f64::from(params.frequency_penalty) * count as f64;
        if count > 0 {
            *score -= f64::from(params.presence_penalty);
        }
        *score /= f64::from(params.temperature);
    }
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]).then(a.cmp(b)));
    if order.windows(2).any(|pair| scores[pair[0]] - scores[pair[1]] < 1e-5) {
        return None;
    }
    if params.top_k > 0 {
        order.truncate(params.top_k as usize);
    }
    let masked = |kept: &[usize]| {
        let score = |id| if kept.contains(&id) { scores[id] } else { f64::NEG_INFINITY };
        softmax(&(0..scores.len()).map(score).collect::<Vec<_>>())
    };
    let probability = masked(&order);
    let mut reached = 0.0;
    let mut n = 0;
    while n < order.len() && reached < f64::from(params.top_p) - 1e-12 {
        reached += probability[order[n]];
        n += 1;
        if params.top_p < 1.0 && (reached - f64::from(params.top_p)).abs() < 1e-5 {
            return None;
        }
    }
    order.truncate(n);
    let probability = masked(&order);
    let share = |id: &usize| probability[*id] / probability[order[0]];
    if order.iter().any(|id| (share(id) - f64::from(params.min_p)).abs() < 1e-5) {
        return None;
    }
    let kept: Vec<usize> = order.iter().copied().filter(|id| share(id) > f64::from(params.min_p)).collect();
    Some(masked(&kept))
}

fn some_params() -> impl Strategy<Value = SamplingParams> {
    let filters = (0.1f32..2.0, 0u32..20, 0.05f32..=1.0, prop_oneof![Just(0.0f32), 0.001f32..0.9]);
    let penalties = (0.5f32..2.0, -2.0f32..2.0, -2.0f32..2.0);
    let rest = (prop::collection::vec((0u32..40, -5.0f32..5.0), 0..4), any::<u64>(), 0u32..8);
    (filters, penalties, rest).prop_map(|(filters, penalties, (logit_bias, seed, sample))| SamplingParams {
        temperature: filters.0,
        top_k: filters.1,
        top_p: filters.2,
        min_p: filters.3,
        repetition_penalty: penalties.0,
        frequency_penalty: penalties.1,
        presence_penalty: penalties.2,
        logit_bias,
        seed,
        sample,
    })
}

/// Every step at once: the token is the one at which the naive distribution, summed up by id, passes the noise.
#[test]
fn a_token_is_the_one_that_the_plain_definition_gives() {
    let row = prop::collection::vec(-8.0f32..8.0, 40);
    let case = (some_params(), prop::collection::vec(row, 1..6), prop::collection::vec(0u32..40, 0..6));
    let n_compared = Cell::new(0);
    let mut runner = TestRunner::new(ProptestConfig::with_cases(1000));
    let result = runner.run(&case, |(params, rows, prompt)| {
        let mut sampler = Sampler::new(params.clone(), &prompt);
        let mut output = Vec::new();
        for (position, logits) in rows.iter().enumerate() {
            let position = position as u64;
            let Some(probability) = naive(&params, logits, &prompt, &output) else { break };
            let u = noise::uniform(params.seed, params.sample, position);
            let mut sum = 0.0;
            let add = |p: &f64| {
                sum += p;
                sum
            };
            let ends: Vec<f64> = probability.iter().map(add).collect();
            if ends.iter().any(|end| (end - u).abs() < 1e-5) {
                break;
            }
            let want = ends.iter().position(|end| *end > u).unwrap();
            let got = sampler.sample(logits, position).unwrap();
            prop_assert_eq!(got.id as usize, want, "at {} of {:?}", position, params);
            let exact = softmax(&logits.iter().map(|score| f64::from(*score)).collect::<Vec<_>>())[want].ln();
            prop_assert!((f64::from(got.logprob) - exact).abs() < 1e-5);
            output.push(got.id);
            n_compared.set(n_compared.get() + 1);
        }
        Ok(())
    });
    result.unwrap();
    println!("{} tokens compared", n_compared.get());
    assert!(n_compared.get() > 2000);
}

#[test]
fn tokens_come_as_often_as_their_probabilities_say() {
    // Chi-square with 11 degrees of freedom: 31.26 is passed by one of 1000 fair runs; the seeds are fixed.
    let logits: Vec<f32> = (0..12).map(|i| (i as f32 * 1.7).sin() * 2.0).collect();
    let n = 100_000u32;
    for (seed, temperature) in [(1, 1.0f32), (2, 0.7), (3, 1.6)] {
        let scaled: Vec<f64> = logits.iter().map(|score| f64::from(*score) / f64::from(temperature)).collect();
        let probability = softmax(&scaled);
        let mut counts = [0u32; 12];
        let mut sampler = Sampler::new(SamplingParams { temperature, seed, ..params() }, &[]);
        for position in 0..u64::from(n) {
            counts[sampler.sample(&logits, position).unwrap().id as usize] += 1;
        }
        let chi_square: f64 = counts
            .iter()
            .zip(&probability)
            .map(|(count, p)| (f64::from(*count) - p * f64::from(n)).powi(2) / (p * f64::from(n)))
            .sum();
        println!("seed {seed}, temperature {temperature}: chi-square {chi_square:.1}");
        assert!(chi_square < 31.26, "{counts:?}");
    }
}

/// Two numbers that should have nothing to do with each other.
type Pair = fn(u64) -> (f64, f64);

#[test]
fn neighbouring_positions_samples_and_seeds_are_independent() {
    // 16×16 cells of pairs: 255 degrees of freedom, 330.5 at one in 1000.
    let pairs: [(&str, Pair); 3] = [
        ("positions", |i| (noise::uniform(5, 0, 2 * i), noise::uniform(5, 0, 2 * i + 1))),
        ("samples", |i| (noise::uniform(5, 0, i), noise::uniform(5, 1, i))),
        ("seeds", |i| (noise::uniform(5, 0, i), noise::uniform(6, 0, i))),
    ];
    for (what, pair) in pairs {
        let n = 102_400;
        let mut counts = [0u32; 256];
        for i in 0..n {
            let (a, b) = pair(i);
            counts[(a * 16.0) as usize * 16 + (b * 16.0) as usize] += 1;
        }
        let expected = n as f64 / 256.0;
        let chi_square: f64 = counts.iter().map(|c| (f64::from(*c) - expected).powi(2) / expected).sum();
        println!("{what}: chi-square {chi_square:.1}");
        assert!(chi_square < 330.5, "{what}");
    }
}

#[test]
fn broken_scores_are_an_error_and_never_token_0() {
    let bad: [&[f32]; 7] = [
        &[],
        &[f32::NAN],
        &[1.0, f32::NAN, 2.0],
        &[1.0, f32::INFINITY],
        &[f32::NEG_INFINITY; 3],
        &[f32::NAN; 3],
        &[f32::NEG_INFINITY, f32::NAN],
    ];
    let kinds = [
        params(),
        SamplingParams { temperature: 0.0, ..params() },
        SamplingParams { top_k: 2, ..params() },
        SamplingParams { top_p: 0.5, min_p: 0.1, ..params() },
        SamplingParams { logit_bias: vec![(0, 5.0)], ..params() },
    ];
    for logits in bad {
        for params in &kinds {
            let got = Sampler::new(params.clone(), &[]).sample(logits, 0);
            assert_eq!(got, Err(SampleError::Numerical), "{logits:?} with {params:?}");
        }
    }
    // A score that only bias or penalties break is an error too, and a bias does not hide a NaN.
    let huge = SamplingParams { repetition_penalty: 0.1, ..params() };
    assert_eq!(Sampler::new(huge, &[0]).sample(&[1e38, 0.0], 0), Err(SampleError::Numerical));
}

#[test]
fn a_failed_row_leaves_the_state_as_it_was() {
    let params = SamplingParams { temperature: 0.0, presence_penalty: 2.0, ..params() };
    let mut sampler = Sampler::new(params, &[]);
    assert!(sampler.sample(&[f32::NAN, 1.0], 0).is_err());
    assert_eq!(sampler.sample(&[1.5, 1.0], 0).unwrap().id, 0);
    assert_eq!(sampler.sample(&[1.5, 1.0], 1).unwrap().id, 1);
}

#[test]
fn greedy_takes_the_largest_score_and_of_equals_the_lowest_id() {
    let greedy = || SamplingParams { temperature: 0.0, ..params() };
    let cases: [(&[f32], u32); 5] = [
        (&[1.0, 3.0, 2.0], 1),
        (&[1.0, 3.0, 3.0, 3.0], 1),
        (&[-0.0, 0.0], 0),
        (&[f32::NEG_INFINITY, -5.0], 1),
        (&[7.0; 40], 0),
    ];
    for (logits, want) in cases {
        assert_eq!(one(greedy(), logits), want, "{logits:?}");
    }
    let mut far = vec![0.0; 5000];
    (far[3000], far[4000]) = (1.0, 1.0);
    assert_eq!(one(greedy(), &far), 3000);
    // Equal only after the bias; filters and seed do not matter.
    assert_eq!(one(SamplingParams { logit_bias: vec![(2, 1.0)], ..greedy() }, &[0.0, 3.0, 2.0]), 1);
    assert_eq!(one(SamplingParams { logit_bias: vec![(2, 1.5)], seed: 9, top_k: 1, ..greedy() }, &[0.0, 3.0, 2.0]), 2);
    assert_eq!(one(SamplingParams { logit_bias: vec![(7, 99.0)], ..greedy() }, &[0.0, 3.0, 2.0]), 1);
}

#[test]
fn each_penalty_counts_what_its_rule_says() {
    let greedy = || SamplingParams { temperature: 0.0, ..params() };
    let next = |params: SamplingParams, prompt: &[u32], logits: &[&[f32]]| {
        let mut sampler = Sampler::new(params, prompt);
        let ids = logits.iter().enumerate().map(|(i, row)| sampler.sample(row, i as u64).unwrap().id);
        ids.collect::<Vec<_>>()
    };
    // Repetition: prompt and output; divides what is positive, multiplies what is not.
    let repetition = || SamplingParams { repetition_penalty: 2.0, ..greedy() };
    assert_eq!(next(repetition(), &[0], &[&[3.0, 1.6], &[3.0, 1.6], &[3.0, 1.4]]), [1, 0, 0]);
    assert_eq!(next(repetition(), &[0], &[&[-1.0, -1.5]]), [1]);
    // Frequency: output only, once for each occurrence.
    let frequency = SamplingParams { frequency_penalty: 1.0, ..greedy() };
    let row: &[f32] = &[3.5, 1.0];
    assert_eq!(next(frequency, &[0, 0, 0], &[row, row, row, row]), [0, 0, 0, 1]);
    // Presence: output only, once however often it came.
    let presence = SamplingParams { presence_penalty: 1.0, ..greedy() };
    assert_eq!(next(presence, &[0], &[row, row, row, row, &[1.5, 1.0]]), [0, 0, 0, 0, 1]);
}

#[test]
fn the_log_probability_is_of_the_scores_as_given() {
    let logits = [1.0, 2.0, 4.0, f32::NEG_INFINITY];
    let changed =
        SamplingParams { temperature: 0.3, top_k: 1, logit_bias: vec![(0, 50.0)], repetition_penalty: 1.5, ..params() };
    let sampled = Sampler::new(changed, &[2]).sample(&logits, 3).unwrap();
    let want = 1.0 - (1f64.exp() + 2f64.exp() + 4f64.exp()).ln();
    assert_eq!(sampled.id, 0);
    assert!((f64::from(sampled.logprob) - want).abs() < 1e-6, "{}", sampled.logprob);
}

#[test]
fn a_fork_goes_on_as_the_original_and_company_does_not_matter() {
    let row = |position: u64| -> Vec<f32> { (0..300).map(|i| ((i * 7 + position * 13) as f32).sin() * 3.0).collect() };
    let settings = SamplingParams { seed: 11, top_p: 0.9, presence_penalty: 0.5, repetition_penalty: 1.1, ..params() };
    let run = |sampler: &mut Sampler, positions: std::ops::Range<u64>| -> Vec<u32> {
        positions.map(|position| sampler.sample(&row(position), position).unwrap().id).collect()
    };
    let mut original = Sampler::new(settings.clone(), &[1, 2, 3]);
    run(&mut original, 0..20);
    let mut fork = original.clone();
    let mut other = Sampler::new(SamplingParams { sample: 1, ..settings }, &[1, 2, 3]);
    let (mut a, mut b, mut c) = (Vec::new(), Vec::new(), Vec::new());
    for position in 20..60 {
        a.extend(run(&mut original, position..position + 1));
        c.extend(run(&mut other, position..position + 1));
    }
    b.extend(run(&mut fork, 20..60));
    assert_eq!(a, b);
    assert_ne!(a, c);
}

/// Sets one field of the parameters.
type Set = fn(&mut SamplingParams, f32);

#[test]
fn each_number_is_refused_just_outside_of_its_bounds() {
    let eps = f32::EPSILON;
    let fields: [(&str, Set, &[f32], &[f32]); 7] = [
        ("temperature", |p, v| p.temperature = v, &[0.0, 2.0], &[-1e-45, 2.0 + 2.0 * eps]),
        ("top_p", |p, v| p.top_p = v, &[1e-45, 1.0], &[0.0, -1e-45, 1.0 + eps]),
        ("min_p", |p, v| p.min_p = v, &[0.0, 1.0], &[-1e-45, 1.0 + eps]),
        ("repetition_penalty", |p, v| p.repetition_penalty = v, &[1e-45, 2.0], &[0.0, -1e-45, 2.0 + 2.0 * eps]),
        ("frequency_penalty", |p, v| p.frequency_penalty = v, &[-2.0, 2.0], &[-2.0 - 2.0 * eps, 2.0 + 2.0 * eps]),
        ("presence_penalty", |p, v| p.presence_penalty = v, &[-2.0, 2.0], &[-2.0 - 2.0 * eps, 2.0 + 2.0 * eps]),
        (
            "logit_bias",
            |p, v| p.logit_bias = vec![(0, 0.0), (1, v)],
            &[-100.0, 100.0],
            &[-100.0 - 100.0 * eps, 100.0 + 100.0 * eps],
        ),
    ];
    let mut n = 0;
    for (field, set, inside, outside) in fields {
        let check = |value: f32| {
            let mut changed = params();
            set(&mut changed, value);
            changed.validate(&Limits::default())
        };
        for value in inside {
            assert_eq!(check(*value), Ok(()), "{field} {value:e}");
        }
        for value in outside.iter().chain(&[f32::NAN, f32::INFINITY, f32::NEG_INFINITY]) {
            let error = check(*value).unwrap_err().to_string();
            assert!(error.starts_with(&format!("{field} is \"{value}\"; it must be a number ")), "{error}");
            n += 1;
        }
    }
    assert_eq!(n, 37);
    let error = SamplingParams { temperature: 2.5, ..params() }.validate(&Limits::default()).unwrap_err();
    assert_eq!(error.to_string(), "temperature is \"2.5\"; it must be a number from 0 to 2");
    let error = SamplingParams { top_p: 0.0, ..params() }.validate(&Limits::default()).unwrap_err();
    assert_eq!(error.to_string(), "top_p is \"0\"; it must be a number above 0 and at most 1");
}

#[test]
fn counts_are_refused_one_above_their_bounds() {
    let limits = Limits::default();
    let top_k = |top_k: u32| SamplingParams { top_k, ..params() }.validate(&limits).map_err(|e| e.to_string());
    assert_eq!((top_k(0), top_k(1), top_k(1 << 20)), (Ok(()), Ok(()), Ok(())));
    assert_eq!(top_k((1 << 20) + 1), Err("top_k is \"1048577\"; it must be a whole number from 0 to 1048576".into()));
    assert!(top_k(u32::MAX).is_err());
    let bias = |n: u32| {
        let logit_bias = (0..n).map(|id| (id, 1.0)).collect();
        SamplingParams { logit_bias, ..params() }.validate(&limits).map_err(|e| e.to_string())
    };
    assert_eq!((bias(0), bias(299), bias(300)), (Ok(()), Ok(()), Ok(())));
    assert_eq!(bias(301), Err("logit_bias has 301 entries; the limit is 300".into()));
    let ids = |id: u32| SamplingParams { logit_bias: vec![(id, 1.0)], ..params() }.validate_ids(99);
    assert_eq!((ids(0), ids(99)), (Ok(()), Ok(())));
    let error = ids(100).unwrap_err().to_string();
    assert_eq!(error, "logit_bias token id is \"100\"; it must be a whole number from 0 to 99");
    let stop = |stops: &[&str]| {
        let stops: Vec<String> = stops.iter().map(|stop| (*stop).to_owned()).collect();
        StopMatcher::new(&stops, &limits).map(drop).map_err(|error| error.to_string())
    };
    let long = "é".repeat(128);
    assert_eq!((stop(&[]), stop(&["a"]), stop(&["a", "b", "c", &long])), (Ok(()), Ok(()), Ok(())));
    assert_eq!(stop(&["a"; 5]), Err("stop has 5 strings; the limit is 4".into()));
    assert_eq!(stop(&[&format!("{long}a")]), Err("stop has 257 bytes in one string; the limit is 256".into()));
    assert_eq!(stop(&["a", ""]), Err("stop is \"\"; it must be 1 to 256 bytes long".into()));
}

fn matcher(stops: &[&str]) -> StopMatcher {
    let stops: Vec<String> = stops.iter().map(|stop| (*stop).to_owned()).collect();
    StopMatcher::new(&stops, &Limits::default()).unwrap()
}

#[test]
fn text_that_may_begin_a_stop_string_is_held_back_and_no_more() {
    let mut stop = matcher(&["STOP", "\n\n"]);
    assert_eq!(stop.push("so S"), "so ");
    assert_eq!(stop.push("T"), "");
    assert_eq!(stop.push("Æ"), "STÆ");
    assert_eq!(stop.push("a\n"), "a");
    assert_eq!(stop.push("SSTO"), "\nS");
    assert!(!stop.is_stopped());
    assert_eq!(stop.push("P and more"), "");
    assert!(stop.is_stopped());
    assert_eq!((stop.push("never"), stop.flush()), (String::new(), String::new()));
    let mut open = matcher(&["STOP"]);
    assert_eq!((open.push("the ST"), open.flush()), ("the ".to_owned(), "ST".to_owned()));
    assert!(!open.is_stopped());
    assert_eq!(matcher(&[]).push("all of it"), "all of it");
}

#[test]
fn a_stop_string_of_wide_characters_is_found_across_pieces() {
    let mut stop = matcher(&["終わり🛑"]);
    let pieces = ["これで", "終", "わ", "り", "🛑です"];
    let shown: String = pieces.iter().map(|piece| stop.push(piece)).collect();
    assert_eq!((shown.as_str(), stop.is_stopped()), ("これで", true));
}

#[test]
fn the_stop_string_that_ends_first_wins_and_of_those_the_longest() {
    let shown = |stops: &[&str], text: &str| matcher(stops).push(text);
    assert_eq!(shown(&["abcd", "bc"], "xabcd"), "xa");
    assert_eq!(shown(&["c", "abc"], "xabc"), "x");
    assert_eq!(shown(&["abc", "c"], "xabc"), "x");
    assert_eq!(shown(&["aab"], "aaab"), "a");
}

/// Text before the first stop string, found in the whole text.
fn naive_stop(stops: &[String], text: &str) -> (String, bool) {
    let ends = text.char_indices().map(|(at, c)| at + c.len_utf8());
    for end in ends {
        let lens = stops.iter().filter(|stop| text[..end].ends_with(stop.as_str())).map(String::len);
        if let Some(len) = lens.max() {
            return (text[..end - len].to_owned(), true);
        }
    }
    (text.to_owned(), false)
}

proptest! {
    #[test]
    fn how_text_is_cut_does_not_change_where_it_stops(
        stops in prop::collection::vec("[abé]{1,4}", 0..4),
        pieces in prop::collection::vec("[abcé]{0,5}", 0..12),
    ) {
        let (want, stopped) = naive_stop(&stops, &pieces.concat());
        let mut stop = StopMatcher::new(&stops, &Limits::default()).unwrap();
        let mut shown = String::new();
        for piece in &pieces {
            shown += &stop.push(piece);
            prop_assert!(want.starts_with(&shown), "showed {:?} of {:?}", shown, want);
        }
        shown += &stop.flush();
        prop_assert_eq!((shown, stop.is_stopped()), (want, stopped));
    }
}
