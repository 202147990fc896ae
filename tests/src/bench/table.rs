//! The report as text: Markdown tables, ready for a page.

use std::fmt::Write;

use super::handshake::BothEnds;
use super::load::Run;
use super::memory::{CONNECTION_BAR, IDLE_BAR};
use super::report::{Conditions, OfSystem, Report, Row};
use super::system::{Reach, System};

/// The middle one of an odd number.
pub(super) fn median(figures: impl Iterator<Item = f64>) -> f64 {
    let mut figures: Vec<f64> = figures.collect();
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
}

pub(super) fn markdown(report: &Report) -> String {
    let mut text = conditions(&report.conditions);
    for reach in Reach::ALL {
        let rows: Vec<&Row> = report
            .loads
            .iter()
            .filter(|row| row.reach == reach)
            .collect();
        if let Some(first) = rows.first() {
            text += &heading(reach, first);
            for row in rows {
                text += &line(row);
                text.push('\n');
            }
        }
    }
    text + &handshakes(&report.handshakes) + &memory(report)
}

fn conditions(conditions: &Conditions) -> String {
    format!(
        "Linux {}, {} cores, {}, median of {} rounds of {} s; `!` marks a bar that is not reached\n",
        conditions.kernel,
        conditions.cores,
        conditions.congestion_control,
        conditions.rounds,
        conditions.seconds,
    )
}

fn heading(reach: Reach, row: &Row) -> String {
    let mut names = format!("\n| {} | Plain", reach.words());
    for of in &row.systems {
        match of.system {
            System::Plain => {}
            System::Weft => names += " | Weft | Ratio | Bar | Processor",
            System::Other => names += " | Other | Ratio | Processor",
        }
    }
    let columns = names.matches('|').count();
    format!("{names} |\n{}|\n", "|---".repeat(columns))
}

/// One row of a table.
pub(super) fn line(row: &Row) -> String {
    let figure = row.load.figure;
    let of = |runs: &[Run]| median(runs.iter().map(|run| figure.of(run)));
    let plain = row
        .systems
        .iter()
        .find(|of| of.system == System::Plain)
        .map_or(f64::NAN, |plain| of(&plain.runs));
    let mut text = format!("| {} | {} {}", row.load.name, number(plain), figure.unit());
    for OfSystem { system, runs } in &row.systems {
        let ratio = of(runs) / plain;
        let processor = number(median(runs.iter().map(|run| figure.processor(run))));
        let processor = format!("{processor} {}", figure.processor_unit());
        let value = number(of(runs));
        match (system, row.bar) {
            (System::Plain, _) => Ok(()),
            (System::Weft, Some(bar)) => {
                let mark = match figure.reaches(ratio, bar) {
                    true => "",
                    false => " !",
                };
                write!(text, " | {value} | {ratio:.2}{mark} | {bar} | {processor}")
            }
            (System::Weft, None) => write!(text, " | {value} | {ratio:.2} | – | {processor}"),
            (System::Other, _) => write!(text, " | {value} | {ratio:.2} | {processor}"),
        }
        .expect("a String takes all");
    }
    text + " |"
}

fn handshakes(all: &[OfSystem<Vec<BothEnds>>]) -> String {
    if all.is_empty() {
        return String::new();
    }
    let mut text = "\n| Handshakes, cold pool | As server | Processor | As client | Processor | Connections failed |\n\
         |---|---|---|---|---|---|\n"
        .to_owned();
    for OfSystem { system, runs } in all {
        let of = |figure: fn(&BothEnds) -> f64| median(runs.iter().map(figure));
        writeln!(
            text,
            "| {} | {:.0}/s | {:.2} ms | {:.0}/s | {:.2} ms | {:.1} % |",
            system.name(),
            of(|ends| ends.server.rate),
            of(|ends| ends.server.processor * 1e3),
            of(|ends| ends.client.rate),
            of(|ends| ends.client.processor * 1e3),
            of(|ends| ends.client.failed * 100.0),
        )
        .expect("a String takes all");
    }
    text
}

fn memory(report: &Report) -> String {
    if report.memory.is_empty() {
        return String::new();
    }
    let mut text = format!(
        "\n| Memory, client's and server's node | Idle (bar {} MB) | \
         Each of {} idle connections (bar {} KB) | After all loads |\n|---|---|---|---|\n",
        IDLE_BAR / 1e6,
        report.conditions.idle_connections,
        CONNECTION_BAR / 1e3
    );
    for OfSystem { system, runs } in &report.memory {
        let both = |ends: [f64; 2], unit: f64, bar: f64| {
            let mark = match ends.iter().any(|end| *end > bar) && *system == System::Weft {
                true => " !",
                false => "",
            };
            format!("{:.1}, {:.1}{mark}", ends[0] / unit, ends[1] / unit)
        };
        writeln!(
            text,
            "| {} | {} MB | {} KB | {} MB |",
            system.name(),
            both(runs.idle, 1e6, IDLE_BAR),
            both(runs.per_connection, 1e3, CONNECTION_BAR),
            both(runs.after, 1e6, f64::INFINITY),
        )
        .expect("a String takes all");
    }
    text
}

/// Three significant digits.
fn number(value: f64) -> String {
    let digits = match value.abs() {
        size if size >= 100.0 => 0,
        size if size >= 10.0 => 1,
        size if size >= 1.0 => 2,
        _ => 3,
    };
    format!("{value:.digits$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_three_digits_that_count() {
        for (value, text) in [
            (123_456.0, "123456"),
            (12.34, "12.3"),
            (1.234, "1.23"),
            (0.1234, "0.123"),
        ] {
            assert_eq!(number(value), text);
        }
    }

    #[test]
    fn the_middle_one_counts_whatever_the_order() {
        assert_eq!(median([9.0, 1.0, 5.0].into_iter()), 5.0);
        assert!(median(std::iter::empty()).is_nan());
    }
}
