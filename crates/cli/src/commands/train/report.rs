//! A run as a page: one file of HTML with its curves in it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;

/// Width and height of a plot, and the room for its labels, in pixels.
const SIZE: [f64; 2] = [720.0, 220.0];
const MARGIN: f64 = 56.0;

/// Points of a curve; more are averaged.
const POINTS: usize = 400;

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:760px;margin:2em auto;padding:0 1em;color:#222;background:#fff}\
svg{width:100%;height:auto}text{font-size:12px;fill:#555}polyline{fill:none;stroke-width:1.5}line{stroke:#ddd}\
table{border-collapse:collapse}td,th{padding:.2em .8em;text-align:right;border-bottom:1px solid #ddd}td:first-child,th:first-child{text-align:left}\
@media(prefers-color-scheme:dark){body{color:#ddd;background:#181818}text{fill:#aaa}line{stroke:#444}td,th{border-color:#444}}";

/// A curve: what it is called, its colour, and its points.
struct Curve {
    name: &'static str,
    colour: &'static str,
    points: Vec<[f64; 2]>,
}

/// Writes the page `path` from the lines of metrics in `metrics`. Lines that can not be read are left out.
///
/// # Errors
/// If the one can not be read or the other not be written.
pub fn write(metrics: &Path, path: &Path, title: &str) -> Result<()> {
    let text = fs::read_to_string(metrics).with_context(|| format!("reading {}", metrics.display()))?;
    let lines: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    fs::write(path, page(&lines, title)).with_context(|| format!("writing {}", path.display()))
}

fn page(lines: &[Value], title: &str) -> String {
    let curve = |name, colour, value: &dyn Fn(&Value) -> Option<f64>| {
        let points = lines.iter().filter_map(|line| Some([line["step"].as_f64()?, value(line)?]));
        Curve { name, colour, points: averaged(&points.collect::<Vec<_>>()) }
    };
    let of = |key: &'static str| move |line: &Value| line[key].as_f64();
    let balance = |line: &Value| {
        let routers = line["routers"].as_array()?;
        let sum: f64 = routers.iter().filter_map(|router| router["balance"].as_f64()).sum();
        (!routers.is_empty()).then(|| sum / routers.len() as f64)
    };
    let mut html = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <title>{0}</title><style>{STYLE}</style><h1>{0}</h1>",
        escaped(title)
    );
    summary(lines, &mut html);
    let plots = [
        (
            "Loss, nats a token",
            vec![curve("training", "#4878cf", &of("loss")), curve("held out", "#d65f5f", &of("held_out"))],
        ),
        ("Learning rate, share of its peak", vec![curve("", "#4878cf", &of("lr_factor"))]),
        ("Norm of the gradients", vec![curve("", "#4878cf", &of("norm"))]),
        ("Balance of the routers: 1 if every expert is equally busy", vec![curve("", "#4878cf", &balance)]),
        ("Tokens a second", vec![curve("", "#4878cf", &of("tok_per_s"))]),
    ];
    for (name, curves) in plots {
        if curves.iter().any(|curve| curve.points.len() > 1) {
            let _ = write!(html, "<h2>{name}</h2>");
            plot(&curves, &mut html);
        }
    }
    sources(lines, &mut html);
    html.push_str("</html>\n");
    html
}

/// How long it took and how far it came.
fn summary(lines: &[Value], html: &mut String) {
    let sum = |key: &str| lines.iter().filter_map(|line| line[key].as_f64()).sum::<f64>();
    let seconds: f64 =
        lines.iter().filter_map(|line| Some(line["tokens"].as_f64()? / line["tok_per_s"].as_f64()?)).sum();
    let steps = lines.iter().filter_map(|line| line["step"].as_u64()).max().unwrap_or(0);
    let stages: Vec<&str> = lines.iter().filter_map(|line| line["stage"].as_str()).collect();
    let _ = write!(html, "<p>{steps} steps, {:.0} tokens, {:.2} hours.", sum("tokens"), seconds / 3600.0);
    if !stages.is_empty() {
        let _ = write!(html, " Stages: {}.", escaped(&stages.join(", ")));
    }
    html.push_str("</p>");
}

/// What is held out, by where it comes from: the first and the last measurement.
fn sources(lines: &[Value], html: &mut String) {
    let mut ends: BTreeMap<&str, [f64; 2]> = BTreeMap::new();
    for (name, loss) in lines.iter().filter_map(|line| line["by_source"].as_object()).flatten() {
        if let Some(loss) = loss.as_f64() {
            ends.entry(name).or_insert([loss; 2])[1] = loss;
        }
    }
    if ends.is_empty() {
        return;
    }
    html.push_str("<h2>Held out, nats a token</h2><table><tr><th>source<th>first<th>last");
    for (name, [first, last]) in ends {
        let _ = write!(html, "<tr><td>{}<td>{first:.3}<td>{last:.3}", escaped(name));
    }
    html.push_str("</table>");
}

/// Curves over the same steps, with the lowest and the highest value beside them.
fn plot(curves: &[Curve], html: &mut String) {
    let all = || curves.iter().flat_map(|curve| &curve.points);
    let ends = |axis: usize| all().fold([f64::MAX, f64::MIN], |[low, high], p| [low.min(p[axis]), high.max(p[axis])]);
    let ([left, right], [low, high]) = (ends(0), ends(1));
    let [width, height] = SIZE;
    let share = |value: f64, [low, high]: [f64; 2]| if high > low { (value - low) / (high - low) } else { 0.5 };
    let x = |step: f64| MARGIN + share(step, [left, right]) * (width - MARGIN - 8.0);
    let y = |value: f64| 12.0 + (1.0 - share(value, [low, high])) * (height - 40.0);
    let _ = write!(html, "<svg viewBox=\"0 0 {width} {height}\" role=\"img\">");
    for value in [low, (low + high) / 2.0, high] {
        let y = y(value);
        let _ = write!(
            html,
            "<line x1=\"{MARGIN}\" x2=\"{width}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/><text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            MARGIN - 6.0,
            y + 4.0,
            short(value)
        );
    }
    for (step, anchor) in [(left, "start"), (right, "end")] {
        let _ =
            write!(html, "<text x=\"{:.1}\" y=\"{}\" text-anchor=\"{anchor}\">{step}</text>", x(step), height - 8.0);
    }
    for (i, Curve { name, colour, points }) in curves.iter().enumerate() {
        let points: Vec<String> =
            points.iter().map(|[step, value]| format!("{:.1},{:.1}", x(*step), y(*value))).collect();
        let _ = write!(html, "<polyline stroke=\"{colour}\" points=\"{}\"/>", points.join(" "));
        let _ = write!(
            html,
            "<text x=\"{}\" y=\"{}\" text-anchor=\"end\" style=\"fill:{colour}\">{name}</text>",
            width - 8.0,
            24.0 + 16.0 * i as f64
        );
    }
    html.push_str("</svg>");
}

/// As few points as a plot can show, each the mean of its neighbours.
fn averaged(points: &[[f64; 2]]) -> Vec<[f64; 2]> {
    let part = points.len().div_ceil(POINTS).max(1);
    let mean = |part: &[[f64; 2]], axis: usize| part.iter().map(|p| p[axis]).sum::<f64>() / part.len() as f64;
    points.chunks(part).map(|part| [part.last().map_or(0.0, |p| p[0]), mean(part, 1)]).collect()
}

fn short(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 0.01 || size == 0.0 => format!("{value:.2}"),
        _ => format!("{value:.1e}"),
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_page_has_the_curves_of_what_was_measured() {
        let mut lines = vec![json!({"stage": "a < b"})];
        let routers = json!([{"layer": 0, "balance": 1.5, "sent": [1, 2]}]);
        lines.extend((1..=1000).map(|step| {
            json!({"step": step, "loss": 3.0 / f64::from(step), "lr_factor": 1.0, "norm": null, "tokens": 100, "tok_per_s": 50.0, "routers": routers})
        }));
        lines.push(json!({"step": 1000, "held_out": 1.25, "by_source": {"generator:x": 1.25}}));
        let page = page(&lines, "nano");
        assert!(page.contains("1000 steps, 100000 tokens, 0.56 hours. Stages: a &lt; b."), "{page}");
        assert!(page.contains("<td>generator:x<td>1.250<td>1.250"), "{page}");
        // Norms are missing, everything else is there.
        assert_eq!(page.matches("<svg").count(), 4, "{page}");
        assert!(page.len() < 60_000 && !page.contains("NaN"), "{}", page.len());
    }
}
