//! The metadata of a GGUF file: typed values by key.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use tensor::Bytes;

use super::read::Cursor;
use super::{KEYS_LIMIT, NAME_LIMIT_BYTES};
use crate::FormatError;
use crate::budget::Need;

/// How deep arrays of arrays may go.
const DEPTH_LIMIT: usize = 4;

/// A value of GGUF metadata.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)] // the names say what the values are
pub enum Value {
    U8(u8),
    I8(i8),
    U16(u16),
    I16(i16),
    U32(u32),
    I32(i32),
    F32(f32),
    Bool(bool),
    String(String),
    Array(Array),
    U64(u64),
    I64(i64),
    F64(f64),
}

/// Types of values: number in files, name, bytes of one (0 where they vary).
const TYPES: [(u32, &str, usize); 13] = [
    (0, "u8", 1),
    (1, "i8", 1),
    (2, "u16", 2),
    (3, "i16", 2),
    (4, "u32", 4),
    (5, "i32", 4),
    (6, "f32", 4),
    (7, "bool", 1),
    (STRING, "string", 0),
    (ARRAY, "array", 0),
    (10, "u64", 8),
    (11, "i64", 8),
    (12, "f64", 8),
];
const STRING: u32 = 8;
const ARRAY: u32 = 9;

impl Value {
    /// The number of the value's type in files.
    pub(super) fn type_id(&self) -> u32 {
        match self {
            Self::U8(_) => 0,
            Self::I8(_) => 1,
            Self::U16(_) => 2,
            Self::I16(_) => 3,
            Self::U32(_) => 4,
            Self::I32(_) => 5,
            Self::F32(_) => 6,
            Self::Bool(_) => 7,
            Self::String(_) => STRING,
            Self::Array(_) => ARRAY,
            Self::U64(_) => 10,
            Self::I64(_) => 11,
            Self::F64(_) => 12,
        }
    }

    /// The type's name, for error texts and tables.
    pub fn type_name(&self) -> &'static str {
        type_name(self.type_id())
    }

    /// The value as a whole number, if it is one of an integer type.
    pub fn as_integer(&self) -> Option<i128> {
        match self {
            Self::U8(n) => Some((*n).into()),
            Self::I8(n) => Some((*n).into()),
            Self::U16(n) => Some((*n).into()),
            Self::I16(n) => Some((*n).into()),
            Self::U32(n) => Some((*n).into()),
            Self::I32(n) => Some((*n).into()),
            Self::U64(n) => Some((*n).into()),
            Self::I64(n) => Some((*n).into()),
            _ => None,
        }
    }
}

fn type_name(id: u32) -> &'static str {
    TYPES.iter().find(|(known, ..)| *known == id).map_or("?", |(_, name, _)| name)
}

/// An array of metadata, kept as the file has it: a vocabulary of 200,000 strings costs no more than its bytes.
///
/// The bytes were walked when the file was parsed, so iterating can not fail.
#[derive(Debug, Clone)]
pub struct Array {
    element: u32,
    len: usize,
    bytes: Bytes,
}

impl PartialEq for Array {
    fn eq(&self, other: &Self) -> bool {
        (self.element, self.len, &*self.bytes) == (other.element, other.len, &*other.bytes)
    }
}

impl Array {
    /// Elements in the array.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The name of the elements' type.
    pub fn element_name(&self) -> &'static str {
        type_name(self.element)
    }

    /// The elements, if they are strings.
    pub fn strings(&self) -> Option<impl Iterator<Item = &str>> {
        let mut cursor = Cursor::new(Path::new(""), &self.bytes);
        let next = move || cursor.text("", usize::MAX).ok();
        (self.element == STRING).then(|| std::iter::from_fn(next))
    }

    /// The elements, if they are neither strings nor arrays.
    pub fn scalars(&self) -> Option<impl Iterator<Item = Value>> {
        let mut cursor = Cursor::new(Path::new(""), &self.bytes);
        let element = self.element;
        let next = move || read_scalar(&mut cursor, element, "").ok();
        (!matches!(element, STRING | ARRAY)).then(|| std::iter::from_fn(next))
    }

    /// The elements, if they are of an integer type.
    pub fn integers(&self) -> Option<impl Iterator<Item = i128>> {
        let is_integer = matches!(self.element, 0..=5 | 10 | 11);
        self.scalars().filter(|_| is_integer).map(|scalars| scalars.filter_map(|value| value.as_integer()))
    }

    /// The elements, if they are f32.
    pub fn floats(&self) -> Option<impl Iterator<Item = f32>> {
        let float = |value| if let Value::F32(value) = value { Some(value) } else { None };
        self.scalars().filter(|_| self.element == 6).map(|scalars| scalars.filter_map(float))
    }

    /// An array of strings.
    pub fn of_strings<'a>(strings: impl IntoIterator<Item = &'a str>) -> Self {
        let (mut bytes, mut len) = (Vec::new(), 0);
        for text in strings {
            super::write::put_text(&mut bytes, text);
            len += 1;
        }
        Self { element: STRING, len, bytes: bytes.into() }
    }

    /// An array of i32, the type of token kinds.
    pub fn of_i32(values: &[i32]) -> Self {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Self { element: 5, len: values.len(), bytes: bytes.into() }
    }

    /// An array of f32.
    pub fn of_f32(values: &[f32]) -> Self {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Self { element: 6, len: values.len(), bytes: bytes.into() }
    }

    /// The element type's number, the length and the bytes as the file has them.
    pub(super) fn parts(&self) -> (u32, usize, &[u8]) {
        (self.element, self.len, &self.bytes)
    }
}

