//! A log line as data, and the two ways to write it.

use std::fmt::{self, Display, Write as _};
use std::time::SystemTime;

use tracing::Level;

use super::Format;

/// What a data thread queues instead of text; the writer's thread formats it.
pub trait Record: Send {
    fn level(&self) -> Level;
    /// The line's scope, `access` for example.
    fn target(&self) -> &str;
    fn message(&self) -> &str;
    /// Writes the fields in order.
    fn fields(&self, fields: &mut Fields<'_>);
    /// Writes the spans the line was made in, outermost first.
    fn spans(&self, _spans: &mut Spans<'_>) {}
    /// Writes the whole line without its newline, where it has a form of its own, and says so.
    fn own_form(&self, _out: &mut String) -> bool {
        false
    }
}

/// Takes the fields of one line or one span.
pub struct Fields<'a> {
    out: &'a mut String,
    format: Format,
    empty: bool,
}

/// Takes the spans of one line.
pub struct Spans<'a> {
    out: &'a mut String,
    format: Format,
}

/// Appends the line, with its newline.
pub fn write_line(out: &mut String, format: Format, time: SystemTime, record: &dyn Record) {
    if record.own_form(out) {
        out.push('\n');
        return;
    }
    let time = humantime::format_rfc3339_micros(time);
    let level = match record.level() {
        Level::ERROR => "error",
        Level::WARN => "warn",
        Level::INFO => "info",
        Level::DEBUG => "debug",
        Level::TRACE => "trace",
    };
    let target = record.target();
    let target = target.strip_prefix("ztunnel::").unwrap_or(target);
    match format {
        Format::Plain => {
            let _ = write!(out, "{time}\t{level}\t{target}");
            record.spans(&mut Spans { out, format });
            out.push('\t');
            push_one_line(out, record.message());
            let mut fields = Fields {
                out,
                format,
                empty: true,
            };
            record.fields(&mut fields);
            out.push('\n');
        }
        Format::Json => {
            let _ = write!(
                out,
                "{{\"level\":\"{level}\",\"time\":\"{time}\",\"scope\":"
            );
            push_json(out, target);
            out.push_str(",\"message\":");
            push_json(out, record.message());
            let mut fields = Fields {
                out,
                format,
                empty: false,
            };
            record.fields(&mut fields);
            record.spans(&mut Spans { out, format });
            out.push_str("}\n");
        }
    }
}

// === impl Fields ===

impl Fields<'_> {
    /// Text, quoted.
    pub fn text(&mut self, key: &str, value: &str) {
        self.key(key);
        match self.format {
            Format::Plain => {
                let _ = write!(self.out, "{value:?}");
            }
            Format::Json => push_json(self.out, value),
        }
    }

    /// An address or another value that needs no quotes in plain lines.
    pub fn display(&mut self, key: &str, value: impl Display) {
        self.key(key);
        match self.format {
            Format::Plain => push_one_line(self.out, &value.to_string()),
            Format::Json => push_json(self.out, &value.to_string()),
        }
    }

    pub fn number(&mut self, key: &str, value: u64) {
        self.bare(key, value);
    }

    /// A number or a boolean: the same in both formats.
    pub(super) fn bare(&mut self, key: &str, value: impl Display) {
        self.key(key);
        let _ = write!(self.out, "{value}");
    }

    fn key(&mut self, key: &str) {
        match (self.format, self.empty) {
            (Format::Plain, true) => self.out.push('\t'),
            (Format::Plain, false) => self.out.push(' '),
            (Format::Json, true) => {}
            (Format::Json, false) => self.out.push(','),
        }
        self.empty = false;
        match self.format {
            Format::Plain => {
                self.out.push_str(key);
                self.out.push('=');
            }
            Format::Json => {
                push_json(self.out, key);
                self.out.push(':');
            }
        }
    }
}

// === impl Spans ===

impl Spans<'_> {
    pub fn span(&mut self, name: &str, fields: impl FnOnce(&mut Fields<'_>)) {
        let format = self.format;
        match format {
            Format::Plain => {
                let _ = write!(self.out, ":{name}");
                let mut text = String::new();
                fields(&mut Fields {
                    out: &mut text,
                    format,
                    empty: true,
                });
                let text = text.trim_start();
                if !text.is_empty() {
                    let _ = write!(self.out, "{{{text}}}");
                }
            }
            Format::Json => {
                self.out.push(',');
                push_json(self.out, name);
                self.out.push_str(":{");
                fields(&mut Fields {
                    out: self.out,
                    format,
                    empty: true,
                });
                self.out.push('}');
            }
        }
    }
}

fn push_json(out: &mut String, text: &str) {
    // A string always serialises.
    out.push_str(&serde_json::to_string(text).unwrap_or_default());
}

/// What a peer made us say must not start a line of its own.
fn push_one_line(out: &mut String, text: &str) {
    if text.chars().any(char::is_control) {
        for c in text.chars() {
            if c.is_control() {
                out.extend(c.escape_default());
            } else {
                out.push(c);
            }
        }
    } else {
        out.push_str(text);
    }
}

impl fmt::Debug for Fields<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fields").finish_non_exhaustive()
    }
}

impl fmt::Debug for Spans<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Spans").finish_non_exhaustive()
    }
}
