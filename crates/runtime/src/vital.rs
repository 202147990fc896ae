//! Threads and tasks without which a process only seems to serve. A panic ends the thread or task it is in
//! and nothing else, and nobody would notice: here it ends the process, so that whoever looks after it
//! starts another.

use std::any::Any;
use std::future::Future;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::exit;
use std::thread::{self, JoinHandle};

use futures::FutureExt;

use crate::logs;

/// Starts a thread that the process does not survive if it panics.
pub fn thread(name: String, body: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    let part = name.clone();
    thread::Builder::new().name(name).spawn(move || {
        // What it leaves half done is seen by nobody.
        if let Err(panic) = catch_unwind(AssertUnwindSafe(body)) {
            end_process(&part, &*panic);
        }
    })
}

/// A task that the process does not survive if it panics.
pub fn task(part: &'static str, task: impl Future<Output = ()>) -> impl Future<Output = ()> {
    AssertUnwindSafe(task).catch_unwind().map(move |ended| {
        if let Err(panic) = ended {
            end_process(part, &*panic);
        }
    })
}

fn end_process(part: &str, panic: &(dyn Any + Send)) -> ! {
    let literal = panic.downcast_ref::<&str>().copied();
    let reason = literal.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    tracing::error!(
        part,
        reason,
        "this process can't serve without a part that has panicked: it ends"
    );
    logs::flush();
    exit(1)
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::time::Duration;

    use super::*;

    const PART: &str = "WEFT_TEST_PART";

    /// Runs this test again in a process that has such a part and would go on for ever.
    fn end_with(part: &str) {
        let this = std::env::current_exe().expect("known");
        let output = Command::new(this)
            .args([
                "--exact",
                "vital::tests::a_process_ends_with_what_it_can_not_serve_without",
            ])
            .arg("--nocapture")
            .env(PART, part)
            .output()
            .expect("runs");
        assert_eq!(output.status.code(), Some(1), "{part}");
        let stdout = String::from_utf8_lossy(&output.stdout);
        for words in [part, "it ends", "out of order"] {
            assert!(stdout.contains(words), "{words}: {stdout}");
        }
    }

    fn serve_with(part: &str) {
        let _flush = logs::install(logs::Format::Plain, logs::Levels::default());
        let serving = match part {
            "worker" => thread(part.to_owned(), || panic!("out of {}", "order")),
            _ => thread("main".to_owned(), || {
                futures::executor::block_on(task("accepting", async { panic!("out of order") }));
            }),
        };
        serving.expect("starts");
        // It would go on for ever; whoever looks at its exit code is not to wait for that.
        thread::park_timeout(Duration::from_secs(60));
    }

    #[test]
    fn a_process_ends_with_what_it_can_not_serve_without() {
        match std::env::var(PART) {
            Ok(part) => serve_with(&part),
            Err(_) => ["worker", "accepting"].into_iter().for_each(end_with),
        }
    }

    #[test]
    fn what_ends_by_itself_ends_nothing_else() {
        let served = thread("worker".to_owned(), || ()).expect("starts");
        served.join().expect("no panic");
        futures::executor::block_on(task("accepting", async {}));
    }
}
