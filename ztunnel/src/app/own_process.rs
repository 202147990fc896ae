//! Tests that go on in a process of their own, which may end, or have few descriptors. Parts of a process
//! never panic by themselves: here whoever logs a message does.

use std::fmt::{Debug, Write};
use std::process::Command;

use tracing::field::Field;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

/// What a panic says.
pub(crate) const PANIC: &str = "out of order";

const PART: &str = "WEFT_TEST_PART";

struct Panic {
    at: &'static str,
}

/// Which part of the test this process is to play; none: it is the test's first.
pub(crate) fn part() -> Option<String> {
    std::env::var(PART).ok()
}

/// Runs this test again, in a process that is to end because this part of it panics.
pub(crate) fn ends(test: &str, part: &str) {
    let (code, said) = run(test, part);
    assert_eq!(code, Some(1), "{part}: {said}");
    for words in [&format!("part={part:?}"), "it ends", PANIC] {
        assert!(said.contains(words), "{part}: {said}");
    }
}

/// Runs this test again, in a process that is to play its part to the end, and returns what it said.
pub(crate) fn goes_on(test: &str, part: &str) -> String {
    let (code, said) = run(test, part);
    assert_eq!(code, Some(0), "{part}: {said}");
    said
}

fn run(test: &str, part: &str) -> (Option<i32>, String) {
    let this = std::env::current_exe().expect("known");
    let output = Command::new(this)
        .args(["--exact", test, "--nocapture"])
        .env(PART, part)
        .output()
        .expect("runs");
    let said = [output.stdout, output.stderr].concat();
    (
        output.status.code(),
        String::from_utf8_lossy(&said).into_owned(),
    )
}

/// From now on whoever logs this in this process panics.
pub(crate) fn panic_at(message: &'static str) {
    let subscriber = tracing_subscriber::registry().with(Panic { at: message });
    tracing::subscriber::set_global_default(subscriber).expect("the first");
}

// === impl Panic ===

impl<S: Subscriber> Layer<S> for Panic {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut line = String::new();
        event.record(&mut |field: &Field, value: &dyn Debug| {
            write!(line, "{field}={value:?} ").expect("to a string");
        });
        if *event.metadata().level() <= Level::WARN {
            println!("{line}");
        }
        assert!(!line.contains(self.at), "{PANIC}");
    }
}
