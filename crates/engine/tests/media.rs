//! Images against the reference processor, and the bounds on what may come in.
#![allow(clippy::unwrap_used, clippy::panic)] // a test's way to fail

use engine::limits::Limits;
use engine::media::{
    Format, Grid, MediaError, Rgb, Size, TileConfig, TileSettings, decode, grid, preprocess, resize, resized, size,
};
use proptest::prelude::*;

fn config() -> TileConfig {
    TileConfig::parse(TileSettings::default(), &Limits::default()).unwrap()
}

/// Tiles whose values are the bytes themselves.
fn raw_config() -> TileConfig {
    let settings = TileSettings { mean: [0.0; 3], std: [1.0; 3], rescale: 1.0, ..TileSettings::default() };
    TileConfig::parse(settings, &Limits::default()).unwrap()
}

fn sized(height: u32, width: u32) -> Size {
    Size::new(height, width).unwrap()
}

/// The goldens' folder; another one of the same layout if `PUNA_IMAGES` names it.
fn file(name: &str) -> Vec<u8> {
    let own = || format!("{}/tests/data/images", env!("CARGO_MANIFEST_DIR"));
    let path = format!("{}/{name}", std::env::var("PUNA_IMAGES").unwrap_or_else(|_| own()));
    std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// One line of `expected.tsv`; `scripts/make_image_goldens.py` says what the fields are.
struct Expected {
    name: String,
    size: Size,
    grid: Grid,
    largest: i32,
    mean: f64,
    hash: u64,
    samples: Vec<u8>,
}

fn expected() -> Vec<Expected> {
    let parse = |line: &str| {
        let fields: Vec<&str> = line.split('\t').collect();
        let [name, height, width, rows, cols, largest, mean, hash, samples] = fields[..] else { panic!("{line}") };
        let bytes = |i: usize| u8::from_str_radix(&samples[i..i + 2], 16).unwrap();
        Expected {
            name: name.into(),
            size: sized(height.parse().unwrap(), width.parse().unwrap()),
            grid: Grid { rows: rows.parse().unwrap(), cols: cols.parse().unwrap() },
            largest: largest.parse().unwrap(),
            mean: mean.parse().unwrap(),
            hash: u64::from_str_radix(hash, 16).unwrap(),
            samples: (0..samples.len()).step_by(2).map(bytes).collect(),
        }
    };
    String::from_utf8(file("expected.tsv")).unwrap().lines().map(parse).collect()
}

fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

#[test]
fn odd_images_give_the_reference_processors_tiles() {
    let (mut n_exact, mut n_lossy) = (0, 0);
    for want in expected() {
        let name = &want.name;
        let image = decode(&file(name), &Limits::default()).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(image.size(), want.size, "{name}");
        let tiles = preprocess(&image, &raw_config());
        assert_eq!(tiles.grid, want.grid, "{name}");
        let bytes: Vec<u8> = tiles.pixels.iter().map(|value| *value as u8).collect();
        assert_eq!(bytes.len(), want.grid.n_tiles() * 3 * 336 * 336, "{name}");
        assert_eq!(want.samples.len(), 512);
        let place = |i: usize| (i as u64 * 2_654_435_761 + 12_345) as usize % bytes.len();
        let differences: Vec<i32> = want
            .samples
            .iter()
            .enumerate()
            .map(|(i, sample)| (i32::from(bytes[place(i)]) - i32::from(*sample)).abs())
            .collect();
        let largest = *differences.iter().max().unwrap();
        let mean = f64::from(differences.iter().sum::<i32>()) / differences.len() as f64;
        println!("{name}: {} tiles, largest difference {largest}, mean {mean:.3}", want.grid.n_tiles());
        assert!(largest <= want.largest && mean <= want.mean, "{name}: largest {largest}, mean {mean}");
        if want.largest == 0 {
            assert_eq!(fnv(&bytes), want.hash, "{name}: equal at all samples, but not everywhere");
            n_exact += 1;
        } else {
            n_lossy += 1;
        }
    }
    println!("{n_exact} images equal to the bit, {n_lossy} within their decoders' rounding");
    // Another folder has what it has.
    assert!(std::env::var_os("PUNA_IMAGES").is_some() || n_exact >= 20 && n_lossy >= 16);
}

#[test]
fn the_published_sizes_give_the_published_grids() {
    let table = [
        ((336, 336), (1, 1), (336, 336), 1, 147),
        ((100, 100), (1, 1), (336, 336), 1, 147),
        ((200, 300), (1, 1), (224, 336), 1, 147),
        ((336, 672), (1, 2), (336, 672), 3, 437),
        ((672, 336), (2, 1), (672, 336), 3, 437),
        ((337, 337), (2, 2), (337, 337), 5, 727),
        ((480, 640), (2, 2), (480, 640), 5, 727),
        ((720, 1280), (3, 4), (720, 1280), 13, 1887),
        ((768, 1024), (3, 4), (768, 1024), 13, 1887),
        ((1024, 1024), (4, 4), (1024, 1024), 17, 2467),
        ((1080, 1920), (3, 5), (945, 1680), 16, 2322),
        ((3000, 4000), (3, 4), (1008, 1344), 13, 1887),
        ((2000, 300), (6, 1), (2000, 300), 7, 1017),
        ((300, 5000), (1, 15), (300, 5000), 16, 2322),
        ((10, 4000), (1, 12), (10, 4000), 13, 1887),
        ((1, 1), (1, 1), (336, 336), 1, 147),
    ];
    let config = config();
    for ((height, width), (rows, cols), (fitted_height, fitted_width), n_tiles, n_tokens) in table {
        let size = sized(height, width);
        let got = grid(size, &config);
        assert_eq!(got, Grid { rows, cols }, "{size}");
        assert_eq!(resized(size, got, &config), sized(fitted_height, fitted_width), "{size}");
        assert_eq!((got.n_tiles(), config.n_tokens(got)), (n_tiles, n_tokens), "{size}");
    }
}

/// The canvas by the words of the specification, in the plainest way.
fn plain_grid(size: Size, fill: bool) -> Grid {
    let mut all = Vec::new();
    for rows in 1..=16usize {
        for cols in (1..=16usize).filter(|cols| rows * cols <= 16) {
            let by_height = (rows * 336) as f32 / size.height() as f32;
            let by_width = (cols * 336) as f32 / size.width() as f32;
            all.push((if by_height < by_width { by_height } else { by_width }, Grid { rows, cols }));
        }
    }
    assert_eq!(all.len(), 50);
    let enlarging: Vec<f32> = all.iter().map(|(scale, _)| *scale).filter(|scale| *scale >= 1.0).collect();
    let chosen = if enlarging.is_empty() {
        all.iter().map(|(scale, _)| *scale).fold(0.0, f32::max)
    } else if fill {
        enlarging.iter().copied().fold(0.0, f32::max)
    } else {
        enlarging.iter().copied().fold(f32::INFINITY, f32::min)
    };
    let same = all.iter().filter(|(scale, _)| *scale == chosen);
    same.map(|(_, grid)| *grid).min_by_key(|grid| grid.rows * grid.cols).unwrap()
}

fn check_size(size: Size, config: &TileConfig) -> Grid {
    let got = grid(size, config);
    let fitted = resized(size, got, config);
    assert_eq!(got, plain_grid(size, config.settings().resize_to_max_canvas), "{size}");
    assert!((1..=16).contains(&(got.rows * got.cols)), "{size}");
    assert!(fitted.height() as usize <= got.rows * 336 && fitted.width() as usize <= got.cols * 336, "{size}");
    let n_canvas = got.rows * got.cols;
    let want = if n_canvas == 1 { (1, 147) } else { (n_canvas + 1, 145 * n_canvas + 147) };
    assert_eq!((got.n_tiles(), config.n_tokens(got)), want, "{size}");
    // What the tower will make of the tiles fills exactly the placeholders.
    let n_separators = if n_canvas == 1 { 0 } else { n_canvas };
    assert_eq!(config.n_tokens(got) - n_separators - 3, got.n_tiles() * config.tokens_per_tile(), "{size}");
    got
}

#[test]
fn every_size_up_to_400_has_its_grid_and_tokens() {
    let config = config();
    let mut grids = std::collections::BTreeMap::new();
    for height in 1..=400 {
        for width in 1..=400 {
            let grid = check_size(sized(height, width), &config);
            *grids.entry((grid.rows, grid.cols)).or_insert(0) += 1;
        }
    }
    println!("{grids:?}");
    assert_eq!(grids.values().sum::<i32>(), 160_000);
    assert_eq!(grids.len(), 4);
}

proptest! {
    #[test]
    fn every_size_has_a_grid(height in 1u32.., width in 1u32.., fill: bool) {
        let settings = TileSettings { resize_to_max_canvas: fill, ..TileSettings::default() };
        let config = TileConfig::parse(settings, &Limits::default()).unwrap();
        check_size(sized(height, width), &config);
        check_size(sized(height % 6000 + 1, width % 6000 + 1), &config);
    }

    #[test]
    fn a_resized_image_of_one_colour_keeps_it(
        (h, w, to_h, to_w) in (1u32..90, 1u32..90, 1u32..90, 1u32..90), colour: [u8; 3]
    ) {
        let image = Rgb::new(sized(h, w), colour.repeat((h * w) as usize)).unwrap();
        let out = resize(&image, sized(to_h, to_w));
        prop_assert_eq!(out.size(), sized(to_h, to_w));
        // Each pass rounds its weights, of which there are at most 2 · 90 + 1, to 2⁻¹⁴ or finer: half a unit.
        let near = |(got, want): (&u8, &u8)| got.abs_diff(*want) <= 1;
        prop_assert!(out.pixels().chunks(3).all(|pixel| pixel.iter().zip(&colour).all(near)));
    }
}

#[test]
fn filling_the_canvas_enlarges() {
    let settings = TileSettings { resize_to_max_canvas: true, ..TileSettings::default() };
    let config = TileConfig::parse(settings, &Limits::default()).unwrap();
    let size = sized(100, 100);
    assert_eq!(grid(size, &config), Grid { rows: 4, cols: 4 });
    assert_eq!(resized(size, Grid { rows: 4, cols: 4 }, &config), sized(1344, 1344));
}

#[test]
fn tiles_go_row_by_row_and_the_whole_image_comes_last() {
    // Four quarters of one colour each, exactly on a canvas of 2×2 tiles.
    let colours = [[10u8, 20, 30], [40, 50, 60], [70, 80, 90], [100, 110, 120]];
    let quarter = |y: u32, x: u32| colours[(2 * (y / 336) + x / 336) as usize];
    let pixels = (0..672).flat_map(|y| (0..672).flat_map(move |x| quarter(y, x))).collect();
    let tiles = preprocess(&Rgb::new(sized(672, 672), pixels).unwrap(), &raw_config());
    assert_eq!((tiles.grid, tiles.grid.n_tiles()), (Grid { rows: 2, cols: 2 }, 5));
    let channels: Vec<&[f32]> = tiles.pixels.chunks(336 * 336).collect();
    for (tile, colour) in colours.iter().enumerate() {
        for channel in 0..3 {
            let want = f32::from(colour[channel]);
            assert!(channels[tile * 3 + channel].iter().all(|value| *value == want), "tile {tile} channel {channel}");
        }
    }
    let whole = channels[12];
    assert_eq!([whole[0], whole[335], whole[335 * 336], whole[336 * 336 - 1]], [10.0, 40.0, 70.0, 100.0]);
}

#[test]
fn values_are_rescaled_and_normalised_and_padding_is_minus_one() {
    let pixels: Vec<u8> = (0..=255u8).flat_map(|v| [v, 255 - v, v / 2]).collect();
    let image = Rgb::new(sized(1, 256), pixels).unwrap();
    let raw = preprocess(&image, &raw_config());
    let tiles = preprocess(&image, &config());
    for (raw, value) in raw.pixels.iter().zip(&tiles.pixels) {
        let want = (f64::from(*raw) / 255.0 - 0.5) / 0.5;
        // Three roundings of numbers up to 1, the first two doubled by the division.
        assert!((f64::from(*value) - want).abs() < 3.0 * f64::from(f32::EPSILON), "{raw}: {value}");
    }
    // 256×1 becomes 336×1; the other 335 rows are padding.
    assert_eq!((raw.pixels.len(), tiles.pixels[336], tiles.pixels[336 * 336 - 1]), (3 * 336 * 336, -1.0, -1.0));
}

#[test]
fn the_header_alone_tells_the_size_after_turning() {
    let files = expected();
    for want in &files {
        assert_eq!(size(&file(&want.name), &Limits::default()).unwrap(), want.size, "{}", want.name);
    }
    assert!(files.iter().any(|want| want.name == "exif_6.jpg" && want.size == sized(48, 32)));
}

/// A PNG's bytes up to the start of its pixels.
fn png_header(width: u32, height: u32, color: u8, depth: u8) -> Vec<u8> {
    let mut header = b"IHDR".to_vec();
    header.extend(width.to_be_bytes());
    header.extend(height.to_be_bytes());
    header.extend([depth, color, 0, 0, 0]);
    let crc = !header.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 })
    });
    let mut bytes = b"\x89PNG\r\n\x1a\n\0\0\0\x0d".to_vec();
    bytes.extend(header);
    bytes.extend(crc.to_be_bytes());
    bytes.extend(b"\0\0\x10\0IDAT\x78\x9c");
    bytes
}

