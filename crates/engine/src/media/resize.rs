//! Bilinear resizing with antialias, equal to the bit to `torchvision` on 8-bit tensors.
//!
//! Rows first, then columns, each pass rounding to 8 bits. A pass weighs the pixels under a triangle as wide as the
//! scale (at least one pixel to each side) with 16-bit fixed-point weights, whose precision is the highest at which the
//! largest weight still fits: PyTorch, `UpSampleKernel.cpp`, `_compute_index_ranges_int16_weights`.

use super::{Rgb, Size};

/// Resizes `image` to `to`, whatever the aspect.
pub fn resize(image: &Rgb, to: Size) -> Rgb {
    let size = image.size();
    let (height, width) = (size.height() as usize, to.width() as usize);
    if to == size {
        return image.clone();
    }
    let narrowed = if to.width() == size.width() {
        image.pixels().to_vec()
    } else {
        along_rows(image, &Taps::new(size.width(), to.width()))
    };
    let pixels = if to.height() == size.height() {
        narrowed
    } else {
        along_columns(&narrowed, [height, width], &Taps::new(size.height(), to.height()))
    };
    Rgb::of_size(to, pixels)
}

/// The input pixels of each output pixel along one axis, and their weights.
struct Taps {
    /// First input pixel, and range of `weights`, of each output pixel.
    spans: Vec<(usize, std::ops::Range<usize>)>,
    weights: Vec<i32>,
    /// Binary digits of the weights behind the point.
    precision: u32,
}

impl Taps {
    /// Neither length is 0.
    fn new(n_in: u32, n_out: u32) -> Self {
        let scale = f64::from(n_in) / f64::from(n_out);
        let reach = scale.max(1.0);
        let mut spans = Vec::with_capacity(n_out as usize);
        let mut exact: Vec<f64> = Vec::new();
        for i in 0..n_out {
            let center = scale * (f64::from(i) + 0.5);
            // The casts cut towards 0 and stop at 0, as the reference does.
            let first = (center - reach + 0.5) as u32;
            let end = ((center + reach + 0.5) as u32).min(n_in);
            let begin = exact.len();
            exact.extend((first..end).map(|at| {
                let distance = (f64::from(at) - center + 0.5) / reach;
                (1.0 - distance.abs()).max(0.0)
            }));
            let total: f64 = exact[begin..].iter().sum();
            exact[begin..].iter_mut().for_each(|weight| *weight /= total);
            spans.push((first as usize, begin..exact.len()));
        }
        let largest = exact.iter().copied().fold(0.0, f64::max);
        let mut precision = 0;
        while precision < 22 && 0.5 + largest * f64::from(1u32 << (precision + 1)) < f64::from(1 << 15) {
            precision += 1;
        }
        let fixed = |weight: &f64| (weight * f64::from(1u32 << precision) + 0.5) as i32;
        Self { spans, weights: exact.iter().map(fixed).collect(), precision }
    }

    /// Half of the last digit, to round a sum.
    fn half(&self) -> i32 {
        1 << (self.precision - 1)
    }

    fn rounded(&self, sum: i32) -> u8 {
        (sum >> self.precision).clamp(0, 255) as u8
    }
}

fn along_rows(image: &Rgb, taps: &Taps) -> Vec<u8> {
    let size = image.size();
    let mut out = Vec::with_capacity(size.height() as usize * taps.spans.len() * 3);
    for row in image.pixels().chunks_exact(size.width() as usize * 3) {
        let (row, _) = row.as_chunks::<3>();
        for (first, span) in &taps.spans {
            let mut sums = [taps.half(); 3];
            for (pixel, weight) in row[*first..].iter().zip(&taps.weights[span.clone()]) {
                for (sum, value) in sums.iter_mut().zip(pixel) {
                    *sum += weight * i32::from(*value);
                }
            }
            out.extend(sums.map(|sum| taps.rounded(sum)));
        }
    }
    out
}

fn along_columns(pixels: &[u8], [height, width]: [usize; 2], taps: &Taps) -> Vec<u8> {
    let row_len = width * 3;
    let row = |y: usize| &pixels[y * row_len..(y + 1) * row_len];
    let mut out = Vec::with_capacity(taps.spans.len() * row_len);
    let mut sums = vec![0; row_len];
    for (first, span) in &taps.spans {
        sums.fill(taps.half());
        for (y, weight) in (*first..height).zip(&taps.weights[span.clone()]) {
            for (sum, value) in sums.iter_mut().zip(row(y)) {
                *sum += weight * i32::from(*value);
            }
        }
        out.extend(sums.iter().map(|sum| taps.rounded(*sum)));
    }
    out
}
