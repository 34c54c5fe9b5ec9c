//! Writing packed files: a GGUF model's weights as the kernels read them.

use std::path::{Path, PathBuf};

use formats::gguf::{LAYOUT_KEY, Layout, ROWS_KEY, Value, Writer};
use formats::{Checkpoint, DType, FormatError, Kind, Tensor, TensorInfo};
use tensor::{Bytes, OpError, Orientation, WeightSource, packed};

/// Bytes that a part of a file is aligned to. More than kernels ask for: whole blocks of a disk, so that direct reads of
/// experts begin where they do.
const ALIGNMENT: u32 = 4096;

/// Where tokens' rows are looked up: they stay one after another.
const EMBEDDINGS: &str = "token_embd.weight";

/// The map to logits; models without one use the embeddings.
const OUTPUT: &str = "output.weight";

/// Why a packed file is not written.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// Only GGUF models are packed.
    #[error("{} is no GGUF file", .0.display())]
    NotGguf(PathBuf),
    /// The model is a packed file.
    #[error("{} is packed already", .0.display())]
    Packed(PathBuf),
    /// A file could not be written.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// The device refused a weight.
    #[error(transparent)]
    Op(#[from] OpError),
}

/// A packed file before it is written: each tensor's name, type and source.
pub struct PackedPlan<'a> {
    tensors: Vec<(&'a str, DType, &'a Tensor)>,
    layout: Layout,
}

/// Makes row groups of one matrix of a weight.
pub type Pack<'a> = dyn Fn(&WeightSource, usize) -> Result<Bytes, OpError> + 'a;

impl<'a> PackedPlan<'a> {
    /// Plans `path`, made of `checkpoint`: metadata is copied, linear maps are packed, embeddings stay row by row, and a
    /// model whose embeddings are its output map too gets that as a packed tensor of its own. A projector is not part of
    /// it.
    ///
    /// # Errors
    /// [`PackError`] if `checkpoint` is no GGUF model, or packed already.
    pub fn new(path: &Path, checkpoint: &'a Checkpoint) -> Result<Self, PackError> {
        let Kind::Gguf(source) = &checkpoint.kind else {
            return Err(PackError::NotGguf(checkpoint.path.clone()));
        };
        if source.get(LAYOUT_KEY).is_some() {
            return Err(PackError::Packed(checkpoint.path.clone()));
        }
        // What is said anew here, and how the source was cut into files.
        let own = |key: &str| key == "general.alignment" || key.starts_with("split.");
        let mut metadata: Vec<(&str, Value)> =
            source.iter().filter(|(key, _)| !own(key)).map(|(key, value)| (key, value.clone())).collect();
        metadata.push(("general.alignment", Value::U32(ALIGNMENT)));
        metadata.push((LAYOUT_KEY, Value::U32(packed::VERSION)));
        metadata.push((ROWS_KEY, Value::U32(packed::ROWS as u32)));
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

    /// Tensors that are packed, and their bytes.
    pub fn packed(&self) -> (usize, usize) {
        self.count(|dtype| matches!(dtype, DType::Packed(_)))
    }

    /// Tensors that stay row by row, and their bytes.
    pub fn rows(&self) -> (usize, usize) {
        self.count(|dtype| !matches!(dtype, DType::Packed(_)))
    }

    fn count(&self, is_meant: impl Fn(DType) -> bool) -> (usize, usize) {
        let meant = self.tensors.iter().filter(|(_, dtype, _)| is_meant(*dtype));
        let size = |dtype: DType, tensor: &Tensor| dtype.size_bytes(&tensor.shape).unwrap_or(0);
        meant.fold((0, 0), |(n, bytes), (_, dtype, tensor)| (n + 1, bytes + size(*dtype, tensor)))
    }

    /// Writes the file. `pack` makes row groups; `progress` is told the bytes of every piece, and if it answers `false`
    /// the file is given up. Whether it was written.
    ///
    /// # Errors
    /// [`PackError`] if the file can not be written or a weight not packed.
    pub fn write(
        self,
        path: &Path,
        pack: &Pack<'_>,
        progress: &mut dyn FnMut(usize) -> bool,
    ) -> Result<bool, PackError> {
        let mut file = Writer::create(path, self.layout)?;
        for (_, dtype, tensor) in self.tensors {
            let (DType::Packed(format), [matrices @ .., n_out, n_in]) = (dtype, tensor.shape.as_slice()) else {
                file.write(&tensor.bytes)?;
                if !progress(tensor.bytes.len()) {
                    return Ok(false);
                }
                continue;
            };
            let n_matrices = matrices.iter().product();
            let shape = [n_matrices, *n_out, *n_in];
            let source = WeightSource::new(tensor.bytes.clone(), format, Orientation::OutIn, shape)?;
            for matrix in 0..n_matrices {
                let packed = pack(&source, matrix)?;
                file.write(&packed)?;
                if !progress(packed.len()) {
                    return Ok(false);
                }
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
