//! Reads a typed object from a [`Node`], noting the fields that no type knows.
//!
//! Strict as the Kubernetes API: a number is no string. A field without value counts as
//! absent; a list item without value is an error.

pub(crate) mod spelling;

use std::cell::RefCell;
use std::fmt;

use serde::de::{self, DeserializeSeed, Deserializer, IntoDeserializer, Visitor};
use serde::forward_to_deserialize_any;

use crate::kinds::unused_fields::{self, Treatment};
use crate::node::{Entry, Node, Position, Value};

/// A field that was read over.
#[derive(Debug)]
pub(crate) struct Remark {
    pub(crate) position: Position,
    pub(crate) field: String,
    pub(crate) kind: RemarkKind,
}

#[derive(Debug)]
pub(crate) enum RemarkKind {
    Unknown { suggestion: Option<&'static str> },
    NotHonoured,
}

#[derive(Debug)]
pub(crate) struct ReadError {
    /// Set by the innermost reader the error passes.
    pub(crate) place: Option<(Position, String)>,
    pub(crate) message: String,
}

/// Reads `T` and what was not used on the way.
pub(crate) fn read<T: de::DeserializeOwned>(node: &Node) -> Result<(T, Vec<Remark>), ReadError> {
    let remarks = RefCell::new(Vec::new());
    let value = T::deserialize(Reader {
        node,
        position: node.position,
        path: &Path::Root,
        remarks: &remarks,
    })?;
    Ok((value, remarks.into_inner()))
}

#[derive(Clone, Copy)]
enum Path<'a> {
    Root,
    Key(&'a Path<'a>, &'a str),
    Index(&'a Path<'a>, usize),
}

#[derive(Clone, Copy)]
struct Reader<'de, 'a> {
    node: &'de Node,
    /// Of the key, for values that are not scalars.
    position: Position,
    path: &'a Path<'a>,
    remarks: &'a RefCell<Vec<Remark>>,
}

// === impl Path ===

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => Ok(()),
            Self::Key(Path::Root, key) => f.write_str(key),
            Self::Key(parent, key) if key.contains(['.', '/', '[']) => {
                write!(f, "{parent}[\"{key}\"]")
            }
            Self::Key(parent, key) => write!(f, "{parent}.{key}"),
            Self::Index(parent, index) => write!(f, "{parent}[{index}]"),
        }
    }
}

// === impl ReadError ===

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for ReadError {}

impl de::Error for ReadError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self {
            place: None,
            message: message.to_string(),
        }
    }

    fn missing_field(field: &'static str) -> Self {
        Self::custom(format_args!("has no {field}: add it"))
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        Self::custom(format_args!(
            "{variant:?} is not one of {}",
            expected.join(", ")
        ))
    }
}

// === impl Reader ===

impl Reader<'_, '_> {
    fn remark(&self, kind: RemarkKind) {
        self.remarks.borrow_mut().push(Remark {
            position: self.position,
            field: self.path.to_string(),
            kind,
        });
    }

    fn at(&self, mut error: ReadError) -> ReadError {
        if error.place.is_none() {
            let position = match self.node.value {
                Value::Mapping(_) | Value::Sequence(_) => self.position,
                _ => self.node.position,
            };
            error.place = Some((position, self.path.to_string()));
        }
        error
    }

    fn mismatch(&self, wanted: &dyn fmt::Display) -> ReadError {
        self.at(de::Error::custom(format_args!(
            "must be {wanted}, not {}",
            self.node.describe()
        )))
    }

    fn integer<T: TryFrom<i64>>(&self, low: i64, high: u64) -> Result<T, ReadError> {
        let wanted = format!("a whole number from {low} to {high}");
        match self.node.value {
            Value::Integer(value) => T::try_from(value).map_err(|_| self.mismatch(&wanted)),
            _ => Err(self.mismatch(&wanted)),
        }
    }
}

macro_rules! integers {
    ($($method:ident $visit:ident $kind:ident,)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
            let value = self.integer($kind::MIN as i64, $kind::MAX as u64)?;
            visitor.$visit::<ReadError>(value).map_err(|error| self.at(error))
        }
    )*};
}

impl<'de> Deserializer<'de> for Reader<'de, '_> {
    type Error = ReadError;