#[test]
fn an_image_is_measured_before_it_is_decoded() {
    let limits = Limits::default();
    let check = |width, height, color, depth, want: Result<(), &str>| {
        let bytes = png_header(width, height, color, depth);
        let got = size(&bytes, &limits).map(drop).map_err(|error| error.to_string());
        assert_eq!(got, want.map_err(str::to_owned), "{width}×{height}");
        if let Err(want) = want {
            assert_eq!(decode(&bytes, &limits).unwrap_err().to_string(), want, "{width}×{height}");
        }
    };
    check(24_000, 9_000, 2, 8, Err("image is 24000×9000 (216 MP); the limit is 20 MP"));
    check(5_000, 3_999, 2, 8, Ok(()));
    check(5_000, 4_000, 2, 8, Ok(()));
    check(5_000, 4_001, 2, 8, Err("image is 5000×4001 (20.005 MP); the limit is 20 MP"));
    check(
        u32::MAX >> 1,
        u32::MAX >> 1,
        2,
        8,
        Err("image is 2147483647×2147483647 (4611686014133 MP); the limit is 20 MP"),
    );
    check(499, 10, 2, 8, Ok(()));
    check(500, 10, 2, 8, Ok(()));
    check(501, 10, 2, 8, Err("image is 501×10 (51:1); the limit is 50:1"));
    check(10, 501, 2, 8, Err("image is 10×501 (1:51); the limit is 50:1"));
    check(1, 50, 2, 8, Ok(()));
    check(1, 51, 2, 8, Err("image is 1×51 (1:51); the limit is 50:1"));
    // With transparency a pixel takes 4 bytes, of 16 bits a channel 8.
    check(4_096, 4_096, 6, 8, Ok(()));
    check(4_096, 4_097, 6, 8, Err("image is 4096×4097 and takes 67125248 bytes decoded; the limit is 67108864"));
    check(4_096, 2_048, 6, 16, Ok(()));
    check(4_096, 2_049, 6, 16, Err("image is 4096×2049 and takes 67141632 bytes decoded; the limit is 67108864"));
    let empty = size(&png_header(0, 5, 2, 8), &limits).unwrap_err();
    assert!(matches!(empty, MediaError::Corrupt { format: Format::Png, .. }), "{empty}");
}

