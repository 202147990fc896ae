//! A document as a tree in which every value knows its line and column.

use std::collections::HashSet;
use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;

/// Line and column, from 1; 0 where unknown (JSON read without positions).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) line: u32,
    pub(crate) column: u32,
}

#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) position: Position,
    pub(crate) value: Value,
}

#[derive(Clone, Debug)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    Integer(i64),
    Unsigned(u64),
    Float(f64),
    String(String),
    Sequence(Vec<Node>),
    Mapping(Vec<Entry>),
}

#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) key_position: Position,
    pub(crate) value: Node,
}

// === impl Node ===

impl Node {
    /// A document without any field.
    pub(crate) fn empty() -> Self {
        Self {
            position: Position::default(),
            value: Value::Mapping(Vec::new()),
        }
    }

    pub(crate) fn is_null(&self) -> bool {
        matches!(self.value, Value::Null)
    }

    pub(crate) fn get(&self, key: &str) -> Option<&Node> {
        self.entry(key).map(|entry| &entry.value)
    }

    fn entry(&self, key: &str) -> Option<&Entry> {
        match &self.value {
            Value::Mapping(entries) => entries.iter().find(|entry| entry.key == key),
            _ => None,
        }
    }

    pub(crate) fn as_str(&self) -> Option<&str> {
        match &self.value {
            Value::String(text) => Some(text),
            _ => None,
        }
    }

    /// The place of a field by its path, or of the nearest ancestor that is there.
    pub(crate) fn locate(&self, path: &str) -> Position {
        let mut position = self.position;
        let mut node = self;
        for segment in segments(path) {
            let next = match segment {
                Segment::Key(key) => node.entry(key).map(|entry| {
                    position = entry.key_position;
                    &entry.value
                }),
                Segment::Index(index) => match &node.value {
                    Value::Sequence(items) => items.get(index).inspect(|item| {
                        position = item.position;
                    }),
                    _ => None,
                },
            };
            match next {
                Some(next) => node = next,
                None => return position,
            }
        }
        match node.value {
            Value::Mapping(_) | Value::Sequence(_) => position,
            _ => node.position,
        }
    }

    /// Plain JSON without positions.
    pub(crate) fn to_json(&self) -> serde_json::Value {
        use serde_json::Value as Json;
        match &self.value {
            Value::Null => Json::Null,
            Value::Bool(value) => Json::Bool(*value),
            Value::Integer(value) => Json::from(*value),
            Value::Unsigned(value) => Json::from(*value),
            Value::Float(value) => Json::from(*value),
            Value::String(value) => Json::String(value.clone()),
            Value::Sequence(items) => Json::Array(items.iter().map(Node::to_json).collect()),
            Value::Mapping(entries) => Json::Object(
                entries
                    .iter()
                    .map(|entry| (entry.key.clone(), entry.value.to_json()))
                    .collect(),
            ),
        }
    }

    /// How messages call the value.
    pub(crate) fn describe(&self) -> String {
        match &self.value {
            Value::Null => "nothing".into(),
            Value::Bool(value) => format!("{value} (a boolean)"),
            Value::Integer(value) => format!("{value} (a number)"),
            Value::Unsigned(value) => format!("{value} (a number)"),
            Value::Float(value) => format!("{value} (a number)"),
            Value::String(value) => format!("{value:?}"),
            Value::Sequence(_) => "a list".into(),
            Value::Mapping(_) => "a mapping".into(),
        }
    }
}

enum Segment<'a> {
    Key(&'a str),
    Index(usize),
}

/// Splits `spec.ports[0].port`; keys that hold dots are quoted: `labels["a.b"]`.
fn segments(path: &str) -> impl Iterator<Item = Segment<'_>> {
    let mut rest = path;
    std::iter::from_fn(move || {
        rest = rest.strip_prefix('.').unwrap_or(rest);
        if rest.is_empty() {
            return None;
        }
        if let Some(quoted) = rest.strip_prefix("[\"") {
            let end = quoted.find("\"]")?;
            rest = &quoted[end + 2..];
            return Some(Segment::Key(&quoted[..end]));
        }
        if let Some(index) = rest.strip_prefix('[') {
            let end = index.find(']')?;
            rest = &index[end + 1..];
            return index[..end].parse().ok().map(Segment::Index);
        }
        let end = rest.find(['.', '[']).unwrap_or(rest.len());
        let key = &rest[..end];
        rest = &rest[end..];
        Some(Segment::Key(key))
    })
}

// === reading ===

/// How a format hands out values and keys: with positions or without.
trait Format {
    type Value<'de>: Deserialize<'de> + Into<Node>;
    type Key<'de>: Deserialize<'de> + Into<(String, Position)>;
}

struct Yaml;
struct Json;

/// A document of JSON, without positions.
pub(crate) struct Unplaced(pub(crate) Node);

struct Key(String, Position);

impl Format for Yaml {
    type Value<'de> = Node;
    type Key<'de> = Key;
}

impl Format for Json {
    type Value<'de> = Unplaced;
    type Key<'de> = UnplacedKey;
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<YamlValue>::deserialize(deserializer)?;
        Ok(Self {
            position: position(&spanned),
            value: spanned.value.0,
        })
    }
}

struct YamlValue(Value);

impl<'de> Deserialize<'de> for YamlValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer
            .deserialize_any(ValueVisitor::<Yaml>(PhantomData))
            .map(Self)
    }
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<String>::deserialize(deserializer)?;
        let position = position(&spanned);
        Ok(Self(spanned.value, position))
    }
}

impl From<Key> for (String, Position) {
    fn from(key: Key) -> Self {
        (key.0, key.1)
    }
}

impl<'de> Deserialize<'de> for Unplaced {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = deserializer.deserialize_any(ValueVisitor::<Json>(PhantomData))?;
        Ok(Self(Node {
            position: Position::default(),
            value,
        }))
    }
}

impl From<Unplaced> for Node {
    fn from(node: Unplaced) -> Self {
        node.0
    }
}

#[derive(Deserialize)]
struct UnplacedKey(String);

impl From<UnplacedKey> for (String, Position) {
    fn from(key: UnplacedKey) -> Self {
        (key.0, Position::default())
    }
}

fn position<T>(spanned: &Spanned<T>) -> Position {
    let clamp = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
    Position {
        line: clamp(spanned.referenced.line()),
        column: clamp(spanned.referenced.column()),
    }
}

struct ValueVisitor<F>(PhantomData<F>);

impl<'de, F: Format> Visitor<'de> for ValueVisitor<F> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Integer(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(i64::try_from(value).map_or(Value::Unsigned(value), Value::Integer))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element::<F::Value<'de>>()? {
            items.push(item.into());
        }
        Ok(Value::Sequence(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut seen = HashSet::new();
        let mut entries = Vec::new();
        while let Some(key) = access.next_key::<F::Key<'de>>()? {
            let (key, key_position) = key.into();
            if !seen.insert(key.clone()) {
                return Err(serde::de::Error::custom(format_args!(
                    "{key:?} is there twice: keep one of them"
                )));
            }
            entries.push(Entry {
                key,
                key_position,
                value: access.next_value::<F::Value<'de>>()?.into(),
            });
        }
        Ok(Value::Mapping(entries))
    }
}
