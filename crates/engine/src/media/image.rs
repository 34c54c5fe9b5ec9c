//! From a file's bytes to 8-bit RGB.

use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};

use image::codecs::{gif::GifDecoder, jpeg::JpegDecoder, png::PngDecoder, webp::WebPDecoder};
use image::metadata::Orientation;
use image::{ColorType, DynamicImage, ImageDecoder, ImageError, ImageFormat, RgbImage};

use super::{Format, MediaError, Size, container};
use crate::limits::Limits;

/// An image of 8-bit red, green and blue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rgb {
    size: Size,
    /// `[height, width, 3]`.
    pixels: Vec<u8>,
}

impl Rgb {
    /// An image of `pixels`, `[height, width, 3]`; `None` if they are not as many as `size` says.
    pub fn new(size: Size, pixels: Vec<u8>) -> Option<Self> {
        (size.n_pixels().checked_mul(3)? == pixels.len() as u64).then_some(Self { size, pixels })
    }

    /// Like [`Rgb::new`], for pixels that were made to fit.
    pub(super) fn of_size(size: Size, pixels: Vec<u8>) -> Self {
        assert_eq!(size.n_pixels() * 3, pixels.len() as u64, "pixels fit the size");
        Self { size, pixels }
    }

    /// Height and width.
    pub fn size(&self) -> Size {
        self.size
    }

    /// `[height, width, 3]`.
    pub fn pixels(&self) -> &[u8] {
        &self.pixels
    }
}

/// The size that [`decode`] would give, from the file's header alone: what an image costs in tokens.
///
/// # Errors
/// As [`decode`], but for damage behind the header.
pub fn size(bytes: &[u8], limits: &Limits) -> Result<Size, MediaError> {
    guarded(bytes, |format| {
        let opened = Opened::new(format, bytes, limits)?;
        Ok(match transposes(opened.orientation) {
            true => Size::new(opened.size.width(), opened.size.height()).unwrap_or(opened.size),
            false => opened.size,
        })
    })
}

/// Decodes a PNG, JPEG, WebP or GIF, told apart by content; of an animation the first frame.
///
/// Turned as its Exif orientation says. Transparency, and what a GIF's first frame leaves uncovered, becomes white.
/// Of 16 bits a channel the upper 8 stay, for grey as for colour (Pillow would clip 16-bit grey at 255). CMYK counts as
/// inverted, as Adobe writes it. Colour profiles are ignored. The limits are checked on the header, before any pixel is
/// decoded.
///
/// # Errors
/// [`MediaError`]; a decoder that panics on a hostile file counts as [`MediaError::Corrupt`].
pub fn decode(bytes: &[u8], limits: &Limits) -> Result<Rgb, MediaError> {
    guarded(bytes, |format| Opened::new(format, bytes, limits)?.decode())
}

/// Runs `work` on a known format, turning a panic of a decoder into an error: one request must not end the process.
fn guarded<T>(bytes: &[u8], work: impl FnOnce(Format) -> Result<T, MediaError>) -> Result<T, MediaError> {
    let format = match image::guess_format(bytes) {
        Ok(ImageFormat::Png) => Format::Png,
        Ok(ImageFormat::Jpeg) => Format::Jpeg,
        Ok(ImageFormat::WebP) => Format::WebP,
        Ok(ImageFormat::Gif) => Format::Gif,
        _ => return Err(MediaError::UnknownFormat),
    };
    let gave_up = |_| Err(MediaError::Corrupt { format, why: "the decoder gave up".into() });
    catch_unwind(AssertUnwindSafe(|| work(format))).unwrap_or_else(gave_up)
}

/// A file whose header was read and found within the limits.
struct Opened<'a> {
    format: Format,
    decoder: Box<dyn ImageDecoder + 'a>,
    /// As stored, before turning.
    size: Size,
    orientation: Orientation,
    /// Bytes of the one buffer that holds the pixels as stored and then as RGB.
    buffer_len: usize,
}

impl<'a> Opened<'a> {
    fn new(format: Format, bytes: &'a [u8], limits: &Limits) -> Result<Self, MediaError> {
        let failed = |error: ImageError| failure(format, error);
        let mut decoder_limits = image::Limits::no_limits();
        decoder_limits.max_alloc = Some(limits.image_decoded_bytes);
        let reader = Cursor::new(bytes);
        let mut decoder: Box<dyn ImageDecoder + 'a> = match format {
            Format::Png => {
                // Before the decoder makes room for a row.
                if let Some(size) = container::png_size(bytes) {
                    check_size(size, limits)?;
                }
                Box::new(PngDecoder::with_limits(reader, decoder_limits.clone()).map_err(failed)?)
            }
            Format::Jpeg => {
                container::check_jpeg_end(bytes)?;
                Box::new(JpegDecoder::new(reader).map_err(failed)?)
            }
            Format::WebP => {
                container::check_webp_parts(bytes)?;
                Box::new(WebPDecoder::new(reader).map_err(failed)?)
            }
            Format::Gif => Box::new(GifDecoder::new(reader).map_err(failed)?),
        };
        let (width, height) = decoder.dimensions();
        let empty = || MediaError::Corrupt { format, why: format!("it is {width}×{height}") };
        let size = Size::new(height, width).ok_or_else(empty)?;
        check_size(size, limits)?;
        let got_bytes = size.n_pixels() * u64::from(decoder.color_type().bytes_per_pixel().max(3));
        let too_many = MediaError::TooManyBytes { size, got_bytes, limit_bytes: limits.image_decoded_bytes };
        let buffer_len = match usize::try_from(got_bytes) {
            Ok(len) if got_bytes <= limits.image_decoded_bytes => len,
            _ => return Err(too_many),
        };
        decoder.set_limits(decoder_limits).map_err(failed)?;
        let exif = match format {
            Format::Png => container::png_exif(bytes).map(<[u8]>::to_vec),
            // Damaged metadata must not cost the picture.
            _ => decoder.exif_metadata().unwrap_or(None),
        };
        let orientation = exif.and_then(|exif| orientation(&exif)).unwrap_or(Orientation::NoTransforms);
        Ok(Self { format, decoder, size, orientation, buffer_len })
    }

    fn decode(self) -> Result<Rgb, MediaError> {
        let Self { format, decoder, size, orientation, buffer_len } = self;
        let color = decoder.color_type();
        let n_pixels = buffer_len / usize::from(color.bytes_per_pixel().max(3));
        let mut pixels = vec![0; buffer_len];
        let stored = &mut pixels[..n_pixels * usize::from(color.bytes_per_pixel())];
        decoder.read_image_boxed(stored).map_err(|error| failure(format, error))?;
        to_rgb(color, &mut pixels, n_pixels)
            .ok_or_else(|| MediaError::Corrupt { format, why: format!("its pixels are {color:?}") })?;
        if orientation == Orientation::NoTransforms {
            return Ok(Rgb::of_size(size, pixels));
        }
        let odd = || MediaError::Corrupt { format, why: "its pixels do not fill its size".into() };
        let image = RgbImage::from_raw(size.width(), size.height(), pixels).ok_or_else(odd)?;
        let mut image = DynamicImage::ImageRgb8(image);
        image.apply_orientation(orientation);
        let size = Size::new(image.height(), image.width()).ok_or_else(odd)?;
        Rgb::new(size, image.into_rgb8().into_raw()).ok_or_else(odd)
    }
}