#[test]
fn what_is_no_image_is_refused() {
    for bytes in [&b""[..], b"\0", b"hello, this is text", b"%PDF-1.7", b"BM\x3a\0\0\0\0\0\0\0", b"II*\0\x08\0\0\0"] {
        assert_eq!(decode(bytes, &Limits::default()), Err(MediaError::UnknownFormat));
    }
    for magic in [&b"\x89PNG\r\n\x1a\n"[..], b"\xff\xd8\xff", b"GIF89a", b"RIFF\x10\0\0\0WEBP"] {
        let error = decode(magic, &Limits::default()).unwrap_err();
        assert!(matches!(error, MediaError::Truncated { .. } | MediaError::Corrupt { .. }), "{error}");
    }
}

#[test]
fn an_image_that_is_cut_off_is_refused() {
    let (mut n_cuts, limits) = (0, Limits::default());
    for want in expected().iter().filter(|want| want.size.n_pixels() < 200_000) {
        let bytes = file(&want.name);
        // A GIF or a WebP may be cut behind its first frame, a PNG behind its pixels.
        let needed = if want.name.ends_with(".jpg") { bytes.len() } else { bytes.len() / 4 };
        for i in 0..32 {
            let cut = needed * i / 32;
            let got = decode(&bytes[..cut], &limits);
            assert!(got.is_err(), "{} cut at {cut} of {}", want.name, bytes.len());
            n_cuts += 1;
        }
        if want.name.ends_with(".jpg") {
            let got = decode(&bytes[..bytes.len() - 1], &limits);
            assert_eq!(got, Err(MediaError::Truncated { format: Format::Jpeg }), "{}", want.name);
        }
    }
    println!("{n_cuts} cuts refused");
    assert!(n_cuts > 1000);
}