    integers! {
        deserialize_i8 visit_i8 i8,
        deserialize_i16 visit_i16 i16,
        deserialize_i32 visit_i32 i32,
        deserialize_i64 visit_i64 i64,
        deserialize_u8 visit_u8 u8,
        deserialize_u16 visit_u16 u16,
        deserialize_u32 visit_u32 u32,
        deserialize_u64 visit_u64 u64,
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        match &self.node.value {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::Integer(value) => visitor.visit_i64(*value),
            Value::Unsigned(value) => visitor.visit_u64(*value),
            Value::Float(value) => visitor.visit_f64(*value),
            Value::String(value) => visitor.visit_borrowed_str(value),
            Value::Sequence(items) => visitor.visit_seq(Items {
                parent: self,
                items: items.iter().enumerate(),
            }),
            Value::Mapping(entries) => visitor.visit_map(Fields {
                parent: self,
                entries: entries.iter(),
                known: None,
                current: None,
            }),
        }
        .map_err(|error| self.at(error))
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        match self.node.value {
            Value::Bool(value) => visitor.visit_bool(value),
            _ => Err(self.mismatch(&"true or false")),
        }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        match &self.node.value {
            Value::String(text) => visitor
                .visit_borrowed_str(text)
                .map_err(|error| self.at(error)),
            Value::Bool(_) | Value::Integer(_) | Value::Unsigned(_) | Value::Float(_) => {
                Err(self.mismatch(&"a text: put it in quotes"))
            }
            Value::Null | Value::Sequence(_) | Value::Mapping(_) => Err(self.mismatch(&"a text")),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        match self.node.value {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        match &self.node.value {
            Value::Sequence(_) => self.deserialize_any(visitor),
            _ => Err(self.mismatch(&"a list")),
        }
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        match &self.node.value {
            Value::Mapping(_) => self.deserialize_any(visitor),
            _ => Err(self.mismatch(&"a mapping")),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        let Value::Mapping(entries) = &self.node.value else {
            return Err(self.mismatch(&"a mapping"));
        };
        visitor
            .visit_map(Fields {
                parent: self,
                entries: entries.iter(),
                known: Some((name, fields)),
                current: None,
            })
            .map_err(|error| self.at(error))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        match &self.node.value {
            Value::String(variant) => visitor
                .visit_enum(variant.as_str().into_deserializer())
                .map_err(|error| self.at(error)),
            _ => Err(self.mismatch(&format_args!("one of {}", variants.join(", ")))),
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        visitor.visit_unit()
    }

    forward_to_deserialize_any! {
        i128 u128 f32 f64 char bytes byte_buf unit unit_struct tuple tuple_struct identifier
    }
}

struct Items<'de, 'a> {
    parent: Reader<'de, 'a>,
    items: std::iter::Enumerate<std::slice::Iter<'de, Node>>,
}

impl<'de> de::SeqAccess<'de> for Items<'de, '_> {
    type Error = ReadError;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, ReadError> {
        let Some((index, node)) = self.items.next() else {
            return Ok(None);
        };
        let path = Path::Index(self.parent.path, index);
        let reader = Reader {
            node,
            position: node.position,
            path: &path,
            remarks: self.parent.remarks,
        };
        if node.is_null() {
            return Err(reader.at(de::Error::custom(
                "has no value: give it one or remove the item",
            )));
        }
        seed.deserialize(reader)
            .map(Some)
            .map_err(|error| reader.at(error))
    }
}

struct Fields<'de, 'a> {
    parent: Reader<'de, 'a>,
    entries: std::slice::Iter<'de, Entry>,
    /// Name and fields of the struct; none for a map, whose keys are the user's.
    known: Option<(&'static str, &'static [&'static str])>,
    current: Option<&'de Entry>,
}

impl<'de> de::MapAccess<'de> for Fields<'de, '_> {
    type Error = ReadError;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, ReadError> {
        for entry in self.entries.by_ref() {
            let path = Path::Key(self.parent.path, &entry.key);
            let reader = Reader {
                node: &entry.value,
                position: entry.key_position,
                path: &path,
                remarks: self.parent.remarks,
            };
            if let Some((name, fields)) = self.known
                && !fields.contains(&entry.key.as_str())
            {
                let header = matches!(path, Path::Key(Path::Root, "apiVersion" | "kind"));
                match unused_fields::treatment(name, &entry.key, &entry.value.value) {
                    _ if header => {}
                    Some(Treatment::Accept) => {}
                    Some(Treatment::Warn) => reader.remark(RemarkKind::NotHonoured),
                    None => reader.remark(RemarkKind::Unknown {
                        suggestion: spelling::closest(&entry.key, fields),
                    }),
                }
                continue;
            }
            if entry.value.is_null() {
                continue;
            }
            self.current = Some(entry);
            return seed
                .deserialize(entry.key.as_str().into_deserializer())
                .map(Some)
                .map_err(|error: ReadError| reader.at(error));
        }
        Ok(None)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, ReadError> {
        let Some(entry) = self.current.take() else {
            return Err(de::Error::custom("a value was asked for before its key"));
        };
        let path = Path::Key(self.parent.path, &entry.key);
        let reader = Reader {
            node: &entry.value,
            position: entry.key_position,
            path: &path,
            remarks: self.parent.remarks,
        };
        seed.deserialize(reader).map_err(|error| reader.at(error))
    }
}