fn check_size(size: Size, limits: &Limits) -> Result<(), MediaError> {
    if size.n_pixels() > u64::from(limits.image_megapixels) * 1_000_000 {
        return Err(MediaError::TooManyPixels { size, limit_megapixels: limits.image_megapixels });
    }
    let (short, long) = (size.height().min(size.width()), size.height().max(size.width()));
    if u64::from(long) > u64::from(short) * u64::from(limits.image_aspect) {
        return Err(MediaError::TooNarrow { size, limit: limits.image_aspect });
    }
    Ok(())
}

/// The orientation in an Exif block; some writers of WebP put JPEG's six-byte mark before it.
fn orientation(exif: &[u8]) -> Option<Orientation> {
    Orientation::from_exif_chunk(exif.strip_prefix(b"Exif\0\0").unwrap_or(exif))
}

fn transposes(orientation: Orientation) -> bool {
    use Orientation::{Rotate90, Rotate90FlipH, Rotate270, Rotate270FlipH};
    matches!(orientation, Rotate90 | Rotate270 | Rotate90FlipH | Rotate270FlipH)
}

fn failure(format: Format, error: ImageError) -> MediaError {
    match error {
        ImageError::IoError(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
            MediaError::Truncated { format }
        }
        error => MediaError::Corrupt { format, why: error.to_string().to_lowercase() },
    }
}

/// Turns the `n_pixels` stored at the start of `pixels` into RGB in place; `None` for a layout that no decoder gives.
fn to_rgb(color: ColorType, pixels: &mut Vec<u8>, n_pixels: usize) -> Option<()> {
    match color {
        ColorType::Rgb8 => {}
        ColorType::L8 => each(pixels, n_pixels, |[y]| [y; 3]),
        ColorType::La8 => each(pixels, n_pixels, |[y, a]| [on_white(y, a); 3]),
        ColorType::Rgba8 => each(pixels, n_pixels, |[r, g, b, a]| [r, g, b].map(|c| on_white(c, a))),
        ColorType::L16 => each(pixels, n_pixels, |[y0, y1]| [upper(y0, y1); 3]),
        ColorType::La16 => {
            each(pixels, n_pixels, |[y0, y1, a0, a1]| [on_white(upper(y0, y1), upper(a0, a1)); 3]);
        }
        ColorType::Rgb16 => {
            each(pixels, n_pixels, |[r0, r1, g0, g1, b0, b1]| [upper(r0, r1), upper(g0, g1), upper(b0, b1)]);
        }
        ColorType::Rgba16 => each(pixels, n_pixels, |[r0, r1, g0, g1, b0, b1, a0, a1]| {
            [upper(r0, r1), upper(g0, g1), upper(b0, b1)].map(|c| on_white(c, upper(a0, a1)))
        }),
        _ => return None,
    }
    Some(())
}

/// Replaces `n_pixels` pixels of N bytes by three bytes each. Short ones go from the last to the first, so that none is
/// written over before it is read.
fn each<const N: usize>(pixels: &mut Vec<u8>, n_pixels: usize, convert: impl Fn([u8; N]) -> [u8; 3]) {
    let mut turn = |i: usize| {
        let mut stored = [0; N];
        stored.copy_from_slice(&pixels[i * N..(i + 1) * N]);
        pixels[i * 3..(i + 1) * 3].copy_from_slice(&convert(stored));
    };
    if N < 3 {
        (0..n_pixels).rev().for_each(&mut turn)
    } else {
        (0..n_pixels).for_each(&mut turn)
    }
    pixels.truncate(n_pixels * 3);
}

/// The upper half of a 16-bit value in this machine's byte order.
fn upper(first: u8, second: u8) -> u8 {
    u16::from_ne_bytes([first, second]).to_be_bytes()[0]
}

/// `value` with opacity `alpha` over white, rounded to the nearest.
fn on_white(value: u8, alpha: u8) -> u8 {
    let (value, alpha) = (u32::from(value), u32::from(alpha));
    ((value * alpha + 255 * (255 - alpha) + 127) / 255) as u8
}