/// All metadata of one file.
#[derive(Debug, Clone)]
pub struct Metadata {
    file: PathBuf,
    values: BTreeMap<String, Value>,
}

impl Metadata {
    /// The metadata of a file `file` that is to be written; of a key given twice the last value counts.
    pub fn new(file: &Path, values: impl IntoIterator<Item = (String, Value)>) -> Self {
        Self { file: file.into(), values: values.into_iter().collect() }
    }

    /// Reads `need.n_keys` keys with their values at `cursor`, which is in `file_bytes`, and adds to `need` what their
    /// copies take.
    pub(super) fn read(cursor: &mut Cursor<'_>, file_bytes: &Bytes, need: &mut Need) -> Result<Self, FormatError> {
        let mut values = BTreeMap::new();
        for _ in 0..need.n_keys.min(KEYS_LIMIT) {
            let key = cursor.text("metadata key", NAME_LIMIT_BYTES)?;
            if key.is_empty() || values.contains_key(key) {
                let why = if key.is_empty() { "is empty".into() } else { format!("\"{key}\" appears twice") };
                return Err(FormatError::corrupt(cursor.file(), "metadata key", why));
            }
            let value = read_value(cursor, file_bytes, key)?;
            need.strings_bytes += key.len() + if let Value::String(text) = &value { text.len() } else { 0 };
            values.insert(key.into(), value);
        }
        Ok(Self { file: cursor.file().into(), values })
    }

    /// The file that the metadata is of.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// All keys with their values, in order of key.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.values.iter().map(|(key, value)| (key.as_str(), value))
    }

    /// The value of `key`.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.values.get(key)
    }

    fn wrong(&self, key: &str, value: &Value, wanted: &str) -> FormatError {
        let got = match value {
            Value::Array(_) | Value::String(_) => value.type_name().into(),
            other => format!("{other:?}"),
        };
        FormatError::corrupt(&self.file, key, format!("is {got}, not {wanted}"))
    }

    fn required<T>(&self, key: &str, found: Option<T>) -> Result<T, FormatError> {
        found.ok_or_else(|| FormatError::missing(&self.file, key))
    }

    /// A whole number that fits u32, of whatever integer type, if the key is there.
    ///
    /// # Errors
    /// [`FormatError::Corrupt`] if it is something else.
    pub fn find_u32(&self, key: &str) -> Result<Option<u32>, FormatError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let number = value.as_integer().and_then(|n| u32::try_from(n).ok());
        number.map(Some).ok_or_else(|| self.wrong(key, value, "a whole number from 0 to 4294967295"))
    }

    /// As [`find_u32`](Self::find_u32), [`FormatError::Missing`] without the key.
    ///
    /// # Errors
    /// If it is missing or something else.
    pub fn get_u32(&self, key: &str) -> Result<u32, FormatError> {
        self.required(key, self.find_u32(key)?)
    }

    /// As [`find_u32`](Self::find_u32), as a size.
    ///
    /// # Errors
    /// [`FormatError::Corrupt`] if it is something else.
    pub fn find_count(&self, key: &str) -> Result<Option<usize>, FormatError> {
        Ok(self.find_u32(key)?.and_then(|n| usize::try_from(n).ok()))
    }

    /// A finite number of a float type, if the key is there.
    ///
    /// # Errors
    /// [`FormatError::Corrupt`] if it is something else.
    pub fn find_f32(&self, key: &str) -> Result<Option<f32>, FormatError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let number = match value {
            Value::F32(n) => Some(*n),
            Value::F64(n) => Some(*n as f32), // rounding is meant
            _ => None,
        };
        let number = number.filter(|n| n.is_finite());
        number.map(Some).ok_or_else(|| self.wrong(key, value, "a finite number"))
    }

    /// As [`find_f32`](Self::find_f32), [`FormatError::Missing`] without the key.
    ///
    /// # Errors
    /// If it is missing or something else.
    pub fn get_f32(&self, key: &str) -> Result<f32, FormatError> {
        self.required(key, self.find_f32(key)?)
    }

    /// A truth value, if the key is there.
    ///
    /// # Errors
    /// [`FormatError::Corrupt`] if it is something else.
    pub fn find_bool(&self, key: &str) -> Result<Option<bool>, FormatError> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Bool(value)) => Ok(Some(*value)),
            Some(other) => Err(self.wrong(key, other, "a bool")),
        }
    }

    /// As [`find_bool`](Self::find_bool), [`FormatError::Missing`] without the key.
    ///
    /// # Errors
    /// If it is missing or something else.
    pub fn get_bool(&self, key: &str) -> Result<bool, FormatError> {
        self.required(key, self.find_bool(key)?)
    }

    /// A string, if the key is there.
    ///
    /// # Errors
    /// [`FormatError::Corrupt`] if it is something else.
    pub fn find_str(&self, key: &str) -> Result<Option<&str>, FormatError> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::String(value)) => Ok(Some(value)),
            Some(other) => Err(self.wrong(key, other, "a string")),
        }
    }

    /// As [`find_str`](Self::find_str), [`FormatError::Missing`] without the key.
    ///
    /// # Errors
    /// If it is missing or something else.
    pub fn get_str(&self, key: &str) -> Result<&str, FormatError> {
        self.required(key, self.find_str(key)?)
    }

    /// An array, if the key is there.
    ///
    /// # Errors
    /// [`FormatError::Corrupt`] if it is something else.
    pub fn find_array(&self, key: &str) -> Result<Option<&Array>, FormatError> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Array(value)) => Ok(Some(value)),
            Some(other) => Err(self.wrong(key, other, "an array")),
        }
    }

    /// As [`find_array`](Self::find_array), [`FormatError::Missing`] without the key.
    ///
    /// # Errors
    /// If it is missing or something else.
    pub fn get_array(&self, key: &str) -> Result<&Array, FormatError> {
        self.required(key, self.find_array(key)?)
    }
}

