//! Numbers and lists as they come, before they are checked.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde::ser::{Serialize, Serializer};

use crate::error::Error;

/// A number that has to be whole, whatever its size: a bound can then be named for every number.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Whole {
    /// A whole number.
    Is(i128),
    /// Something else.
    IsNot(f64),
}

/// A number, whatever its size.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Real(pub f64);

impl Whole {
    /// The number, which has to lie between `low` and `high`.
    ///
    /// # Errors
    /// [`Error::Field`] naming `field` and the bounds.
    pub fn within<T: TryFrom<i128>>(self, field: &str, low: i128, high: i128) -> Result<T, Error> {
        let shown = match self {
            Self::Is(value) if (low..=high).contains(&value) => match T::try_from(value) {
                Ok(value) => return Ok(value),
                Err(_) => value.to_string(),
            },
            Self::Is(value) => value.to_string(),
            Self::IsNot(value) => value.to_string(),
        };
        Err(Error::field(field, format!("is {shown}; it must be a whole number from {low} to {high}")))
    }
}

impl<'de> Deserialize<'de> for Whole {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Numbers;
        impl Visitor<'_> for Numbers {
            type Value = Whole;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a whole number")
            }
            fn visit_u64<E>(self, value: u64) -> Result<Whole, E> {
                Ok(Whole::Is(value.into()))
            }
            fn visit_i64<E>(self, value: i64) -> Result<Whole, E> {
                Ok(Whole::Is(value.into()))
            }
            fn visit_f64<E>(self, value: f64) -> Result<Whole, E> {
                Ok(Whole::IsNot(value))
            }
        }
        deserializer.deserialize_any(Numbers)
    }
}

impl<'de> Deserialize<'de> for Real {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        f64::deserialize(deserializer).map(Self)
    }
}

/// One value, or a list of them.
#[derive(Debug, Clone, PartialEq)]
pub enum OneOrMany<T> {
    /// One text.
    One(String),
    /// A list.
    Many(Vec<T>),
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for OneOrMany<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Either<T> {
            type Value = OneOrMany<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text or a list")
            }
            fn visit_str<E>(self, text: &str) -> Result<OneOrMany<T>, E> {
                Ok(OneOrMany::One(text.to_owned()))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<OneOrMany<T>, A::Error> {
                let mut many = Vec::new();
                while let Some(value) = list.next_element()? {
                    many.push(value);
                }
                Ok(OneOrMany::Many(many))
            }
        }
        deserializer.deserialize_any(Either(PhantomData))
    }
}

impl<T: Serialize> Serialize for OneOrMany<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::One(text) => serializer.serialize_str(text),
            Self::Many(list) => list.serialize(serializer),
        }
    }
}

/// `{"1234": -5}`: what is added to the logits of tokens.
#[derive(Debug, Clone, PartialEq)]
pub struct Bias(pub Vec<(u32, f32)>);

impl<'de> Deserialize<'de> for Bias {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Bias;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of token ids and numbers")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Bias, A::Error> {
                let mut entries: Vec<(u32, f32)> = Vec::new();
                let mut seen = std::collections::BTreeSet::new();
                while let Some((key, value)) = map.next_entry::<String, f64>()? {
                    let id = key.parse().map_err(|_| A::Error::custom(format!("{key:?} is no token id")))?;
                    if !seen.insert(id) {
                        return Err(A::Error::custom(format!("token {id} is given twice")));
                    }
                    entries.push((id, value as f32));
                }
                Ok(Bias(entries))
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_kept_until_their_bounds_are_known() {
        let of = |text: &str| serde_json::from_str::<Whole>(text).ok();
        assert_eq!(of("8"), Some(Whole::Is(8)));
        assert_eq!(of("-1"), Some(Whole::Is(-1)));
        assert_eq!(of("18446744073709551615"), Some(Whole::Is(18_446_744_073_709_551_615)));
        assert_eq!(of("18446744073709551616"), Some(Whole::IsNot(18_446_744_073_709_551_616.0)));
        assert_eq!(of("1.5"), Some(Whole::IsNot(1.5)));
        assert_eq!(of("\"1\""), None);
        assert_eq!(Whole::Is(8).within::<u32>("n", 1, 8), Ok(8));
        let error = Whole::Is(9).within::<u32>("n", 1, 8).expect_err("too many");
        assert_eq!(error, Error::field("n", "is 9; it must be a whole number from 1 to 8"));
        assert!(serde_json::from_str::<Bias>(r#"{"1":1,"01":2}"#).is_err_and(|e| e.to_string().contains("twice")));
    }
}
