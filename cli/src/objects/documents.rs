//! The YAML documents of one file, as text.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context;
use istio_compat::object::Object;
use istio_compat::parse::{Raw, parse};

use crate::exit::{Exit, OrExit, Result};

/// A file taken apart at its `---` lines.
pub(super) struct Documents {
    path: PathBuf,
    documents: Vec<Document>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Document {
    /// The first line of the text, counted from 1.
    pub(super) line: u32,
    /// Without the `---` in front.
    pub(super) text: String,
    /// JSON, or a List: holds objects that have no text of their own.
    whole: bool,
}

/// Takes a text apart at its `---` lines.
pub(super) fn split(text: &str) -> Vec<Document> {
    let mut documents = vec![Document::starting_at(1)];
    for (index, line) in text.split_inclusive('\n').enumerate() {
        let rest = line.trim_end().strip_prefix("---");
        match (rest, documents.last_mut()) {
            (Some(rest), _) if rest.is_empty() || rest.starts_with(' ') => {
                // A comment or content may follow on the line itself.
                let mut document = Document::starting_at(index as u32 + 2);
                if !rest.trim().is_empty() {
                    document.line -= 1;
                    document.text = format!("{}\n", rest.trim_start());
                }
                documents.push(document);
            }
            (_, Some(document)) => document.text.push_str(line),
            (_, None) => {}
        }
    }
    for document in &mut documents {
        document.whole = document.text.trim_start().starts_with(['{', '['])
            || document
                .text
                .lines()
                .any(|line| line.trim_end() == "kind: List");
    }
    documents
}

/// Writes a file whole, by rename, so that nobody reads half of it.
pub(super) fn write(path: &Path, text: &str) -> Result {
    let folder = path.parent().unwrap_or(Path::new("."));
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let hidden = folder.join(format!(".{name}.{}", std::process::id()));
    let written = std::fs::File::create(&hidden)
        .and_then(|mut file| {
            file.write_all(text.as_bytes())?;
            file.sync_all()
        })
        .and_then(|()| std::fs::rename(&hidden, path));
    if written.is_err() {
        let _ = std::fs::remove_file(&hidden);
    }
    written
        .with_context(|| format!("can't write {}", path.display()))
        .or_exit(Exit::Failed)
}

// === impl Document ===

impl Document {
    fn starting_at(line: u32) -> Self {
        Self {
            line,
            text: String::new(),
            whole: false,
        }
    }

    /// Whether this is the object's own text.
    pub(super) fn holds(&self, object: &Object) -> bool {
        !self.whole && self.spans(object)
    }

    fn spans(&self, object: &Object) -> bool {
        let lines = self.text.lines().count() as u32;
        (self.line..self.line + lines.max(1)).contains(&object.origin.line)
    }

    fn is_blank(&self) -> bool {
        self.text
            .lines()
            .all(|line| line.trim().is_empty() || line.trim_start().starts_with('#'))
    }
}

// === impl Documents ===

impl Documents {
    pub(super) fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("can't read {}", path.display()))
            .or_exit(Exit::Failed)?;
        Ok(Self {
            path: path.to_owned(),
            documents: split(&text),
        })
    }

    pub(super) fn replace(&mut self, object: &Object, text: &str) -> Result {
        let at = self.position(object)?;
        self.documents[at].text = text.to_owned();
        Ok(())
    }

    pub(super) fn remove(&mut self, object: &Object) -> Result {
        let at = self.position(object)?;
        self.documents.remove(at);
        Ok(())
    }

    /// The document that is the object; one that holds several is taken apart first.
    fn position(&mut self, object: &Object) -> Result<usize> {
        let spanning = self
            .documents
            .iter()
            .position(|document| document.spans(object))
            .with_context(|| {
                format!(
                    "{} changed while it was edited: try again",
                    self.path.display()
                )
            })
            .or_exit(Exit::TryAgain)?;
        if !self.documents[spanning].whole {
            return Ok(spanning);
        }
        let name = self.path.display().to_string();
        let whole = self.documents.remove(spanning);
        let parsed = parse(&name, whole.text.as_bytes(), Raw::Keep)
            .map_err(|_| Exit::BadInput.because(format!("{name} has mistakes: mend it first")))?;
        let mut at = None;
        for (index, item) in parsed.objects.iter().enumerate() {
            if item.key() == object.key() {
                at = Some(spanning + index);
            }
            self.documents.insert(
                spanning + index,
                Document {
                    line: whole.line,
                    text: crate::yaml::to_string(&item.to_json(&[]))?,
                    whole: false,
                },
            );
        }
        // YAML is what is written from here on; JSON's name would promise something else.
        at.with_context(|| format!("{name} changed while it was edited: try again"))
            .or_exit(Exit::TryAgain)
    }

    pub(super) fn write(&self) -> Result {
        if self.documents.iter().all(Document::is_blank) {
            return std::fs::remove_file(&self.path)
                .with_context(|| format!("can't remove {}", self.path.display()))
                .or_exit(Exit::Failed);
        }
        let mut text = String::new();
        for document in &self.documents {
            if !text.is_empty() {
                text.push_str("---\n");
            }
            text.push_str(&document.text);
            if !text.is_empty() && !text.ends_with('\n') {
                text.push('\n');
            }
        }
        write(&self.path, &text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_split_at_their_markers_and_know_their_lines() {
        let documents = split("# first\na: 1\n---\nb: 2\n--- # third\nc: 3\n");
        let lines: Vec<_> = documents
            .iter()
            .map(|d| (d.line, d.text.as_str()))
            .collect();
        assert_eq!(
            lines,
            [
                (1, "# first\na: 1\n"),
                (4, "b: 2\n"),
                (5, "# third\nc: 3\n")
            ]
        );
    }

    #[test]
    fn json_and_lists_have_no_text_per_object() {
        assert!(split("{\"kind\": \"Pod\"}")[0].whole);
        assert!(split("apiVersion: v1\nkind: List\nitems: []\n")[0].whole);
        assert!(!split("kind: Pod\n")[0].whole);
    }
}