#[test]
fn damaged_images_give_an_error_or_a_picture_within_the_limits() {
    let limits = Limits { image_megapixels: 1, ..Limits::default() };
    let (mut n_errors, mut n_pictures, mut n_panics) = (0, 0, 0);
    for (seed, want) in expected().iter().filter(|want| want.size.n_pixels() < 20_000).enumerate() {
        let intact = file(&want.name);
        for round in 0..60u64 {
            let mut bytes = intact.clone();
            for i in 0..=round % 4 {
                let noise = fnv(&[seed as u8, round as u8, i as u8]);
                // Half of the damage goes to the headers.
                let range = if noise.is_multiple_of(2) { bytes.len() } else { bytes.len().min(100) };
                bytes[(noise >> 16) as usize % range] ^= 1 << (noise >> 8 & 7);
            }
            match decode(&bytes, &limits) {
                Ok(image) => {
                    assert!(image.size().n_pixels() <= 1_000_000);
                    n_pictures += 1;
                }
                Err(error) => {
                    n_panics += usize::from(error.to_string().contains("gave up"));
                    n_errors += 1;
                }
            }
        }
    }
    println!("{n_errors} errors, {n_pictures} pictures; {n_panics} of the errors were panics of a decoder");
    assert!(n_errors > 300 && n_pictures > 300);
}

