//! Encodes mel columns with a lone Whisper encoder, for `scripts/check_whisper_encoder.py`.
//!
//! usage: encode_audio ENCODER_FOLDER MEL.safetensors OUT.safetensors
//!
//! Every tensor of the second file is one chunk, `[M, C]` f32; the third gets its frames under the same name, silence
//! included.

use std::num::NonZeroUsize;
use std::path::Path;

use anyhow::{Result, bail};
use cpu::{Cpu, CpuOptions};
use formats::{DType, EncoderSource, NewTensor};
use it::hearing::Vectors;
use llama::{AudioChunk, AudioEncoder};
use tensor::{Device, Format};

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [folder, mel, out] = arguments.as_slice() else { bail!("usage: encode_audio ENCODER MEL OUT") };
    let dev = Cpu::new(CpuOptions { threads: NonZeroUsize::new(2), ..Default::default() });
    let source = EncoderSource::open(Path::new(folder))?;
    let encoder = AudioEncoder::load(&dev, &source.config, &source.tensors)?;
    let vectors = Vectors::open(Path::new(mel))?;
    let mut all = Vec::new();
    for name in vectors.tensors.keys() {
        let values = vectors.values(name)?;
        let chunk = AudioChunk { mel_mc: &values, valid: encoder.chunk_columns() };
        let frames = encoder.forward(&dev, &[(chunk, encoder.n_frames())], &mut ())?;
        let bytes: Vec<u8> = dev.download(&frames).iter().flat_map(|value| value.to_le_bytes()).collect();
        all.push((name.as_str(), dev.shape(&frames), bytes));
    }
    let new: Vec<NewTensor<'_>> = all
        .iter()
        .map(|(name, shape, bytes)| NewTensor { name, dtype: DType::Weight(Format::F32), shape, bytes })
        .collect();
    Ok(formats::safetensors::write(Path::new(out), &new)?)
}
