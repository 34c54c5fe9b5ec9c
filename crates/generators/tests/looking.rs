//! Answers found again without the generators' knowledge: colours and places in the pixels, events in the samples.

use std::collections::HashMap;
use std::fs;

use anyhow::{Context, Result};
use generators::pictures::{self, Icons, Options};
use generators::{Generator, Image, Part, Sample, Sound, Split, sounds};

fn task(all: Vec<Box<dyn Generator>>, name: &str) -> Result<Box<dyn Generator>> {
    all.into_iter().find(|task| task.name() == name).with_context(|| format!("no task {name}"))
}

fn image(sample: &Sample) -> Result<&Image> {
    let found =
        sample.turns[0].content.iter().find_map(|part| if let Part::Image(image) = part { Some(image) } else { None });
    found.context("no picture")
}

fn sound(sample: &Sample) -> Result<&Sound> {
    let found =
        sample.turns[0].content.iter().find_map(|part| if let Part::Sound(sound) = part { Some(sound) } else { None });
    found.context("no clip")
}

fn answer(sample: &Sample) -> &str {
    match &sample.turns[1].content[0] {
        Part::Text(text) => text,
        _ => "",
    }
}

/// Name of the colour that a pixel has, by hue and lightness.
fn colour(rgb: [u8; 3]) -> &'static str {
    let [red, green, blue] = rgb.map(f32::from);
    let (most, least) = (red.max(green).max(blue), red.min(green).min(blue));
    if most - least < 40.0 {
        return if most < 90.0 {
            "black"
        } else if least > 190.0 {
            "white"
        } else {
            "grey"
        };
    }
    let hue = 60.0
        * if most == red {
            ((green - blue) / (most - least)).rem_euclid(6.0)
        } else if most == green {
            2.0 + (blue - red) / (most - least)
        } else {
            4.0 + (red - green) / (most - least)
        };
    match hue {
        h if !(14.0..330.0).contains(&h) => "red",
        h if h < 42.0 => {
            if most > 180.0 {
                "orange"
            } else {
                "brown"
            }
        }
        h if h < 70.0 => "yellow",
        h if h < 175.0 => "green",
        h if h < 255.0 => "blue",
        _ => "purple",
    }
}

/// Colour and middle of what is in front of the background, cell by cell of a grid of three by three.
fn look(image: &Image) -> Vec<(&'static str, usize)> {
    let pixel = |x: usize, y: usize| [0, 1, 2].map(|i| image.rgb[3 * (y * image.width + x) + i]);
    // the background is what most pixels have
    let mut levels: HashMap<[u8; 3], usize> = HashMap::new();
    (0..image.width * image.height)
        .for_each(|i| *levels.entry(pixel(i % image.width, i / image.width).map(|c| c / 16)).or_default() += 1);
    let background =
        levels.into_iter().max_by_key(|(level, n)| (*n, *level)).map_or([0; 3], |(level, _)| level.map(|c| c * 16 + 8));
    let mut seen = Vec::new();
    for cell in 0..9 {
        let mut colours: HashMap<&str, usize> = HashMap::new();
        let (left, top) = (cell % 3 * image.width / 3, cell / 3 * image.height / 3);
        for y in top..top + image.height / 3 {
            for x in left..left + image.width / 3 {
                let rgb = pixel(x, y);
                let away: i32 = (0..3).map(|i| (i32::from(rgb[i]) - i32::from(background[i])).abs()).sum();
                if away > 90 {
                    *colours.entry(colour(rgb)).or_default() += 1;
                }
            }
        }
        let (name, n) = colours.into_iter().max_by_key(|(name, n)| (*n, *name)).unwrap_or(("", 0));
        if n >= 25 {
            seen.push((name, cell));
        }
    }
    seen
}

const PLACES: [&str; 9] = [
    "at the top left",
    "at the top",
    "at the top right",
    "at the left",
    "in the middle",
    "at the right",
    "at the bottom left",
    "at the bottom",
    "at the bottom right",
];

/// Edges are mixed colours and some colours lie between two names, so one description in twenty may be missed.
#[test]
fn colours_and_places_that_are_described_are_in_the_pixels() -> Result<()> {
    let describe = task(pictures::all(), "describe")?;
    let (mut agree, n) = (0, 300);
    for index in 0..n {
        let sample = describe.at(Split::Train, index);
        let said: Vec<_> = answer(&sample)
            .trim_end_matches('.')
            .split(", ")
            .map(|phrase| {
                let words: Vec<_> = phrase.splitn(5, ' ').collect();
                (words[2].to_owned(), PLACES.iter().position(|place| *place == words[4]).unwrap_or(9))
            })
            .collect();
        let seen: Vec<_> = look(image(&sample)?).into_iter().map(|(name, cell)| (name.to_owned(), cell)).collect();
        if seen == said {
            agree += 1;
        } else {
            println!("{index}: {said:?} is described, {seen:?} is seen");
        }
    }
    println!("{agree} of {n} descriptions agree with the pixels");
    assert!(agree * 20 >= n * 19);
    Ok(())
}