#[test]
fn a_webp_part_larger_than_its_canvas_is_refused_before_it_is_decoded() {
    let mut bytes = file("alpha.webp");
    assert_eq!(&bytes[12..16], b"VP8X");
    let part = bytes.windows(3).position(|window| window == [0x9d, 0x01, 0x2a]).unwrap();
    bytes[part + 3..part + 7].copy_from_slice(&[0xff, 0x3f, 0xff, 0x3f]);
    let error = decode(&bytes, &Limits::default()).unwrap_err();
    assert!(error.to_string().contains("another size than its header says"), "{error}");
}

/// Changes the settings.
type Change = &'static dyn Fn(&mut TileSettings);

#[test]
fn tiles_that_cannot_be_are_refused() {
    let limits = Limits::default();
    let refused = |change: &dyn Fn(&mut TileSettings)| {
        let mut settings = TileSettings::default();
        change(&mut settings);
        TileConfig::parse(settings, &limits).map(drop).map_err(|error| error.to_string())
    };
    assert_eq!(refused(&|_| {}), Ok(()));
    assert_eq!(refused(&|s| s.tile = 0), Err("preprocessor config: size is \"0\"; it must be 1 to 2048".into()));
    let bad: [(&str, Change); 16] = [
        ("size", &|s| s.tile = 2049),
        ("patch_size", &|s| s.patch = 0),
        ("patch_size", &|s| s.patch = 13),
        ("max_patches", &|s| s.max_tiles = 0),
        ("max_patches", &|s| s.max_tiles = 65),
        ("pixel_shuffle_ratio", &|s| s.ratio = 0.0),
        ("pixel_shuffle_ratio", &|s| s.ratio = -0.5),
        ("pixel_shuffle_ratio", &|s| s.ratio = 0.3),
        ("pixel_shuffle_ratio", &|s| s.ratio = 2.0),
        ("pixel_shuffle_ratio", &|s| s.ratio = f32::NAN),
        ("image_mean", &|s| s.mean[1] = f32::NAN),
        ("image_std", &|s| s.std[2] = 0.0),
        ("image_std", &|s| s.std[0] = f32::INFINITY),
        ("image_std", &|s| s.std[0] = f32::NAN),
        ("rescale_factor", &|s| s.rescale = f32::NEG_INFINITY),
        ("rescale_factor", &|s| s.rescale = f32::NAN),
    ];
    for (field, change) in bad {
        let error = refused(change).unwrap_err();
        assert!(error.contains(field), "{field}: {error}");
    }
    assert_eq!(refused(&|s| (s.tile, s.patch, s.max_tiles) = (2044, 14, 64)), Ok(()));
}
