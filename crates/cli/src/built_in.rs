//! The model that this program carries along: `nano`, Llama 4 in small, with its eyes and ears.

use anyhow::Result;
use formats::Checkpoint;

/// What it is called, with `-m` and on the wire.
pub const NAME: &str = "nano";

/// Bytes that begin at a multiple of 64: tensors then begin at one of 32, as in a mapped file.
#[repr(C, align(64))]
struct Aligned<T: ?Sized>(T);

static MODEL: &Aligned<[u8]> = &Aligned(*include_bytes!("../../../models/nano/nano.gguf"));
static PROJECTOR: &Aligned<[u8]> = &Aligned(*include_bytes!("../../../models/nano/mmproj-nano.gguf"));

/// Opens it where it lies: nothing is copied, nothing is written.
///
/// # Errors
/// Exit code 5 if this program was made with other files than a model's.
pub fn open() -> Result<Checkpoint> {
    Ok(Checkpoint::built_in(NAME, &MODEL.0, Some(&PROJECTOR.0))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_tensor_lies_in_the_program_aligned() {
        let checkpoint = open().unwrap();
        let projector = checkpoint.projector.as_ref().unwrap();
        for (tensors, file) in [
            (checkpoint.tensors.values().collect::<Vec<_>>(), &MODEL.0),
            (projector.tensors.iter().collect(), &PROJECTOR.0),
        ] {
            assert!(!tensors.is_empty());
            for tensor in tensors {
                let range = tensor.bytes.as_ptr_range();
                assert!(file.as_ptr_range().start <= range.start && range.end <= file.as_ptr_range().end);
                assert!(tensor.bytes.as_ptr().addr().is_multiple_of(32), "{}", tensor.name);
            }
        }
        assert!(MODEL.0.len() + PROJECTOR.0.len() <= 25 << 20, "the program is to stay small");
        assert!(checkpoint.config.vision.is_some() && checkpoint.config.audio.is_some());
    }
}
