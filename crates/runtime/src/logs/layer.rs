//! Turns `tracing` events, with the spans around them, into records for the writer.

use std::fmt;

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

use super::record::{Fields, Record, Spans};
use super::writer::Queue;

pub(super) struct RecordLayer {
    queue: Queue,
}

#[derive(Clone, Debug)]
enum Value {
    Text(String),
    Display(String),
    Signed(i64),
    Unsigned(u64),
    Float(f64),
    Bool(bool),
}

#[derive(Clone, Debug, Default)]
struct Values(Vec<(&'static str, Value)>);

#[derive(Debug)]
struct EventRecord {
    level: Level,
    target: &'static str,
    message: String,
    values: Values,
    spans: Vec<(&'static str, Values)>,
}

// === impl RecordLayer ===

impl RecordLayer {
    pub(super) fn new(queue: Queue) -> Self {
        Self { queue }
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for RecordLayer {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        if let Some(span) = context.span(id) {
            let mut values = Values::default();
            attributes.record(&mut values);
            span.extensions_mut().insert(values);
        }
    }

    fn on_record(&self, id: &Id, record: &tracing::span::Record<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(values) = span.extensions_mut().get_mut::<Values>()
        {
            record.record(values);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut values = Values::default();
        event.record(&mut values);
        let message = values.take_message();
        let spans = context
            .event_scope(event)
            .into_iter()
            .flat_map(|scope| scope.from_root())
            .map(|span| {
                let values = span.extensions().get::<Values>().cloned();
                (span.name(), values.unwrap_or_default())
            })
            .collect();
        self.queue.record(Box::new(EventRecord {
            level: *event.metadata().level(),
            target: event.metadata().target(),
            message,
            values,
            spans,
        }));
    }
}

// === impl Values ===

impl Values {
    fn take_message(&mut self) -> String {
        let message = self.0.iter().position(|(name, _)| *name == "message");
        match message.map(|index| self.0.remove(index).1) {
            Some(Value::Text(text) | Value::Display(text)) => text,
            Some(Value::Signed(number)) => number.to_string(),
            Some(Value::Unsigned(number)) => number.to_string(),
            Some(Value::Float(number)) => number.to_string(),
            Some(Value::Bool(truth)) => truth.to_string(),
            None => String::new(),
        }
    }

    fn write(&self, fields: &mut Fields<'_>) {
        for (name, value) in &self.0 {
            match value {
                Value::Text(text) => fields.text(name, text),
                Value::Display(text) => fields.display(name, text),
                Value::Signed(number) => fields.bare(name, number),
                Value::Unsigned(number) => fields.bare(name, number),
                // JSON has no NaN and no infinity.
                Value::Float(number) if !number.is_finite() => fields.display(name, number),
                Value::Float(number) => fields.bare(name, number),
                Value::Bool(truth) => fields.bare(name, truth),
            }
        }
    }
}

impl Visit for Values {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0
            .push((field.name(), Value::Display(format!("{value:?}"))));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.push((field.name(), Value::Text(value.to_owned())));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.0.push((field.name(), Value::Signed(value)));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.0.push((field.name(), Value::Unsigned(value)));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.0.push((field.name(), Value::Float(value)));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.0.push((field.name(), Value::Bool(value)));
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.0.push((field.name(), Value::Text(value.to_string())));
    }
}

// === impl EventRecord ===

impl Record for EventRecord {
    fn level(&self) -> Level {
        self.level
    }

    fn target(&self) -> &str {
        self.target
    }

    fn message(&self) -> &str {
        &self.message
    }

    fn fields(&self, fields: &mut Fields<'_>) {
        self.values.write(fields);
    }

    fn spans(&self, spans: &mut Spans<'_>) {
        for (name, values) in &self.spans {
            spans.span(name, |fields| values.write(fields));
        }
    }
}
