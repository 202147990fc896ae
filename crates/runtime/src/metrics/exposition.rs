//! Prometheus's text format: families computed at scrape time, and the turn into OpenMetrics.

use std::fmt::{Display, Write};

/// A text under construction.
#[derive(Debug, Default)]
pub struct Exposition {
    text: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// One family under construction.
#[derive(Debug)]
pub struct Family<'a> {
    text: &'a mut String,
    name: &'static str,
}

// === impl Exposition ===

impl Exposition {
    pub(super) fn new(text: String) -> Self {
        Self { text }
    }

    /// Starts a family; a counter's name ends in `_total`.
    pub fn family(&mut self, name: &'static str, kind: Kind, help: &str) -> Family<'_> {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        Family {
            text: &mut self.text,
            name,
        }
    }

    /// Starts a family whose samples the caller writes, in the same format.
    pub fn raw_family(&mut self, name: &'static str, kind: Kind, help: &str) -> &mut String {
        self.family(name, kind, help).text
    }

    pub fn into_text(self) -> String {
        self.text
    }
}

// === impl Family ===

impl Family<'_> {
    pub fn sample(&mut self, labels: &[(&str, &str)], value: impl Display) -> &mut Self {
        self.text.push_str(self.name);
        for (index, (name, value)) in labels.iter().enumerate() {
            let open = if index == 0 { '{' } else { ',' };
            let value = escape(value);
            let _ = write!(self.text, "{open}{name}=\"{value}\"");
        }
        if !labels.is_empty() {
            self.text.push('}');
        }
        let _ = writeln!(self.text, " {value}");
        self
    }
}

/// A label's value, as it stands between quotes.
pub fn escape(value: &str) -> String {
    value
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

/// OpenMetrics names a counter's family without `_total`, allows no empty line, and ends in `# EOF`.
pub(super) fn open_metrics(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 8);
    let mut lines = text.lines().filter(|line| !line.is_empty()).peekable();
    while let Some(line) = lines.next() {
        let mut words = line.splitn(4, ' ');
        let (hash, keyword, name, rest) = (words.next(), words.next(), words.next(), words.next());
        // Whether a HELP line is a counter's shows in the TYPE line after it.
        let counter = match keyword {
            Some("TYPE") => rest == Some("counter"),
            Some("HELP") => lines.peek().is_some_and(|next| next.ends_with(" counter")),
            _ => false,
        };
        match (hash, keyword, name, rest) {
            (Some("#"), Some(keyword), Some(name), Some(rest)) if counter => {
                let name = name.strip_suffix("_total").unwrap_or(name);
                let _ = writeln!(out, "# {keyword} {name} {rest}");
            }
            _ => {
                out.push_str(line);
                out.push('\n');
            }
        }
    }
    out.push_str("# EOF\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_metrics_renames_counters_only() {
        let mut exposition = Exposition::new("# TYPE a_total counter\na_total 1\n\n".to_owned());
        exposition
            .family("b_total", Kind::Counter, "Some help")
            .sample(&[("x", "quote \"")], 2);
        exposition
            .family("sum_total", Kind::Gauge, "A gauge")
            .sample(&[], 0.5);
        assert_eq!(
            open_metrics(&exposition.into_text()),
            "# TYPE a counter\na_total 1\n# HELP b Some help\n# TYPE b counter\n\
             b_total{x=\"quote \\\"\"} 2\n# HELP sum_total A gauge\n# TYPE sum_total gauge\n\
             sum_total 0.5\n# EOF\n"
        );
    }
}