#[test]
fn the_number_of_shapes_is_the_number_of_cells_with_something_in_them() -> Result<()> {
    let shapes = task(pictures::all(), "shapes")?;
    let (mut agree, mut n) = (0, 0);
    for index in 0..1500 {
        let sample = shapes.at(Split::Train, index);
        let question = sample.turns[0]
            .content
            .iter()
            .find_map(|part| if let Part::Text(text) = part { Some(text.as_str()) } else { None });
        if ["How many shapes are there?", "Count the shapes."].contains(&question.unwrap_or("")) {
            n += 1;
            agree += usize::from(look(image(&sample)?).len().to_string() == answer(&sample));
        }
    }
    println!("{agree} of {n} counts agree with the pixels");
    assert!(n > 50 && agree * 20 >= n * 19);
    Ok(())
}

/// Crossings of zero a second, and how uneven the loudness of 20 ms pieces is: standard deviation over mean.
fn measure(sound: &Sound) -> (f32, f32) {
    let loudest = sound.samples.iter().fold(0.0f32, |loudest, sample| loudest.max(sample.abs()));
    let pieces: Vec<f32> =
        sound.samples.chunks(320).map(|piece| (piece.iter().map(|s| s * s).sum::<f32>() / 320.0).sqrt()).collect();
    let most = pieces.iter().fold(0.0f32, |most, level| most.max(*level));
    let first = pieces.iter().position(|level| *level > 0.1 * most).unwrap_or(0);
    let last = pieces.iter().rposition(|level| *level > 0.1 * most).unwrap_or(0);
    let inside = &sound.samples[320 * first..(320 * (last + 1)).min(sound.samples.len())];
    let heard: Vec<f32> = inside.iter().copied().filter(|sample| sample.abs() > 0.03 * loudest).collect();
    let crossings =
        heard.windows(2).filter(|pair| pair[0] * pair[1] < 0.0).count() as f32 * 16_000.0 / heard.len().max(1) as f32;
    let levels = &pieces[first..=last];
    let mean = levels.iter().sum::<f32>() / levels.len() as f32;
    let spread = (levels.iter().map(|level| (level - mean).powi(2)).sum::<f32>() / levels.len() as f32).sqrt();
    (crossings, spread / mean)
}

/// Medians over clips, so that loud noise in some of them does not matter.
#[test]
fn crossings_of_zero_and_loudness_tell_events_apart() -> Result<()> {
    let events = task(sounds::all(), "sound_event")?;
    let mut measured: HashMap<String, Vec<(f32, f32)>> = HashMap::new();
    for index in 0..600 {
        let sample = events.at(Split::Train, index);
        measured.entry(answer(&sample).to_owned()).or_default().push(measure(sound(&sample)?));
    }
    assert_eq!(measured.len(), 16);
    let median = |name: &str, of: fn(&(f32, f32)) -> f32| {
        let mut values: Vec<f32> = measured.get(name).into_iter().flatten().map(of).collect();
        values.sort_by(f32::total_cmp);
        values.get(values.len() / 2).copied().unwrap_or(f32::NAN)
    };
    for name in measured.keys() {
        println!(
            "{name}: {:.0} crossings a second, loudness uneven by {:.2}",
            median(name, |m| m.0),
            median(name, |m| m.1)
        );
    }
    let crossings = |name: &str| median(name, |m| m.0);
    for (lower, higher) in [
        ("rumble", "beep"),
        ("beep", "whistle"),
        ("whistle", "hiss"),
        ("knocks", "clicks"),
        ("siren", "whistle"),
        ("buzz", "rattle"),
    ] {
        assert!(
            crossings(lower) * 1.3 < crossings(higher),
            "{lower} and {higher}: {} {}",
            crossings(lower),
            crossings(higher)
        );
    }
    let uneven = |name: &str| median(name, |m| m.1);
    for (steady, uneven_one) in
        [("beep", "tremolo"), ("hiss", "drops"), ("siren", "knocks"), ("alarm", "bell"), ("whistle", "clicks")]
    {
        assert!(
            uneven(steady) * 1.3 < uneven(uneven_one),
            "{steady} and {uneven_one}: {} {}",
            uneven(steady),
            uneven(uneven_one)
        );
    }
    Ok(())
}

#[test]
fn any_folder_of_pictures_with_names_becomes_a_task() -> Result<()> {
    let folder = tempfile::tempdir()?;
    for (name, rgb) in [("red_square", [220, 30, 30]), ("blue-square", [30, 30, 220])] {
        image::RgbImage::from_pixel(40, 20, image::Rgb(rgb)).save(folder.path().join(format!("{name}.png")))?;
    }
    fs::write(folder.path().join("broken.png"), b"\x89PNG no")?;
    let icons = Icons::open(folder.path())?;
    assert_eq!(icons.len(), 2);
    let icons = task(pictures::with(Options::default(), Some(icons)), "icons")?;
    assert_eq!(icons.chance(), 0.5);
    let mut n = 0;
    for index in 0..50 {
        let sample = icons.at(Split::Train, index);
        let picture = image(&sample)?;
        let seen = picture.rgb.chunks_exact(3).map(|rgb| colour([rgb[0], rgb[1], rgb[2]]));
        let red = seen.clone().filter(|name| *name == "red").count();
        let blue = seen.filter(|name| *name == "blue").count();
        let name = if red > blue { "red square" } else { "blue square" };
        assert!(icons.is_correct(&sample, name), "{name} is seen, {} is the answer", answer(&sample));
        n += usize::from(name.starts_with("red"));
    }
    println!("{n} of 50 were red");
    assert!((5..45).contains(&n));
    Ok(())
}
