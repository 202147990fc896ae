//! New connections, or questions, at a fixed rate for as long as something is done to the mesh.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStdout};

use tests::lab::Lab;
use tests::lab::scale::is_full;
use tests::peer::SOURCE_PORT;
use tests::peer::rate::RateReport;

/// The share of the asked rate that has to come about: less would be less of a load.
const REACHED: f64 = 0.95;

/// Runs until it is told to end, and until it has done as many as it is to do at least.
pub(crate) struct Load(Child, BufReader<ChildStdout>);

// === impl Load ===

impl Load {
    pub(crate) fn connections(lab: &Lab, client: &str, server: &str, size: (u64, u64)) -> Self {
        let address = lab.addresses(server).expect("addresses")[0];
        let target = format!("{address}:{SOURCE_PORT}");
        Self::start(lab, client, "rate", &target, size)
    }

    pub(crate) fn questions(lab: &Lab, size: (u64, u64)) -> Self {
        let name = "server.shop.svc.cluster.local";
        Self::start(lab, "shop/client", "questions", name, size)
    }

    /// So many a second, and so many in all.
    fn start(lab: &Lab, client: &str, kind: &str, target: &str, (rate, count): (u64, u64)) -> Self {
        let (rate, count) = (format!("--rate={rate}"), format!("--count={count}"));
        let command = ["peer", kind, target, &rate, &count, "--until-told"];
        let mut child = lab.exec_spawn(client, &command).expect("starts");
        let mut lines = BufReader::new(child.stdout.take().expect("piped"));
        let mut line = String::new();
        lines.read_line(&mut line).expect("reads");
        assert_eq!(line, "begun\n");
        Self(child, lines)
    }

    /// Ends it. What was done to the mesh was done under load: it has not ended before.
    #[track_caller]
    pub(crate) fn end(mut self) -> RateReport {
        let ended = self.0.try_wait().expect("waits");
        assert!(ended.is_none(), "the load has ended before: {ended:?}");
        drop(self.0.stdin.take());
        let mut text = String::new();
        self.1.read_to_string(&mut text).expect("reads");
        let output = self.0.wait_with_output().expect("ends");
        let report: RateReport = serde_json::from_str(&text)
            .unwrap_or_else(|error| panic!("{error}: {text} {output:?}"));
        if is_full() {
            println!("{report:?}");
            assert!(report.rate >= REACHED * report.asked, "{report:?}");
        }
        assert_eq!(report.failed, 0, "{report:?}");
        assert!(report.succeeded > 0, "{report:?}");
        report
    }
}
