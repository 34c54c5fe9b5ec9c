//! Which parameter is updated how, by its name in the checkpoint and its shape.

/// How a parameter is updated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Group {
    /// By AdamW, with weight decay: matrices.
    Decayed,
    /// By AdamW, without: vectors, norms, embeddings.
    Undecayed,
    /// By Muon, if it is switched on, else as [`Decayed`](Self::Decayed): matrices between the model's ends.
    Matrices(Matrices),
}

/// The matrices that a parameter is made of, one after another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Matrices {
    /// Rows of each.
    pub rows: usize,
    /// Columns of each.
    pub columns: usize,
    /// Maps whose columns stand side by side in each: 2 where gate and up share a tensor.
    pub parts: usize,
    /// What a row is.
    pub rows_are: Side,
}

/// A side of a map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// What comes out.
    Outputs,
    /// What goes in.
    Inputs,
}

impl Group {
    /// The group of the parameter that is called `name` in a Hugging Face checkpoint.
    ///
    /// Matrices are the two-dimensional weights of a layer, of what brings a tower's rows to the decoder's width, and each
    /// expert's of the fused three-dimensional ones, but for the router's, whose rows are directions of their own, and an
    /// adapter's, which are thin.
    pub fn of(name: &str, shape: &[usize]) -> Self {
        let parts: Vec<&str> = name.split('.').filter(|part| !matches!(*part, "weight" | "bias")).collect();
        let module = parts.last().copied().unwrap_or_default();
        if shape.len() < 2 || module.contains("norm") || module.contains("embed") {
            return Self::Undecayed;
        }
        let is_inside =
            parts.iter().any(|part| *part == "layers" || *part == "vision_adapter" || part.ends_with("_projector"));
        let is_small = module == "router" || parts.iter().any(|part| part.starts_with("lora_"));
        match *shape {
            [rows, columns] if is_inside && !is_small => {
                Self::matrices(Matrices { rows, columns, parts: 1, rows_are: Side::Outputs })
            }
            [_, rows, columns] if is_inside && parts.contains(&"experts") => {
                let parts = if module == "gate_up_proj" { 2 } else { 1 };
                Self::matrices(Matrices { rows, columns, parts, rows_are: Side::Inputs })
            }
            _ => Self::Decayed,
        }
    }

    /// Muon's group, unless the shape leaves nothing to make orthogonal.
    fn matrices(matrices: Matrices) -> Self {
        let Matrices { rows, columns, parts, .. } = matrices;
        if rows == 0 || columns == 0 || !columns.is_multiple_of(parts) {
            return Self::Decayed;
        }
        Self::Matrices(matrices)
    }
}
