//! Writing packed files: a GGUF model's weights as the kernels read them.

use std::path::Path;

use anyhow::{Result, bail};
use cpu::Cpu;
use formats::gguf::{LAYOUT_KEY, Layout, ROWS_KEY, Value, Writer};
use formats::{Checkpoint, DType, Kind, Tensor, TensorInfo};
use tensor::{Orientation, WeightSource, packed};

use crate::failure::usage;
use crate::interrupt::Watch;

/// Bytes that a part of a file is aligned to. More than kernels ask for: whole blocks of a disk, so that direct reads of
/// experts begin where they do.
const ALIGNMENT: u32 = 4096;

/// Where tokens' rows are looked up: they stay one after another.
const EMBEDDINGS: &str = "token_embd.weight";

/// The map to logits; models without one use the embeddings.
const OUTPUT: &str = "output.weight";

/// What a packed file is made of: each tensor's new name and type.
pub struct Plan<'a> {
    tensors: Vec<(&'a str, DType, &'a Tensor)>,
    layout: Layout,
}

impl<'a> Plan<'a> {
    /// Plans `path`, made of `checkpoint`. Nothing is written yet.
    ///
    /// # Errors
    /// Exit code 2 if it is no GGUF model or packed already.
    pub fn new(path: &Path, checkpoint: &'a Checkpoint) -> Result<Self> {
        let Kind::Gguf(source) = &checkpoint.kind else {
            let message = format!("{} is no GGUF file", checkpoint.path.display());
            return Err(usage(message, "write a GGUF file first: puna quantize IN OUT.gguf --to q8_0"));
        };
        if source.get(LAYOUT_KEY).is_some() {
            let message = format!("{} is packed already", checkpoint.path.display());
            return Err(usage(message, "name the GGUF file that it was made of"));
        }
        // What is said anew here, and how the source was cut into files.
        let own = |key: &str| key == "general.alignment" || key.starts_with("split.");
        let mut metadata: Vec<(&str, Value)> =
            source.iter().filter(|(key, _)| !own(key)).map(|(key, value)| (key, value.clone())).collect();
        metadata.push(("general.alignment", Value::U32(ALIGNMENT)));
        metadata.push((LAYOUT_KEY, Value::U32(packed::VERSION)));
        metadata.push((ROWS_KEY, Value::U32(u32::try_from(packed::ROWS)?)));
        let mut tensors = Vec::new();
        for (name, tensor) in &checkpoint.tensors {
            tensors.push((name.as_str(), if name == EMBEDDINGS { tensor.dtype } else { packed_type(tensor) }, tensor));
        }
        if checkpoint.config.tie_word_embeddings {
            let embeddings = checkpoint.tensor(EMBEDDINGS)?;
            tensors.push((OUTPUT, packed_type(embeddings), embeddings));
        }
        let infos: Vec<TensorInfo<'_>> =
            tensors.iter().map(|(name, dtype, t)| TensorInfo { name, dtype: *dtype, shape: &t.shape }).collect();
        let layout = Layout::new(path, &metadata, &infos)?;
        Ok(Self { tensors, layout })
    }

    /// Bytes of the file.
    pub fn file_bytes(&self) -> usize {
        self.layout.file_bytes()
    }

    /// Tensors, and those of them that are packed.
    pub fn n_tensors(&self) -> (usize, usize) {
        let n_packed = self.tensors.iter().filter(|(_, dtype, _)| matches!(dtype, DType::Packed(_))).count();
        (self.tensors.len(), n_packed)
    }

    /// Writes the file, telling `progress` the bytes of every piece; `false` if `watch` saw an interruption, and then no
    /// file is left.
    ///
    /// # Errors
    /// If the file can not be written.
    pub fn write(self, path: &Path, dev: &Cpu, watch: &Watch, progress: &mut dyn FnMut(usize)) -> Result<bool> {
        let mut file = Writer::create(path, self.layout)?;
        for (name, dtype, tensor) in self.tensors {
            let DType::Packed(format) = dtype else {
                file.write(&tensor.bytes)?;
                progress(tensor.bytes.len());
                continue;
            };
            let [matrices @ .., n_out, n_in] = tensor.shape.as_slice() else { bail!("{name} has no outputs") };
            let n_matrices = matrices.iter().product();
            let shape = [n_matrices, *n_out, *n_in];
            let source = WeightSource::new(tensor.bytes.clone(), format, Orientation::OutIn, shape)?;
            for matrix in 0..n_matrices {
                if watch.is_interrupted() {
                    return Ok(false);
                }
                let packed = dev.pack(&source, matrix)?;
                file.write(&packed)?;
                progress(packed.len());
            }
        }
        file.finish()?;
        Ok(true)
    }
}

/// Maps are packed: in a decoder's GGUF file all tensors with several rows but the embeddings.
fn packed_type(tensor: &Tensor) -> DType {
    let is_map = matches!(tensor.shape.as_slice(), [.., n_out, n_in] if *n_out > 1 && *n_in > 1);
    match tensor.dtype {
        DType::Weight(format) if is_map => DType::Packed(format),
        other => other,
    }
}
