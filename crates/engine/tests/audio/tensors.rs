//! Reads safetensors files of f32 and f64.

use std::collections::BTreeMap;

pub struct Tensor {
    pub shape: Vec<usize>,
    pub values: Vec<f64>,
}

pub struct Tensors(BTreeMap<String, Tensor>);

impl Tensors {
    pub fn parse(bytes: &[u8]) -> Self {
        let (len, rest) = bytes.split_first_chunk::<8>().unwrap();
        let (header, body) = rest.split_at(usize::try_from(u64::from_le_bytes(*len)).unwrap());
        let header: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(header).unwrap();
        let number = |value: &serde_json::Value| usize::try_from(value.as_u64().unwrap()).unwrap();
        let tensor = |about: &serde_json::Value| {
            let (begin, end) = (number(&about["data_offsets"][0]), number(&about["data_offsets"][1]));
            let data = &body[begin..end];
            let values = match about["dtype"].as_str().unwrap() {
                "F32" => data.as_chunks().0.iter().map(|b| f64::from(f32::from_le_bytes(*b))).collect(),
                "F64" => data.as_chunks().0.iter().map(|b| f64::from_le_bytes(*b)).collect(),
                other => panic!("{other}"),
            };
            Tensor { shape: about["shape"].as_array().unwrap().iter().map(number).collect(), values }
        };
        let tensors = header.iter().filter(|(name, _)| *name != "__metadata__");
        Self(tensors.map(|(name, about)| (name.clone(), tensor(about))).collect())
    }

    pub fn get(&self, name: &str) -> &Tensor {
        self.0.get(name).unwrap_or_else(|| panic!("no tensor {name}"))
    }

    /// Values as the samples that they are.
    pub fn samples(&self, name: &str) -> Vec<f32> {
        self.get(name).values.iter().map(|value| *value as f32).collect()
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}
