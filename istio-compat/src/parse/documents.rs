//! Splits a file into documents, within limits that no honest file reaches.

use serde_saphyr::options::DuplicateKeyPolicy;

use crate::node::{Node, Position, Unplaced};
use crate::parse::MAX_FILE_SIZE;

/// Whether JSON, which is read faster without, gets positions.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Positions {
    WhereCheap,
    Always,
}

#[derive(Debug)]
pub(super) struct DocumentError {
    pub(super) position: Position,
    pub(super) message: String,
}

pub(super) struct Documents {
    pub(super) nodes: Vec<Node>,
    /// Whether the nodes know their positions.
    pub(super) placed: bool,
}

pub(super) fn read(content: &[u8], positions: Positions) -> Result<Documents, DocumentError> {
    if content.len() > MAX_FILE_SIZE {
        return Err(DocumentError {
            position: Position::default(),
            message: format!(
                "the file has {} bytes, more than {MAX_FILE_SIZE}: split it",
                content.len()
            ),
        });
    }
    let text = std::str::from_utf8(content).map_err(|error| DocumentError {
        position: position_of(&content[..error.valid_up_to()]),
        message: "the file is not UTF-8 text".to_owned(),
    })?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if positions == Positions::WhereCheap
        && text.trim_start().starts_with('{')
        && let Ok(Unplaced(node)) = serde_json::from_str(text)
    {
        return Ok(Documents {
            nodes: vec![node],
            placed: false,
        });
    }
    Ok(Documents {
        nodes: yaml(text)?,
        placed: true,
    })
}

/// Room for the deepest document that the budget admits, which takes tens of kilobytes a
/// level without optimization: more than the threads of callers have.
const STACK_SIZE: usize = 16 * 1024 * 1024;

fn yaml(text: &str) -> Result<Vec<Node>, DocumentError> {
    let read = std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(STACK_SIZE);
        let handle = thread.spawn_scoped(scope, || yaml_documents(text)).ok()?;
        handle.join().ok()
    });
    read.unwrap_or_else(|| {
        Err(DocumentError {
            position: Position::default(),
            message: "the file could not be read: there is no memory for it".to_owned(),
        })
    })
}

fn yaml_documents(text: &str) -> Result<Vec<Node>, DocumentError> {
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_documents: 20_000,
            max_events: 8_000_000,
            max_nodes: 4_000_000,
            max_aliases: 10_000,
            max_anchors: 10_000,
            enforce_alias_anchor_ratio: false,
        },
        duplicate_keys: DuplicateKeyPolicy::Error,
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: 100_000,
        },
        with_snippet: false,
        emit_comments: false,
    };
    serde_saphyr::from_multiple_with_options::<Node>(text, options).map_err(|error| {
        let position = error.location().map_or(Position::default(), |location| {
            let clamp = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
            Position {
                line: clamp(location.line()),
                column: clamp(location.column()),
            }
        });
        DocumentError {
            position,
            message: explain(text, position, &error.without_snippet().to_string()),
        }
    })
}

/// The parser's words without the place, which it repeats, and the one mistake it does
/// not name: a tab in the indentation, met at the end of the line before.
fn explain(text: &str, position: Position, message: &str) -> String {
    let indented_by_tab = (position.line as usize)
        .checked_sub(1)
        .is_some_and(|index| {
            text.lines().skip(index).take(2).any(|line| {
                let indent = line.len() - line.trim_start().len();
                line[..indent].contains('\t')
            })
        });
    if indented_by_tab {
        return "YAML is indented with spaces, not tabs: replace the tab".to_owned();
    }
    let place = format!(" at line {}, column {}", position.line, position.column);
    message.strip_suffix(&place).unwrap_or(message).to_owned()
}

fn position_of(before: &[u8]) -> Position {
    let newlines = before.iter().filter(|byte| **byte == b'\n').count();
    let column = before
        .iter()
        .rev()
        .take_while(|byte| **byte != b'\n')
        .count();
    let clamp = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    Position {
        line: clamp(newlines + 1),
        column: clamp(column + 1),
    }
}