fn read_value(cursor: &mut Cursor<'_>, file_bytes: &Bytes, key: &str) -> Result<Value, FormatError> {
    match cursor.u32(key)? {
        STRING => Ok(Value::String(cursor.text(key, usize::MAX)?.into())),
        ARRAY => {
            let element = cursor.u32(key)?;
            let len = cursor.count(key, least_bytes(cursor, element, key)?)?;
            let begin = cursor.at();
            skip_elements(cursor, element, len, key, DEPTH_LIMIT)?;
            let bytes = file_bytes.slice(begin..cursor.at());
            let bytes = bytes.ok_or_else(|| FormatError::corrupt(cursor.file(), key, "lies outside of the file"))?;
            Ok(Value::Array(Array { element, len, bytes }))
        }
        scalar => read_scalar(cursor, scalar, key),
    }
}

/// The least that one element takes.
fn least_bytes(cursor: &Cursor<'_>, element: u32, key: &str) -> Result<usize, FormatError> {
    match TYPES.iter().find(|(known, ..)| *known == element) {
        Some((STRING, ..)) => Ok(8),
        Some((ARRAY, ..)) => Ok(4 + 8),
        Some((_, _, bytes)) => Ok(*bytes),
        None => Err(FormatError::corrupt(cursor.file(), key, format!("has the unknown type {element}"))),
    }
}

fn read_scalar(cursor: &mut Cursor<'_>, type_id: u32, key: &str) -> Result<Value, FormatError> {
    Ok(match type_id {
        0 => Value::U8(u8::from_le_bytes(cursor.array(key)?)),
        1 => Value::I8(i8::from_le_bytes(cursor.array(key)?)),
        2 => Value::U16(u16::from_le_bytes(cursor.array(key)?)),
        3 => Value::I16(i16::from_le_bytes(cursor.array(key)?)),
        4 => Value::U32(u32::from_le_bytes(cursor.array(key)?)),
        5 => Value::I32(i32::from_le_bytes(cursor.array(key)?)),
        6 => Value::F32(f32::from_le_bytes(cursor.array(key)?)),
        7 => match cursor.array(key)? {
            [0] => Value::Bool(false),
            [1] => Value::Bool(true),
            [other] => return Err(FormatError::corrupt(cursor.file(), key, format!("is the bool {other}"))),
        },
        10 => Value::U64(u64::from_le_bytes(cursor.array(key)?)),
        11 => Value::I64(i64::from_le_bytes(cursor.array(key)?)),
        12 => Value::F64(f64::from_le_bytes(cursor.array(key)?)),
        other => return Err(FormatError::corrupt(cursor.file(), key, format!("has the unknown type {other}"))),
    })
}

/// Walks over the elements of an array; strings are checked to be text, bools to be bools.
fn skip_elements(
    cursor: &mut Cursor<'_>,
    element: u32,
    len: usize,
    key: &str,
    depth: usize,
) -> Result<(), FormatError> {
    match element {
        STRING => (0..len).try_for_each(|_| cursor.text(key, usize::MAX).map(|_| ())),
        7 => (0..len).try_for_each(|_| read_scalar(cursor, element, key).map(|_| ())),
        ARRAY if depth == 0 => Err(FormatError::corrupt(cursor.file(), key, "arrays are nested too deep")),
        ARRAY => (0..len).try_for_each(|_| {
            let inner = cursor.u32(key)?;
            let inner_len = cursor.count(key, least_bytes(cursor, inner, key)?)?;
            skip_elements(cursor, inner, inner_len, key, depth - 1)
        }),
        scalar => {
            let bytes = least_bytes(cursor, scalar, key)?.checked_mul(len);
            cursor.take(bytes.unwrap_or(usize::MAX), key).map(|_| ())
        }
    }
}
