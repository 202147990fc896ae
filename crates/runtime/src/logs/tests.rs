//! Log lines as they must read, in both formats, and what happens when the queue is full.

use std::io::{self, Write};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use tracing::Level;
use tracing_subscriber::layer::SubscriberExt;

use super::layer::RecordLayer;
use super::record::{Fields, Record, write_line};
use super::writer::Queue;
use super::*;

struct Sample;

impl Record for Sample {
    fn level(&self) -> Level {
        Level::INFO
    }
    fn target(&self) -> &str {
        "access"
    }
    fn message(&self) -> &str {
        "connection complete"
    }
    fn fields(&self, fields: &mut Fields<'_>) {
        fields.display("src.addr", "10.244.1.2:40000");
        fields.text("src.workload", "web \"1\"");
        fields.number("bytes_sent", 12);
    }
}

fn line(format: Format) -> String {
    let mut out = String::new();
    let time = SystemTime::UNIX_EPOCH + Duration::from_micros(1_700_000_000_000_001);
    write_line(&mut out, format, time, &Sample);
    out
}

#[test]
fn plain_lines_are_tab_separated() {
    assert_eq!(
        line(Format::Plain),
        "2023-11-14T22:13:20.000001Z\tinfo\taccess\tconnection complete\t\
         src.addr=10.244.1.2:40000 src.workload=\"web \\\"1\\\"\" bytes_sent=12\n"
    );
}

#[test]
fn json_lines_are_one_object() {
    assert_eq!(
        line(Format::Json),
        "{\"level\":\"info\",\"time\":\"2023-11-14T22:13:20.000001Z\",\"scope\":\"access\",\
         \"message\":\"connection complete\",\"src.addr\":\"10.244.1.2:40000\",\
         \"src.workload\":\"web \\\"1\\\"\",\"bytes_sent\":12}\n"
    );
}

#[derive(Clone, Default)]
struct Output(Arc<Mutex<Vec<u8>>>);

impl Output {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().expect("not poisoned").clone()).expect("text")
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("not poisoned").write(bytes)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn logged(format: Format, events: impl FnOnce()) -> String {
    let output = Output::default();
    let queue = Queue::start(format, Box::new(output.clone())).expect("starts");
    let subscriber = Registry::default().with(RecordLayer::new(queue.clone()));
    tracing::subscriber::with_default(subscriber, events);
    queue.flush();
    output.text()
}

#[test]
fn events_carry_their_spans_and_fields() {
    let text = logged(Format::Plain, || {
        let span = tracing::info_span!("stream", id = 7, node = "node-1");
        let _entered = span.enter();
        tracing::warn!(target: "xds", error = %"gone\naway", count = 3, "stream\tended");
    });
    let (_, rest) = text.split_once('\t').expect("time first");
    assert_eq!(
        rest,
        "warn\txds:stream{id=7 node=\"node-1\"}\tstream\\tended\terror=gone\\naway count=3\n"
    );
}

#[test]
fn json_events_hold_one_object_per_span() {
    let text = logged(Format::Json, || {
        let span = tracing::info_span!("stream", id = 7);
        let _entered = span.enter();
        tracing::info!(target: "xds", "started");
    });
    let line: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(line["scope"], "xds");
    assert_eq!(line["message"], "started");
    assert_eq!(line["stream"]["id"], 7);
}

/// Blocks its first write until told to go on.
struct Slow(std::sync::mpsc::Receiver<()>, Output);

impl Write for Slow {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let _ = self.0.recv();
        self.1.write(bytes)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_full_queue_drops_lines_and_says_how_many() {
    let output = Output::default();
    let (go, gate) = std::sync::mpsc::channel();
    let slow = Slow(gate, output.clone());
    let queue = Queue::start(Format::Plain, Box::new(slow)).expect("starts");
    for _ in 0..20_000 {
        queue.record(Box::new(Sample));
    }
    drop(go);
    queue.flush();
    queue.flush();
    let text = output.text();
    let written = text.matches("connection complete").count();
    let dropped: usize = text
        .split("lines=")
        .skip(1)
        .filter_map(|rest| rest.split_whitespace().next()?.parse::<usize>().ok())
        .sum();
    assert!(dropped > 0);
    assert_eq!(written + dropped, 20_000);
}

/// As a full pipe that nobody reads.
struct Stuck(std::sync::mpsc::Sender<()>);

impl Write for Stuck {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        let _ = self.0.send(());
        loop {
            std::thread::park();
        }
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_log_that_nobody_reads_does_not_hold_up_the_end() {
    let (stuck, waiting) = std::sync::mpsc::channel();
    let queue = Queue::start(Format::Plain, Box::new(Stuck(stuck))).expect("starts");
    queue.record(Box::new(Sample));
    waiting.recv().expect("it writes");
    // More than the queue holds.
    for _ in 0..5000 {
        queue.record(Box::new(Sample));
    }
    let (flushed, wait) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        queue.flush();
        let _ = flushed.send(());
    });
    let waited = wait.recv_timeout(Duration::from_secs(60));
    waited.expect("no longer than it may");
}
